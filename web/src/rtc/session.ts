// A call, without a page around it. Signaling and media are two things: the socket may be lost and
// come back while the packets go on, and the other way round. The server always offers; we answer.
//
//   const call = new CallSession({ ws_url, grant });
//   call.onChange((state) => …);  call.setLocal('camera', track);  call.start();
import type { EnterView } from '@/wire/api';
import type { Offer, ParticipantState, ServerMessage, Track } from '@/wire/signaling';
import { backoff_ms } from './backoff';
import { knockAt, Knocker, type Knock } from './knock';
import { lineBetween, totals, type LineTotals } from './line';
import { MediaLeg, type PeerLike } from './media';
import { SignalingError, SignalSocket, type Request, type SocketLike } from './socket';
import { apply, INITIAL, type CallState } from './state';
import { afterReport, FULL_PICTURE, type PictureState } from './thin';

export type Entry = Pick<EnterView, 'grant' | 'ws_url'>;

export interface CallOptions extends Entry {
  /** Asked when the server no longer knows our seat (e.g. it was restarted). May refuse by throwing. */
  renew?: () => Promise<Entry>;
  /** Told to the server for its logs; names nobody. */
  client?: string;
  openSocket?: (url: string) => SocketLike;
  openPeer?: () => PeerLike;
  /** Asks whether anything answers at `ws_url`. */
  knockAt?: (ws_url: string) => Knock;
  random?: () => number;
}

/** Refusals that a later try may not meet: the answer was lost, or the server is busy or restarting. */
const COMES_BACK: ReadonlySet<string> = new Set([
  'no_answer',
  'restarting',
  'unavailable',
  'room_elsewhere',
  'too_many',
]);
const SAMPLE_EVERY_MS = 2_000;
/** A browser calls a transport disconnected after 2.5 s and more without a sign of the other side. It
 * may still heal; three seconds after the last sign we ask for a new leg. */
const HEAL_WITHIN_MS = 500;
/** The server calls us silent after 1.5 s; its word counts as much as the browser's. */
const SERVER_HEARS_WITHIN_MS = 1_500;
/** A media_lost that was refused (legs may be begun once a second) is said again. */
const ASK_AGAIN_MS = 1_000;
/** Long enough to be read by somebody who looks away at first. */
const CUT_OFF_SHOWN_MS = 30_000;
/** A reconnect that has not been welcomed by then is checked by knocking. */
const KNOCK_AFTER_MS = 700;

export class CallSession {
  private current: CallState = INITIAL;
  private readonly listeners = new Set<(state: CallState) => void>();
  private readonly local = new Map<Track, MediaStreamTrack>();
  private socket: SignalSocket | null = null;
  private media: MediaLeg | null = null;
  private entry: Entry;
  private resumeToken: string | null = null;
  private lastSeq = 0;
  private attempt = 0;
  /** While a new grant is fetched, a closing socket must not knock with the old one. */
  private isRenewing = false;
  private unansweredOffer: { revision: number; sdp: string } | null = null;
  /** The server has said that an offer with a new leg is on its way. */
  private isNewLegDue = false;
  private published = '';
  private pictureState: PictureState = FULL_PICTURE;
  private lastTotals: LineTotals | null = null;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private heal: ReturnType<typeof setTimeout> | undefined;
  private cutOffShown: ReturnType<typeof setTimeout> | undefined;
  private sampling: ReturnType<typeof setInterval> | undefined;
  private readonly knocker: Knocker;

  constructor(private readonly options: CallOptions) {
    this.entry = { grant: options.grant, ws_url: options.ws_url };
    // What answered a knock will answer the socket: it is given its time.
    this.knocker = new Knocker(() => this.reconnect(), options.random ?? Math.random);
  }

  get state(): CallState {
    return this.current;
  }

  /** Hear of every change, at once with the present state. Returns the way to stop. */
  onChange(listener: (state: CallState) => void): () => void {
    this.listeners.add(listener);
    listener(this.current);
    return () => this.listeners.delete(listener);
  }

  start(): void {
    if (this.current.signaling !== 'idle') return;
    this.set({ signaling: 'connecting' });
    this.sampling = setInterval(() => void this.sample(), SAMPLE_EVERY_MS);
    this.connect();
  }

  /** Publish `track` under `name`, exchange it, or stop with null. The caller keeps owning it. */
  setLocal(name: Track, track: MediaStreamTrack | null): void {
    if (track) {
      track.contentHint = hint(name);
      track.enabled = !this.current.muted.has(name);
      this.local.set(name, track);
    } else {
      this.local.delete(name);
    }
    this.media?.useLocal(new Map(this.local));
    this.publish();
  }

