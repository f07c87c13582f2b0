import { describe, expect, test } from 'vitest';
import { useDeedsInOrder } from './useLoad';

describe('useDeedsInOrder', () => {
  test('does every deed, in the order in which they were asked for', async () => {
    const done: string[] = [];
    const finish: (() => void)[] = [];
    const deed = useDeedsInOrder(async (name: string) => {
      await new Promise<void>((resolve) => finish.push(resolve));
      done.push(name);
    });
    const both = Promise.all([deed.run('owner'), deed.run('due')]);
    await Promise.resolve();
    expect(finish).toHaveLength(1); // the second waits for the first
    finish[0]?.();
    await new Promise((resolve) => setTimeout(resolve));
    finish[1]?.();
    await both;
    expect(done).toEqual(['owner', 'due']);
    expect(deed.busy.value).toBe(false);
  });

  test('goes on after one that failed, and says so', async () => {
    const deed = useDeedsInOrder(async (works: boolean) => {
      if (!works) throw new Error('no');
      return 'yes';
    });
    const [first, second] = await Promise.all([deed.run(false), deed.run(true)]);
    expect(first).toBeUndefined();
    expect(second).toBe('yes');
    expect(deed.error.value).toBeInstanceOf(Error);
  });
});
