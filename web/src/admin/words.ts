// What the operators' pages make of plain facts. Pure.
import type { KioskView, OrgUnitView } from '@/wire/api';

/** `never`: its code was not used yet. `away`: it has not been heard of for a while. */
export type KioskState = 'never' | 'here' | 'away' | 'revoked';

/** Kiosks report about once a minute. */
const HEARD_WITHIN_MS = 3 * 60_000;

export function kioskState(kiosk: KioskView, now: Date): KioskState {
  if (kiosk.revoked_at) return 'revoked';
  if (!kiosk.enrolled_at) return 'never';
  if (!kiosk.last_seen_at) return 'away';
  return now.getTime() - Date.parse(kiosk.last_seen_at) <= HEARD_WITHIN_MS ? 'here' : 'away';
}

/**
 * How many connections were refused between two reports, which is what asks for attention: the count
 * itself only grows. A smaller count is that of a server that has started anew.
 */
export function refusedSince(before: number | null, count: number): number {
  if (before === null) return 0;
  return count < before ? count : count - before;
}

export interface UnitNode {
  unit: OrgUnitView;
  below: UnitNode[];
}

/** The units as a tree. A unit whose parent is not in the list stands at the top. */
export function treeOf(units: readonly OrgUnitView[]): UnitNode[] {
  const nodes = new Map(units.map((unit) => [unit.id, { unit, below: [] } as UnitNode]));
  const top: UnitNode[] = [];
  for (const node of nodes.values()) {
    const parent = node.unit.parent_id ? nodes.get(node.unit.parent_id) : undefined;
    (parent?.below ?? top).push(node);
  }
  return top;
}

/** `123456` → `123 456`: read out over the telephone in halves. */
export function spokenCode(code: string): string {
  const half = Math.ceil(code.length / 2);
  return code.length < 6 ? code : `${code.slice(0, half)} ${code.slice(half)}`;
}
