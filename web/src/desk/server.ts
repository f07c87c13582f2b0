// Every question the desk's pages ask the server, in one place.
import { api } from '@/api/client';
import type {
  AppointmentCreate,
  CancelAppointment,
  DeviceCheck,
  DeviceGrantCreate,
  KioskCreate,
  Language,
  NoticeGiven,
} from '@/wire/api';

export const board = (day?: string) => api.get('/api/desk/board', { query: { day } });
export const alarms = () => api.get('/api/desk/alarms');
export const waiting = (id: string) =>
  api.get('/api/appointments/{appointment_id}/waiting', { path: { appointment_id: id } });
export const checkIn = (id: string) =>
  api.post('/api/appointments/{appointment_id}/check-in', { path: { appointment_id: id } });
export const noticeText = (lang: Language) => api.get('/api/notice', { query: { lang } });
export const giveNotice = (id: string, body: NoticeGiven) =>
  api.post('/api/appointments/{appointment_id}/notice', { path: { appointment_id: id }, body });
export const checkDevices = (id: string, body: DeviceCheck) =>
  api.post('/api/appointments/{appointment_id}/device-check', {
    path: { appointment_id: id },
    body,
  });
export const noShow = (id: string) =>
  api.post('/api/appointments/{appointment_id}/no-show', { path: { appointment_id: id } });
export const cancel = (id: string, body: CancelAppointment) =>
  api.post('/api/appointments/{appointment_id}/cancel', { path: { appointment_id: id }, body });
export const outcome = (id: string) =>
  api.get('/api/appointments/{appointment_id}/outcome', { path: { appointment_id: id } });
/** A PDF; opened in a tab of its own, where the browser prints it. */
export const slipAddress = (id: string, lang: string) =>
  `/api/appointments/${encodeURIComponent(id)}/slip.pdf?lang=${encodeURIComponent(lang)}`;

export const devicesGiven = (id: string) =>
  api.get('/api/appointments/{appointment_id}/device-grants', { path: { appointment_id: id } });
export const grantDevice = (id: string, body: DeviceGrantCreate) =>
  api.post('/api/appointments/{appointment_id}/device-grants', {
    path: { appointment_id: id },
    body,
  });
export const takeDeviceBack = (id: string, grant_id: string) =>
  api.delete('/api/appointments/{appointment_id}/device-grants/{grant_id}', {
    path: { appointment_id: id, grant_id },
  });

export const kiosks = () => api.get('/api/kiosks');
export const createKiosk = (body: KioskCreate) => api.post('/api/kiosks', { body });
export const revokeKiosk = (id: string) =>
  api.post('/api/kiosks/{kiosk_id}/revoke', { path: { kiosk_id: id } });
export const answerHelp = (id: string) =>
  api.post('/api/kiosks/{kiosk_id}/help-answered', { path: { kiosk_id: id } });

export const receptionDays = (from: string, to: string, county_id?: string) =>
  api.get('/api/reception-days', { query: { from, to, county_id } });
export const slots = (id: string) =>
  api.get('/api/reception-days/{day_id}/slots', { path: { day_id: id } });
export const hold = (id: string) =>
  api.post('/api/slots/{slot_id}/hold', { path: { slot_id: id } });
export const release = (token: string) => api.delete('/api/holds/{token}', { path: { token } });
export const book = (body: AppointmentCreate) => api.post('/api/appointments', { body });
