// Loading as a page sees it: what is there, whether it is being fetched, what went wrong.
import { onScopeDispose, ref, shallowRef, type Ref, type ShallowRef } from 'vue';

export interface Load<T> {
  data: ShallowRef<T | null>;
  error: ShallowRef<unknown>;
  busy: Ref<boolean>;
  reload: () => Promise<void>;
}

interface LoadOptions {
  /** Fetch again this often while the page is visible. Old data stays on screen meanwhile. */
  every_ms?: number;
  /** Do not fetch until `reload` is called. */
  lazy?: boolean;
}

export function useLoad<T>(fetchIt: () => Promise<T>, options: LoadOptions = {}): Load<T> {
  const data = shallowRef<T | null>(null);
  const error = shallowRef<unknown>(null);
  const busy = ref(false);
  // Answers may arrive out of order; only the newest question counts.
  let newest = 0;
  async function reload(): Promise<void> {
    const mine = ++newest;
    busy.value = true;
    try {
      const answer = await fetchIt();
      if (mine !== newest) return;
      data.value = answer;
      error.value = null;
    } catch (problem) {
      if (mine === newest) error.value = problem;
    } finally {
      if (mine === newest) busy.value = false;
    }
  }
  if (!options.lazy) void reload();
  if (options.every_ms) {
    const timer = setInterval(() => {
      if (!document.hidden && !busy.value) void reload();
    }, options.every_ms);
    onScopeDispose(() => clearInterval(timer));
  }
  onScopeDispose(() => (newest = -1));
  return { data, error, busy, reload };
}

export interface Deed<A extends unknown[], T> {
  error: ShallowRef<unknown>;
  busy: Ref<boolean>;
  /** Undefined when it failed; the reason is then in `error`. */
  run: (...args: A) => Promise<T | undefined>;
}

/** Something a person asks for with a button: never twice at once, its failure kept for the page. */
export function useDeed<A extends unknown[], T>(doIt: (...args: A) => Promise<T>): Deed<A, T> {
  const error = shallowRef<unknown>(null);
  const busy = ref(false);
  async function run(...args: A): Promise<T | undefined> {
    if (busy.value) return undefined;
    busy.value = true;
    error.value = null;
    try {
      return await doIt(...args);
    } catch (problem) {
      error.value = problem;
      return undefined;
    } finally {
      busy.value = false;
    }
  }
  return { error, busy, run };
}

/** As `useDeed`, but nothing is dropped while one is under way: each is done after the one before. */
export function useDeedsInOrder<A extends unknown[], T>(
  doIt: (...args: A) => Promise<T>,
): Deed<A, T> {
  const error = shallowRef<unknown>(null);
  const busy = ref(false);
  let last: Promise<unknown> = Promise.resolve();
  async function run(...args: A): Promise<T | undefined> {
    const mine = last.then(() => doIt(...args));
    // The next one starts whether or not this one went well.
    const settled = mine.catch(() => undefined);
    last = settled;
    busy.value = true;
    error.value = null;
    try {
      return await mine;
    } catch (problem) {
      error.value = problem;
      return undefined;
    } finally {
      if (last === settled) busy.value = false;
    }
  }
  return { error, busy, run };
}
