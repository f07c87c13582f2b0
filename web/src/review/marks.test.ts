import { describe, expect, it } from 'vitest';
import type { ReplayView, SpeechView } from '@/wire/api';
import { deedOf, speedBeside } from './keys';
import { afterSilence, currentLine, marksOf, minutesLines, nextMark, placeMarks } from './marks';

const demand = {
  id: 'd1',
  position: 1,
  text: 'pasture',
  marked_at_ms: 5000,
  outcome: 'by_date',
  answer: 'by June',
  answered_at_ms: 9000,
  owner: null,
  due_on: null,
  promise_state: null,
};
const replay = {
  marks: [
    { kind: 'promise', at_ms: 9000, label: 'by June', ref_id: 'd1' },
    { kind: 'demand', at_ms: 5000, label: 'pasture', ref_id: 'd1' },
    { kind: 'join', at_ms: 1000, label: 'official', ref_id: null },
    { kind: 'demand', at_ms: 20_000, label: 'road', ref_id: 'd2' },
  ],
  minutes: { demands: [demand] },
} as unknown as ReplayView;

describe('marks', () => {
  const marks = marksOf(replay, [
    { id: 'f', at_ms: 9500, text: 'note', author: 'r', created_at: '' },
  ]);

  it('are in the order of the talk and numbered within their kind', () => {
    expect(marks.map((mark) => `${mark.kind} ${mark.number}`)).toEqual([
      'join 1',
      'demand 1',
      'promise 1',
      'finding 1',
      'demand 2',
    ]);
  });

  it('lead on from the mark one stands on', () => {
    expect(nextMark(marks, 5000)?.at_ms).toBe(9000);
    expect(nextMark(marks, 30_000)).toBeNull();
  });

  it('never cover each other; what has no room becomes a dot', () => {
    const placed = placeMarks(marks, 40_000, 400, 2, () => 80);
    for (const lane of [0, 1]) {
      const flags = placed.filter((flag) => flag.lane === lane && !flag.isShort);
      flags.slice(1).forEach((flag, at) => {
        expect(flag.left).toBeGreaterThanOrEqual((flags[at]?.left ?? 0) + 80);
      });
    }
    expect(placed.some((flag) => flag.isShort)).toBe(true);
  });
});

it('the minutes tell demand and answer at their own seconds', () => {
  const lines = minutesLines(replay);
  expect(lines.map((line) => [line.kind, line.at_ms])).toEqual([
    ['join', 1000],
    ['demand', 5000],
    ['answer', 9000],
  ]);
  expect(currentLine(lines, 6000)).toBe(1);
  expect(currentLine(lines, 0)).toBe(-1);
});

describe('silence', () => {
  const speech = [
    { participant_id: 'a', start_ms: 1000, end_ms: 3000 },
    { participant_id: 'b', start_ms: 12_000, end_ms: 14_000 },
  ] as SpeechView[];

  it('is skipped up to a moment before someone speaks', () => {
    expect(afterSilence(speech, 5000)).toBe(11_400);
  });

  it('is kept when it is short, and after the last word', () => {
    expect(afterSilence(speech, 2000)).toBeNull();
    expect(afterSilence(speech, 10_500)).toBeNull();
    expect(afterSilence(speech, 20_000)).toBeNull();
  });
});

describe('the keyboard', () => {
  const key = (name: string, shiftKey = false) =>
    deedOf({ key: name, shiftKey, ctrlKey: false, metaKey: false, altKey: false });

  it('steps five seconds, fifteen with shift', () => {
    expect(key('ArrowLeft')).toEqual({ kind: 'step', by_ms: -5000 });
    expect(key('ArrowRight', true)).toEqual({ kind: 'step', by_ms: 15_000 });
  });

  it('leaves the keys of the browser alone', () => {
    expect(
      deedOf({ key: 'm', shiftKey: false, ctrlKey: true, metaKey: false, altKey: false }),
    ).toBeNull();
    expect(key('a')).toBeNull();
  });

  it('stays within the speeds there are', () => {
    expect([speedBeside(1, 1), speedBeside(3, 1), speedBeside(0.75, -1)]).toEqual([1.25, 3, 0.75]);
  });
});
