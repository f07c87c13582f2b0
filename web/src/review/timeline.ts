// One clock for many recordings of one talk. The clock is ours: media elements are told what time it is
// and are corrected when they disagree, because each of them starts, buffers and drifts by itself.
//
// - A small disagreement is worked off by playing slightly faster or slower, which nobody hears.
// - A large one, and every jump, is a seek; while any element is not ready, the clock stands for all.
// - After standing, the clock starts only when every element really moves, and then from the slowest.
//
// Knows no page: elements are `Playable`, time comes from `now`, the owner calls `tick` about every 50 ms.

/** The part of a media element that the clock needs. Times in seconds, as the platform has them. */
export interface Playable {
  currentTime: number;
  readonly duration: number;
  playbackRate: number;
  readonly paused: boolean;
  readonly ended: boolean;
  readonly seeking: boolean;
  readonly readyState: number;
  play(): Promise<void> | void;
  pause(): void;
}

/** Where a file lies on the timeline of the session. */
export interface Span {
  offset_ms: number;
  duration_ms: number;
}

/** `before`: this party had not come yet. `after`: it has left. `failed`: the file cannot be played. */
export type Phase = 'before' | 'within' | 'after' | 'failed';

export interface Snapshot {
  at_ms: number;
  playing: boolean;
  /** Asked to play, but an element is not ready: everyone stands. */
  waiting: boolean;
  ended: boolean;
}

/** Two elements, each this close to the clock, are within twice this of each other. */
export const NUDGE_MS = 25;
const CALM_MS = 8;
export const HARD_SEEK_MS = 250;
/** A nudge never changes the speed by more than this share; beyond it, speech sounds wrong. */
export const NUDGE_SHARE = 0.1;
const NUDGE_HORIZON_MS = 400;
/** An element moves about this long after it was told to; who comes later is told that much earlier. */
const START_LEAD_MS = 80;
/** An element that was just sought gets this long to settle before it is sought again. */
const SETTLE_MS = 1500;
/** Elements report a first step before they really run; only the second one counts as moving. */
const MOVING_S = 0.04;
/** An element that will not move (a hidden tab, a lost decoder) must not hold the others for ever. */
const START_PATIENCE_MS = 1000;
/** Files end a few frames before or after the length they were measured to have. */
const TAIL_MS = 400;
const HAVE_FUTURE_DATA = 3;
export const SPEEDS = [0.75, 1, 1.25, 1.5, 2, 2.5, 3] as const;

interface Track {
  media: Playable;
  span: Span;
  failed: boolean;
  /** Was ready, was asked to play, and did not move; not waited for until it does. */
  stuck: boolean;
  nudged: boolean;
  sought_at: number;
  started_from_s: number;
}

type Motion =
  | { kind: 'standing' }
  | { kind: 'gathering' }
  | { kind: 'starting'; since: number }
  | { kind: 'running'; from_ms: number; since: number };

export class Timeline {
  private readonly tracks = new Map<string, Track>();
  private motion: Motion = { kind: 'standing' };
  private at_ms = 0;
  private rate = 1;

  /** `now`: a monotonic clock in milliseconds. */
  constructor(
    readonly duration_ms: number,
    private readonly now: () => number,
  ) {}

  get speed(): number {
    return this.rate;
  }

  /** Put a file on the timeline. It is moved to the current time at once. */
  add(id: string, media: Playable, span: Span): void {
    const track: Track = {
      media,
      span,
      failed: false,
      stuck: false,
      nudged: false,
      sought_at: -Infinity,
      started_from_s: 0,
    };
    this.tracks.set(id, track);
    media.playbackRate = this.rate;
    this.place(track);
    if (this.motion.kind !== 'standing') this.gather();
  }

  /** Take a file off. Its element is paused and then left alone. */
  remove(id: string): void {
    this.tracks.get(id)?.media.pause();
    this.tracks.delete(id);
  }

  /** A file that cannot be played stops counting; the others go on without it. */
  fail(id: string): void {
    const track = this.tracks.get(id);
    if (track) track.failed = true;
  }

  play(): void {
    if (this.motion.kind !== 'standing') return;
    if (this.at_ms >= this.duration_ms) this.jump(0);
    this.gather();
  }

  pause(): void {
    if (this.motion.kind === 'running') this.at_ms = this.read(this.motion);
    this.stand();
  }

  seek(at_ms: number): void {
    this.jump(at_ms);
    if (this.motion.kind !== 'standing') this.gather();
  }

  setSpeed(speed: number): void {
    if (this.motion.kind === 'running') {
      this.at_ms = this.read(this.motion);
      this.motion = { kind: 'running', from_ms: this.at_ms, since: this.now() };
    }
    this.rate = speed;
    for (const track of this.tracks.values()) {
      track.media.playbackRate = speed;
      track.nudged = false;
    }
  }

  phase(id: string): Phase {
    const track = this.tracks.get(id);
    if (!track) return 'after';
    return track.failed || track.stuck ? 'failed' : this.phaseOf(track);
  }

  /** How far an element is ahead of the clock (negative: behind), in milliseconds of the recording. */
  drift_ms(id: string): number | null {
    const track = this.tracks.get(id);
    return track && this.phaseOf(track) === 'within' ? this.driftOf(track) : null;
  }

  /** Move the clock on and correct whoever disagrees. */
  tick(): Snapshot {
    switch (this.motion.kind) {
      case 'standing':
        break;
      case 'gathering':
        this.tickGathering();
        break;
      case 'starting':
        this.tickStarting(this.motion.since);
        break;
      case 'running':
        this.tickRunning(this.motion);
        break;
      default: {
        const never: never = this.motion;
        return never;
      }
    }
    return this.snapshot();
  }

