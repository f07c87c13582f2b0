import { computed } from 'vue';
import { useI18n } from 'vue-i18n';
import type { Locale } from '@/i18n';

/** The words of the page and the language they are in, for pages that also say names and dates. */
export function useWords() {
  const { t, te, locale } = useI18n({ useScope: 'global' });
  return { t, te, locale: computed(() => locale.value as Locale) };
}
