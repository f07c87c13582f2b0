// How long to wait before knocking again: soon at first, never longer than people's patience.
const FIRST_MS = 300;
const LONGEST_MS = 2000;

/**
 * Delay before reconnect `attempt` (0 = first): 0.3 s doubling to 2 s, spread by ±20 % so that a hall
 * of kiosks does not knock in one moment. `random` is in [0, 1).
 */
export function backoff_ms(attempt: number, random: number): number {
  const base = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt, 10));
  return Math.round(base * (0.8 + 0.4 * random));
}
