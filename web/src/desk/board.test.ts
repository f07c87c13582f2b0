import { describe, expect, it } from 'vitest';
import type { AppointmentView, KioskView } from '@/wire/api';
import { healthOf, isStepDone, nextStep, stripOf } from './board';
import { emptyDraft, emptyPerson, missingIn, representatives, toRequest } from './form';

const visit = (change: Partial<AppointmentView> = {}) =>
  ({
    id: 'a',
    state: 'confirmed',
    number: '1',
    official: { id: 'o' },
    slot: {
      room_no: 1,
      starts_at: '2026-05-25T09:20:00+08:00',
      ends_at: '2026-05-25T09:40:00+08:00',
    },
    notice: null,
    device_checked_at: null,
    checked_in_at: null,
    ...change,
  }) as AppointmentView;

describe('what the desk does next', () => {
  it('goes from check-in over notice and devices to waiting', () => {
    const notice = { version: '1' } as AppointmentView['notice'];
    expect(nextStep(visit())).toBe('check_in');
    expect(nextStep(visit({ state: 'checked_in' }))).toBe('notice');
    expect(nextStep(visit({ state: 'checked_in', notice }))).toBe('device');
    const ready = visit({ state: 'checked_in', notice, device_checked_at: 'x' });
    expect(nextStep(ready)).toBe('wait');
    expect(isStepDone(ready, 'check_in')).toBe(true);
  });

  it('has nothing to do for someone who did not come', () => {
    expect(nextStep(visit({ state: 'no_show' }))).toBeNull();
  });

  it('does not call the notice done only because the talk has begun', () => {
    expect(isStepDone(visit({ state: 'called' }), 'notice')).toBe(false);
  });
});

describe('the health of a kiosk', () => {
  const now = new Date('2026-05-25T02:00:00Z');
  const kiosk = (change: Partial<KioskView>) =>
    ({ enrolled_at: 'x', last_seen_at: null, revoked_at: null, ...change }) as KioskView;

  it('is online while it was heard within three minutes', () => {
    expect(healthOf(kiosk({ last_seen_at: '2026-05-25T01:58:00Z' }), now)).toBe('online');
    expect(healthOf(kiosk({ last_seen_at: '2026-05-25T01:56:00Z' }), now)).toBe('away');
  });

  it('waits for its code before anything else is expected of it', () => {
    expect(healthOf(kiosk({ enrolled_at: null }), now)).toBe('waiting');
  });
});

describe('the strip of a day', () => {
  it('spans whole hours and places a visit by the clock', () => {
    const strip = stripOf([visit()]);
    expect(strip?.hours).toEqual([9, 10]);
    expect(strip?.lanes[0]?.blocks[0]?.left_percent).toBeCloseTo(33.33, 1);
  });

  it('is not drawn for an empty day', () => {
    expect(stripOf([])).toBeNull();
  });
});

describe('the form at the desk', () => {
  it('names everything that is missing', () => {
    expect(missingIn(emptyDraft(), false)).toEqual(['slot', 'name', 'matter']);
  });

  it('never claims fewer people than it names, and sends no empty numbers', () => {
    const draft = {
      ...emptyDraft(),
      matter: ' 草场 ',
      people_total: 1,
      party: [
        { ...emptyPerson('representative'), name: '洛绒' },
        { ...emptyPerson('companion'), name: '拥忠' },
      ],
    };
    const request = toRequest(draft, 'token', 'county');
    expect(request).toMatchObject({ matter: '草场', people_total: 2, kiosk_id: null });
    expect(request.party[0]?.id_number).toBeNull();
    expect(representatives(draft)).toBe(1);
  });
});
