// What a demand still lacks before it is an answer one can hold someone to. Pure.
import { localDay } from '@/i18n/format';
import type { DemandView, Outcome } from '@/wire/api';

export const OUTCOMES: readonly Outcome[] = ['on_the_spot', 'by_date', 'reply_later', 'explained'];
export const QUICK_DAYS = [7, 15, 30] as const;

export type Lack = 'outcome' | 'owner' | 'due_on' | 'answer';

/** Someone must still do something: this outcome needs a unit and a date. */
export const needsPromise = (outcome: Outcome | null): boolean =>
  outcome === 'by_date' || outcome === 'reply_later';

export function lacksOf(
  demand: Pick<DemandView, 'outcome' | 'owner' | 'due_on' | 'answer'>,
): Lack[] {
  if (!demand.outcome) return ['outcome'];
  if (!needsPromise(demand.outcome)) return demand.answer?.trim() ? [] : ['answer'];
  const lacks: Lack[] = [];
  if (!demand.owner) lacks.push('owner');
  if (!demand.due_on) lacks.push('due_on');
  return lacks;
}

/** The local day `days` after the day of `now`. */
export function dayAfter(now: Date, days: number): string {
  const noon = new Date(`${localDay(now)}T12:00:00+08:00`);
  return localDay(new Date(noon.getTime() + days * 86_400_000));
}
