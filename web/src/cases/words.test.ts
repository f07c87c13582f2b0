import { describe, expect, it } from 'vitest';
import { clockShare, openSteps, splitArticle, urgency } from './words';

describe('the words of a case', () => {
  it('reads an article with and without a paragraph', () => {
    expect(splitArticle('22(1)')).toEqual({ number: '22', paragraph: '1' });
    expect(splitArticle('34')).toEqual({ number: '34', paragraph: null });
  });

  it('offers only the steps that the server allows', () => {
    expect(openSteps(['replay', 'transition:accepted', 'transition:objected'])).toEqual([
      'accepted',
      'objected',
    ]);
  });

  it('warns in the last three days and alarms after them', () => {
    expect([4, 3, 0, -1].map(urgency)).toEqual(['plain', 'caution', 'caution', 'alarm']);
  });

  it('fills a clock by days, never beyond its end', () => {
    const clock = { started_on: '2026-05-01', due_on: '2026-05-16' } as Parameters<
      typeof clockShare
    >[0];
    expect(clockShare(clock, '2026-05-01')).toBe(0);
    expect(clockShare(clock, '2026-05-04')).toBeCloseTo(20, 6);
    expect(clockShare(clock, '2026-06-30')).toBe(100);
  });
});
