// What the operators' pages ask of the server.
import { api, request } from '@/api/client';
import type {
  AuditLineView,
  KioskCreate,
  KioskCreated,
  KioskView,
  Me,
  OrgUnitView,
} from '@/wire/api';

/** Hours that still fit on the disk against hours that are coming; see app/storage.py. */
export interface StorageForecast {
  is_enough: boolean;
  hours_free: number;
  hours_booked: number;
  hours_offered: number;
  /** The first day whose booked talks do not all fit; null while they do. */
  short_on: string | null;
  /** The same if every slot on offer is taken. */
  short_if_full_on: string | null;
}

/** What the nightly look at finished recordings found; see app/scrubbing.py. */
export interface ScrubReport {
  at: string;
  recordings: number;
  /** Ids of recordings in which something has changed. */
  damaged: string[];
  overdue: number;
  chain_problems: number;
  /** Nights went by without a look. */
  late: boolean;
}

/** What the server knows about itself; see app/health.py. */
export interface HealthReport {
  ready: Record<string, boolean>;
  node: string;
  roles: string[];
  free_disk_mib: number;
  storage: StorageForecast;
  rooms: number;
  /** Since this server started: beyond the bounds of signaling/doorway.py. */
  sockets_refused: number;
  events_waiting: number;
  recordings: Record<string, number>;
  /** Position of the first audit line that does not fit the chain; null while all do. */
  audit_chain_broken_at: number | null;
  /** Jobs that broke off; a person looks at each before it is tried again. */
  deletions_halted: number;
  /** So far off what is known, in seconds; null while nothing speaks against the clock. */
  clock_off_s: number | null;
  /** Null before the first night. */
  scrub: ScrubReport | null;
}

export function health(): Promise<HealthReport> {
  return request('get', '/api/admin/health');
}

export const AUDIT_PAGE = 50;

export function auditLines(before: number | null): Promise<AuditLineView[]> {
  return api.get('/api/admin/audit', { query: { before, most: AUDIT_PAGE } });
}

export function people(): Promise<Me[]> {
  return api.get('/api/admin/people');
}

export function units(): Promise<OrgUnitView[]> {
  return api.get('/api/org-units');
}

export function kiosks(): Promise<KioskView[]> {
  return api.get('/api/kiosks');
}

export function createKiosk(kiosk: KioskCreate): Promise<KioskCreated> {
  return api.post('/api/kiosks', { body: kiosk });
}

export function revokeKiosk(kiosk_id: string): Promise<KioskView> {
  return api.post('/api/kiosks/{kiosk_id}/revoke', { path: { kiosk_id } });
}
