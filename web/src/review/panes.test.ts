import { describe, expect, it } from 'vitest';
import type { RecordingFileView, RecordingView } from '@/wire/api';
import { arrange, arrangeAround, gapsOfPane, panesOf } from './panes';

const file = (fields: Partial<RecordingFileView>) =>
  ({
    kind: 'party',
    label: '',
    offset_ms: 0,
    width: 640,
    height: 480,
    ...fields,
  }) as RecordingFileView;
const recording = (files: RecordingFileView[], gaps: RecordingView['gaps'] = []) =>
  ({ files, gaps }) as unknown as RecordingView;

describe('panes', () => {
  it('show the visitor first and the document camera last', () => {
    const panes = panesOf(
      recording([
        file({ participant_id: 'b', role: 'official' }),
        file({ participant_id: 'a', role: 'petitioner', kind: 'document' }),
        file({ participant_id: 'a', role: 'petitioner' }),
      ]),
    );
    expect(panes.map((pane) => [pane.kind, pane.role])).toEqual([
      ['party', 'petitioner'],
      ['party', 'official'],
      ['document', 'petitioner'],
    ]);
  });

  it('keep a party that came back in one pane, its files in order', () => {
    const panes = panesOf(
      recording([
        file({ id: 'second', participant_id: 'a', role: 'petitioner', offset_ms: 9000 }),
        file({ id: 'first', participant_id: 'a', role: 'petitioner' }),
      ]),
    );
    expect(panes).toHaveLength(1);
    expect(panes[0]?.files.map((each) => each.id)).toEqual(['first', 'second']);
  });

  it('give gaps of the document camera to its own pane', () => {
    const gap = { participant_id: 'a', start_ms: 0, end_ms: 5, cause: 'network' };
    const gaps = [
      { ...gap, label: 'camera' },
      { ...gap, label: 'document' },
    ];
    const [party, document] = panesOf(
      recording([
        file({ participant_id: 'a', role: 'petitioner' }),
        file({ participant_id: 'a', role: 'petitioner', kind: 'document' }),
      ]),
    );
    expect(party && gapsOfPane(gaps, party).map((each) => each.label)).toEqual(['camera']);
    expect(document && gapsOfPane(gaps, document).map((each) => each.label)).toEqual(['document']);
  });
});

describe('the stage', () => {
  const WIDTH = 1000;
  const HEIGHT = 500;
  const inside = (boxes: ReturnType<typeof arrange>) =>
    boxes.every(
      (box) =>
        box.left >= -0.01 &&
        box.top >= -0.01 &&
        box.left + box.width <= WIDTH + 0.01 &&
        box.top + box.height <= HEIGHT + 0.01,
    );

  it.each([1, 2, 3, 4, 5, 6])('holds %s pictures uncropped and inside', (count) => {
    const aspects = Array.from({ length: count }, (_, at) => (at % 2 ? 16 / 9 : 4 / 3));
    const boxes = arrange(aspects, WIDTH, HEIGHT, 10);
    expect(inside(boxes)).toBe(true);
    boxes.forEach((box, at) => expect(box.width / box.height).toBeCloseTo(aspects[at] ?? 0, 5));
  });

  it('puts an upright page beside the people, not under them', () => {
    const [visitor, official, page] = arrange([4 / 3, 16 / 9, 3 / 4], WIDTH, HEIGHT, 10);
    expect(page?.left).toBeGreaterThan((visitor?.left ?? 0) + (visitor?.width ?? 0));
    expect(page?.left).toBeGreaterThan((official?.left ?? 0) + (official?.width ?? 0));
    expect(page?.height).toBeGreaterThan(HEIGHT * 0.6);
  });

  it('makes one picture the largest by far when asked', () => {
    const boxes = arrangeAround(1, [4 / 3, 4 / 3, 4 / 3], WIDTH, HEIGHT, 10);
    expect(inside(boxes)).toBe(true);
    expect(boxes[1]?.width).toBeGreaterThan(2 * (boxes[0]?.width ?? 0));
  });

  it('survives a stage that is not laid out yet', () => {
    expect(arrange([4 / 3, 4 / 3], 0, 0, 10)).toHaveLength(2);
  });
});
