import { expect, test } from 'vitest';
import {
  clockTime,
  dayInWords,
  daysUntil,
  duration,
  fileSize,
  localDay,
  timeOfDay,
} from './format';

test('an evening in UTC is already the next day here', () => {
  expect(localDay('2026-05-24T16:30:00Z')).toBe('2026-05-25');
  expect(clockTime('2026-05-24T16:30:00Z')).toBe('00:30');
});

test('days are said in words, in each language', () => {
  expect(dayInWords('2026-05-25', 'zh-CN')).toBe('5月25日 星期一');
  expect(dayInWords('2026-05-25', 'en')).toContain('25 May');
  expect(dayInWords('2026-05-25', 'bo')).toContain('གཟའ་ཟླ་བ།');
});

test('days are counted on the calendar, not in hours', () => {
  expect(daysUntil('2026-05-26', '2026-05-25T15:59:00Z')).toBe(1);
  expect(daysUntil('2026-05-25', '2026-05-26')).toBe(-1);
});

test('lengths and sizes', () => {
  expect(duration(522_900)).toBe('8:42');
  expect(duration(3_729_000)).toBe('1:02:09');
  expect(duration(-5)).toBe('0:00');
  expect(fileSize(1_500_000)).toBe('1.5 MB');
  expect(timeOfDay('09:00:00')).toBe('09:00');
});