  /** Silence our own track here and on the server; both, so that neither fault undoes it. */
  setMuted(name: Track, muted: boolean): void {
    const now = new Set(this.current.muted);
    if (muted) now.add(name);
    else now.delete(name);
    const track = this.local.get(name);
    if (track) track.enabled = !muted;
    this.set({ muted: now });
    void this.ask({ type: 'mute', track: name, muted });
  }

  /** The presiding official lets the party in. Throws SignalingError when the server refuses. */
  async admit(): Promise<void> {
    await this.must({ type: 'admit' });
  }

  /** End for everyone. Pages ask before they call this. Throws SignalingError when refused. */
  async end(): Promise<void> {
    await this.must({ type: 'end' });
  }

  /** Go. Says so to the server if it can be reached, and is gone either way. */
  async leave(): Promise<void> {
    const said = this.ask({ type: 'leave' });
    this.set({ signaling: 'left', signaling_lost_at_ms: null });
    await said;
    this.stop();
  }

  /** Let go of everything without a word, e.g. when the page goes away. The seat is kept for a while. */
  dispose(): void {
    this.stop();
    this.listeners.clear();
  }

  /** The network is said to be back: do not wait out the pause. */
  nudge(): void {
    if (this.current.signaling !== 'reconnecting') return;
    this.reconnect();
    this.knock(KNOCK_AFTER_MS);
  }

  // ── signaling ────────────────────────────────────────────────────────────────────────────────

  /** Open a socket now, in place of one that hangs in its opening. */
  private reconnect(): void {
    clearTimeout(this.retry);
    const hanging = this.socket;
    this.socket = null;
    this.connect();
    hanging?.drop();
  }

  private knock(first_ms: number): void {
    const { ws_url } = this.entry;
    this.knocker.start((this.options.knockAt ?? knockAt)(ws_url), first_ms);
  }

  private connect(): void {
    const open = this.options.openSocket ?? ((url) => new WebSocket(url) as unknown as SocketLike);
    let socket: SignalSocket;
    try {
      socket = new SignalSocket(
        open(this.entry.ws_url),
        {
          onWelcome: () => {
            this.knocker.stop();
            void this.enter(socket);
          },
          onMessage: (message) => this.receive(message),
          onClosed: (ending) => {
            if (ending === 'replaced') this.replaced();
            else this.lost(socket);
          },
        },
        this.options.client ?? 'web',
      );
    } catch {
      this.lost(null);
      return;
    }
    this.socket = socket;
  }

  private async enter(socket: SignalSocket): Promise<void> {
    try {
      if (this.resumeToken) {
        await socket.request({
          type: 'resume',
          resume_token: this.resumeToken,
          last_seq: this.lastSeq,
        });
      } else {
        await socket.request({ type: 'join', grant: this.entry.grant });
      }
    } catch (error) {
      if (!(error instanceof SignalingError)) throw error;
      // The socket went away before the answer: its end already starts the next try.
      if (error.code === 'connection_lost') return;
      if (COMES_BACK.has(error.code)) socket.drop();
      else await this.refused(error);
      return;
    }
    this.attempt = 0;
    this.published = '';
    this.publish();
    for (const track of this.current.muted) void this.ask({ type: 'mute', track, muted: true });
    if (this.unansweredOffer) void this.sendAnswer(this.unansweredOffer);
    if (this.media && !this.isNewLegDue) this.mediaState(this.media.connectionState);
  }

  /** Our seat or our grant is not known any more. One new grant is fetched, then we give up. */
  private async refused(error: SignalingError): Promise<void> {
    const hadSeat = this.resumeToken !== null;
    this.resumeToken = null;
    this.lastSeq = 0;
    const { renew } = this.options;
    if (hadSeat && renew) {
      this.isRenewing = true;
      try {
        this.entry = await renew();
      } catch (problem) {
        this.fail(codeOf(problem, error));
        return;
      } finally {
        this.isRenewing = false;
      }
      this.closeMedia();
      if (this.socket) this.socket.drop();
      else this.lost(null);
      return;
    }
    this.fail(error);
  }

  private replaced(): void {
    if (this.isOver()) return;
    this.fail({ code: 'replaced', message: 'This seat was taken over on another screen.' });
  }

