// How the pages about cases name things that the server gives in several languages or as a code.
import type { Locale } from '@/i18n';
import { daysUntil } from '@/i18n/format';
import type { CaseLine, CaseView, ClockView, RecordingView } from '@/wire/api';

/** A case carries its official's title in two languages. */
export function presiding(
  item: Pick<CaseView, 'official_title_zh' | 'official_title_en'>,
  locale: Locale,
): string {
  return locale === 'en' ? item.official_title_en : item.official_title_zh;
}

/** `22(1)` → its number and paragraph, for `cases.article` and `cases.article_paragraph`. */
export function splitArticle(article: string): { number: string; paragraph: string | null } {
  const found = /^(\d+)(?:\((\d+)\))?$/.exec(article);
  return { number: found?.[1] ?? article, paragraph: found?.[2] ?? null };
}

export type TagKind = 'plain' | 'good' | 'caution' | 'alarm';

export function stateKind(state: CaseLine['state']): TagKind {
  switch (state) {
    case 'closed':
    case 'replied':
      return 'good';
    case 'objected':
    case 'extended':
      return 'caution';
    case 'registered':
    case 'transferred':
    case 'assigned':
    case 'accepted':
    case 'not_accepted':
    case 'redirected':
      return 'plain';
    default: {
      const never: never = state;
      return never;
    }
  }
}

/** Over, close (three days or fewer), or time left. */
export function urgency(days_left: number): TagKind {
  if (days_left < 0) return 'alarm';
  return days_left <= 3 ? 'caution' : 'plain';
}

/** How far a clock has run, 0 to 100; a clock that has run out stays full. */
export function clockShare(clock: ClockView, today: string | Date): number {
  const whole = daysUntil(clock.due_on, clock.started_on);
  const gone = daysUntil(today, clock.started_on);
  return whole <= 0 ? 100 : Math.min(100, Math.max(0, (gone / whole) * 100));
}

/** A recording that will change by itself: ask again until it has settled. */
export function isUnsettled(recording: RecordingView | null): boolean {
  if (!recording) return false;
  return ['starting', 'capturing', 'captured', 'muxing'].includes(recording.state);
}

/** Whether there is something to watch: the parties' own files are there a second after the talk, long
 * before the recording is `ready`, and stay when a later step fails. */
export function isWatchable(recording: RecordingView | null): boolean {
  if (!recording || recording.state === 'expired') return false;
  return recording.files.some((file) => file.kind !== 'poster');
}

/** The step under way, as `cases.recording.stage.…` names it; null while none is. `queued`: what can be
 * watched already is, and the rest waits for its turn. */
export function stageOf(
  recording: RecordingView,
): 'seal' | 'mux' | 'verify' | 'poster' | 'compose' | 'queued' | null {
  if (recording.state !== 'muxing') return null;
  switch (recording.stage) {
    case 'seal':
    case 'verify':
    case 'poster':
    case 'compose':
      return recording.stage;
    case 'mux':
      return isWatchable(recording) ? 'queued' : 'mux';
    default:
      return null;
  }
}

const TRANSITION = 'transition:';

/** The states that `may` opens, in the order the server gives them. */
export function openSteps(may: readonly string[]): CaseLine['state'][] {
  return may
    .filter((each) => each.startsWith(TRANSITION))
    .map((each) => each.slice(TRANSITION.length) as CaseLine['state']);
}
