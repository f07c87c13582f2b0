// Dates, times and counts as people say them. Everything is shown in Asia/Shanghai, whatever zone the
// machine is set to. Instants arrive as ISO strings with an offset; days arrive as `YYYY-MM-DD`.
import type { Locale } from './index';

export const ZONE = 'Asia/Shanghai';
const MINUTE_MS = 60_000;

/** Intl knows no Tibetan month names in every build; weekdays are ours, dates in figures. */
const WEEKDAYS_BO = [
  'གཟའ་ཉི་མ།',
  'གཟའ་ཟླ་བ།',
  'གཟའ་མིག་དམར།',
  'གཟའ་ལྷག་པ།',
  'གཟའ་ཕུར་བུ།',
  'གཟའ་པ་སངས།',
  'གཟའ་སྤེན་པ།',
];

function asDate(value: string | Date): Date {
  if (value instanceof Date) return value;
  // A bare day is that day in our zone; noon keeps it there whatever the machine thinks.
  return /^\d{4}-\d{2}-\d{2}$/.test(value) ? new Date(`${value}T12:00:00+08:00`) : new Date(value);
}

function format(locale: Locale, value: string | Date, options: Intl.DateTimeFormatOptions): string {
  const tag = locale === 'en' ? 'en-GB' : 'zh-CN';
  return new Intl.DateTimeFormat(tag, { timeZone: ZONE, ...options }).format(asDate(value));
}

/** `2026-05-25`: the local calendar day of an instant. */
export function localDay(value: string | Date): string {
  return new Intl.DateTimeFormat('sv-SE', { timeZone: ZONE }).format(asDate(value));
}

/** 5月25日 星期五 · Friday 25 May */
export function dayInWords(value: string | Date, locale: Locale): string {
  if (locale === 'bo') {
    const day = format('zh-CN', value, { month: 'numeric', day: 'numeric' });
    return `${day} ${weekday(value, 'bo')}`;
  }
  if (locale === 'en') {
    return format(locale, value, { weekday: 'long', day: 'numeric', month: 'long' });
  }
  return `${format(locale, value, { month: 'long', day: 'numeric' })} ${weekday(value, locale)}`;
}

/** 2026年5月25日 · 25 May 2026 */
export function fullDay(value: string | Date, locale: Locale): string {
  return format(locale, value, { year: 'numeric', month: 'long', day: 'numeric' });
}

export function weekday(value: string | Date, locale: Locale): string {
  if (locale === 'bo') {
    const index = new Date(`${localDay(value)}T12:00:00Z`).getUTCDay();
    return WEEKDAYS_BO[index] ?? '';
  }
  return format(locale, value, { weekday: 'long' });
}

export function dayOfMonth(value: string | Date): string {
  return String(Number(localDay(value).slice(8)));
}

export function monthInWords(value: string | Date, locale: Locale): string {
  return format(locale, value, { month: 'long' });
}

/** 09:30, for tables and for people who read the clock. */
export function clockTime(value: string | Date): string {
  return new Intl.DateTimeFormat('en-GB', {
    timeZone: ZONE,
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  }).format(asDate(value));
}

export function clockTimeWithSeconds(value: string | Date): string {
  return new Intl.DateTimeFormat('en-GB', {
    timeZone: ZONE,
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hourCycle: 'h23',
  }).format(asDate(value));
}

/** 5月25日 09:30 */
export function dayAndTime(value: string | Date, locale: Locale): string {
  return `${format(locale, value, { month: 'short', day: 'numeric' })} ${clockTime(value)}`;
}

/** 2026年5月25日 09:30 · 25 May 2026 09:30, where years lie between */
export function fullDayAndTime(value: string | Date, locale: Locale): string {
  return `${fullDay(value, locale)} ${clockTime(value)}`;
}

export function timeRange(from: string | Date, to: string | Date): string {
  return `${clockTime(from)}–${clockTime(to)}`;
}

/** A length on a recording or a call: 8:42, 1:02:09. */
export function duration(milliseconds: number): string {
  const total = Math.max(0, Math.floor(milliseconds / 1000));
  const seconds = String(total % 60).padStart(2, '0');
  const minutes = Math.floor(total / 60) % 60;
  const hours = Math.floor(total / 3600);
  return hours > 0
    ? `${hours}:${String(minutes).padStart(2, '0')}:${seconds}`
    : `${minutes}:${seconds}`;
}

/** Whole local days from `today` to `day`; negative in the past. */
export function daysUntil(day: string | Date, today: string | Date): number {
  const at = (value: string | Date) => Date.parse(`${localDay(value)}T00:00:00Z`);
  return Math.round((at(day) - at(today)) / (24 * 60 * MINUTE_MS));
}

/** Sizes of files, in the units that people see on a disk. */
export function fileSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** `09:00:00` from the server → `09:00`. */
export function timeOfDay(time: string): string {
  return time.slice(0, 5);
}
