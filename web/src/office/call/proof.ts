// What the page may say about the recording: only what the server has proven by written bytes. Pure.
import type {
  ParticipantInfo,
  RecordingState,
  RecordingStatus,
  Track,
  UnheardTrack,
} from '@/wire/signaling';

/** The server speaks once a second; after this long its last word proves nothing any more. */
const STALE_MS = 5_000;

export interface Proof {
  /** `unknown`: the server has not been heard for too long to claim anything. */
  state: RecordingState | 'unknown';
  tracks: number;
  bytes: number;
  unheard: readonly UnheardTrack[];
}

/** `state`: what may be shown by rtc; `heard_ago_ms`: time since `status` arrived. */
export function proofOf(
  state: RecordingState,
  status: RecordingStatus | null,
  heard_ago_ms: number | null,
): Proof {
  if (!status || heard_ago_ms === null) return { state, tracks: 0, bytes: 0, unheard: [] };
  const isStale = state !== 'off' && state !== 'trouble' && heard_ago_ms > STALE_MS;
  return {
    state: isStale ? 'unknown' : state,
    tracks: status.tracks.length,
    bytes: status.tracks.reduce((sum, each) => sum + each.bytes_written, 0),
    unheard: isStale || state === 'off' ? [] : status.unheard,
  };
}

/** One written track as the page lists it. */
export interface Written {
  key: string;
  participant_id: string;
  track: Track;
  bytes: number;
  /** How long ago the last write was, as known now; null if there was none. */
  age_ms: number | null;
  isUnheard: boolean;
}

const ORDER: readonly Track[] = ['microphone', 'camera', 'document', 'screen'];

/** Every track that is or ought to be written: by person as they came, sound first. */
export function writtenOf(
  status: RecordingStatus,
  participants: readonly ParticipantInfo[],
  heard_ago_ms: number,
): Written[] {
  const place = (participant_id: string) =>
    participants.findIndex((each) => each.participant_id === participant_id);
  const keyOf = (each: { participant_id: string; track: Track }) =>
    `${each.participant_id}/${each.track}`;
  const missed = new Set(status.unheard.map(keyOf));
  const written = status.tracks.map((each) => ({
    key: keyOf(each),
    participant_id: each.participant_id,
    track: each.track,
    bytes: each.bytes_written,
    age_ms: each.last_write_age_ms === null ? null : each.last_write_age_ms + heard_ago_ms,
    isUnheard: missed.has(keyOf(each)),
  }));
  const known = new Set(written.map((each) => each.key));
  const never = status.unheard
    .filter((each) => !known.has(keyOf(each)))
    .map(({ participant_id, track }) => ({
      key: `${participant_id}/${track}`,
      participant_id,
      track,
      bytes: 0,
      age_ms: null,
      isUnheard: true,
    }));
  return [...written, ...never].sort(
    (a, b) =>
      place(a.participant_id) - place(b.participant_id) ||
      ORDER.indexOf(a.track) - ORDER.indexOf(b.track),
  );
}
