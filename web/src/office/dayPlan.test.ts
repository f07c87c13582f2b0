import { describe, expect, it } from 'vitest';
import type { AppointmentView, OfficeDay, ReceptionDayView } from '@/wire/api';
import { minuteOfDay, nextToReceive, planDay, tally } from './dayPlan';

const receptionDay = (change: Partial<ReceptionDayView> = {}) =>
  ({
    id: 'day',
    starts: '09:00:00',
    ends: '10:00:00',
    slot_minutes: 20,
    rooms: 1,
    state: 'published',
    ...change,
  }) as ReceptionDayView;
const appointment = (id: string, time: string, change: Partial<AppointmentView> = {}) =>
  ({
    id,
    state: 'confirmed',
    reception_day_id: 'day',
    slot: { room_no: 1, starts_at: `2026-05-25T${time}:00+08:00` },
    ...change,
  }) as AppointmentView;
const officeDay = (days: ReceptionDayView[], appointments: AppointmentView[]) =>
  ({ reception_days: days, appointments }) as unknown as OfficeDay;

describe('the drawing of a day', () => {
  it('reads a local time as minutes since midnight', () => {
    expect(minuteOfDay('09:30:00')).toBe(570);
  });

  it('cuts a reception day into slots and puts each appointment into its own', () => {
    const [stretch] = planDay(officeDay([receptionDay()], [appointment('a', '09:20')]));
    expect(stretch?.cells.map((cell) => cell.appointment?.id ?? null)).toEqual([null, 'a', null]);
  });

  it('gives each room a lane', () => {
    const second = appointment('b', '09:00', {
      slot: { room_no: 2, starts_at: '2026-05-25T01:00:00Z' },
    } as Partial<AppointmentView>);
    const [stretch] = planDay(officeDay([receptionDay({ rooms: 2 })], [second]));
    expect(stretch?.cells.find((cell) => cell.appointment)?.lane).toBe(1);
  });

  it('leaves the slot of a cancelled appointment free and a cancelled day out', () => {
    const gone = appointment('a', '09:00', { state: 'cancelled' });
    const plan = planDay(
      officeDay([receptionDay(), receptionDay({ id: 'x', state: 'cancelled' })], [gone]),
    );
    expect(plan).toHaveLength(1);
    expect(plan[0]?.cells.every((cell) => cell.appointment === null)).toBe(true);
  });
});

describe('whom to receive next', () => {
  it('returns to a talk under way before anyone else', () => {
    const next = nextToReceive([
      appointment('waiting', '09:00', { state: 'checked_in' }),
      appointment('live', '09:20', { state: 'called' }),
    ]);
    expect(next?.id).toBe('live');
  });

  it('takes whoever has arrived before an earlier one who has not', () => {
    const next = nextToReceive([
      appointment('absent', '09:00'),
      appointment('here', '09:40', { state: 'checked_in' }),
    ]);
    expect(next?.id).toBe('here');
  });

  it('never names the one who has just been received', () => {
    expect(nextToReceive([appointment('a', '09:00', { state: 'called' })], 'a')).toBeNull();
  });

  it('counts cancelled ones nowhere', () => {
    const all = [
      appointment('a', '09:00', { state: 'held' }),
      appointment('b', '09:20', { state: 'cancelled' }),
      appointment('c', '09:40', { state: 'no_show' }),
    ];
    expect(tally(all)).toEqual({ booked: 2, held: 1, ready: 0, noShow: 1 });
  });
});
