// Five minutes in which a slot is ours. Leaving the page gives it back at once.
import { computed, onScopeDispose, shallowRef, type Ref } from 'vue';
import { ApiError } from '@/api/client';
import type { HoldView, SlotView } from '@/wire/api';
import { hold as askFor, release } from './server';

export function useHold(now: Readonly<Ref<Date>>) {
  const held = shallowRef<HoldView | null>(null);
  const error = shallowRef<unknown>(null);
  /** Free slots nearby, when the wanted one was taken by someone else. */
  const nextFree = shallowRef<readonly SlotView[]>([]);
  const wanted = shallowRef<string | null>(null);

  const left_s = computed(() =>
    held.value
      ? Math.max(0, Math.ceil((Date.parse(held.value.expires_at) - now.value.getTime()) / 1000))
      : null,
  );
  const isExpired = computed(() => left_s.value === 0);

  function letGo() {
    const before = held.value;
    held.value = null;
    // A hold that cannot be given back ends by itself.
    if (before) release(before.token).catch(() => undefined);
  }

  async function take(slot: SlotView) {
    if (wanted.value) return;
    letGo();
    error.value = null;
    nextFree.value = [];
    wanted.value = slot.id;
    try {
      held.value = await askFor(slot.id);
    } catch (problem) {
      error.value = problem;
      if (problem instanceof ApiError && Array.isArray(problem.details['next_free']))
        nextFree.value = problem.details['next_free'] as SlotView[];
    } finally {
      wanted.value = null;
    }
  }

  onScopeDispose(letGo);
  return {
    held,
    error,
    nextFree,
    wanted,
    left_s,
    isExpired,
    take,
    letGo,
    /** The hold became an appointment; there is nothing to give back. */
    used: () => (held.value = null),
  };
}
