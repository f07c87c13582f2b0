import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Knocker } from './knock';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

async function knocksInThreeSeconds(knock: () => Promise<unknown>): Promise<number> {
  let knocks = 0;
  const knocker = new Knocker(
    () => undefined,
    () => 0.5,
  );
  knocker.start(() => {
    knocks += 1;
    return knock();
  }, 0);
  await vi.advanceTimersByTimeAsync(3000);
  knocker.stop();
  await vi.advanceTimersByTimeAsync(3000);
  return knocks;
}

test('where nothing is heard it knocks every 0.6 s, and not once after it was stopped', async () => {
  expect(await knocksInThreeSeconds(() => new Promise(() => undefined))).toBe(6);
});

test('where it is refused at once, the server is only just starting: it knocks sooner', async () => {
  expect(await knocksInThreeSeconds(() => Promise.reject(new Error('refused')))).toBe(13);
});

test('a refusal that took long is no sign of a server', async () => {
  const slowly = () =>
    new Promise((_, refuse) => setTimeout(() => refuse(new Error('timed out')), 500));
  expect(await knocksInThreeSeconds(slowly)).toBe(6);
});
