// A booking in the making. Pure: which question comes next, and what is sent at the end.
import type { AppointmentCreate, HoldView, Language, ReceptionDayView } from '@/wire/api';

export const STEPS = ['day', 'slot', 'matter', 'who', 'people', 'language', 'confirm'] as const;
export type Step = (typeof STEPS)[number];

/** What people come for most, with its drawing; the words are `kiosk.topics.<key>`. */
export const TOPICS = [
  { key: 'grassland', icon: 'grass' },
  { key: 'land', icon: 'scales' },
  { key: 'house', icon: 'house' },
  { key: 'road', icon: 'road' },
  { key: 'wages', icon: 'money' },
  { key: 'water', icon: 'water' },
  { key: 'school', icon: 'school' },
  { key: 'health', icon: 'health' },
  { key: 'other', icon: 'more' },
] as const;
export type Topic = (typeof TOPICS)[number]['key'];

export interface Draft {
  day: ReceptionDayView | null;
  hold: HoldView | null;
  topic: Topic | null;
  line: string;
  name: string;
  phone: string;
  village: string;
  people_total: number;
  representatives: string[];
  language: Language;
  needs_interpreter: boolean;
}

export function emptyDraft(language: Language): Draft {
  return {
    day: null,
    hold: null,
    topic: null,
    line: '',
    name: '',
    phone: '',
    village: '',
    people_total: 1,
    representatives: [],
    language,
    needs_interpreter: false,
  };
}

const MATTER_MAX = 200;

/** One line about the matter: the topic in Chinese (the ledger's language) and the person's words. */
export function matterLine(topic_zh: string, line: string): string {
  const words = line.trim();
  return (words ? `${topic_zh}：${words}` : topic_zh).slice(0, MATTER_MAX);
}

export function toRequest(
  draft: Draft,
  place: { county_id: string; kiosk_id: string },
  topic_zh: string,
): AppointmentCreate {
  if (!draft.hold) throw new Error('a booking needs a held time');
  const phone = draft.phone.trim();
  const others = draft.representatives.map((name) => name.trim()).filter(Boolean);
  return {
    hold_token: draft.hold.token,
    matter: matterLine(topic_zh, draft.line),
    language: draft.language,
    county_id: place.county_id,
    kiosk_id: place.kiosk_id,
    village: draft.village.trim(),
    party: [
      { name: draft.name.trim(), relation: 'petitioner', phone: phone || null },
      ...others.map((name) => ({ name, relation: 'representative' as const })),
    ],
    people_total: Math.max(draft.people_total, 1 + others.length),
    needs_interpreter: draft.needs_interpreter,
  };
}
