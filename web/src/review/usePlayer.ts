// The timeline on a page: real media elements, a timer, and refs that templates can watch.
import { onScopeDispose, readonly, ref, shallowReactive } from 'vue';
import type { RecordingFileView } from '@/wire/api';
import { Timeline, type Phase } from './timeline';

const TICK_MS = 50;

export interface PlayerOptions {
  duration_ms: number;
  /** The clock ran on by itself to here. */
  onRun?: (at_ms: number) => void;
  /** The clock stopped or jumped. */
  onCut?: () => void;
}

export function usePlayer({ duration_ms, onRun, onCut }: PlayerOptions) {
  const timeline = new Timeline(duration_ms, () => performance.now());
  const at_ms = ref(0);
  const playing = ref(false);
  const waiting = ref(false);
  const speed = ref(1);
  /** Grows while the clock stands, so that what must keep moving (the watermark) does. */
  const idle_ms = ref(0);
  const phases = shallowReactive<Record<string, Phase>>({});
  const attached = new Map<string, () => void>();

  function refresh(): void {
    const before_ms = at_ms.value;
    const wasPlaying = playing.value;
    const now = timeline.tick();
    at_ms.value = now.at_ms;
    playing.value = now.playing;
    waiting.value = now.waiting;
    for (const id of attached.keys()) {
      const phase = timeline.phase(id);
      if (phases[id] !== phase) phases[id] = phase;
    }
    if (now.at_ms === before_ms) idle_ms.value += TICK_MS;
    if (wasPlaying && now.at_ms > before_ms) onRun?.(now.at_ms);
    if (wasPlaying && !now.playing) onCut?.();
  }

  /** Tie an element to its file; the answer unties it. Call before the element is taken away. */
  function attach(file: RecordingFileView, element: HTMLVideoElement): () => void {
    element.preservesPitch = true;
    const fail = () => timeline.fail(file.id);
    element.addEventListener('error', fail);
    timeline.add(file.id, element, { offset_ms: file.offset_ms, duration_ms: file.duration_ms });
    const detach = () => {
      element.removeEventListener('error', fail);
      timeline.remove(file.id);
      attached.delete(file.id);
    };
    attached.set(file.id, detach);
    if (element.error) fail();
    refresh();
    return detach;
  }

  function seek(to_ms: number): void {
    onCut?.();
    timeline.seek(to_ms);
    at_ms.value = timeline.snapshot().at_ms;
    refresh();
  }

  function toggle(): void {
    if (playing.value) timeline.pause();
    else {
      if (at_ms.value >= duration_ms) onCut?.();
      timeline.play();
    }
    refresh();
  }

  function pause(): void {
    timeline.pause();
    refresh();
  }

  function setSpeed(to: number): void {
    timeline.setSpeed(to);
    speed.value = to;
  }

  const timer = setInterval(refresh, TICK_MS);
  onScopeDispose(() => {
    clearInterval(timer);
    timeline.pause();
    for (const detach of [...attached.values()]) detach();
  });

  return {
    at_ms: readonly(at_ms),
    playing: readonly(playing),
    waiting: readonly(waiting),
    speed: readonly(speed),
    idle_ms: readonly(idle_ms),
    phases,
    attach,
    seek,
    toggle,
    pause,
    setSpeed,
  };
}

export type Player = ReturnType<typeof usePlayer>;
