import { describe, expect, it } from 'vitest';
import type { ParticipantInfo, RecordingStatus, Track } from '@/wire/signaling';
import { arrange } from './panes';
import { dayAfter, lacksOf } from './promise';
import { proofOf, writtenOf } from './proof';

const status = (...ages: (number | null)[]): RecordingStatus => ({
  type: 'recording',
  state: 'recording',
  elapsed_ms: 0,
  tracks: ages.map((last_write_age_ms, index) => ({
    participant_id: `p${index}`,
    track: 'camera',
    bytes_written: 1000,
    last_write_age_ms,
  })),
  trouble: null,
  lost_packets: 0,
  late_ms: 0,
  unheard: [],
});
const unheard = { participant_id: 'p1', track: 'microphone', for_ms: 21_000 } as const;

describe('the proof of recording', () => {
  it('counts what has been written', () => {
    expect(proofOf('recording', status(100, 300), 500)).toMatchObject({
      state: 'recording',
      tracks: 2,
      bytes: 2000,
    });
  });

  it('names what the server misses', () => {
    const proof = proofOf('recording', { ...status(100), unheard: [unheard] }, 0);
    expect(proof).toMatchObject({ state: 'recording', unheard: [unheard] });
  });

  it('claims nothing once the server has not been heard for five seconds', () => {
    const proof = proofOf('preparing', { ...status(100), unheard: [unheard] }, 6_000);
    expect(proof).toMatchObject({ state: 'unknown', unheard: [] });
  });

  it('keeps saying trouble while the server is away', () => {
    expect(proofOf('trouble', status(100), 6_000).state).toBe('trouble');
  });

  it('lists every track by person, its age growing, and what was never written', () => {
    const people = [person('p1', 'petitioner'), person('p0', 'official')];
    const rows = writtenOf({ ...status(100, 300), unheard: [unheard] }, people, 500);
    expect(rows.map((each) => [each.key, each.age_ms, each.isUnheard])).toEqual([
      ['p1/microphone', null, true],
      ['p1/camera', 800, false],
      ['p0/camera', 600, false],
    ]);
  });
});

const person = (participant_id: string, role: string, ...tracks: Track[]) =>
  ({ participant_id, role, state: 'ready', tracks }) as unknown as ParticipantInfo;

describe('the arrangement of pictures', () => {
  it('shows the visitor large, the papers beside and everyone else small', () => {
    const panes = arrange(
      [
        person('me', 'official', 'camera'),
        person('desk', 'desk', 'camera'),
        person('visitor', 'petitioner', 'camera', 'document'),
      ],
      'me',
    );
    expect(panes.large?.participant_id).toBe('visitor');
    expect(panes.paper).toMatchObject({ track: 'document' });
    expect(panes.small.map((each) => each.participant_id)).toEqual(['desk']);
  });

  it('gives a document camera no face, and a hall screen its place', () => {
    const panes = arrange(
      [
        person('papers', 'device', 'document'),
        person('screen', 'display'),
        person('visitor', 'petitioner', 'camera'),
      ],
      'me',
    );
    expect(panes.large?.participant_id).toBe('visitor');
    expect(panes.paper?.participant.participant_id).toBe('papers');
    expect(panes.small.map((each) => each.participant_id)).toEqual(['screen']);
  });

  it('forgets whoever has left', () => {
    const gone = { ...person('visitor', 'petitioner'), state: 'left' } as ParticipantInfo;
    expect(arrange([gone], 'me').large).toBeNull();
  });
});

describe('what a demand lacks', () => {
  const nothing = { outcome: null, owner: null, due_on: null, answer: null };

  it('needs an outcome first', () => {
    expect(lacksOf(nothing)).toEqual(['outcome']);
  });

  it('needs a unit and a date when something is still to be done', () => {
    expect(lacksOf({ ...nothing, outcome: 'by_date' })).toEqual(['owner', 'due_on']);
  });

  it('needs the words of the answer when it was settled at once', () => {
    expect(lacksOf({ ...nothing, outcome: 'on_the_spot' })).toEqual(['answer']);
    expect(lacksOf({ ...nothing, outcome: 'on_the_spot', answer: '好' })).toEqual([]);
  });

  it('counts quick dates in local days, also shortly after midnight', () => {
    expect(dayAfter(new Date('2026-05-24T16:30:00Z'), 7)).toBe('2026-06-01');
  });
});
