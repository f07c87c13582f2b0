// Points on the timeline and the lines of the minutes that belong to them. Pure.
import type { FindingView, MarkView, ReplayView, SpeechView } from '@/wire/api';

export type MarkKind = MarkView['kind'] | 'finding';

export interface Mark {
  id: string;
  kind: MarkKind;
  at_ms: number;
  /** Counted within its kind: the second demand is 2. */
  number: number;
  words: string;
}

export function marksOf(replay: ReplayView, findings: readonly FindingView[]): Mark[] {
  const all: Omit<Mark, 'number' | 'id'>[] = [
    ...replay.marks.map(({ kind, at_ms, label }) => ({ kind, at_ms, words: label })),
    ...findings.map(({ at_ms, text }) => ({ kind: 'finding' as const, at_ms, words: text })),
  ];
  all.sort((a, b) => a.at_ms - b.at_ms);
  const count: Partial<Record<MarkKind, number>> = {};
  return all.map((mark) => {
    const number = (count[mark.kind] ?? 0) + 1;
    count[mark.kind] = number;
    return { ...mark, number, id: `${mark.kind}-${number}` };
  });
}

/** Being exactly on a mark, or a moment past it, still means that one and not the next. */
const ON_IT_MS = 400;

export function nextMark(marks: readonly Mark[], at_ms: number): Mark | null {
  return marks.find((mark) => mark.at_ms > at_ms + ON_IT_MS) ?? null;
}

export interface PlacedMark {
  mark: Mark;
  left: number;
  lane: number;
  /** No room for its words: drawn as a dot, named on hover and to listeners. */
  isShort: boolean;
}

/** Give each flag a lane where it covers no other. `width_of` measures the flag's words. */
export function placeMarks(
  marks: readonly Mark[],
  duration_ms: number,
  width: number,
  lanes: number,
  width_of: (mark: Mark) => number,
): PlacedMark[] {
  const free_from = Array.from({ length: lanes }, () => 0);
  const placed: PlacedMark[] = [];
  for (const mark of marks) {
    const left = duration_ms > 0 ? (mark.at_ms / duration_ms) * width : 0;
    const needs = width_of(mark);
    const start = Math.min(left, width - needs);
    const lane = free_from.findIndex((from) => start >= from);
    if (lane < 0) {
      placed.push({ mark, left, lane: lanes - 1, isShort: true });
      continue;
    }
    free_from[lane] = start + needs + 4;
    placed.push({ mark, left: start, lane, isShort: false });
  }
  return placed;
}

export type MinutesLine =
  | { kind: 'demand'; id: string; at_ms: number; position: number; words: string }
  | {
      kind: 'answer';
      id: string;
      at_ms: number;
      position: number;
      words: string;
      demand: ReplayView['minutes']['demands'][number];
    }
  | { kind: 'material' | 'join' | 'leave'; id: string; at_ms: number; words: string };

/** What was said and shown, in the order of the talk. */
export function minutesLines(replay: ReplayView): MinutesLine[] {
  const lines: MinutesLine[] = [];
  for (const demand of replay.minutes.demands) {
    const { id, position, text, marked_at_ms, answer, answered_at_ms } = demand;
    lines.push({ kind: 'demand', id, at_ms: marked_at_ms, position, words: text });
    if (answer || demand.outcome)
      lines.push({
        kind: 'answer',
        id: `${id}-answer`,
        at_ms: answered_at_ms ?? marked_at_ms,
        position,
        words: answer ?? '',
        demand,
      });
  }
  replay.marks.forEach((mark, at) => {
    if (mark.kind === 'material' || mark.kind === 'join' || mark.kind === 'leave')
      lines.push({ kind: mark.kind, id: `mark-${at}`, at_ms: mark.at_ms, words: mark.label });
  });
  return lines.sort((a, b) => a.at_ms - b.at_ms);
}

/** The line that belongs to this moment: the last one that has begun. */
export function currentLine(lines: readonly { at_ms: number }[], at_ms: number): number {
  return lines.findLastIndex((line) => line.at_ms <= at_ms + ON_IT_MS);
}

/** Silence shorter than this is part of speaking. */
const SHORT_SILENCE_MS = 2500;
const RUN_UP_MS = 600;

/** Where to go on when nobody speaks here, or null when someone does or soon will. */
export function afterSilence(speech: readonly SpeechView[], at_ms: number): number | null {
  if (speech.some((span) => span.start_ms - RUN_UP_MS <= at_ms && at_ms < span.end_ms + RUN_UP_MS))
    return null;
  const next = Math.min(
    ...speech.filter((span) => span.start_ms > at_ms).map((span) => span.start_ms),
  );
  return Number.isFinite(next) && next - at_ms > SHORT_SILENCE_MS ? next - RUN_UP_MS : null;
}

/** Seconds at which the ruler is lettered, so that about `room` of them fit. */
export function rulerStep_ms(duration_ms: number, room: number): number {
  const steps_s = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const step = steps_s.find((each) => duration_ms / 1000 / each <= room);
  return (step ?? 3600) * 1000;
}
