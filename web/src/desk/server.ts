// Every question the desk's pages ask the server, in one place.
import { api } from '@/api/client';
import type {
  AppointmentCreate,
  CancelAppointment,
  DeviceCheck,
  KioskCreate,
  Language,
  NoticeGiven,
} from '@/wire/api';

export const board = (day?: string) => api.get('/api/desk/board', { query: { day } });
export const waiting = (id: string) => api.get('/api/appointments/{id}/waiting', { path: { id } });
export const checkIn = (id: string) =>
  api.post('/api/appointments/{id}/check-in', { path: { id } });
export const noticeText = (lang: Language) => api.get('/api/notice', { query: { lang } });
export const giveNotice = (id: string, body: NoticeGiven) =>
  api.post('/api/appointments/{id}/notice', { path: { id }, body });
export const checkDevices = (id: string, body: DeviceCheck) =>
  api.post('/api/appointments/{id}/device-check', { path: { id }, body });
export const noShow = (id: string) => api.post('/api/appointments/{id}/no-show', { path: { id } });
export const cancel = (id: string, body: CancelAppointment) =>
  api.post('/api/appointments/{id}/cancel', { path: { id }, body });
export const outcome = (id: string) => api.get('/api/appointments/{id}/outcome', { path: { id } });
/** A PDF; opened in a tab of its own, where the browser prints it. */
export const slipAddress = (id: string, lang: string) =>
  `/api/appointments/${encodeURIComponent(id)}/slip.pdf?lang=${encodeURIComponent(lang)}`;

export const kiosks = () => api.get('/api/kiosks');
export const createKiosk = (body: KioskCreate) => api.post('/api/kiosks', { body });
export const revokeKiosk = (id: string) => api.post('/api/kiosks/{id}/revoke', { path: { id } });
export const answerHelp = (id: string) =>
  api.post('/api/kiosks/{id}/help-answered', { path: { id } });

export const receptionDays = (from: string, to: string, county_id?: string) =>
  api.get('/api/reception-days', { query: { from, to, county_id } });
export const slots = (id: string) => api.get('/api/reception-days/{id}/slots', { path: { id } });
export const hold = (id: string) => api.post('/api/slots/{id}/hold', { path: { id } });
export const release = (token: string) => api.delete('/api/holds/{token}', { path: { token } });
export const book = (body: AppointmentCreate) => api.post('/api/appointments', { body });
