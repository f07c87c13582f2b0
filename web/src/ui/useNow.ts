import { onScopeDispose, ref, type Ref } from 'vue';

/** The wall clock, refreshed every `every_ms` while the component lives. For showing, not measuring. */
export function useNow(every_ms = 1000): Readonly<Ref<Date>> {
  const now = ref(new Date());
  const timer = setInterval(() => (now.value = new Date()), every_ms);
  onScopeDispose(() => clearInterval(timer));
  return now;
}
