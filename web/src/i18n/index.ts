// Words. zh-CN is written first and is the fallback of every other language; catalogues are split by
// place, so that a page loads only its own words. A key is `<file>.<path>`, e.g. `common.save`.
import { computed } from 'vue';
import { createI18n, useI18n } from 'vue-i18n';

export const LOCALES = ['zh-CN', 'bo', 'en'] as const;
export type Locale = (typeof LOCALES)[number];

export const PLACES = [
  'public',
  'kiosk',
  'desk',
  'office',
  'schedule',
  'cases',
  'review',
  'archive',
  'admin',
] as const;
export type Place = (typeof PLACES)[number];
type Catalogue = Place | 'common' | 'errors';

/** Each language in its own words; never translated. */
export const LOCALE_NAMES: Record<Locale, string> = {
  'zh-CN': '汉语',
  bo: 'བོད་ཡིག',
  en: 'English',
};

type Messages = { [key: string]: string | Messages };
const files = import.meta.glob<Messages>('./*/*.json', { import: 'default' });

export const i18n = createI18n({
  legacy: false,
  locale: 'zh-CN' as Locale,
  fallbackLocale: 'zh-CN' as Locale,
  messages: { 'zh-CN': {}, bo: {}, en: {} } as Record<Locale, Messages>,
  // A gap in `bo` is normal and listed by `npm run i18n:check`; the console is not the place for it.
  missingWarn: false,
  fallbackWarn: false,
});

const loaded = new Set<string>();

async function load(locale: Locale, catalogue: Catalogue): Promise<void> {
  const name = `${locale}/${catalogue}`;
  if (loaded.has(name)) return;
  const file = files[`./${name}.json`];
  if (!file) return;
  i18n.global.mergeLocaleMessage(locale, { [catalogue]: await file() });
  loaded.add(name);
}

const wanted = new Set<Catalogue>(['common', 'errors']);

/** Load the words of a place for the language in use and its fallback. Resolves when they can be shown. */
export async function loadWords(...places: Place[]): Promise<void> {
  for (const place of places) wanted.add(place);
  const locales = new Set<Locale>(['zh-CN', currentLocale()]);
  await Promise.all(
    [...locales].flatMap((locale) => [...wanted].map((file) => load(locale, file))),
  );
}

/** Also load Tibetan and Chinese, for the kiosk's second line. */
export async function loadSecondLine(): Promise<void> {
  await Promise.all(
    (['zh-CN', 'bo'] as const).flatMap((locale) => [...wanted].map((file) => load(locale, file))),
  );
}

export function currentLocale(): Locale {
  return i18n.global.locale.value;
}

const REMEMBERED = 'reception.locale';

/** Change the language of the page. Staff pages remember it; a kiosk must forget with the visitor. */
export async function setLocale(locale: Locale, { remember = true } = {}): Promise<void> {
  // Words first: a page must not speak half of one language and half of another.
  await Promise.all([...wanted].map((file) => load(locale, file)));
  i18n.global.locale.value = locale;
  document.documentElement.lang = locale;
  if (remember) localStorage.setItem(REMEMBERED, locale);
}

export function rememberedLocale(): Locale {
  const kept = localStorage.getItem(REMEMBERED);
  return LOCALES.find((locale) => locale === kept) ?? 'zh-CN';
}

/** The kiosk's second line: Tibetan under Chinese and Chinese under Tibetan, where the words exist. */
export function useSecondLine() {
  const { t, te, locale } = useI18n({ useScope: 'global' });
  const other = computed<Locale | null>(() =>
    locale.value === 'zh-CN' ? 'bo' : locale.value === 'bo' ? 'zh-CN' : null,
  );
  return {
    other,
    second(key: string): string {
      const language = other.value;
      // A Tibetan page that already fell back to Chinese would only say the same twice.
      if (!language || !te(key, language) || !te(key, locale.value)) return '';
      return t(key, {}, { locale: language });
    },
    /** The language in which `key` is really said: for `lang`, which chooses letters and line height. */
    spokenIn(key: string): Locale {
      return te(key, locale.value) ? (locale.value as Locale) : 'zh-CN';
    },
  };
}
