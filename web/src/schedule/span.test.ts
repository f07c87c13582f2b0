import { describe, expect, it } from 'vitest';
import type { ReceptionDayView } from '@/wire/api';
import { addMonths, cut, daysIn, dutyIn, overlaps, quarterOf, spanOf } from './span';

const day = (date: string, state = 'published', official = 'o') =>
  ({ day: date, state, official: { id: official } }) as ReceptionDayView;

describe('spans of days', () => {
  it('begins a week on Monday', () => {
    expect(spanOf('2026-05-24', 'week')).toEqual({ from: '2026-05-18', to: '2026-05-24' });
  });

  it('knows the length of February and the turn of the year', () => {
    expect(daysIn(spanOf('2028-02-10', 'month'))).toHaveLength(29);
    expect(addMonths('2026-12-31', 1)).toBe('2027-01-01');
    expect(quarterOf('2026-12-31')).toEqual({ from: '2026-10-01', to: '2026-12-31' });
  });
});

describe('duty', () => {
  it('counts days up to today as received, each date once, and no cancelled ones', () => {
    const days = [
      day('2026-05-07'),
      day('2026-05-07'),
      day('2026-05-20', 'cancelled'),
      day('2026-05-28'),
      day('2026-05-08', 'published', 'other'),
    ];
    const month = spanOf('2026-05-25', 'month');
    expect(dutyIn(days, 'o', month, '2026-05-25')).toEqual({ received: 1, published: 2 });
  });
});

describe('hours', () => {
  it('cuts whole slots only', () => {
    expect(cut('09:00', '10:00', 25)).toEqual(['09:00', '09:25']);
    expect(cut('10:00', '09:00', 20)).toEqual([]);
  });

  it('sees an overlap but not a neighbour', () => {
    const morning = { starts: '09:00:00', ends: '12:00:00' };
    expect(overlaps(morning, { starts: '11:30', ends: '13:00' })).toBe(true);
    expect(overlaps(morning, { starts: '12:00', ends: '13:00' })).toBe(false);
  });
});
