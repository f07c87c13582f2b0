// My paper under the document camera: shown to the others, turned, held still, kept as a page.
import { onScopeDispose, ref, shallowRef, type ShallowRef } from 'vue';
import { api } from '@/api/client';
import { duration } from '@/i18n/format';
import { DeviceTrouble, findDocumentCamera, openDocumentCamera } from '@/rtc';
import { say, useDeed, useWords, type Call } from '@/ui';
import { PaperFeed, type Turns } from './paperFeed';

/** `face`: the camera that is taken already. */
export function useOwnPaper(call: Call, face: Readonly<ShallowRef<MediaStreamTrack | null>>) {
  const { t } = useWords();
  /** What is published of the paper; null while none is shown. */
  const track = shallowRef<MediaStreamTrack | null>(null);
  const turns = ref<Turns>(0);
  const isFrozen = ref(false);
  let feed: PaperFeed | null = null;
  onScopeDispose(() => feed?.close());

  function arrange() {
    if (!feed) return;
    track.value = feed.show({ turns: turns.value, isFrozen: isFrozen.value });
    call.session.setLocal('document', track.value);
  }
  function turn() {
    turns.value = ((turns.value + 1) % 4) as Turns;
    arrange();
  }
  function freeze() {
    isFrozen.value = !isFrozen.value;
    arrange();
  }

  const toggle = useDeed(async () => {
    if (feed) {
      call.session.setLocal('document', null);
      feed.close();
      feed = null;
      track.value = null;
      return;
    }
    const device_id = await findDocumentCamera(face.value);
    if (!device_id) throw new DeviceTrouble('device_missing');
    feed = new PaperFeed(await openDocumentCamera(device_id));
    turns.value = 0;
    isFrozen.value = false;
    arrange();
  });

  const keep = useDeed(async () => {
    const session_id = call.state.value.room?.session_id;
    if (!feed || !session_id) return;
    const marked_at_ms = Math.round(call.elapsed_ms.value);
    const form = new FormData();
    form.append('file', await feed.grab(), 'page.jpg');
    form.append('title', t('kiosk.call.page_title', { time: duration(marked_at_ms) }));
    form.append('marked_at_ms', String(marked_at_ms));
    await api.post('/api/sessions/{session_id}/materials', { path: { session_id }, body: form });
    say(t('kiosk.call.page_kept'));
  });

  return { track, isFrozen, turn, freeze, toggle, keep };
}

export type OwnPaper = ReturnType<typeof useOwnPaper>;
