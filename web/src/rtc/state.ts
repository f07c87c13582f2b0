// What a page may know about a call, as one value that is replaced and never changed. Applying a
// message is pure: `apply(state, message, now) → state`.
import type {
  LineQuality,
  ParticipantInfo,
  RecordingStatus,
  RoomSnapshot,
  ServerMessage,
  Ended,
  Track,
} from '@/wire/signaling';
import type { Line } from './line';
import type { RemoteTracks } from './media';
import type { Picture } from './thin';

/** The talk with the server. `refused`: it will not have us; `ended`: there is nothing to come back to. */
export type Signaling =
  'idle' | 'connecting' | 'open' | 'reconnecting' | 'left' | 'ended' | 'refused';
/** The packets. `interrupted`: were there and are away. */
export type Media = 'none' | 'connecting' | 'connected' | 'interrupted';

export interface CallState {
  signaling: Signaling;
  media: Media;
  /** On the `performance.now()` clock, or null while all is well. */
  signaling_lost_at_ms: number | null;
  media_lost_at_ms: number | null;
  me: string | null;
  may: ReadonlySet<string>;
  room: Omit<RoomSnapshot, 'participants'> | null;
  /** When `room.elapsed_ms` was true, on the `performance.now()` clock. */
  room_at_ms: number;
  participants: readonly ParticipantInfo[];
  remote: RemoteTracks;
  live_at_ms: number | null;
  recording: RecordingStatus | null;
  recording_at_ms: number | null;
  quality: ReadonlyMap<string, LineQuality>;
  line: Line | null;
  picture: Picture;
  muted: ReadonlySet<Track>;
  ended: Pick<Ended, 'reason' | 'session_id'> | null;
  refusal: { code: string; message: string } | null;
  /** The server has closed our line just now, because far too much came from here. */
  isCutOff: boolean;
}

export const INITIAL: CallState = {
  signaling: 'idle',
  media: 'none',
  signaling_lost_at_ms: null,
  media_lost_at_ms: null,
  me: null,
  may: new Set(),
  room: null,
  room_at_ms: 0,
  participants: [],
  remote: new Map(),
  live_at_ms: null,
  recording: null,
  recording_at_ms: null,
  quality: new Map(),
  line: null,
  picture: 'full',
  muted: new Set(),
  ended: null,
  refusal: null,
  isCutOff: false,
};

function withRoom(state: CallState, snapshot: RoomSnapshot, now_ms: number): CallState {
  const { participants, ...room } = snapshot;
  return { ...state, room, participants, room_at_ms: now_ms };
}

function withParticipant(state: CallState, participant: ParticipantInfo): CallState {
  const others = state.participants.filter(
    (each) => each.participant_id !== participant.participant_id,
  );
  const before = state.participants.findIndex(
    (each) => each.participant_id === participant.participant_id,
  );
  if (before < 0) return { ...state, participants: [...others, participant] };
  return { ...state, participants: state.participants.with(before, participant) };
}

export function apply(state: CallState, message: ServerMessage, now_ms: number): CallState {
  switch (message.type) {
    case 'joined':
      return {
        ...withRoom(state, message.room, now_ms),
        me: message.participant_id,
        may: new Set(message.may),
        signaling: 'open',
        signaling_lost_at_ms: null,
        refusal: null,
      };
    case 'resumed': {
      const next = message.room ? withRoom(state, message.room, now_ms) : state;
      return { ...next, signaling: 'open', signaling_lost_at_ms: null, refusal: null };
    }
    case 'participant':
      return withParticipant(state, message.participant);
    case 'room': {
      if (!state.room) return state;
      const { state: roomState, session_id, live_since, elapsed_ms } = message;
      return {
        ...state,
        room: { ...state.room, state: roomState, session_id, live_since, elapsed_ms },
        room_at_ms: now_ms,
        live_at_ms: roomState === 'countdown' ? state.live_at_ms : null,
      };
    }
    case 'countdown':
      return { ...state, live_at_ms: now_ms + message.live_in_ms };
    case 'speaking':
      return {
        ...state,
        participants: state.participants.map((each) =>
          each.participant_id === message.participant_id
            ? { ...each, speaking: message.speaking }
            : each,
        ),
      };
    case 'recording':
      return {
        ...state,
        recording: message,
        recording_at_ms: now_ms,
        // The freshest reading of the session's clock.
        room: state.room ? { ...state.room, elapsed_ms: message.elapsed_ms } : null,
        room_at_ms: now_ms,
      };
    case 'quality':
      return {
        ...state,
        quality: new Map(message.lines.map((line) => [line.participant_id, line])),
      };
    case 'ended':
      return {
        ...state,
        signaling: 'ended',
        signaling_lost_at_ms: null,
        media: 'none',
        media_lost_at_ms: null,
        live_at_ms: null,
        ended: { reason: message.reason, session_id: message.session_id },
        room: state.room ? { ...state.room, state: 'ended' } : null,
      };
    case 'error':
    case 'welcome':
    case 'ok':
    case 'offer':
    case 'pong':
      return state;
    default: {
      // A newer server may say things we do not know; they are not for us.
      const unknown: never = message;
      void unknown;
      return state;
    }
  }
}

/** The session's clock now; 0 before the talk is live. */
export function elapsed_ms(state: CallState, now_ms: number): number {
  if (!state.room || state.room.live_since === null) return 0;
  if (state.room.state !== 'live') return state.room.elapsed_ms;
  return state.room.elapsed_ms + Math.max(0, now_ms - state.room_at_ms);
}

/** How long something is away: the longer of the two; null while all is well. */
export function lost_for_ms(state: CallState, now_ms: number): number | null {
  const since = [state.signaling_lost_at_ms, state.media_lost_at_ms].filter((at) => at !== null);
  return since.length ? now_ms - Math.min(...since) : null;
}

/** A status older than this proves nothing any more. */
const STALE_MS = 5_000;

/** What may be shown about recording: proof that is fresh, or trouble. */
export function recordingShown(state: CallState, now_ms: number): RecordingStatus['state'] {
  if (!state.recording || state.recording_at_ms === null) {
    return state.room?.state === 'live' || state.room?.state === 'countdown' ? 'preparing' : 'off';
  }
  if (state.room?.state !== 'live') return state.recording.state === 'trouble' ? 'trouble' : 'off';
  const isStale = now_ms - state.recording_at_ms > STALE_MS;
  // While only signaling is away nobody can tell; say so rather than claim.
  return isStale && state.recording.state === 'recording' ? 'preparing' : state.recording.state;
}
