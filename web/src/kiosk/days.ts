// Reception days that this county may come to, soonest first.
import { api } from '@/api/client';
import { localDay } from '@/i18n/format';
import type { ReceptionDayView } from '@/wire/api';
import { kiosk } from './device';

const AHEAD_MS = 60 * 24 * 60 * 60 * 1000;

export async function comingDays(): Promise<ReceptionDayView[]> {
  const now = Date.now();
  const days = await api.get('/api/reception-days', {
    query: { from: localDay(new Date(now)), to: localDay(new Date(now + AHEAD_MS)) },
  });
  const county_id = kiosk.value?.county.id;
  return days
    .filter((day) => day.state === 'published')
    .filter((day) => day.counties.some((county) => county.id === county_id))
    .toSorted((a, b) => `${a.day} ${a.starts}`.localeCompare(`${b.day} ${b.starts}`));
}
