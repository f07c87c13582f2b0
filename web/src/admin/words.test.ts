import { describe, expect, it } from 'vitest';
import type { KioskView, OrgUnitView } from '@/wire/api';
import { kioskState, refusedSince, spokenCode, treeOf } from './words';

const now = new Date('2026-05-25T02:00:00Z');
const kiosk = (fields: Partial<KioskView>) =>
  ({ enrolled_at: null, last_seen_at: null, revoked_at: null, ...fields }) as KioskView;

describe('refused connections', () => {
  it('are told while more of them come, and no longer when none do', () => {
    expect([refusedSince(0, 3), refusedSince(3, 3)]).toEqual([3, 0]);
  });

  it('say nothing on the first look, and are counted anew by a new server', () => {
    expect([refusedSince(null, 40), refusedSince(40, 2)]).toEqual([0, 2]);
  });
});

describe('a kiosk', () => {
  it('is waiting for its code until it was enrolled', () => {
    expect(kioskState(kiosk({}), now)).toBe('never');
  });

  it('is here while it is heard of, and away after three minutes of silence', () => {
    const enrolled_at = '2026-05-01T00:00:00Z';
    const here = kiosk({ enrolled_at, last_seen_at: '2026-05-25T01:58:00Z' });
    const away = kiosk({ enrolled_at, last_seen_at: '2026-05-25T01:56:00Z' });
    expect([here, away].map((each) => kioskState(each, now))).toEqual(['here', 'away']);
  });

  it('stays revoked whatever else is true of it', () => {
    const seen = { enrolled_at: now.toISOString(), last_seen_at: now.toISOString() };
    expect(kioskState(kiosk({ ...seen, revoked_at: now.toISOString() }), now)).toBe('revoked');
  });
});

it('a code is said in two halves', () => {
  expect(spokenCode('12345678')).toBe('1234 5678');
  expect(spokenCode('1234567')).toBe('1234 567');
});

it('the org tree hangs every unit under its parent, orphans on top', () => {
  const unit = (id: string, parent_id: string | null) => ({ id, parent_id }) as OrgUnitView;
  const tree = treeOf([unit('b', 'a'), unit('a', null), unit('c', 'b'), unit('x', 'gone')]);
  expect(tree.map((node) => node.unit.id)).toEqual(['a', 'x']);
  expect(tree[0]?.below[0]?.below[0]?.unit.id).toBe('c');
});
