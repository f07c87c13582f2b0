// Generated from signaling/protocol.py by `make wire`. Do not edit.
export const PROTOCOL_VERSION = 1;

/** Why the server closed the socket (RFC 6455, 7.4); from 4000 on the words are ours. */
export const CloseCode = {
  OVER: 1000,
  BINARY_REFUSED: 1003,
  FLOOD: 1008,
  TOO_LARGE: 1009,
  RESTART: 1012,
  SLOW_READER: 1013,
  REPLACED: 4001,
  PROTOCOL: 4400,
  REFUSED: 4401,
  TIMED_OUT: 4408,
} as const;

export interface Hello {
  type: 'hello';
  versions: number[];
  client?: string;
}

export interface Join {
  type: 'join';
  id: string;
  grant: string;
}

export interface Resume {
  type: 'resume';
  id: string;
  resume_token: string;
  last_seq: number;
}

export interface Answer {
  type: 'answer';
  id: string;
  revision: number;
  sdp: string;
}

export type Track = 'camera' | 'microphone' | 'document' | 'screen';

/** The tracks this client wants to send from now on; the next offer has a section for each. */
export interface Publish {
  type: 'publish';
  id: string;
  tracks: Track[];
}

export interface Mute {
  type: 'mute';
  id: string;
  track: Track;
  muted: boolean;
}

/** The client's transport is dead; it asks for a new leg (answered by a fresh offer). */
export interface MediaLost {
  type: 'media_lost';
  id: string;
}

/** The presiding official lets the party in: countdown, then live. */
export interface Admit {
  type: 'admit';
  id: string;
}

export interface Leave {
  type: 'leave';
  id: string;
}

/** End the session for everyone. Only the presiding official; pages ask before they send it. */
export interface End {
  type: 'end';
  id: string;
}

/** Liveness both ways; `t` comes back unchanged so that the client measures its round trip. */
export interface Ping {
  type: 'ping';
  t: number;
}

export interface Welcome {
  type: 'welcome';
  version: number;
  heartbeat_ms: number;
  resume_grace_ms: number;
}

export type RoomState = 'waiting' | 'countdown' | 'live' | 'ended';

export type ParticipantRole =
  | 'petitioner'
  | 'official'
  | 'desk'
  | 'department'
  | 'interpreter'
  | 'observer'
  | 'device'
  | 'display';

export type ParticipantState = 'joining' | 'ready' | 'silent' | 'left';

export interface ParticipantInfo {
  participant_id: string;
  role: ParticipantRole;
  label_zh: string;
  label_bo: string | null;
  label_en: string;
  state: ParticipantState;
  muted: Track[];
  tracks: Track[];
  speaking: boolean;
}

export interface RoomSnapshot {
  room_id: string;
  state: RoomState;
  session_id: string | null;
  live_since: string | null;
  elapsed_ms: number;
  slot_ends_at: string | null;
  participants: ParticipantInfo[];
}

export interface Joined {
  type: 'joined';
  id: string;
  seq: number;
  participant_id: string;
  resume_token: string;
  may: string[];
  room: RoomSnapshot;
}

/**
 * What was missed follows one by one; if it cannot (or after a restart), `room` is given.
 *
 * `media` "kept": the server still hears this peer; a client that has lost its own half (a page
 * reload) says `media_lost`. "new_leg": an offer with a new leg follows.
 */
export interface Resumed {
  type: 'resumed';
  id: string;
  seq: number;
  resume_token: string;
  media: 'kept' | 'new_leg';
  room: RoomSnapshot | null;
}

export interface Ok {
  type: 'ok';
  id: string;
}

/** `id` is None when the fault cannot be tied to a request. `fatal`: the socket closes next. */
export interface Error {
  type: 'error';
  id: string | null;
  code: string;
  message: string;
  fatal: boolean;
}

export interface OfferedTrack {
  mid: string;
  participant_id: string;
  track: Track;
  direction: 'send' | 'receive';
}

export interface Offer {
  type: 'offer';
  revision: number;
  leg: number;
  sdp: string;
  tracks: OfferedTrack[];
}

/** Someone joined or changed; replaces what was known about that participant. */
export interface ParticipantChanged {
  type: 'participant';
  seq: number;
  participant: ParticipantInfo;
}

export interface RoomChanged {
  type: 'room';
  seq: number;
  state: RoomState;
  session_id: string | null;
  live_since: string | null;
  elapsed_ms: number;
}

export interface Countdown {
  type: 'countdown';
  seq: number;
  live_in_ms: number;
}

/** Not sequenced: a lost one is replaced by the next. */
export interface Speaking {
  type: 'speaking';
  participant_id: string;
  speaking: boolean;
}

export type RecordingState = 'off' | 'preparing' | 'recording' | 'trouble';

export interface TrackWritten {
  participant_id: string;
  track: Track;
  bytes_written: number;
  last_write_age_ms: number | null;
}

export type RecordingTrouble =
  'disk_full' | 'disk_failed' | 'disk_silent' | 'not_begun' | 'not_resumed';

/** Its sender is there and has not muted it, and yet nothing of it is being recorded. */
export interface UnheardTrack {
  participant_id: string;
  track: Track;
  for_ms: number;
}

/**
 * Once a second while live, and at once when it begins to fail or is well again. To everyone.
 * Not sequenced.
 */
export interface RecordingStatus {
  type: 'recording';
  state: RecordingState;
  tracks: TrackWritten[];
  elapsed_ms: number;
  trouble: RecordingTrouble | null;
  lost_packets: number;
  late_ms: number;
  unheard: UnheardTrack[];
}

export interface LineQuality {
  participant_id: string;
  rtt_ms: number | null;
  loss_percent: number | null;
  quality: 'good' | 'poor' | 'bad' | 'lost';
  freezes: number;
  frozen_ms: number;
  is_picture_held: boolean;
}

/** Every two seconds, to everyone. Not sequenced. */
export interface Quality {
  type: 'quality';
  lines: LineQuality[];
}

export type EndReason = 'ended_by_official' | 'everyone_left' | 'timed_out' | 'node_lost';

/** The session is over (or will never be). The socket closes after it. */
export interface Ended {
  type: 'ended';
  seq: number;
  reason: EndReason;
  session_id: string | null;
}

export interface Pong {
  type: 'pong';
  t: number;
}

export type ClientMessage =
  | Hello
  | Join
  | Resume
  | Answer
  | Publish
  | Mute
  | MediaLost
  | Admit
  | Leave
  | End
  | Ping;

export type ServerMessage =
  | Welcome
  | Joined
  | Resumed
  | Ok
  | Error
  | Offer
  | ParticipantChanged
  | RoomChanged
  | Countdown
  | Speaking
  | RecordingStatus
  | Quality
  | Ended
  | Pong;
