// An alarm is read out once. What counts in it must not have it read again.
import { expect, it } from 'vitest';
import { computed, createSSRApp, shallowRef } from 'vue';
import { renderToString } from 'vue/server-renderer';
import { i18n } from '@/i18n';
import office from '@/i18n/zh-CN/office.json';
import common from '@/i18n/zh-CN/common.json';
import { INITIAL } from '@/rtc';
import type { Call } from '@/ui';
import type { RecordingStatus } from '@/wire/signaling';
import RecordingNotices from './RecordingNotices.vue';

i18n.global.mergeLocaleMessage('zh-CN', { office, common });

/** What the page shows when nobody's microphone but mine has been silent for so long. */
async function shown(for_ms: number, me: string): Promise<string> {
  const recording: RecordingStatus = {
    type: 'recording',
    state: 'recording',
    elapsed_ms: for_ms,
    tracks: [],
    trouble: null,
    lost_packets: 0,
    late_ms: 0,
    unheard: [{ participant_id: 'p1', track: 'microphone', for_ms }],
  };
  const call = {
    state: shallowRef({ ...INITIAL, me, recording }),
    recording: computed(() => 'recording'),
  } as unknown as Call;
  return renderToString(createSSRApp(RecordingNotices, { call }).use(i18n));
}
const readOut = (page: string) => page.replace(/<span[^>]*aria-live="off"[^>]*>[^<]*<\/span>/g, '');

it.each(['p1', 'p2'])('says for how long nothing was recorded, to %s', async (me) => {
  const [soon, later] = [await shown(21_000, me), await shown(61_000, me)];
  expect(soon).toContain('20');
  expect(soon).not.toBe(later);
});

it.each(['p1', 'p2'])('has one alarm read once while the time goes on, to %s', async (me) => {
  const [soon, later] = [await shown(21_000, me), await shown(61_000, me)];
  expect(readOut(soon)).toBe(readOut(later));
  expect(soon.match(/role="alert"/g)).toHaveLength(1);
});
