import { expect, test } from 'vitest';
import { shapeNumber } from './shapeNumber';

test('a number takes the dashes of the slip as it is typed', () => {
  expect(shapeNumber('33')).toBe('33');
  expect(shapeNumber('332826112201')).toBe('3328-261122-01');
  expect(shapeNumber('33282611220147')).toBe('3328-261122-014-7');
});

test('a serial of four digits keeps its check digit apart', () => {
  expect(shapeNumber('332826112210147')).toBe('3328-261122-1014-7');
});
