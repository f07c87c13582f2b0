import { beforeEach, describe, expect, it } from 'vitest';
import { HARD_SEEK_MS, NUDGE_SHARE, Timeline, type Playable } from './timeline';

/** An element as browsers make them: late to start, slow to seek, slightly wrong in speed. */
class FakeMedia implements Playable {
  playbackRate = 1;
  paused = true;
  seeking = false;
  readyState = 4;
  seeks = 0;
  private position = 0;
  private wakes_in_ms = 0;
  private seek_left_ms = 0;

  constructor(
    readonly duration = 60,
    private readonly quirks: { start_ms?: number; seek_ms?: number; speed_error?: number } = {},
  ) {}

  get currentTime() {
    return this.position;
  }
  set currentTime(seconds: number) {
    this.position = seconds;
    this.seeks += 1;
    this.seek_left_ms = this.quirks.seek_ms ?? 0;
    this.seeking = this.seek_left_ms > 0;
  }
  get ended() {
    return this.position >= this.duration;
  }
  play() {
    if (this.paused) this.wakes_in_ms = this.quirks.start_ms ?? 0;
    this.paused = false;
  }
  pause() {
    this.paused = true;
  }
  slip(seconds: number) {
    this.position += seconds;
  }
  advance(ms: number) {
    if (this.seeking) {
      this.seek_left_ms -= ms;
      this.seeking = this.seek_left_ms > 0;
      return;
    }
    if (this.paused || this.readyState < 3) return;
    const asleep = Math.min(this.wakes_in_ms, ms);
    this.wakes_in_ms -= asleep;
    const moved = (ms - asleep) * this.playbackRate * (1 + (this.quirks.speed_error ?? 0));
    this.position = Math.min(this.duration, this.position + moved / 1000);
  }
}

const STEP_MS = 50;
let now = 0;
let media: FakeMedia[] = [];
let timeline: Timeline;

function pass(ms: number, each?: () => void) {
  for (let left = ms; left > 0; left -= STEP_MS) {
    now += STEP_MS;
    for (const one of media) one.advance(STEP_MS);
    timeline.tick();
    each?.();
  }
}

function put(
  id: string,
  offset_ms: number,
  duration_ms: number,
  quirks: ConstructorParameters<typeof FakeMedia>[1] = {},
) {
  const one = new FakeMedia(duration_ms / 1000, quirks);
  media.push(one);
  timeline.add(id, one, { offset_ms, duration_ms });
  return one;
}

beforeEach(() => {
  now = 5000;
  media = [];
  timeline = new Timeline(60_000, () => now);
});

describe('the clock', () => {
  it('stands until someone plays, and stands again when paused', () => {
    const one = put('a', 0, 60_000);
    pass(1000);
    expect(timeline.snapshot().at_ms).toBe(0);
    timeline.play();
    pass(2000);
    timeline.pause();
    const at = timeline.snapshot().at_ms;
    pass(1000);
    expect(timeline.snapshot()).toMatchObject({ at_ms: at, playing: false });
    expect(at).toBeGreaterThan(1700);
    expect(one.paused).toBe(true);
  });

  it('starts from the slowest element, so that nobody begins behind', () => {
    put('quick', 0, 60_000, { start_ms: 0 });
    put('slow', 0, 60_000, { start_ms: 200 });
    timeline.play();
    pass(350);
    expect(Math.abs(timeline.drift_ms('slow') ?? 999)).toBeLessThanOrEqual(STEP_MS);
  });

  it('works off a late start by nudging, without a seek', () => {
    const quick = put('quick', 0, 60_000);
    const slow = put('slow', 0, 60_000, { start_ms: 180 });
    timeline.play();
    pass(4000);
    expect(Math.abs(quick.currentTime - slow.currentTime)).toBeLessThan(0.05);
    expect(quick.seeks + slow.seeks).toBe(0);
  });

  it.each([0.75, 1, 2, 3])('keeps elements with wrong clocks together at %s×', (speed) => {
    timeline.setSpeed(speed);
    const fast = put('fast', 0, 60_000, { speed_error: 0.004 });
    const lame = put('lame', 1500, 58_000, { speed_error: -0.004 });
    timeline.play();
    pass(4000);
    pass(10_000, () => {
      const apart_ms = Math.abs(fast.currentTime - (lame.currentTime + 1.5)) * 1000;
      expect(apart_ms).toBeLessThan(60);
    });
    expect(fast.seeks).toBe(0);
  });

  it('never changes the speed by more than the nudge', () => {
    const one = put('a', 0, 60_000);
    timeline.setSpeed(2);
    timeline.play();
    pass(1000);
    one.slip(0.4);
    pass(STEP_MS);
    expect(one.playbackRate).toBeCloseTo(2 * (1 - NUDGE_SHARE), 5);
    pass(6000);
    expect(one.playbackRate).toBe(2);
  });

  it('seeks an element that is far off, once, while all wait', () => {
    const lost = put('lost', 0, 60_000, { seek_ms: 150 });
    const other = put('other', 0, 60_000);
    timeline.play();
    pass(1000);
    lost.slip(-(HARD_SEEK_MS + 200) / 1000);
    pass(STEP_MS);
    expect(lost.seeks).toBe(1);
    expect(timeline.snapshot().waiting).toBe(true);
    expect(other.paused).toBe(true);
    pass(2000);
    expect(lost.seeks).toBe(1);
    expect(Math.abs(lost.currentTime - other.currentTime)).toBeLessThan(0.05);
  });

  it('holds everyone while one is buffering, and goes on from there', () => {
    const dry = put('dry', 0, 60_000);
    const other = put('other', 0, 60_000);
    timeline.play();
    pass(2000);
    dry.readyState = 2;
    pass(3000);
    const held = timeline.snapshot();
    expect(held).toMatchObject({ playing: true, waiting: true });
    expect(other.paused).toBe(true);
    dry.readyState = 4;
    pass(1000);
    expect(timeline.snapshot().at_ms).toBeGreaterThan(held.at_ms + 800);
    expect(timeline.snapshot().at_ms).toBeLessThan(held.at_ms + 1100);
  });

  it('goes on without a file that cannot be played', () => {
    put('good', 0, 60_000);
    put('bad', 0, 60_000).readyState = 0;
    timeline.play();
    pass(500);
    expect(timeline.snapshot().waiting).toBe(true);
    timeline.fail('bad');
    pass(1000);
    expect(timeline.phase('bad')).toBe('failed');
    expect(timeline.snapshot().at_ms).toBeGreaterThan(700);
  });

  it('does not wait for ever for an element that is ready but will not move', () => {
    put('good', 0, 60_000);
    put('stuck', 0, 60_000, { start_ms: 1_000_000 });
    timeline.play();
    pass(3000);
    expect(timeline.snapshot().at_ms).toBeGreaterThan(1000);
  });

  it('stops at the end and begins again from the start', () => {
    put('a', 0, 60_000);
    timeline.seek(59_500);
    timeline.play();
    pass(1500);
    expect(timeline.snapshot()).toMatchObject({ at_ms: 60_000, playing: false, ended: true });
    timeline.play();
    pass(500);
    expect(timeline.snapshot().at_ms).toBeLessThan(1000);
  });
});

