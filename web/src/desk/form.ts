// What is written down when someone stands at the desk, and whether it can be sent. Pure.
import type { AppointmentCreate, Language, Relation } from '@/wire/api';

export interface PersonDraft {
  key: number;
  name: string;
  relation: Relation;
  id_number: string;
  phone: string;
}
export interface Draft {
  matter: string;
  language: Language;
  needs_interpreter: boolean;
  village: string;
  kiosk_id: string;
  people_total: number;
  party: PersonDraft[];
}

/** The usual limit (信访工作条例 art. 20); the server's setting decides and says so. */
export const USUAL_REPRESENTATIVES = 5;

let nextKey = 1;
export const emptyPerson = (relation: Relation): PersonDraft => ({
  key: nextKey++,
  name: '',
  relation,
  id_number: '',
  phone: '',
});
export const emptyDraft = (): Draft => ({
  matter: '',
  language: 'zh-CN',
  needs_interpreter: false,
  village: '',
  kiosk_id: '',
  people_total: 1,
  party: [emptyPerson('petitioner')],
});

export const representatives = (draft: Draft): number =>
  draft.party.filter((person) => person.relation === 'representative').length;

export type Missing = 'slot' | 'matter' | 'name';
export function missingIn(draft: Draft, hasSlot: boolean): Missing[] {
  const missing: Missing[] = [];
  if (!hasSlot) missing.push('slot');
  if (draft.party.some((person) => !person.name.trim())) missing.push('name');
  if (!draft.matter.trim()) missing.push('matter');
  return missing;
}

export function toRequest(draft: Draft, hold_token: string, county_id: string): AppointmentCreate {
  return {
    hold_token,
    county_id,
    matter: draft.matter.trim(),
    language: draft.language,
    needs_interpreter: draft.needs_interpreter,
    village: draft.village.trim(),
    kiosk_id: draft.kiosk_id || null,
    people_total: Math.max(Number(draft.people_total) || 1, draft.party.length),
    party: draft.party.map((person) => ({
      name: person.name.trim(),
      relation: person.relation,
      id_number: person.id_number.trim() || null,
      phone: person.phone.trim() || null,
    })),
  };
}
