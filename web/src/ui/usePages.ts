// A list that comes page by page: the first by itself, each further one when somebody asks for it.
import { computed, shallowRef, watch, type ComputedRef } from 'vue';
import { useDeed, useLoad, type Deed, type Load } from './useLoad';

interface Page<Row> {
  items: readonly Row[];
  next_cursor: string | null;
}

export interface Pages<Row, P = Page<Row>> {
  first: Load<P>;
  more: Deed<[], void>;
  /** Every page that is shown, the first one before the others; empty until it has come. */
  all: ComputedRef<readonly P[]>;
  rows: ComputedRef<readonly Row[]>;
  hasMore: ComputedRef<boolean>;
}

/** `first.reload()` begins anew: what was asked for before it does not come in any more. */
export function usePages<P extends Page<unknown>>(
  ask: (cursor: string | null) => Promise<P>,
): Pages<P['items'][number], P> {
  const first = useLoad(() => ask(null));
  const further = shallowRef<readonly P[]>([]);
  watch(first.data, () => (further.value = []), { flush: 'sync' });
  const all = computed(() => (first.data.value ? [first.data.value, ...further.value] : []));
  const cursor = computed(() => all.value.at(-1)?.next_cursor ?? null);
  const more = useDeed(async () => {
    const after = first.data.value;
    const page = await ask(cursor.value);
    if (after === first.data.value) further.value = [...further.value, page];
  });
  return {
    first,
    more,
    all,
    rows: computed(() => all.value.flatMap((page) => page.items)),
    hasMore: computed(() => cursor.value !== null),
  };
}
