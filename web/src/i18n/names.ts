// Names of offices and titles in the page's language. Nobody's own name is ever needed here.
import type { OfficialView, OrgUnitView } from '@/wire/api';
import type { ParticipantInfo } from '@/wire/signaling';
import type { Locale } from './index';

type Named = Pick<OrgUnitView, 'name_zh' | 'name_bo' | 'name_en'>;
type Labelled = Pick<ParticipantInfo, 'label_zh' | 'label_bo' | 'label_en'>;
type Titled = Pick<OfficialView, 'title_zh' | 'title_bo' | 'title_en'>;

export function unitName(unit: Named, locale: Locale): string {
  if (locale === 'en') return unit.name_en;
  return (locale === 'bo' && unit.name_bo) || unit.name_zh;
}

export function officialTitle(official: Titled, locale: Locale): string {
  if (locale === 'en') return official.title_en;
  return (locale === 'bo' && official.title_bo) || official.title_zh;
}

/** Several things in a row, the way the language strings them together. */
export function listOf(items: readonly (string | number)[], locale: Locale): string {
  return items.join(locale === 'en' ? ', ' : '、');
}

/** Whose picture this is. In English it may be empty: then their role says it. */
export function participantLabel(participant: Labelled, locale: Locale): string {
  if (locale === 'en') return participant.label_en;
  return (locale === 'bo' && participant.label_bo) || participant.label_zh;
}
