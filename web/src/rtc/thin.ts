// Audio first. On a thin line the picture slows down, then nearly stands still; sound is never touched.
import type { LineQuality } from '@/wire/signaling';

export type Picture = 'full' | 'slow' | 'still';

export interface PictureState {
  picture: Picture;
  /** Consecutive reports that point the same way; negative = bad. */
  streak: number;
}

export const FULL_PICTURE: PictureState = { picture: 'full', streak: 0 };
/** Reports come every two seconds: give way after four, take back after twelve. */
const BAD_REPORTS = 2;
const GOOD_REPORTS = 6;

const WORSE: Record<Picture, Picture> = { full: 'slow', slow: 'still', still: 'still' };
const BETTER: Record<Picture, Picture> = { full: 'full', slow: 'full', still: 'slow' };

/** The next picture after one more report about our own line. */
export function afterReport(state: PictureState, quality: LineQuality['quality']): PictureState {
  // 'lost' says that nothing comes through, not that the line is thin: a line that was away for ten
  // seconds would have brought five such words at once when it came back.
  if (quality === 'lost') return { ...state, streak: 0 };
  const isBad = quality === 'bad';
  const isGood = quality === 'good';
  const streak = isBad ? Math.min(state.streak, 0) - 1 : isGood ? Math.max(state.streak, 0) + 1 : 0;
  if (streak <= -BAD_REPORTS) return { picture: WORSE[state.picture], streak: 0 };
  if (streak >= GOOD_REPORTS) return { picture: BETTER[state.picture], streak: 0 };
  return { picture: state.picture, streak };
}

export interface PictureLimits {
  maxBitrate: number;
  maxFramerate: number;
  scaleResolutionDownBy: number;
}

/** Encoder limits for a camera (faces) or a document camera (letters: few frames, full size). */
export function limits(picture: Picture, isDocument: boolean): PictureLimits {
  switch (picture) {
    case 'full':
      return isDocument
        ? { maxBitrate: 1_500_000, maxFramerate: 10, scaleResolutionDownBy: 1 }
        : { maxBitrate: 1_200_000, maxFramerate: 25, scaleResolutionDownBy: 1 };
    case 'slow':
      return isDocument
        ? { maxBitrate: 400_000, maxFramerate: 3, scaleResolutionDownBy: 1 }
        : { maxBitrate: 250_000, maxFramerate: 8, scaleResolutionDownBy: 2 };
    case 'still':
      return isDocument
        ? { maxBitrate: 150_000, maxFramerate: 1, scaleResolutionDownBy: 1 }
        : { maxBitrate: 60_000, maxFramerate: 1, scaleResolutionDownBy: 3 };
    default: {
      const never: never = picture;
      return never;
    }
  }
}
