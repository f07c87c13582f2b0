// Short news that needs no answer: "saved", "printed". Trouble belongs into the page, not here.
import { readonly, ref } from 'vue';

export interface Toast {
  id: number;
  words: string;
}
const SHOWN_MS = 4000;
const list = ref<Toast[]>([]);
let nextId = 1;

export const toasts = readonly(list);

export function say(words: string): void {
  const toast = { id: nextId++, words };
  list.value = [...list.value.slice(-2), toast];
  setTimeout(() => {
    list.value = list.value.filter((other) => other.id !== toast.id);
  }, SHOWN_MS);
}
