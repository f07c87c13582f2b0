// What a person is told while the line is away: nothing at first, one calm line, then help comes.
export const QUIET_MS = 2_000;
export const CALM_MS = 60_000;

export type Patience = 'quiet' | 'calm' | 'call_desk';

/** `lost_for_ms`: how long signaling or media has been away; null when both are there. */
export function patience(lost_for_ms: number | null): Patience {
  if (lost_for_ms === null || lost_for_ms < QUIET_MS) return 'quiet';
  return lost_for_ms < CALM_MS ? 'calm' : 'call_desk';
}
