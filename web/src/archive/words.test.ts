import { describe, expect, it } from 'vitest';
import { cooledShare, hoursLeft, isMoving, stateKind } from './words';

const cooling = (cooled_s: number) => ({ cooled_s, cooling_s: 72 * 3600 });

describe('cooling', () => {
  it('says an hour as long as any of it is left', () => {
    expect(hoursLeft(cooling(0))).toBe(72);
    expect(hoursLeft(cooling(72 * 3600 - 1))).toBe(1);
    expect(hoursLeft(cooling(72 * 3600))).toBe(0);
  });
  it('is whole only at its end', () => {
    expect(cooledShare(cooling(72 * 3600 - 1))).toBe(99);
    expect(cooledShare(cooling(72 * 3600))).toBe(100);
    expect(cooledShare(cooling(80 * 3600))).toBe(100);
  });
});

describe('a state', () => {
  it('is looked at again only while something happens by itself', () => {
    expect((['kept', 'due', 'hold', 'proposed', 'halted', 'deleted'] as const).some(isMoving)).toBe(
      false,
    );
    expect(isMoving('cooling') && isMoving('deleting')).toBe(true);
  });
  it('alarms from the second signature on', () => {
    expect(stateKind('proposed')).toBe('caution');
    expect(stateKind('cooling')).toBe('alarm');
  });
});
