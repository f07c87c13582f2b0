// The reviewer's keyboard. A key is a deed; what it does to the player is the page's business.
import { SPEEDS } from './timeline';

export type Deed =
  | { kind: 'toggle' }
  | { kind: 'step'; by_ms: number }
  | { kind: 'slower' }
  | { kind: 'faster' }
  | { kind: 'next_mark' };

interface Key {
  key: string;
  shiftKey: boolean;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
}

export function deedOf(event: Key): Deed | null {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  const step_ms = event.shiftKey ? 15_000 : 5_000;
  switch (event.key) {
    case ' ':
      return { kind: 'toggle' };
    case 'ArrowLeft':
      return { kind: 'step', by_ms: -step_ms };
    case 'ArrowRight':
      return { kind: 'step', by_ms: step_ms };
    case '[':
      return { kind: 'slower' };
    case ']':
      return { kind: 'faster' };
    case 'm':
    case 'M':
      return { kind: 'next_mark' };
    default:
      return null;
  }
}

export function speedBeside(speed: number, by: 1 | -1): number {
  const at = SPEEDS.findIndex((each) => each === speed);
  return SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, (at < 0 ? 1 : at) + by))] ?? 1;
}
