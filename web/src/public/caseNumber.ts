// The case number as a person types it. The server decides what is right; this only keeps the shape
// of the slip while typing: 513328-SP-20260525-00001-7.
const LENGTHS = [6, 8, 5, 1] as const;

/** Digits (and the check letter X) of whatever was typed or pasted, in the shape of the slip. */
export function shapeCaseNumber(typed: string): string {
  const plain = typed
    .normalize('NFKC')
    .toUpperCase()
    .replace(/SP/g, '')
    .replace(/[^0-9X]/g, '');
  const parts: string[] = [];
  let at = 0;
  for (const length of LENGTHS) {
    const part = plain.slice(at, at + length);
    if (!part) break;
    parts.push(part);
    at += length;
  }
  const [county, ...rest] = parts;
  if (county === undefined) return '';
  return rest.length ? [county, 'SP', ...rest].join('-') : county;
}

export function isWholeCaseNumber(text: string): boolean {
  return /^\d{6}-SP-\d{8}-\d{5}-[0-9X]$/.test(text);
}

/** The case number behind the # of a slip's QR code, or nothing. */
export function scannedNumber(hash: string): string {
  const found = /^#case=([0-9A-Za-z-]{4,64})$/.exec(hash);
  return found?.[1] ? shapeCaseNumber(found[1]) : '';
}
