// Every question the bureau's pages ask the server, in one place.
import { api } from '@/api/client';
import type { ReceptionDayCreate } from '@/wire/api';

export const officials = () => api.get('/api/officials');
export const counties = () => api.get('/api/org-units', { query: { level: 'county' } });
export const calendar = (from: string, to: string) =>
  api.get('/api/calendar', { query: { from, to } });
export const receptionDays = (from: string, to: string, official_id?: string) =>
  api.get('/api/reception-days', { query: { from, to, official_id } });
export const slots = (id: string) =>
  api.get('/api/reception-days/{day_id}/slots', { path: { day_id: id } });
export const create = (body: ReceptionDayCreate) => api.post('/api/reception-days', { body });
export const publish = (id: string) =>
  api.post('/api/reception-days/{day_id}/publish', { path: { day_id: id } });
export const cancel = (id: string, reason: string) =>
  api.post('/api/reception-days/{day_id}/cancel', { path: { day_id: id }, body: { reason } });
