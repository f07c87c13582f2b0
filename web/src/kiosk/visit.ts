// The visit that this kiosk serves just now. Only its random id outlives a reload, so that a browser
// that crashed in mid-call finds its way back; it goes with the wipe.
import { shallowRef } from 'vue';
import { api, ApiError } from '@/api/client';
import { setLocale } from '@/i18n';
import type { KioskVisit } from '@/wire/api';
import { releaseDevices } from './media';

const KEPT = 'reception.visit';

export const visit = shallowRef<KioskVisit | null>(null);

export function serve(next: KioskVisit): void {
  visit.value = next;
  sessionStorage.setItem(KEPT, next.appointment_id);
}

/** After a reload: fetch the visit again, or forget it if the server no longer knows it. */
export async function restoreVisit(): Promise<void> {
  const appointment_id = sessionStorage.getItem(KEPT);
  if (!appointment_id || visit.value) return;
  try {
    visit.value = await api.get('/api/kiosk/visit/{appointment_id}', { path: { appointment_id } });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    sessionStorage.removeItem(KEPT);
  }
}

export async function refreshVisit(): Promise<void> {
  if (!visit.value) return;
  const { appointment_id } = visit.value;
  visit.value = await api.get('/api/kiosk/visit/{appointment_id}', { path: { appointment_id } });
}

/** The page on which this visit goes on. */
export function pageFor(current: KioskVisit): string {
  switch (current.state) {
    case 'called':
      return '/kiosk/call';
    case 'held':
      return '/kiosk/result';
    case 'requested':
    case 'confirmed':
    case 'checked_in':
      if (!current.notice_given) return '/kiosk/notice';
      return current.device_checked ? '/kiosk/waiting' : '/kiosk/check';
    case 'no_show':
    case 'cancelled':
    case 'redirected':
      return '/kiosk/waiting';
    default: {
      const never: never = current.state;
      return never;
    }
  }
}

/** Leave nothing of the last person for the next one. */
export async function wipe(): Promise<void> {
  visit.value = null;
  sessionStorage.clear();
  releaseDevices();
  await setLocale('zh-CN', { remember: false });
}
