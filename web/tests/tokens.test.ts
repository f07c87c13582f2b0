// The palette keeps its promise: everything that carries words stands out 7:1 from its ground.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const css = readFileSync(new URL('../src/styles/tokens.css', import.meta.url), 'utf8');

function colour(name: string): [number, number, number] {
  const hex = new RegExp(`--${name}: #([0-9a-f]{6})`).exec(css)?.[1];
  if (!hex) throw new Error(`no colour --${name}`);
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)) as [number, number, number];
}

/** Relative luminance, WCAG 2.2. */
function luminance(name: string): number {
  const [r, g, b] = colour(name).map((channel) => {
    const c = channel / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [light, dark] = [luminance(a), luminance(b)].toSorted((x, y) => y - x) as [number, number];
  return (light + 0.05) / (dark + 0.05);
}

test.each([
  ['ink', 'paper'],
  ['ink', 'card'],
  ['ink', 'sunk'],
  ['ink-soft', 'paper'],
  ['ink-soft', 'card'],
  ['ink-soft', 'sunk'],
  ['ink-soft', 'pine-wash'],
  ['paper', 'ink'],
  ['on-colour', 'pine'],
  ['on-colour', 'pine-deep'],
  ['on-colour', 'vermilion'],
  ['on-colour', 'vermilion-deep'],
  ['pine', 'card'],
  ['pine', 'pine-wash'],
  ['pine-deep', 'pine-wash'],
  ['vermilion', 'vermilion-wash'],
  ['vermilion', 'card'],
  ['amber', 'amber-wash'],
  ['stage-ink', 'stage-card'],
  ['stage-soft', 'stage-card'],
  ['stage-pine', 'stage-card'],
  ['stage-vermilion', 'stage-card'],
  ['stage-amber', 'stage-card'],
])('%s on %s is at least 7:1', (words, ground) => {
  expect(contrast(words, ground)).toBeGreaterThanOrEqual(7);
});

test('letters grow with the size that a person has chosen in the browser, outside the hall', () => {
  const office = css.slice(0, css.indexOf("[data-density='hall']"));
  const sizes = [...office.matchAll(/--text-[a-z0-9]+: ([^;]+);/g)].map((each) => each[1]);
  expect(sizes).toHaveLength(6);
  for (const size of sizes) expect(size).toMatch(/rem$/);
});

test.each([
  ['line-strong', 'card'],
  ['line-strong', 'paper'],
  ['focus', 'paper'],
  ['stage-soft', 'stage'],
])('the edge %s can be seen on %s (3:1)', (edge, ground) => {
  expect(contrast(edge, ground)).toBeGreaterThanOrEqual(3);
});
