// For how long something has been wrong, in words that stand still for a while: a screen reader would
// read a counting number again at every step.
import { i18n } from '@/i18n';

const STEP_S = 10;

export function howLong(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  return seconds < 60
    ? i18n.global.t('common.how_long.seconds', {
        n: Math.max(STEP_S, seconds - (seconds % STEP_S)),
      })
    : i18n.global.t('common.how_long.minutes', { n: Math.floor(seconds / 60) });
}
