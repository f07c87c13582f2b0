// What the page may say about the recording: only what the server has proven by written bytes. Pure.
import type { RecordingState, RecordingStatus, TrackWritten } from '@/wire/signaling';

/** The server speaks once a second; after this long its last word proves nothing any more. */
const STALE_MS = 5_000;
/** A present track without samples for this long is trouble, whatever the state says. */
const SILENT_TRACK_MS = 20_000;

export interface Proof {
  /** `unknown`: the server has not been heard for too long to claim anything. */
  state: RecordingState | 'unknown';
  tracks: number;
  /** How long ago the latest write of the slowest track was, as known now. */
  age_ms: number | null;
  silent: readonly TrackWritten[];
}

/** `state`: what may be shown by rtc; `heard_ago_ms`: time since `status` arrived. */
export function proofOf(
  state: RecordingState,
  status: RecordingStatus | null,
  heard_ago_ms: number | null,
): Proof {
  if (!status || heard_ago_ms === null) return { state, tracks: 0, age_ms: null, silent: [] };
  const known = status.tracks.map((each) => each.last_write_age_ms).filter((age) => age !== null);
  const silent = status.tracks.filter((each) => (each.last_write_age_ms ?? 0) > SILENT_TRACK_MS);
  const proof = {
    tracks: status.tracks.length,
    age_ms: known.length ? Math.max(...known) + heard_ago_ms : null,
    silent,
  };
  if (state !== 'off' && state !== 'trouble' && heard_ago_ms > STALE_MS)
    return { ...proof, state: 'unknown' };
  if (state === 'recording' && silent.length) return { ...proof, state: 'trouble' };
  return { ...proof, state };
}
