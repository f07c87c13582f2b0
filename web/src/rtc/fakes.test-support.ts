// A socket and a peer that do what the test says. Used by tests only.
import type { ClientMessage, Offer, ServerMessage, Track } from '@/wire/signaling';
import type { PeerLike } from './media';
import type { SocketLike } from './socket';

export class FakeSocket implements SocketLike {
  readonly sent: ClientMessage[] = [];
  isClosed = false;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: (() => void) | null = null;

  send(data: string): void {
    this.sent.push(JSON.parse(data) as ClientMessage);
  }
  close(): void {
    this.isClosed = true;
  }
  /** The network takes the socket away. */
  cut(code = 1006): void {
    this.isClosed = true;
    this.onclose?.({ code, reason: '' });
  }
  say(message: ServerMessage): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  open(): void {
    this.onopen?.();
    this.say({ type: 'welcome', version: 1, heartbeat_ms: 5000, resume_grace_ms: 60_000 });
  }
  last<T extends ClientMessage['type']>(type: T): Extract<ClientMessage, { type: T }> {
    const found = this.sent.findLast((message) => message.type === type);
    if (!found) throw new Error(`nothing of type ${type} was sent`);
    return found as Extract<ClientMessage, { type: T }>;
  }
  count(type: ClientMessage['type']): number {
    return this.sent.filter((message) => message.type === type).length;
  }
}

export function fakeTrack(kind: 'audio' | 'video'): MediaStreamTrack {
  return { kind, enabled: true, contentHint: '' } as MediaStreamTrack;
}

class FakeSender {
  track: MediaStreamTrack | null = null;
  readonly encodings: Record<string, unknown>[] = [{}];
  replaceTrack(track: MediaStreamTrack | null): Promise<void> {
    this.track = track;
    return Promise.resolve();
  }
  getParameters() {
    return { encodings: this.encodings };
  }
  setParameters(): Promise<void> {
    return Promise.resolve();
  }
}

export class FakeTransceiver {
  direction = 'recvonly';
  readonly sender = new FakeSender();
  readonly receiver: { track: MediaStreamTrack };
  constructor(
    readonly mid: string,
    kind: 'audio' | 'video',
  ) {
    this.receiver = { track: fakeTrack(kind) };
  }
}

/** Makes one transceiver per `mid:kind` word of the offered sdp. */
export class FakePeer {
  connectionState: RTCPeerConnectionState = 'new';
  onconnectionstatechange: (() => void) | null = null;
  isClosed = false;
  readonly transceivers: FakeTransceiver[] = [];

  setRemoteDescription({ sdp = '' }: RTCSessionDescriptionInit): Promise<void> {
    for (const word of sdp.split(' ')) {
      const [mid, kind] = word.split(':');
      if (!mid || this.transceivers.some((each) => each.mid === mid)) continue;
      this.transceivers.push(new FakeTransceiver(mid, kind === 'audio' ? 'audio' : 'video'));
    }
    return Promise.resolve();
  }
  createAnswer(): Promise<RTCSessionDescriptionInit> {
    const sdp = this.transceivers.map((each) => `${each.mid}=${each.direction}`).join(' ');
    return Promise.resolve({ type: 'answer', sdp });
  }
  setLocalDescription(): Promise<void> {
    return Promise.resolve();
  }
  getTransceivers(): FakeTransceiver[] {
    return this.transceivers;
  }
  getStats(): Promise<Map<string, unknown>> {
    return Promise.resolve(new Map());
  }
  close(): void {
    this.isClosed = true;
  }
  become(state: RTCPeerConnectionState): void {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }
  asPeer(): PeerLike {
    return this as unknown as PeerLike;
  }
}

export function offer(
  revision: number,
  leg: number,
  sections: [mid: string, who: string, track: Track, direction: 'send' | 'receive'][],
): Offer {
  return {
    type: 'offer',
    revision,
    leg,
    sdp: sections
      .map(([mid, , track]) => `${mid}:${track === 'microphone' ? 'audio' : 'video'}`)
      .join(' '),
    tracks: sections.map(([mid, participant_id, track, direction]) => ({
      mid,
      participant_id,
      track,
      direction,
    })),
  };
}
