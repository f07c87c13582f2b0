// How the archivist's pages name what the server gives as codes and seconds.
import type { KeepingView } from '@/wire/api';

export type KeepingState = KeepingView['state'];
export type TagKind = 'plain' | 'good' | 'caution' | 'alarm';

export function stateKind(state: KeepingState): TagKind {
  switch (state) {
    case 'kept':
      return 'good';
    case 'due':
    case 'proposed':
      return 'caution';
    case 'cooling':
    case 'deleting':
    case 'halted':
      return 'alarm';
    case 'hold':
    case 'deleted':
      return 'plain';
    default: {
      const never: never = state;
      return never;
    }
  }
}

/** Whole hours that are still to pass; never 0 while any time is. */
export function hoursLeft(deletion: { cooled_s: number; cooling_s: number }): number {
  return Math.max(0, Math.ceil((deletion.cooling_s - deletion.cooled_s) / 3600));
}

/** How much of the cooling is over, 0 to 100; 100 only when all of it is. */
export function cooledShare(deletion: { cooled_s: number; cooling_s: number }): number {
  return Math.min(100, Math.floor((deletion.cooled_s / deletion.cooling_s) * 100));
}

/** Whether the page will change by itself. */
export function isMoving(state: KeepingState): boolean {
  return state === 'cooling' || state === 'deleting';
}
