// A screen that nobody touches belongs to the next person. Warns first, then wipes.
import { computed, onScopeDispose, ref, type ComputedRef, type Ref } from 'vue';

const WARN_FOR_MS = 15_000;
const TOUCHES = ['pointerdown', 'keydown', 'wheel'] as const;

/** Milliseconds left, given how long nobody touched anything. Infinity when the page never wipes. */
export function left_ms(limit_ms: number, untouched_ms: number): number {
  return limit_ms - untouched_ms;
}

interface Idle {
  /** Whole seconds left once they are few, else null. */
  warning_s: ComputedRef<number | null>;
  touch: () => void;
}

/** `limit_ms` may change with the page; Infinity = never. `onIdle` is called once per silence. */
export function useIdle(limit_ms: Ref<number>, onIdle: () => void): Idle {
  let touched_at = performance.now();
  let isDone = false;
  const left = ref(Infinity);
  function touch() {
    touched_at = performance.now();
    isDone = false;
    left.value = Infinity;
  }
  const timer = setInterval(() => {
    left.value = left_ms(limit_ms.value, performance.now() - touched_at);
    if (left.value > 0 || isDone) return;
    isDone = true;
    onIdle();
  }, 500);
  for (const kind of TOUCHES) addEventListener(kind, touch, { capture: true, passive: true });
  onScopeDispose(() => {
    clearInterval(timer);
    for (const kind of TOUCHES) removeEventListener(kind, touch, { capture: true });
  });
  return {
    warning_s: computed(() =>
      left.value > 0 && left.value <= WARN_FOR_MS ? Math.ceil(left.value / 1000) : null,
    ),
    touch,
  };
}
