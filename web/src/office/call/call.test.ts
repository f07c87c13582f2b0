import { describe, expect, it } from 'vitest';
import type { ParticipantInfo, RecordingStatus, Track } from '@/wire/signaling';
import { arrange } from './panes';
import { dayAfter, lacksOf } from './promise';
import { proofOf } from './proof';

const status = (...ages: (number | null)[]): RecordingStatus => ({
  type: 'recording',
  state: 'recording',
  elapsed_ms: 0,
  tracks: ages.map((last_write_age_ms, index) => ({
    participant_id: `p${index}`,
    track: 'camera',
    bytes_written: 1,
    last_write_age_ms,
  })),
});

describe('the proof of recording', () => {
  it('counts the tracks and tells the age of the slowest as it grows', () => {
    expect(proofOf('recording', status(100, 300), 500)).toMatchObject({
      state: 'recording',
      tracks: 2,
      age_ms: 800,
    });
  });

  it('calls a track that has not been written for twenty seconds trouble', () => {
    const proof = proofOf('recording', status(100, 21_000), 0);
    expect(proof.state).toBe('trouble');
    expect(proof.silent).toHaveLength(1);
  });

  it('claims nothing once the server has not been heard for five seconds', () => {
    expect(proofOf('preparing', status(100), 6_000).state).toBe('unknown');
  });

  it('keeps saying trouble while the server is away', () => {
    expect(proofOf('trouble', status(100), 6_000).state).toBe('trouble');
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
