// Spoken words: clips recorded by people, one file per message and language, listed in a manifest.
// Where no clip was recorded there is nothing to press; the words on the screen stand alone.
import { shallowRef } from 'vue';
import type { Locale } from '@/i18n';

/** `clips/manifest.json`: language → names of the clips that exist as `clips/<language>/<name>.opus`. */
type Manifest = Partial<Record<Locale, readonly string[]>>;

const manifest = shallowRef<Manifest>({});
let asked = false;
let playing: HTMLAudioElement | null = null;

export async function loadClips(): Promise<void> {
  if (asked) return;
  asked = true;
  try {
    const response = await fetch('/clips/manifest.json');
    if (response.ok) manifest.value = (await response.json()) as Manifest;
  } catch {
    // Without the list the kiosk is silent, and complete.
    asked = false;
  }
}

export function hasClip(name: string, locale: Locale): boolean {
  return manifest.value[locale]?.includes(name) ?? false;
}

/** Play a clip to its end. Resolves with whether it was heard in full. */
export async function playClip(name: string, locale: Locale): Promise<boolean> {
  stopClip();
  const audio = new Audio(`/clips/${locale}/${name}.opus`);
  playing = audio;
  return new Promise((resolve) => {
    audio.onended = () => resolve(true);
    audio.onpause = () => resolve(audio.ended);
    audio.onerror = () => resolve(false);
    audio.play().catch(() => resolve(false));
  });
}

export function stopClip(): void {
  playing?.pause();
  playing = null;
}
