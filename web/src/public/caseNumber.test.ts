import { expect, test } from 'vitest';
import { isWholeCaseNumber, scannedNumber, shapeCaseNumber } from './caseNumber';

test('digits alone take the shape of the slip', () => {
  expect(shapeCaseNumber('51332820260525000017')).toBe('513328-SP-20260525-00001-7');
});

test('a pasted number with full-width signs and spaces is the same number', () => {
  expect(shapeCaseNumber(' ５１３３２８－sp－20260525 00001 x')).toBe('513328-SP-20260525-00001-X');
});

test('half a number is kept as far as it goes', () => {
  expect(shapeCaseNumber('513')).toBe('513');
  expect(shapeCaseNumber('5133282026')).toBe('513328-SP-2026');
  expect(isWholeCaseNumber(shapeCaseNumber('5133282026'))).toBe(false);
});

test('digits beyond the last are dropped', () => {
  expect(shapeCaseNumber('513328202605250000179999')).toBe('513328-SP-20260525-00001-7');
});

test("a slip's QR code brings its number behind the #, and nothing else does", () => {
  expect(scannedNumber('#case=513328-SP-20260525-00001-7')).toBe('513328-SP-20260525-00001-7');
  for (const hash of ['', '#ask', '#case=', '#case=<b>', '#case=1']) {
    expect(scannedNumber(hash)).toBe('');
  }
});
