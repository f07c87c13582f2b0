import { describe, expect, it } from 'vitest';
import type { RecordingView } from '@/wire/api';
import { clockShare, isWatchable, openSteps, splitArticle, stageOf, urgency } from './words';

const recording = (
  state: RecordingView['state'],
  stage: string | null,
  ...kinds: string[]
): RecordingView =>
  ({ state, stage, files: kinds.map((kind) => ({ kind })) }) as unknown as RecordingView;

describe('the words of a case', () => {
  it('reads an article with and without a paragraph', () => {
    expect(splitArticle('22(1)')).toEqual({ number: '22', paragraph: '1' });
    expect(splitArticle('34')).toEqual({ number: '34', paragraph: null });
  });

  it('offers only the steps that the server allows', () => {
    expect(openSteps(['replay', 'transition:accepted', 'transition:objected'])).toEqual([
      'accepted',
      'objected',
    ]);
  });

  it('warns in the last three days and alarms after them', () => {
    expect([4, 3, 0, -1].map(urgency)).toEqual(['plain', 'caution', 'caution', 'alarm']);
  });

  it('fills a clock by days, never beyond its end', () => {
    const clock = { started_on: '2026-05-01', due_on: '2026-05-16' } as Parameters<
      typeof clockShare
    >[0];
    expect(clockShare(clock, '2026-05-01')).toBe(0);
    expect(clockShare(clock, '2026-05-04')).toBeCloseTo(20, 6);
    expect(clockShare(clock, '2026-06-30')).toBe(100);
  });
});

describe('a recording that is still being made', () => {
  it('can be watched as soon as a party has a file, also when a later step fails', () => {
    expect(isWatchable(recording('muxing', 'mux'))).toBe(false);
    expect(isWatchable(recording('muxing', 'verify', 'party'))).toBe(true);
    expect(isWatchable(recording('failed', 'compose', 'party', 'poster'))).toBe(true);
    expect(isWatchable(recording('expired', null, 'party'))).toBe(false);
    expect(isWatchable(recording('ready', null, 'poster'))).toBe(false);
  });

  it('waits for its turn between the files and the check', () => {
    expect(stageOf(recording('muxing', 'mux'))).toBe('mux');
    expect(stageOf(recording('muxing', 'mux', 'party'))).toBe('queued');
    expect(stageOf(recording('muxing', 'verify', 'party'))).toBe('verify');
    expect(stageOf(recording('ready', null, 'party'))).toBeNull();
  });
});
