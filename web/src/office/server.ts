// Every question the leader's pages ask the server, in one place.
import { api, request } from '@/api/client';
import type { DemandChange, DemandCreate, MaterialView, MinutesChange } from '@/wire/api';

export const officeDay = (day?: string) => api.get('/api/office/day', { query: { day } });
export const brief = (id: string) => api.get('/api/appointments/{id}/brief', { path: { id } });
export const appointment = (id: string) => api.get('/api/appointments/{id}', { path: { id } });
export const waiting = (id: string) => api.get('/api/appointments/{id}/waiting', { path: { id } });
export const enter = (id: string) => api.post('/api/appointments/{id}/enter', { path: { id } });
export const noShow = (id: string) => api.post('/api/appointments/{id}/no-show', { path: { id } });
export const outcome = (id: string) => api.get('/api/appointments/{id}/outcome', { path: { id } });
export const orgUnits = () => api.get('/api/org-units');

export const minutes = (id: string) => api.get('/api/sessions/{id}/minutes', { path: { id } });
export const saveMinutes = (id: string, body: MinutesChange) =>
  api.put('/api/sessions/{id}/minutes', { path: { id }, body });
export const addDemand = (id: string, body: DemandCreate) =>
  api.post('/api/sessions/{id}/demands', { path: { id }, body });
export const changeDemand = (id: string, body: DemandChange) =>
  api.patch('/api/demands/{id}', { path: { id }, body });
export const removeDemand = (id: string) => api.delete('/api/demands/{id}', { path: { id } });

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
  return request('post', '/api/sessions/{id}/materials', { path: { id }, body });
}
