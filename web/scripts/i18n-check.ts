// Are all words there? zh-CN and en must be complete and ask for the same values; bo may have gaps,
// which `--report` lists. Keys that no page uses and keys that no catalogue has are refused.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = new URL('..', import.meta.url).pathname;
const CATALOGUES = join(ROOT, 'src/i18n');
const COMPLETE = ['zh-CN', 'en'];
const LANGUAGES = [...COMPLETE, 'bo'];
/** Codes come from the server: `errors.*` may know more or fewer than a page names. */
const OPEN_PREFIXES = ['errors.'];

type Tree = { [key: string]: string | Tree };

function flatten(tree: Tree, prefix: string, into: Map<string, string>): void {
  for (const [key, value] of Object.entries(tree)) {
    const path = `${prefix}.${key}`;
    if (typeof value === 'string') into.set(path, value);
    else flatten(value, path, into);
  }
}

function words(language: string): Map<string, string> {
  const all = new Map<string, string>();
  for (const file of readdirSync(join(CATALOGUES, language)).filter((n) => n.endsWith('.json'))) {
    const tree = JSON.parse(readFileSync(join(CATALOGUES, language, file), 'utf8')) as Tree;
    flatten(tree, file.replace('.json', ''), all);
  }
  return all;
}

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return name === 'wire' ? [] : sources(path);
    return /\.(ts|vue)$/.test(name) && !/\.test(-support)?\.ts$/.test(name) ? [path] : [];
  });
}

const placeholders = (text: string): string =>
  [...new Set([...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1]))].sort().join(',');

const byLanguage = new Map(LANGUAGES.map((language) => [language, words(language)]));
const first = byLanguage.get('zh-CN') ?? new Map<string, string>();
const troubles: string[] = [];

for (const language of LANGUAGES) {
  const own = byLanguage.get(language) ?? new Map<string, string>();
  for (const [key, text] of own) {
    const original = first.get(key);
    if (original === undefined) troubles.push(`${language}: ${key} is not in zh-CN`);
    else if (placeholders(original) !== placeholders(text))
      troubles.push(
        `${language}: ${key} asks for {${placeholders(text)}}, zh-CN for {${placeholders(original)}}`,
      );
    if (!text.trim()) troubles.push(`${language}: ${key} is empty`);
  }
  if (!COMPLETE.includes(language)) continue;
  for (const key of first.keys())
    if (!own.has(key)) troubles.push(`${language}: ${key} is missing`);
}

const literals = new Set<string>();
const prefixes = new Set<string>(OPEN_PREFIXES);
const namespaces = [...new Set([...first.keys()].map((key) => key.split('.')[0]))].join('|');
const KEY = new RegExp(`['"\`]((?:${namespaces})\\.[\\w.-]+)['"\`]`, 'g');
for (const path of sources(join(ROOT, 'src'))) {
  const text = readFileSync(path, 'utf8');
  for (const match of text.matchAll(KEY)) literals.add(match[1] ?? '');
  // A template literal with a value inside stands for every key that begins so.
  for (const match of text.matchAll(/`([\w.-]+\.(?:[\w-]*))\$\{/g)) prefixes.add(match[1] ?? '');
  for (const match of text.matchAll(/\b(?:t|tm|rt|te|second)\(\s*(['"])([\w.-]+)\1/g)) {
    const key = match[2] ?? '';
    if (!first.has(key)) troubles.push(`${path.slice(ROOT.length)}: no words for ${key}`);
  }
}
for (const key of first.keys()) {
  const isUsed =
    literals.has(key) || [...prefixes].some((prefix) => prefix && key.startsWith(prefix));
  if (!isUsed) troubles.push(`unused: ${key}`);
}

if (process.argv.includes('--report')) {
  for (const [language, own] of byLanguage) {
    const share = first.size ? Math.floor((100 * own.size) / first.size) : 100;
    process.stdout.write(`${language}: ${own.size} of ${first.size} (${share} %)\n`);
  }
  const bo = byLanguage.get('bo');
  process.stdout.write('\nshown in Chinese until someone who can stands behind the Tibetan:\n');
  for (const [key, text] of first) if (!bo?.has(key)) process.stdout.write(`  ${key}  ${text}\n`);
}
for (const trouble of troubles) process.stderr.write(`${trouble}\n`);
process.exitCode = troubles.length ? 1 : 0;