  private fail(error: { code: string; message: string }): void {
    this.set({
      signaling: 'refused',
      signaling_lost_at_ms: null,
      refusal: { code: error.code, message: error.message },
    });
    this.stop();
  }

  private lost(socket: SignalSocket | null): void {
    if (socket && this.socket && socket !== this.socket) return;
    this.socket = null;
    if (this.isOver() || this.isRenewing) return;
    const wasOpen = this.current.signaling === 'open';
    this.set({
      signaling: this.resumeToken || wasOpen || this.current.me ? 'reconnecting' : 'connecting',
      signaling_lost_at_ms: this.current.signaling_lost_at_ms ?? performance.now(),
    });
    // Nothing has answered yet; a socket that was tried meanwhile is no reason to stop listening.
    if (this.knocker.isKnocking) return;
    const isFirst = this.attempt === 0;
    const wait_ms = backoff_ms(this.attempt++, (this.options.random ?? Math.random)());
    // Mostly only the socket was lost, and the next one is welcomed at once. Else the line or the
    // server is away: no socket is opened before something answers there.
    this.retry = setTimeout(() => {
      if (isFirst) this.reconnect();
      this.knock(isFirst ? KNOCK_AFTER_MS : 0);
    }, wait_ms);
  }

  private receive(message: ServerMessage): void {
    if ('seq' in message) this.lastSeq = Math.max(this.lastSeq, message.seq);
    switch (message.type) {
      case 'joined':
        this.lastSeq = message.seq;
        this.resumeToken = message.resume_token;
        break;
      case 'resumed':
        this.resumeToken = message.resume_token;
        this.isNewLegDue = message.media === 'new_leg';
        break;
      case 'participant':
        if (message.participant.participant_id === this.current.me) {
          this.serverHears(message.participant.state);
        }
        break;
      case 'offer':
        this.isNewLegDue = false;
        this.follow(message);
        return;
      case 'quality':
        this.adapt(message.lines.find((line) => line.participant_id === this.current.me)?.quality);
        break;
      case 'error':
        // After `no_answer` the server rests until we ask: our transport never came up.
        if (message.code === 'no_answer') this.mediaLost();
        else if (message.code === 'too_much_sent') this.cutOff();
        else if (message.fatal && !COMES_BACK.has(message.code)) this.fail(message);
        return;
      default:
    }
    this.replace(apply(this.current, message, performance.now()));
    if (message.type === 'ended') this.stop();
  }

  private publish(): void {
    if (this.current.signaling !== 'open') return;
    const tracks = [...this.local.keys()].filter((name) => this.current.may.has(`publish:${name}`));
    const wanted = tracks.toSorted().join();
    if (wanted === this.published) return;
    this.published = wanted;
    void this.ask({ type: 'publish', tracks });
  }

  /** A wish whose failure is repaired by the next resume, not by the page. */
  private async ask(message: Request): Promise<boolean> {
    try {
      await this.must(message);
      return true;
    } catch {
      return false;
    }
  }

  private async must(message: Request): Promise<void> {
    if (!this.socket) throw new SignalingError('connection_lost', 'The connection is lost.');
    await this.socket.request(message);
  }

  // ── media ────────────────────────────────────────────────────────────────────────────────────

  private follow(offer: Offer): void {
    if (this.media && offer.leg > this.media.leg) this.closeMedia();
    if (this.media && offer.leg < this.media.leg) return;
    this.media ??= this.openLeg(offer.leg);
    this.media.follow(offer);
  }

  private openLeg(leg: number): MediaLeg {
    const open =
      this.options.openPeer ?? (() => new RTCPeerConnection({ bundlePolicy: 'max-bundle' }));
    if (this.current.media === 'none') this.set({ media: 'connecting' });
    const media = new MediaLeg(leg, open(), new Map(this.local), {
      onAnswer: (revision, sdp) => {
        this.unansweredOffer = { revision, sdp };
        void this.sendAnswer(this.unansweredOffer);
      },
      onRemote: (remote) => this.set({ remote }),
      onState: (state) => this.mediaState(state),
      onTrouble: () => this.mediaLost(),
    });
    media.usePicture(this.pictureState.picture);
    return media;
  }

  private async sendAnswer(answer: { revision: number; sdp: string }): Promise<void> {
    try {
      await this.must({ type: 'answer', ...answer });
    } catch (error) {
      // Without a connection it is kept and sent again after the resume; a stale one is forgotten.
      if (error instanceof SignalingError && error.code === 'connection_lost') return;
    }
    if (this.unansweredOffer === answer) this.unansweredOffer = null;
  }