  snapshot(): Snapshot {
    return {
      at_ms: this.at_ms,
      playing: this.motion.kind !== 'standing',
      waiting: this.motion.kind === 'gathering',
      ended: this.at_ms >= this.duration_ms,
    };
  }

  private tickGathering(): void {
    const active = this.active();
    if (!active.every(isReady)) return;
    for (const track of active) {
      track.started_from_s = track.media.currentTime;
      track.nudged = false;
      track.media.playbackRate = this.rate;
      start(track.media);
    }
    this.motion = { kind: 'starting', since: this.now() };
    if (active.length === 0) this.run();
  }

  private tickStarting(since: number): void {
    const active = this.active();
    // A play() that was taken back (an element was busy seeking) is asked again.
    for (const { media } of active) if (media.paused && !media.ended) start(media);
    const impatient = this.now() - since > START_PATIENCE_MS;
    if (!impatient && !active.every(moves)) return;
    const moving = active.filter(moves);
    for (const track of active) track.stuck = !moves(track);
    if (moving.length > 0) {
      const slowest = Math.min(...moving.map((track) => track.span.offset_ms + positionOf(track)));
      // Never more than a step: an element that ran away is corrected, the clock does not follow it.
      const most = this.at_ms + HARD_SEEK_MS * this.rate;
      this.at_ms = Math.min(Math.max(slowest, this.at_ms), most);
    }
    this.run();
  }

  private tickRunning(motion: Motion & { kind: 'running' }): void {
    this.at_ms = this.read(motion);
    if (this.at_ms >= this.duration_ms) {
      this.stand();
      return;
    }
    for (const track of this.tracks.values()) {
      if (track.failed) continue;
      const early_ms = track.span.offset_ms - this.at_ms;
      if (early_ms > 0 && early_ms <= START_LEAD_MS * this.rate) {
        if (track.media.paused) start(track.media);
        continue;
      }
      if (this.phaseOf(track) !== 'within') {
        if (!track.media.paused) track.media.pause();
        continue;
      }
      if (track.media.ended) continue;
      if (track.stuck && !moves(track)) continue;
      track.stuck = false;
      if (!isReady(track) && this.left_ms(track) > TAIL_MS) {
        this.gather();
        return;
      }
      if (track.media.paused) start(track.media);
      if (this.correct(track)) {
        this.gather();
        return;
      }
    }
  }

  /** True when it took a seek, for which everyone has to wait. */
  private correct(track: Track): boolean {
    const { media } = track;
    const drift = this.driftOf(track);
    const size = Math.abs(drift);
    const now = this.now();
    if (size > HARD_SEEK_MS * Math.max(1, this.rate) && now - track.sought_at > SETTLE_MS) {
      track.sought_at = now;
      this.place(track);
      return true;
    }
    track.nudged = size > (track.nudged ? CALM_MS : NUDGE_MS);
    const share = track.nudged
      ? Math.min(NUDGE_SHARE, Math.max(-NUDGE_SHARE, drift / NUDGE_HORIZON_MS))
      : 0;
    const rate = this.rate * (1 - share);
    // Every change of rate restarts the pitch filter; hundredths are not worth it.
    if (share === 0 ? media.playbackRate !== rate : Math.abs(media.playbackRate - rate) > 0.01)
      media.playbackRate = rate;
    return false;
  }

  private jump(at_ms: number): void {
    this.at_ms = Math.min(Math.max(0, at_ms), this.duration_ms);
    for (const track of this.tracks.values()) {
      track.stuck = false;
      this.place(track);
    }
  }

  /** Move an element to where the clock is; outside its span it waits at the nearer end. */
  private place(track: Track): void {
    const inside = Math.min(Math.max(0, this.at_ms - track.span.offset_ms), track.span.duration_ms);
    if (Math.abs(positionOf(track) - inside) > 1) track.media.currentTime = inside / 1000;
  }

  private gather(): void {
    for (const { media } of this.tracks.values()) if (!media.paused) media.pause();
    this.motion = { kind: 'gathering' };
  }

  private stand(): void {
    this.motion = { kind: 'standing' };
    for (const track of this.tracks.values()) {
      if (!track.media.paused) track.media.pause();
      track.media.playbackRate = this.rate;
      track.nudged = false;
    }
  }

  private run(): void {
    this.motion = { kind: 'running', from_ms: this.at_ms, since: this.now() };
  }

  private read(motion: Motion & { kind: 'running' }): number {
    return Math.min(this.duration_ms, motion.from_ms + (this.now() - motion.since) * this.rate);
  }

  private active(): Track[] {
    return [...this.tracks.values()].filter(
      (track) =>
        !track.failed && !track.stuck && !track.media.ended && this.phaseOf(track) === 'within',
    );
  }

  private phaseOf({ span }: Track): Phase {
    if (this.at_ms < span.offset_ms) return 'before';
    return this.at_ms < span.offset_ms + span.duration_ms ? 'within' : 'after';
  }

  private left_ms({ span }: Track): number {
    return span.offset_ms + span.duration_ms - this.at_ms;
  }

  private driftOf(track: Track): number {
    return positionOf(track) - (this.at_ms - track.span.offset_ms);
  }
}

const positionOf = (track: Track): number => track.media.currentTime * 1000;
const moves = (track: Track): boolean => track.media.currentTime - track.started_from_s > MOVING_S;
const isReady = ({ media }: Track): boolean =>
  !media.seeking && media.readyState >= HAVE_FUTURE_DATA;

function start(media: Playable): void {
  // Refused when a pause or a seek came between; the next tick asks again.
  media.play()?.catch(() => undefined);
}
