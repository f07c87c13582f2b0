// The papers in front of the visitor's second camera: hold the picture, turn it, keep a page of it.
import { computed, ref, shallowRef, type Ref } from 'vue';
import type { MaterialView } from '@/wire/api';
import { useDeed, useWords } from '@/ui';
import { addMaterial } from '../server';
import { takeStill, toJpeg } from './still';

export type Turns = 0 | 1 | 2 | 3;

export function useDocumentView(
  session_id: Readonly<Ref<string | null>>,
  elapsed_ms: Readonly<Ref<number>>,
) {
  const { t } = useWords();
  const video = shallowRef<HTMLVideoElement | null>(null);
  const turns = ref<Turns>(0);
  /** What was held, and the second it was held at. */
  const held = shallowRef<{ canvas: HTMLCanvasElement; at_ms: number } | null>(null);
  const kept = shallowRef<readonly MaterialView[]>([]);

  function hold() {
    if (held.value) {
      held.value = null;
      return;
    }
    const canvas = video.value && takeStill(video.value, turns.value);
    if (canvas) held.value = { canvas, at_ms: elapsed_ms.value };
  }

  function turn() {
    held.value = null;
    turns.value = ((turns.value + 1) % 4) as Turns;
  }

  const keep = useDeed(async () => {
    const id = session_id.value;
    if (!id) return;
    const canvas = held.value?.canvas ?? (video.value && takeStill(video.value, turns.value));
    if (!canvas) return;
    const at_ms = held.value?.at_ms ?? elapsed_ms.value;
    const title = t('office.call.paper.page', { n: kept.value.length + 1 });
    kept.value = [...kept.value, await addMaterial(id, await toJpeg(canvas), title, at_ms)];
  });

  return {
    /** There is a picture of papers on screen. */
    isShown: computed(() => video.value !== null),
    watch: (element: HTMLVideoElement | null) => (video.value = element),
    turns,
    held,
    kept,
    hold,
    turn,
    keep,
    last: computed(() => kept.value.at(-1) ?? null),
  };
}

export type DocumentView = ReturnType<typeof useDocumentView>;
