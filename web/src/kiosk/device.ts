// This kiosk: which county it stands in, and its one way to a human being.
import { shallowRef } from 'vue';
import { api, ApiError } from '@/api/client';
import type { KioskMe } from '@/wire/api';

export const kiosk = shallowRef<KioskMe | null>(null);

/** Null when this machine is not enrolled (any more). Throws when the server cannot say. */
export async function loadKiosk(): Promise<KioskMe | null> {
  try {
    kiosk.value = await api.get('/api/kiosk/me');
  } catch (error) {
    if (!(error instanceof ApiError) || (error.status !== 401 && error.status !== 403)) throw error;
    kiosk.value = null;
  }
  return kiosk.value;
}

export async function enrol(code: string): Promise<void> {
  kiosk.value = await api.post('/api/kiosk/enrol', { body: { code } });
}

/** Show on the desk's board that someone here needs help. */
export async function askHelp(): Promise<void> {
  await api.post('/api/kiosk/help');
}
