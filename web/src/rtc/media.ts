// One leg of media: an RTCPeerConnection that only ever answers. The offer's track table says which
// section carries whose track; sections are found again by their mid.
import type { Offer, Track } from '@/wire/signaling';
import { limits, type Picture } from './thin';

export type LocalTracks = ReadonlyMap<Track, MediaStreamTrack>;
/** participant → what arrives from them */
export type RemoteTracks = ReadonlyMap<string, ReadonlyMap<Track, MediaStreamTrack>>;

/** The part of RTCPeerConnection that we use; tests bring their own. */
export type PeerLike = Pick<
  RTCPeerConnection,
  | 'setRemoteDescription'
  | 'createAnswer'
  | 'setLocalDescription'
  | 'getTransceivers'
  | 'getStats'
  | 'close'
  | 'connectionState'
  | 'onconnectionstatechange'
>;

interface MediaEvents {
  onAnswer: (revision: number, sdp: string) => void;
  onRemote: (tracks: RemoteTracks) => void;
  onState: (state: RTCPeerConnectionState) => void;
  /** An offer that this browser could not follow. */
  onTrouble: (error: unknown) => void;
}

export class MediaLeg {
  private queue: Promise<void> = Promise.resolve();
  private sections: readonly Offer['tracks'][number][] = [];
  private isClosed = false;
  private picture: Picture = 'full';

  constructor(
    readonly leg: number,
    private readonly peer: PeerLike,
    private local: LocalTracks,
    private readonly events: MediaEvents,
  ) {
    peer.onconnectionstatechange = () => {
      if (!this.isClosed) events.onState(peer.connectionState);
    };
  }

  get connectionState(): RTCPeerConnectionState {
    return this.peer.connectionState;
  }

  /** Offers are answered one after the other, in the order in which they came. */
  follow(offer: Offer): void {
    this.queue = this.queue.then(async () => {
      if (this.isClosed) return;
      try {
        await this.answer(offer);
      } catch (error) {
        if (!this.isClosed) this.events.onTrouble(error);
      }
    });
  }

  /** Attach, change or remove our own tracks. Sections appear with the next offer. */
  useLocal(local: LocalTracks): void {
    this.local = local;
    this.queue = this.queue.then(() => (this.isClosed ? undefined : this.attach()));
  }

  usePicture(picture: Picture): void {
    this.picture = picture;
    this.queue = this.queue.then(() => (this.isClosed ? undefined : this.shape()));
  }

  async stats(): Promise<RTCStatsReport | null> {
    return this.isClosed ? null : this.peer.getStats();
  }

  close(): void {
    this.isClosed = true;
    this.peer.onconnectionstatechange = null;
    this.peer.close();
  }

  private async answer(offer: Offer): Promise<void> {
    await this.peer.setRemoteDescription({ type: 'offer', sdp: offer.sdp });
    this.sections = offer.tracks;
    const byMid = this.byMid();
    for (const section of offer.tracks) {
      const transceiver = byMid.get(section.mid);
      if (!transceiver) continue;
      transceiver.direction = section.direction === 'send' ? 'sendonly' : 'recvonly';
    }
    await this.attach();
    const answer = await this.peer.createAnswer();
    await this.peer.setLocalDescription(answer);
    if (this.isClosed) return;
    this.events.onAnswer(offer.revision, answer.sdp ?? '');
    this.events.onRemote(this.remote());
    await this.shape();
  }

  private byMid(): Map<string, RTCRtpTransceiver> {
    const found = new Map<string, RTCRtpTransceiver>();
    for (const transceiver of this.peer.getTransceivers()) {
      if (transceiver.mid !== null) found.set(transceiver.mid, transceiver);
    }
    return found;
  }

  private async attach(): Promise<void> {
    const byMid = this.byMid();
    for (const section of this.sections) {
      if (section.direction !== 'send') continue;
      const sender = byMid.get(section.mid)?.sender;
      const wanted = this.local.get(section.track) ?? null;
      if (sender && sender.track !== wanted) await sender.replaceTrack(wanted);
    }
  }

  private remote(): RemoteTracks {
    const byMid = this.byMid();
    const found = new Map<string, Map<Track, MediaStreamTrack>>();
    for (const section of this.sections) {
      if (section.direction !== 'receive') continue;
      const track = byMid.get(section.mid)?.receiver.track;
      if (!track) continue;
      const theirs = found.get(section.participant_id) ?? new Map<Track, MediaStreamTrack>();
      theirs.set(section.track, track);
      found.set(section.participant_id, theirs);
    }
    return found;
  }

  /** Encoder limits. A browser that refuses one keeps its own idea of them; the call goes on. */
  private async shape(): Promise<void> {
    const byMid = this.byMid();
    for (const section of this.sections) {
      if (section.direction !== 'send') continue;
      const sender = byMid.get(section.mid)?.sender;
      if (!sender?.track) continue;
      const parameters = sender.getParameters();
      const encoding = parameters.encodings[0];
      if (!encoding) continue;
      if (section.track === 'microphone') {
        encoding.priority = 'high';
        encoding.networkPriority = 'high';
      } else {
        Object.assign(encoding, limits(this.picture, section.track !== 'camera'));
      }
      await sender.setParameters(parameters).catch(() => undefined);
    }
  }
}