describe('a party that comes late or leaves early', () => {
  it('is not yet there, then plays from its own first moment, then has left', () => {
    put('all', 0, 60_000);
    const late = put('late', 5000, 10_000, { start_ms: 100 });
    timeline.play();
    pass(4000);
    expect(timeline.phase('late')).toBe('before');
    expect(late.paused).toBe(true);
    pass(4000);
    expect(timeline.phase('late')).toBe('within');
    expect(Math.abs(timeline.drift_ms('late') ?? 999)).toBeLessThan(30);
    pass(9000);
    expect(timeline.phase('late')).toBe('after');
    expect(late.paused).toBe(true);
  });

  it('is started a moment early, so that it comes in on time', () => {
    const all = put('all', 0, 60_000);
    const late = put('late', 5000, 10_000, { start_ms: 80 });
    timeline.play();
    pass(5400);
    expect(Math.abs(all.currentTime - (late.currentTime + 5))).toBeLessThan(0.04);
  });

  it('does not hold the others when its file is a little shorter than promised', () => {
    put('all', 0, 60_000);
    const short = new FakeMedia(9.8);
    media.push(short);
    timeline.add('short', short, { offset_ms: 0, duration_ms: 10_000 });
    timeline.play();
    pass(13_000);
    expect(timeline.snapshot().at_ms).toBeGreaterThan(12_500);
  });
});

describe('a seek', () => {
  it('moves every element to the same moment, each by its own offset', () => {
    const first = put('first', 0, 60_000);
    const second = put('second', 2300, 50_000);
    timeline.seek(20_000);
    expect(first.currentTime).toBe(20);
    expect(second.currentTime).toBeCloseTo(17.7, 6);
  });

  it('while playing goes on from there once all are ready', () => {
    const first = put('first', 0, 60_000, { seek_ms: 100 });
    const second = put('second', 0, 60_000, { seek_ms: 400 });
    timeline.play();
    pass(1000);
    timeline.seek(30_000);
    pass(300);
    expect(timeline.snapshot()).toMatchObject({ waiting: true, at_ms: 30_000 });
    pass(1300);
    expect(timeline.snapshot().at_ms).toBeGreaterThan(30_500);
    expect(Math.abs(first.currentTime - second.currentTime)).toBeLessThan(0.05);
  });

  it('stays inside the recording', () => {
    put('a', 0, 60_000);
    timeline.seek(-500);
    expect(timeline.snapshot().at_ms).toBe(0);
    timeline.seek(99_000);
    expect(timeline.snapshot().at_ms).toBe(60_000);
  });
});

it('changes speed without moving the clock', () => {
  put('a', 0, 60_000);
  timeline.play();
  pass(2000);
  const before = timeline.snapshot().at_ms;
  timeline.setSpeed(3);
  expect(timeline.snapshot().at_ms).toBeCloseTo(before, 6);
  pass(1000);
  expect(timeline.snapshot().at_ms).toBeCloseTo(before + 3000, -2);
});
