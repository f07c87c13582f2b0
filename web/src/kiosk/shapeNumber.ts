// The appointment's number while it is typed: county, day, rest; dashes as on the slip.
const GROUPS = [4, 6, 3, 1] as const;

/** `33282611220147` → `3328-261122-014-7`. A serial of four digits is read with its check digit. */
export function shapeNumber(digits: string): string {
  const isLong = digits.length > 14;
  const parts: string[] = [];
  let at = 0;
  for (const [index, length] of GROUPS.entries()) {
    const take = isLong && index === 2 ? 4 : length;
    const part = digits.slice(at, at + take);
    if (!part) break;
    parts.push(part);
    at += take;
  }
  return parts.join('-');
}
export const NUMBER_DIGITS = 15;
