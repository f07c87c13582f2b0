import { expect, test } from 'vitest';
import { backoff_ms } from './backoff';
import { lineBetween, totals } from './line';
import { CALM_MS, patience, QUIET_MS } from './patience';
import { afterReport, FULL_PICTURE, limits, type PictureState } from './thin';

test('waits between tries grow from 0.3 s to 2 s and are spread', () => {
  expect(backoff_ms(0, 0.5)).toBe(300);
  expect(backoff_ms(3, 0.5)).toBe(2000);
  expect(backoff_ms(99, 0.999)).toBeLessThanOrEqual(2400);
  expect(backoff_ms(0, 0)).toBe(240);
});

test('a short loss is not mentioned, a long one calls the desk', () => {
  expect(patience(null)).toBe('quiet');
  expect(patience(QUIET_MS - 1)).toBe('quiet');
  expect(patience(QUIET_MS)).toBe('calm');
  expect(patience(CALM_MS)).toBe('call_desk');
});

function after(reports: ('good' | 'poor' | 'bad' | 'lost')[], from: PictureState = FULL_PICTURE) {
  return reports.reduce(afterReport, from);
}

test('one bad report changes nothing, two slow the picture, four nearly stop it', () => {
  expect(after(['bad']).picture).toBe('full');
  expect(after(['bad', 'bad']).picture).toBe('slow');
  expect(after(['bad', 'bad', 'bad', 'bad']).picture).toBe('still');
});

test('a line that is away is not a thin one', () => {
  expect(after(['lost', 'lost', 'lost', 'lost', 'lost']).picture).toBe('full');
  expect(after(['bad', 'lost', 'bad']).picture).toBe('full');
});

test('a picture comes back only after a long good spell', () => {
  const slow = after(['bad', 'bad']);
  expect(after(['good', 'good', 'poor', 'good', 'good'], slow).picture).toBe('slow');
  expect(after(['good', 'good', 'good', 'good', 'good', 'good'], slow).picture).toBe('full');
});

test('a paper keeps its full size on a thin line', () => {
  expect(limits('still', true).scaleResolutionDownBy).toBe(1);
  expect(limits('still', false).maxBitrate).toBeLessThan(100_000);
});

test('loss and rates are those between two samples', () => {
  const at = (received: number, lost: number, bytes: number): [string, unknown][] => [
    [
      'a',
      {
        type: 'inbound-rtp',
        kind: 'audio',
        packetsReceived: received,
        packetsLost: lost,
        bytesReceived: bytes,
      },
    ],
    ['p', { type: 'candidate-pair', nominated: true, currentRoundTripTime: 0.04 }],
  ];
  const line = lineBetween(totals(at(100, 0, 1000), 0), totals(at(190, 10, 2000), 2000));
  expect(line).toMatchObject({ rtt_ms: 40, loss_percent: 10, received_bps: 4000, hears: true });
});
