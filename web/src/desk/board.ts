// The desk's day: what comes next for each visit, how kiosks are, where a visit stands in the day. Pure.
import { clockTime } from '@/i18n/format';
import type { AppointmentView, KioskView } from '@/wire/api';

export type Step = 'check_in' | 'notice' | 'device' | 'wait' | 'talk' | 'slip';
export const STEPS: readonly Step[] = ['check_in', 'notice', 'device', 'wait', 'talk', 'slip'];

/** What the desk has to do next, or null when there is nothing. */
export function nextStep(visit: AppointmentView): Step | null {
  switch (visit.state) {
    case 'requested':
    case 'confirmed':
      return 'check_in';
    case 'checked_in':
      if (!visit.notice) return 'notice';
      return visit.device_checked_at ? 'wait' : 'device';
    case 'called':
      return 'talk';
    case 'held':
      return 'slip';
    case 'no_show':
    case 'cancelled':
    case 'redirected':
      return null;
    default: {
      const never: never = visit.state;
      return never;
    }
  }
}

export function isStepDone(visit: AppointmentView, step: Step): boolean {
  const current = nextStep(visit);
  if (step === 'notice') return visit.notice !== null;
  if (step === 'device') return visit.device_checked_at !== null;
  if (current === null) return step === 'check_in' && visit.checked_in_at !== null;
  return STEPS.indexOf(step) < STEPS.indexOf(current);
}

/** A kiosk calls home far more often than this while its page is open. */
const AWAY_AFTER_MS = 3 * 60_000;
export type Health = 'revoked' | 'waiting' | 'online' | 'away';

export function healthOf(kiosk: KioskView, now: Date): Health {
  if (kiosk.revoked_at) return 'revoked';
  if (!kiosk.enrolled_at) return 'waiting';
  if (!kiosk.last_seen_at) return 'away';
  return now.getTime() - Date.parse(kiosk.last_seen_at) < AWAY_AFTER_MS ? 'online' : 'away';
}

export const byTime = (a: AppointmentView, b: AppointmentView): number =>
  a.slot.starts_at.localeCompare(b.slot.starts_at) || a.number.localeCompare(b.number);

export interface Lane {
  key: string;
  visit: AppointmentView;
  blocks: { visit: AppointmentView; left_percent: number; width_percent: number }[];
}
export interface DayStrip {
  /** Whole hours, from the one before the first visit to the one after the last. */
  hours: number[];
  lanes: Lane[];
  percentOf: (instant: string | Date) => number;
}

const HOUR_MIN = 60;
const minuteOf = (instant: string | Date): number => {
  const [hours = 0, minutes = 0] = clockTime(instant).split(':').map(Number);
  return hours * HOUR_MIN + minutes;
};

/** Who comes when, one lane for each leader. Null when nobody comes. */
export function stripOf(visits: readonly AppointmentView[]): DayStrip | null {
  if (!visits.length) return null;
  const starts = visits.map((each) => minuteOf(each.slot.starts_at));
  const ends = visits.map((each) => minuteOf(each.slot.ends_at));
  const first = Math.floor(Math.min(...starts) / HOUR_MIN);
  const last = Math.max(first + 1, Math.ceil(Math.max(...ends) / HOUR_MIN));
  const span = (last - first) * HOUR_MIN;
  const percentOf = (instant: string | Date) =>
    (100 * (minuteOf(instant) - first * HOUR_MIN)) / span;
  const lanes = new Map<string, Lane>();
  for (const visit of [...visits].sort(byTime)) {
    const key = `${visit.official.id}/${visit.slot.room_no}`;
    const lane = lanes.get(key) ?? { key, visit, blocks: [] };
    const left_percent = percentOf(visit.slot.starts_at);
    lane.blocks.push({
      visit,
      left_percent,
      width_percent: percentOf(visit.slot.ends_at) - left_percent,
    });
    lanes.set(key, lane);
  }
  const hours = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  return { hours, lanes: [...lanes.values()], percentOf };
}
