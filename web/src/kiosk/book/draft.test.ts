import { expect, test } from 'vitest';
import type { HoldView } from '@/wire/api';
import { emptyDraft, matterLine, toRequest } from './draft';

const hold: HoldView = {
  token: 'token',
  expires_at: '2026-05-25T01:05:00Z',
  slot: {
    id: 'slot',
    reception_day_id: 'day',
    room_no: 1,
    starts_at: '2026-05-25T02:00:00Z',
    ends_at: '2026-05-25T02:15:00Z',
    state: 'held',
  },
};
const place = { county_id: 'county', kiosk_id: 'kiosk' };

test('a topic alone is a matter, words are added to it', () => {
  expect(matterLine('草场', ' ')).toBe('草场');
  expect(matterLine('草场', '补偿没到户')).toBe('草场：补偿没到户');
  expect(matterLine('草场', '长'.repeat(300))).toHaveLength(200);
});

test('named representatives count as people even when nobody counted them', () => {
  const draft = { ...emptyDraft('bo'), hold, name: '甲', representatives: ['乙', ' ', '丙'] };
  const request = toRequest(draft, place, '草场');
  expect(request.people_total).toBe(3);
  expect(request.party.map((member) => member.relation)).toEqual([
    'petitioner',
    'representative',
    'representative',
  ]);
});

test('an empty telephone is no telephone', () => {
  const request = toRequest({ ...emptyDraft('zh-CN'), hold, name: '甲' }, place, '草场');
  expect(request.party[0]?.phone).toBeNull();
});
