// A call as a page sees it: its state as a ref, and the moving clocks that follow from it.
import { computed, onScopeDispose, shallowRef, type ComputedRef, type ShallowRef } from 'vue';
import {
  CallSession,
  elapsed_ms,
  INITIAL,
  lost_for_ms,
  patience,
  recordingShown,
  type CallOptions,
  type CallState,
  type Patience,
} from '@/rtc';
import type { RecordingState } from '@/wire/signaling';

const TICK_MS = 250;

export interface Call {
  session: CallSession;
  state: ShallowRef<CallState>;
  /** The session's clock; marks are made on it. */
  elapsed_ms: ComputedRef<number>;
  /** Whole seconds until live, or null when no countdown runs. */
  live_in_s: ComputedRef<number | null>;
  patience: ComputedRef<Patience>;
  recording: ComputedRef<RecordingState>;
}

/** Open a call that lives as long as the component. Call `session.start()` when its tracks are set. */
export function useCall(options: CallOptions): Call {
  const session = new CallSession(options);
  const state = shallowRef<CallState>(INITIAL);
  const now_ms = shallowRef(performance.now());
  const stopHearing = session.onChange((next) => (state.value = next));
  const timer = setInterval(() => (now_ms.value = performance.now()), TICK_MS);
  const nudge = () => session.nudge();
  addEventListener('online', nudge);
  onScopeDispose(() => {
    clearInterval(timer);
    removeEventListener('online', nudge);
    stopHearing();
    session.dispose();
  });
  return {
    session,
    state,
    elapsed_ms: computed(() => elapsed_ms(state.value, now_ms.value)),
    live_in_s: computed(() => {
      const at = state.value.live_at_ms;
      return at === null ? null : Math.max(0, Math.ceil((at - now_ms.value) / 1000));
    }),
    patience: computed(() => patience(lost_for_ms(state.value, now_ms.value))),
    recording: computed(() => recordingShown(state.value, now_ms.value)),
  };
}
