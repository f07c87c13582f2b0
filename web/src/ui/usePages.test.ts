import { effectScope } from 'vue';
import { describe, expect, it } from 'vitest';
import { usePages } from './usePages';

interface Asked {
  cursor: string | null;
  answer: (items: string[], next_cursor: string | null) => Promise<void>;
}

/** A list whose server answers when, and in the order in which, the test says so. */
function list() {
  const asked: Asked[] = [];
  const scope = effectScope();
  const pages = scope.run(() =>
    usePages<{ items: string[]; next_cursor: string | null }>(
      (cursor) =>
        new Promise((resolve) => {
          const answer = async (items: string[], next_cursor: string | null) => {
            resolve({ items, next_cursor });
            await new Promise((done) => setTimeout(done));
          };
          asked.push({ cursor, answer });
        }),
    ),
  );
  if (!pages) throw new Error('no scope');
  return { asked, pages };
}

describe('a list that comes page by page', () => {
  it('shows each page after the one before, and ends with the last', async () => {
    const { asked, pages } = list();
    await asked[0]?.answer(['a'], '1');
    expect([pages.rows.value, pages.hasMore.value]).toEqual([['a'], true]);
    void pages.more.run();
    expect(asked[1]?.cursor).toBe('1');
    await asked[1]?.answer(['b'], null);
    expect([pages.rows.value, pages.hasMore.value]).toEqual([['a', 'b'], false]);
  });

  it('never shows a page of what was asked for before', async () => {
    const { asked, pages } = list();
    await asked[0]?.answer(['due'], '1');
    void pages.more.run();
    void pages.first.reload();
    await asked[2]?.answer(['held'], '2');
    await asked[1]?.answer(['due too'], '3');
    expect(pages.rows.value).toEqual(['held']);
    void pages.more.run();
    expect(asked[3]?.cursor).toBe('2');
  });
});
