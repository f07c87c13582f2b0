// Demands and summary of one session while it is written. The summary saves itself; when someone else
// saved meanwhile, both texts stay on screen until a person chooses.
import { computed, onScopeDispose, ref, shallowRef, watch, type Ref } from 'vue';
import { ApiError } from '@/api/client';
import type { DemandChange, DemandView, MinutesView } from '@/wire/api';
import * as server from '../server';

const SAVE_AFTER_MS = 900;
const RETRY_AFTER_MS = 4000;
const LOOK_AGAIN_MS = 5000;

export type Saving = 'saved' | 'waiting' | 'saving' | 'failed' | 'conflict';

export function useMinutes(session_id: Ref<string | null>, mayWrite: boolean) {
  const demands = shallowRef<readonly DemandView[]>([]);
  const summary = ref('');
  const saving = ref<Saving>('saved');
  const savedAt = ref<string | null>(null);
  const theirs = shallowRef<MinutesView | null>(null);
  const error = shallowRef<unknown>(null);
  let revision = 0;
  let kept = '';
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** Changes that the server has not confirmed; a poll must not undo them on screen. */
  let underway = 0;

  function take(view: MinutesView) {
    revision = view.revision;
    kept = view.summary;
    savedAt.value = view.saved_at;
  }

  async function look() {
    const id = session_id.value;
    if (!id || underway > 0) return;
    try {
      const view = await server.minutes(id);
      if (underway > 0) return;
      demands.value = view.demands;
      if (saving.value === 'saved' && view.revision !== revision) {
        take(view);
        summary.value = view.summary;
      }
      error.value = null;
    } catch (problem) {
      error.value = problem;
    }
  }

  async function save() {
    clearTimeout(timer);
    const id = session_id.value;
    if (!id || !mayWrite || saving.value === 'saving' || saving.value === 'conflict') return;
    const text = summary.value;
    if (text === kept) {
      saving.value = 'saved';
      return;
    }
    saving.value = 'saving';
    try {
      take(await server.saveMinutes(id, { summary: text, revision }));
      saving.value = 'saved';
      if (summary.value !== text) later(SAVE_AFTER_MS);
    } catch (problem) {
      if (problem instanceof ApiError && problem.status === 409) await showTheirs(id);
      else {
        saving.value = 'failed';
        later(RETRY_AFTER_MS);
      }
    }
  }

  async function showTheirs(id: string) {
    saving.value = 'conflict';
    try {
      theirs.value = await server.minutes(id);
    } catch {
      saving.value = 'failed';
      later(RETRY_AFTER_MS);
    }
  }

  function later(wait_ms: number) {
    if (saving.value !== 'failed') saving.value = 'waiting';
    clearTimeout(timer);
    timer = setTimeout(() => void save(), wait_ms);
  }

  /** End a conflict: keep what stands here, or take what was saved elsewhere. */
  function settle(keep: 'mine' | 'theirs') {
    const view = theirs.value;
    if (!view) return;
    take(view);
    theirs.value = null;
    saving.value = 'saved';
    if (keep === 'theirs') summary.value = view.summary;
    else void save();
  }

  watch(summary, (text) => {
    if (mayWrite && text !== kept && saving.value !== 'conflict') later(SAVE_AFTER_MS);
  });
  watch(session_id, look, { immediate: true });
  const poll = setInterval(() => void look(), LOOK_AGAIN_MS);
  onScopeDispose(() => {
    clearInterval(poll);
    clearTimeout(timer);
    void save();
  });

  function put(view: DemandView) {
    const known = demands.value.some((each) => each.id === view.id);
    demands.value = known
      ? demands.value.map((each) => (each.id === view.id ? view : each))
      : [...demands.value, view];
  }

  async function during<T>(deed: () => Promise<T>): Promise<T> {
    underway += 1;
    try {
      return await deed();
    } finally {
      underway -= 1;
    }
  }

  return {
    demands: computed(() => [...demands.value].sort((a, b) => a.position - b.position)),
    summary,
    saving,
    savedAt,
    theirs,
    error,
    save,
    settle,
    look,
    add: (text: string, marked_at_ms: number) =>
      during(async () => {
        const id = session_id.value;
        if (!id) throw new ApiError('no_session', 'The talk has not begun yet.', 404);
        const made = await server.addDemand(id, { text, marked_at_ms: Math.round(marked_at_ms) });
        put(made);
        return made;
      }),
    change: (id: string, what: DemandChange) =>
      during(async () => put(await server.changeDemand(id, what))),
    remove: (id: string) =>
      during(async () => {
        await server.removeDemand(id);
        demands.value = demands.value.filter((each) => each.id !== id);
      }),
  };
}

export type Minutes = ReturnType<typeof useMinutes>;
