// Every question the leader's pages ask the server, in one place.
import { api, request } from '@/api/client';
import type { DemandChange, DemandCreate, MaterialView, MinutesChange } from '@/wire/api';

export const officeDay = (day?: string) => api.get('/api/office/day', { query: { day } });
export const brief = (id: string) =>
  api.get('/api/appointments/{appointment_id}/brief', { path: { appointment_id: id } });
export const appointment = (id: string) =>
  api.get('/api/appointments/{appointment_id}', { path: { appointment_id: id } });
export const waiting = (id: string) =>
  api.get('/api/appointments/{appointment_id}/waiting', { path: { appointment_id: id } });
export const enter = (id: string) =>
  api.post('/api/appointments/{appointment_id}/enter', { path: { appointment_id: id } });
export const noShow = (id: string) =>
  api.post('/api/appointments/{appointment_id}/no-show', { path: { appointment_id: id } });
export const outcome = (id: string) =>
  api.get('/api/appointments/{appointment_id}/outcome', { path: { appointment_id: id } });
export const orgUnits = () => api.get('/api/org-units');

export const minutes = (id: string) =>
  api.get('/api/sessions/{session_id}/minutes', { path: { session_id: id } });
export const saveMinutes = (id: string, body: MinutesChange) =>
  api.put('/api/sessions/{session_id}/minutes', { path: { session_id: id }, body });
export const addDemand = (id: string, body: DemandCreate) =>
  api.post('/api/sessions/{session_id}/demands', { path: { session_id: id }, body });
export const changeDemand = (id: string, body: DemandChange) =>
  api.patch('/api/demands/{demand_id}', { path: { demand_id: id }, body });
export const removeDemand = (id: string) =>
  api.delete('/api/demands/{demand_id}', { path: { demand_id: id } });

/** A still of the document camera, with the second at which it was shown. */
export function addMaterial(
  id: string,
  picture: Blob,
  title: string,
  marked_at_ms: number,
): Promise<MaterialView> {
  const body = new FormData();
  body.set('file', picture, 'page.jpg');
  body.set('title', title);
  body.set('marked_at_ms', String(Math.round(marked_at_ms)));
  return request('post', '/api/sessions/{session_id}/materials', {
    path: { session_id: id },
    body,
  });
}
