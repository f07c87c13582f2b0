// A leader's day as a drawing: stretches of reception, cut into slots, taken or free. Pure.
import { clockTime } from '@/i18n/format';
import type { AppointmentView, OfficeDay, ReceptionDayView } from '@/wire/api';

export interface Cell {
  key: string;
  /** Minutes since local midnight. */
  starts_min: number;
  ends_min: number;
  /** Counted from 0; rooms stand beside each other. */
  lane: number;
  appointment: AppointmentView | null;
}

export interface Stretch {
  receptionDay: ReceptionDayView;
  starts_min: number;
  ends_min: number;
  lanes: number;
  cells: Cell[];
}

/** `09:30` or `09:30:00` → 570. */
export function minuteOfDay(time: string): number {
  const [hours = 0, minutes = 0] = time.split(':').map(Number);
  return hours * 60 + minutes;
}

export const minuteOf = (instant: string | Date): number => minuteOfDay(clockTime(instant));

const gaveTheSlotBack = (appointment: AppointmentView) =>
  appointment.state === 'cancelled' || appointment.state === 'redirected';

/** Stretches in the order of the clock. A cancelled appointment leaves its slot free. */
export function planDay(day: OfficeDay): Stretch[] {
  return day.reception_days
    .filter((each) => each.state === 'published')
    .map((receptionDay) => stretchOf(receptionDay, day.appointments))
    .sort((a, b) => a.starts_min - b.starts_min);
}

function stretchOf(day: ReceptionDayView, all: readonly AppointmentView[]): Stretch {
  const booked = all.filter((each) => each.reception_day_id === day.id && !gaveTheSlotBack(each));
  const starts_min = minuteOfDay(day.starts);
  const ends_min = minuteOfDay(day.ends);
  const cells: Cell[] = [];
  for (let lane = 0; lane < day.rooms; lane += 1) {
    for (let at = starts_min; at + day.slot_minutes <= ends_min; at += day.slot_minutes) {
      const appointment =
        booked.find((b) => b.slot.room_no === lane + 1 && minuteOf(b.slot.starts_at) === at) ??
        null;
      const key = `${day.id}/${lane}/${at}`;
      cells.push({ key, starts_min: at, ends_min: at + day.slot_minutes, lane, appointment });
    }
  }
  return { receptionDay: day, starts_min, ends_min, lanes: day.rooms, cells };
}

export interface Tally {
  booked: number;
  held: number;
  ready: number;
  noShow: number;
}

export function tally(appointments: readonly AppointmentView[]): Tally {
  const count = (...states: AppointmentView['state'][]) =>
    appointments.filter((each) => states.includes(each.state)).length;
  return {
    booked: appointments.length - count('cancelled', 'redirected'),
    held: count('held'),
    ready: count('checked_in'),
    noShow: count('no_show'),
  };
}

/** Whom to receive now: a talk under way, then whoever has arrived first by the slip, then who comes. */
export function nextToReceive(
  appointments: readonly AppointmentView[],
  except?: string,
): AppointmentView | null {
  const inOrder = appointments
    .filter((each) => each.id !== except)
    .sort((a, b) => a.slot.starts_at.localeCompare(b.slot.starts_at));
  for (const state of ['called', 'checked_in', 'confirmed'] as const) {
    const found = inOrder.find((each) => each.state === state);
    if (found) return found;
  }
  return null;
}
