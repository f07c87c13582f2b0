// Two house rules that no linter knows: colours live in tokens.css, and nothing points out of the house.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = new URL('..', import.meta.url).pathname;
const COLOUR = /#[0-9a-f]{3,8}\b|\b(?:rgba?|hsla?|oklch|oklab|lab|lch)\(/i;
const OUTSIDE = /https?:\/\/(?!www\.w3\.org\/(?:2000\/svg|1999\/xhtml))/;

function files(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return name === 'wire' ? [] : files(path);
    return /\.(ts|vue|css)$/.test(name) && !/\.test(-support)?\.ts$/.test(name) ? [path] : [];
  });
}

const troubles: string[] = [];
for (const path of files(join(ROOT, 'src'))) {
  const name = path.slice(ROOT.length);
  readFileSync(path, 'utf8')
    .split('\n')
    .forEach((line, index) => {
      const styled = path.endsWith('.css') || path.endsWith('.vue');
      if (styled && !name.endsWith('tokens.css') && COLOUR.test(line))
        troubles.push(`${name}:${index + 1}: a colour outside tokens.css`);
      if (OUTSIDE.test(line)) troubles.push(`${name}:${index + 1}: an address outside`);
    });
}
for (const trouble of troubles) process.stderr.write(`${trouble}\n`);
process.exitCode = troubles.length ? 1 : 0;
