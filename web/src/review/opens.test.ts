import { expect, test } from 'vitest';
import type { RecordingFileView, RecordingView } from '@/wire/api';
import { opensAt_ms } from './panes';

const file = (kind: RecordingFileView['kind'], offset_ms: number) =>
  ({ kind, offset_ms }) as RecordingFileView;
const recording = (...files: RecordingFileView[]) => ({ files }) as unknown as RecordingView;

test('a replay opens when everyone who came at once can be seen', () => {
  expect(opensAt_ms(recording(file('party', 309), file('party', 317)))).toBe(317);
});

test('who came late and the document camera do not move the beginning', () => {
  expect(
    opensAt_ms(recording(file('party', -5), file('party', 40_000), file('document', 900))),
  ).toBe(0);
});
