// Tells the server what a reviewer has really watched: every ten seconds, and when the page goes away.
import { onScopeDispose, ref, shallowRef } from 'vue';
import type { PlaybackSpan, PlaybackView } from '@/wire/api';
import { reportWatched, reportWatchedOnLeave } from './calls';
import { Watched } from './watched';

const REPORT_EVERY_MS = 10_000;

export function useWatching(case_id: string, isReviewer: boolean) {
  const watched = new Watched();
  const coverage = ref<PlaybackView | null>(null);
  const seen = shallowRef<PlaybackSpan[]>([]);
  /** True while reports do not get through; what was watched is kept and sent later. */
  const unsent = ref(false);
  let isSending = false;

  async function report(isFirst = false): Promise<void> {
    if (!isReviewer || isSending) return;
    const spans = watched.take();
    if (spans.length === 0 && !isFirst) return;
    isSending = true;
    try {
      coverage.value = await reportWatched(case_id, spans);
      unsent.value = false;
    } catch {
      watched.restore(spans);
      unsent.value = true;
    } finally {
      isSending = false;
    }
  }

  function run(at_ms: number): void {
    // A page that nobody looks at is not being watched.
    if (document.hidden) watched.cut();
    else watched.see(at_ms);
    seen.value = watched.seen();
  }
  function cut(): void {
    watched.cut();
    seen.value = watched.seen();
  }

  function leave(): void {
    const spans = watched.take();
    if (isReviewer && spans.length > 0) reportWatchedOnLeave(case_id, spans);
  }
  function onHide(): void {
    if (document.hidden) leave();
  }

  void report(true);
  const timer = setInterval(() => void report(), REPORT_EVERY_MS);
  window.addEventListener('pagehide', leave);
  document.addEventListener('visibilitychange', onHide);
  onScopeDispose(() => {
    clearInterval(timer);
    window.removeEventListener('pagehide', leave);
    document.removeEventListener('visibilitychange', onHide);
    leave();
  });
  return { coverage, seen, unsent, run, cut };
}
