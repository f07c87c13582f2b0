// Months, weeks and quarters as lists of local days, and what a leader did in them. Pure.
import type { OfficialView, ReceptionDayView } from '@/wire/api';

export type Scale = 'week' | 'month';
const DAY_MS = 86_400_000;

// Days are counted at noon UTC, far from every edge.
const at = (day: string): Date => new Date(`${day}T12:00:00Z`);
const text = (date: Date): string => date.toISOString().slice(0, 10);

export const addDays = (day: string, days: number): string =>
  text(new Date(at(day).getTime() + days * DAY_MS));

export function addMonths(day: string, months: number): string {
  const date = at(day);
  return text(new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + months, 1, 12)));
}

export const weekdayOf = (day: string): number => (at(day).getUTCDay() + 6) % 7;

export interface Span {
  from: string;
  to: string;
}

/** The first day that is no weekend, `days` or more after `day`. Holidays are the page's to say. */
export function workdayAfter(day: string, days: number): string {
  let found = addDays(day, days);
  while (weekdayOf(found) > 4) found = addDays(found, 1);
  return found;
}

/** The week (Monday first) or month that `day` lies in. */
export function spanOf(day: string, scale: Scale): Span {
  if (scale === 'week') {
    const from = addDays(day, -weekdayOf(day));
    return { from, to: addDays(from, 6) };
  }
  const from = `${day.slice(0, 7)}-01`;
  return { from, to: addDays(addMonths(from, 1), -1) };
}

export function quarterOf(day: string): Span {
  const date = at(day);
  const first = Math.floor(date.getUTCMonth() / 3) * 3;
  const from = text(new Date(Date.UTC(date.getUTCFullYear(), first, 1, 12)));
  return { from, to: addDays(addMonths(from, 3), -1) };
}

export function daysIn({ from, to }: Span): string[] {
  const days: string[] = [];
  for (let day = from; day <= to; day = addDays(day, 1)) days.push(day);
  return days;
}

/** The smallest span that holds both. */
export const around = (a: Span, b: Span): Span => ({
  from: a.from < b.from ? a.from : b.from,
  to: a.to > b.to ? a.to : b.to,
});

export interface Duty {
  /** Published days up to and including today. */
  received: number;
  published: number;
}

/** Two days of one leader on one date are one day of duty. */
export function dutyIn(
  days: readonly ReceptionDayView[],
  official_id: string,
  span: Span,
  today: string,
): Duty {
  const dates = new Set(
    days
      .filter((each) => each.official.id === official_id && each.state === 'published')
      .map((each) => each.day)
      .filter((day) => day >= span.from && day <= span.to),
  );
  return {
    received: [...dates].filter((day) => day <= today).length,
    published: dates.size,
  };
}

export interface Row {
  official: OfficialView;
  byDay: ReadonlyMap<string, readonly ReceptionDayView[]>;
}

/** One row for each leader, whether or not there is anything in it. Cancelled days come last in a cell. */
export function rowsOf(
  officials: readonly OfficialView[],
  days: readonly ReceptionDayView[],
): Row[] {
  return officials.map((official) => {
    const byDay = new Map<string, ReceptionDayView[]>();
    for (const day of days) {
      if (day.official.id !== official.id) continue;
      byDay.set(day.day, [...(byDay.get(day.day) ?? []), day].sort(liveFirst));
    }
    return { official, byDay };
  });
}

const liveFirst = (a: ReceptionDayView, b: ReceptionDayView): number =>
  Number(a.state === 'cancelled') - Number(b.state === 'cancelled') ||
  a.starts.localeCompare(b.starts);

export const fullness = (day: ReceptionDayView): number =>
  day.slots_total ? day.slots_taken / day.slots_total : 0;

const minutes = (time: string): number => {
  const [hour = 0, minute = 0] = time.split(':').map(Number);
  return hour * 60 + minute;
};

/** The beginnings of the slots that these hours would be cut into, `HH:MM`. */
export function cut(starts: string, ends: string, slot_minutes: number): string[] {
  if (!starts || !ends || slot_minutes < 1) return [];
  const list: string[] = [];
  for (let at_min = minutes(starts); at_min + slot_minutes <= minutes(ends); at_min += slot_minutes)
    list.push(
      `${String(Math.floor(at_min / 60)).padStart(2, '0')}:${String(at_min % 60).padStart(2, '0')}`,
    );
  return list;
}

export const overlaps = (
  a: { starts: string; ends: string },
  b: { starts: string; ends: string },
): boolean => minutes(a.starts) < minutes(b.ends) && minutes(b.starts) < minutes(a.ends);
