// What the pages about cases ask of the server.
import { api } from '@/api/client';
import type { Locale } from '@/i18n';
import type {
  CasePage,
  CaseTransition,
  CaseView,
  DemandView,
  OrgUnitView,
  RecordingView,
} from '@/wire/api';

export interface CaseFilter {
  state?: CaseView['state'] | '';
  county_id?: string;
  q?: string;
  cursor?: string | null;
}

export function listCases(filter: CaseFilter): Promise<CasePage> {
  const { state, county_id, q, cursor } = filter;
  return api.get('/api/cases', {
    query: { state: state || null, county_id: county_id || null, q: q || null, cursor },
  });
}

/** `lang`: in which language the counting of deadlines is explained. */
export function getCase(case_id: string, lang: Locale): Promise<CaseView> {
  return api.get('/api/cases/{case_id}', { path: { case_id }, query: { lang } });
}

export function moveCase(case_id: string, step: CaseTransition, lang: Locale): Promise<CaseView> {
  return api.post('/api/cases/{case_id}/transitions', {
    path: { case_id },
    query: { lang },
    body: step,
  });
}

export function keepPromise(demand_id: string): Promise<DemandView> {
  return api.post('/api/demands/{demand_id}/kept', { path: { demand_id } });
}

export function retryRecording(case_id: string): Promise<RecordingView> {
  return api.post('/api/cases/{case_id}/recording/retry', { path: { case_id } });
}

export function orgUnits(level?: OrgUnitView['level']): Promise<OrgUnitView[]> {
  return api.get('/api/org-units', { query: { level } });
}
