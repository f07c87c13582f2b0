import { expect, test } from 'vitest';
import type { ParticipantInfo, ParticipantRole, Track } from '@/wire/signaling';
import { isOfficialAway, panesOf } from './panes';

function someone(id: string, role: ParticipantRole, tracks: Track[]): ParticipantInfo {
  return {
    participant_id: id,
    role,
    label_zh: id,
    label_bo: null,
    label_en: id,
    state: 'ready',
    muted: [],
    tracks,
    speaking: false,
  };
}
const track = (id: string) => ({ id }) as MediaStreamTrack;

test('the official is large, papers come before other faces, and I am not among them', () => {
  const remote = new Map([
    ['desk', new Map<Track, MediaStreamTrack>([['camera', track('desk-camera')]])],
    [
      'official',
      new Map<Track, MediaStreamTrack>([
        ['camera', track('official-camera')],
        ['screen', track('official-screen')],
      ]),
    ],
  ]);
  const { main, others } = panesOf(
    [
      someone('me', 'petitioner', ['camera']),
      someone('desk', 'desk', ['camera']),
      someone('official', 'official', ['camera', 'screen']),
    ],
    remote,
    'me',
  );
  expect(main?.key).toBe('official');
  expect(others.map((pane) => pane.key)).toEqual(['official-screen', 'desk']);
});

test('who has switched the camera off keeps a place without a picture', () => {
  const remote = new Map([
    ['official', new Map<Track, MediaStreamTrack>([['camera', track('x')]])],
  ]);
  const { main } = panesOf([someone('official', 'official', ['microphone'])], remote, 'me');
  expect(main?.picture).toBeUndefined();
});

test('an official is away while silent and when gone, and back as soon as coming in', () => {
  const official = (state: ParticipantInfo['state']) => [
    someone('me', 'petitioner', ['camera']),
    { ...someone('official', 'official', ['camera']), state },
  ];
  expect(isOfficialAway(official('silent'))).toBe(true);
  expect(isOfficialAway(official('left'))).toBe(true);
  expect(isOfficialAway(official('joining'))).toBe(false);
  expect(isOfficialAway(official('ready'))).toBe(false);
  expect(isOfficialAway([someone('me', 'petitioner', ['camera'])])).toBe(false);
});

test('who has left is not shown', () => {
  const gone = { ...someone('official', 'official', ['camera']), state: 'left' as const };
  expect(panesOf([gone], new Map(), 'me').main).toBeNull();
});
