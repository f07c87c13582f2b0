// What the replay asks of the server, and what it reports.
import { api, fillPath } from '@/api/client';
import type {
  FindingCreate,
  FindingView,
  PlaybackSpan,
  PlaybackView,
  ReplayView,
} from '@/wire/api';

/** Opening a replay is written into the audit log by the server. */
export function openReplay(case_id: string): Promise<ReplayView> {
  return api.get('/api/cases/{case_id}/recording', { path: { case_id } });
}

/** Report what was watched; nothing to report asks how much has been watched so far. */
export function reportWatched(
  case_id: string,
  spans: readonly PlaybackSpan[] = [],
): Promise<PlaybackView> {
  return api.post('/api/cases/{case_id}/playback', {
    path: { case_id },
    body: { spans: [...spans] },
  });
}

/** The last report of a page that is going away: nobody is left to read the answer. */
export function reportWatchedOnLeave(case_id: string, spans: readonly PlaybackSpan[]): void {
  void fetch(fillPath('/api/cases/{case_id}/playback', { case_id }), {
    method: 'POST',
    keepalive: true,
    credentials: 'same-origin',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ spans }),
  }).catch(() => undefined);
}

export function findings(case_id: string): Promise<FindingView[]> {
  return api.get('/api/cases/{case_id}/findings', { path: { case_id } });
}

export function pinFinding(case_id: string, finding: FindingCreate): Promise<FindingView> {
  return api.post('/api/cases/{case_id}/findings', { path: { case_id }, body: finding });
}
