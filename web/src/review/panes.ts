// Who is seen where. A pane is a party or the document camera; a party that came back after a lost
// line has several files, but one pane. `arrange` finds the largest pictures that fit a stage.
import type { GapView, RecordingFileView, RecordingView } from '@/wire/api';

export interface Pane {
  id: string;
  kind: 'party' | 'document' | 'composed';
  participant_id: string | null;
  role: string | null;
  label: string;
  files: RecordingFileView[];
  /** Width over height of the picture. */
  aspect: number;
}

const USUAL_ASPECT = 4 / 3;
const ORDER = ['petitioner', 'official', 'interpreter', 'department', 'desk', 'observer', 'device'];

const paneId = (file: RecordingFileView): string =>
  `${file.kind}:${file.participant_id ?? file.label}`;

function place(pane: Pane): number {
  if (pane.kind === 'document') return ORDER.length + 1;
  const at = ORDER.indexOf(pane.role ?? '');
  return at < 0 ? ORDER.length : at;
}

/** The panes of the separate view: visitor first, then the official, the document camera last. */
export function panesOf(recording: RecordingView): Pane[] {
  const panes = new Map<string, Pane>();
  for (const file of [...recording.files].sort((a, b) => a.offset_ms - b.offset_ms)) {
    if (file.kind !== 'party' && file.kind !== 'document') continue;
    const pane = panes.get(paneId(file));
    if (pane) pane.files.push(file);
    else panes.set(paneId(file), newPane(file, file.kind));
  }
  return [...panes.values()].sort((a, b) => place(a) - place(b));
}

/** The one picture made afterwards, or null while there is none. */
export function composedPane(recording: RecordingView): Pane | null {
  const file = recording.files.find((each) => each.kind === 'composed');
  return file ? newPane(file, 'composed') : null;
}

function newPane(file: RecordingFileView, kind: Pane['kind']): Pane {
  const { width, height, participant_id, role, label } = file;
  const aspect = width && height ? width / height : USUAL_ASPECT;
  return { id: paneId(file), kind, participant_id, role, label, files: [file], aspect };
}

const CAUSES = ['mute', 'away', 'network', 'disk', 'loss'] as const;

/** Why there is a gap, as far as the recorder knows; what it does not say was lost. */
export function gapCause(gap: GapView): (typeof CAUSES)[number] {
  return CAUSES.find((cause) => cause === gap.cause) ?? 'loss';
}

/** A participant's gaps are of the pane that shows the track that has them. */
export function gapsOfPane(gaps: readonly GapView[], pane: Pane): GapView[] {
  if (pane.kind === 'composed') return [];
  return gaps.filter(
    (gap) =>
      gap.participant_id === pane.participant_id &&
      (gap.label === 'document') === (pane.kind === 'document'),
  );
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/**
 * Boxes for pictures of these aspects, in order, uncropped and centred. Of all ways tried (rows, and
 * the last picture standing beside the others) the one that serves every picture best is taken.
 */
export function arrange(
  aspects: readonly number[],
  width: number,
  height: number,
  gap: number,
): Box[] {
  const ways: Box[][] = [];
  for (let count = 1; count <= aspects.length; count += 1)
    ways.push(stack(inRows(aspects, count), width, height, gap));
  const last = aspects.at(-1);
  if (last !== undefined && aspects.length > 2) {
    const others = aspects.slice(0, -1);
    for (let share = 0.2; share <= 0.6; share += 0.04)
      for (let count = 1; count <= others.length; count += 1)
        ways.push(beside(inRows(others, count), last, width, height, gap, width * share));
  }
  const best = ways.reduce<Box[] | null>(
    (found, way) => (found && evenness(found) >= evenness(way) ? found : way),
    null,
  );
  return best ?? [];
}

/** Large is good, but small hurts more: doubling one picture never pays for halving another. */
function evenness(boxes: readonly Box[]): number {
  return sum(boxes.map((box) => Math.log(Math.max(1, box.width * box.height))));
}

function stack(rows: number[][], width: number, height: number, gap: number): Box[] {
  const fits = rows.map((row) => (width - gap * (row.length - 1)) / sum(row));
  const row_height = Math.max(
    0,
    Math.min(...fits, (height - gap * (rows.length - 1)) / rows.length),
  );
  const used = rows.length * row_height + gap * (rows.length - 1);
  return rows.flatMap((row, at) => {
    let left = (width - (sum(row) * row_height + gap * (row.length - 1))) / 2;
    const top = (height - used) / 2 + at * (row_height + gap);
    return row.map((aspect) => {
      const box = { left, top, width: aspect * row_height, height: row_height };
      left += box.width + gap;
      return box;
    });
  });
}

function beside(
  rows: number[][],
  last: number,
  width: number,
  height: number,
  gap: number,
  side_width: number,
): Box[] {
  const main = stack(rows, width - side_width - gap, height, gap);
  const side = stack([[last]], side_width, height, gap).map((box) => ({
    ...box,
    left: box.left + width - side_width,
  }));
  return [...main, ...side];
}

/** As `arrange`, but one picture is large and the others stand in a column beside it. */
export function arrangeAround(
  main: number,
  aspects: readonly number[],
  width: number,
  height: number,
  gap: number,
): Box[] {
  const aspect = aspects[main];
  if (aspect === undefined || aspects.length < 2) return arrange(aspects, width, height, gap);
  const side_width = width * 0.22;
  const [large] = arrange([aspect], width - side_width - gap, height, gap);
  const others = aspects.filter((_, at) => at !== main);
  const natural = sum(others.map((each) => side_width / each)) + gap * (others.length - 1);
  const scale = Math.min(1, height / natural);
  let top = (height - natural * scale) / 2;
  return aspects.map((each, at) => {
    if (at === main && large) return large;
    const box = {
      left: width - side_width * scale,
      top,
      width: side_width * scale,
      height: (side_width / each) * scale,
    };
    top += box.height + gap * scale;
    return box;
  });
}

function inRows(aspects: readonly number[], count: number): number[][] {
  const each = Math.ceil(aspects.length / count);
  const rows: number[][] = [];
  for (let at = 0; at < aspects.length; at += each) rows.push(aspects.slice(at, at + each));
  return rows;
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

const AT_ONCE_MS = 1000;

/** Where a replay opens: when everyone who came at once can be seen, not the moment before. */
export function opensAt_ms(recording: RecordingView): number {
  const offsets = recording.files
    .filter((file) => file.kind === 'party')
    .map((file) => file.offset_ms)
    .filter((offset_ms) => offset_ms < AT_ONCE_MS);
  return Math.max(0, ...offsets);
}
