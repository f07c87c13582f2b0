// What the archivist's pages ask of the server.
import { api } from '@/api/client';
import type { KeepingPage, KeepingView, RuleView, WallClockView } from '@/wire/api';

export type Shelf = 'due' | 'asked' | 'held' | 'deleted' | 'all';
export type MatterClass = RuleView['matter_class'];

export function listKeeping(shelf: Shelf, cursor: string | null): Promise<KeepingPage> {
  return api.get('/api/keeping', { query: { shelf, cursor } });
}

export function getKeeping(case_id: string): Promise<KeepingView> {
  return api.get('/api/cases/{case_id}/keeping', { path: { case_id } });
}

export function classify(
  case_id: string,
  matter_class: MatterClass,
  words: string,
): Promise<KeepingView> {
  return api.put('/api/cases/{case_id}/keeping/class', {
    path: { case_id },
    body: { matter_class, words },
  });
}

export function placeHold(case_id: string, words: string): Promise<KeepingView> {
  return api.post('/api/cases/{case_id}/legal-holds', { path: { case_id }, body: { words } });
}

export function liftHold(case_id: string, hold_id: string, words: string): Promise<KeepingView> {
  return api.post('/api/cases/{case_id}/legal-holds/{hold_id}/lift', {
    path: { case_id, hold_id },
    body: { words },
  });
}

export function propose(case_id: string, words: string): Promise<KeepingView> {
  return api.post('/api/cases/{case_id}/deletion', { path: { case_id }, body: { words } });
}

/** `deletion_id`: the one on the page, so that nobody confirms another than they read. */
export function confirmDeletion(case_id: string, deletion_id: string): Promise<KeepingView> {
  return api.post('/api/cases/{case_id}/deletion/confirm', {
    path: { case_id },
    body: { deletion_id },
  });
}

export function cancelDeletion(case_id: string, words: string): Promise<KeepingView> {
  return api.post('/api/cases/{case_id}/deletion/cancel', { path: { case_id }, body: { words } });
}

/** What broke it off has been looked at: its job begins once more. */
export function retryDeletion(case_id: string): Promise<KeepingView> {
  return api.post('/api/cases/{case_id}/deletion/retry', { path: { case_id } });
}

export function readClock(): Promise<WallClockView> {
  return api.get('/api/keeping/clock');
}

/** `my_time`: this computer's own clock, the second witness. */
export function confirmClock(my_time: string): Promise<WallClockView> {
  return api.post('/api/keeping/clock/confirm', { body: { my_time } });
}