  private mediaState(state: RTCPeerConnectionState): void {
    clearTimeout(this.heal);
    switch (state) {
      case 'connected':
        this.set({ media: 'connected', media_lost_at_ms: null });
        return;
      case 'disconnected':
        this.mediaAway();
        this.healWithin(HEAL_WITHIN_MS);
        return;
      case 'failed':
        this.mediaAway();
        this.mediaLost();
        return;
      case 'new':
      case 'connecting':
      case 'closed':
        return;
      default: {
        const never: never = state;
        void never;
      }
    }
  }

  /** Our line was closed for what it carried. We come back by ourselves; people should know why. */
  private cutOff(): void {
    clearTimeout(this.cutOffShown);
    this.set({ isCutOff: true });
    this.cutOffShown = setTimeout(() => this.set({ isCutOff: false }), CUT_OFF_SHOWN_MS);
    this.mediaLost();
  }

  /** Packets of ours that vanish on the way are noticed there first. */
  private serverHears(me: ParticipantState): void {
    if (me === 'silent') this.healWithin(SERVER_HEARS_WITHIN_MS);
    else if (this.media?.connectionState === 'connected') clearTimeout(this.heal);
  }

  private healWithin(wait_ms: number): void {
    clearTimeout(this.heal);
    this.heal = setTimeout(() => this.mediaLost(), wait_ms);
  }

  private mediaAway(): void {
    this.set({
      media: 'interrupted',
      media_lost_at_ms: this.current.media_lost_at_ms ?? performance.now(),
    });
  }

  private mediaLost(): void {
    clearTimeout(this.heal);
    if (this.isOver()) return;
    this.mediaAway();
    // Without signaling this waits: `enter` asks again once we are back.
    if (this.current.signaling === 'open') void this.askForLeg();
  }

  private async askForLeg(): Promise<void> {
    const leg = this.media?.leg;
    if (await this.ask({ type: 'media_lost' })) return;
    const isSettled = this.media?.leg !== leg || this.current.media === 'connected';
    if (this.current.signaling === 'open' && !isSettled) this.healWithin(ASK_AGAIN_MS);
  }

  private adapt(quality: Parameters<typeof afterReport>[1] | undefined): void {
    if (!quality) return;
    const before = this.pictureState.picture;
    this.pictureState = afterReport(this.pictureState, quality);
    const { picture } = this.pictureState;
    if (picture === before) return;
    this.media?.usePicture(picture);
    this.set({ picture });
  }

  private async sample(): Promise<void> {
    const report = await this.media?.stats().catch(() => null);
    if (!report) {
      this.lastTotals = null;
      return;
    }
    const now = totals(
      report as unknown as Iterable<readonly [string, unknown]>,
      performance.now(),
    );
    if (this.lastTotals) this.set({ line: lineBetween(this.lastTotals, now) });
    this.lastTotals = now;
  }

  private closeMedia(): void {
    clearTimeout(this.heal);
    this.media?.close();
    this.media = null;
    this.unansweredOffer = null;
    this.lastTotals = null;
  }

  // ── state ────────────────────────────────────────────────────────────────────────────────────

  private isOver(): boolean {
    const { signaling } = this.current;
    return signaling === 'left' || signaling === 'ended' || signaling === 'refused';
  }

  private stop(): void {
    clearTimeout(this.cutOffShown);
    clearTimeout(this.retry);
    this.knocker.stop();
    clearInterval(this.sampling);
    this.closeMedia();
    const { socket } = this;
    this.socket = null;
    if (!this.isOver()) this.current = { ...this.current, signaling: 'left' };
    socket?.drop();
  }

  private set(change: Partial<CallState>): void {
    this.replace({ ...this.current, ...change });
  }

  private replace(state: CallState): void {
    this.current = state;
    for (const listener of this.listeners) listener(state);
  }
}

function hint(name: Track): string {
  switch (name) {
    case 'camera':
      return 'motion';
    case 'document':
    case 'screen':
      return 'detail';
    case 'microphone':
      return 'speech';
    default: {
      const never: never = name;
      return never;
    }
  }
}

function codeOf(problem: unknown, otherwise: SignalingError): { code: string; message: string } {
  if (problem instanceof Error && 'code' in problem && typeof problem.code === 'string') {
    return { code: problem.code, message: problem.message };
  }
  return otherwise;
}
