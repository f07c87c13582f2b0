import { afterEach, expect, test, vi } from 'vitest';
import { ApiError, fillPath, queryString, request } from './client';

afterEach(() => vi.unstubAllGlobals());
function answer(response: Response | Error): void {
  const fetch =
    response instanceof Error
      ? vi.fn().mockRejectedValue(response)
      : vi.fn().mockResolvedValue(response);
  vi.stubGlobal('fetch', fetch);
}
async function failure(): Promise<ApiError> {
  return request('get', '/api/x').then(
    () => {
      throw new Error('should have failed');
    },
    (error: unknown) => error as ApiError,
  );
}

test('a problem keeps its code, words and details', async () => {
  const body = { code: 'slot_taken', detail: 'Taken.', details: { next_free: [] } };
  answer(
    new Response(JSON.stringify(body), {
      status: 409,
      headers: { 'content-type': 'application/problem+json' },
    }),
  );
  expect(await failure()).toMatchObject({
    code: 'slot_taken',
    message: 'Taken.',
    status: 409,
    details: { next_free: [] },
  });
});

test('details may also stand beside the code', async () => {
  answer(
    new Response(JSON.stringify({ code: 'too_many_representatives', detail: 'x', limit: 5 }), {
      status: 400,
      headers: { 'content-type': 'application/problem+json' },
    }),
  );
  expect((await failure()).details).toMatchObject({ limit: 5 });
});

test('a page of HTML instead of an answer is a fault of the server', async () => {
  answer(new Response('<html>', { status: 502, headers: { 'content-type': 'text/html' } }));
  expect(await failure()).toMatchObject({ code: 'server_error', status: 502 });
});

test('no answer at all is being offline', async () => {
  answer(new TypeError('network'));
  expect(await failure()).toMatchObject({ code: 'offline', status: 0 });
});

test('paths are filled and escaped, queries leave out what is not there', () => {
  expect(fillPath('/api/cases/{case_id}', { case_id: 'a/b' })).toBe('/api/cases/a%2Fb');
  expect(() => fillPath('/api/cases/{case_id}')).toThrow('needs case_id');
  expect(queryString({ a: 1, b: null, c: undefined, d: ['x', 'y'] })).toBe('?a=1&d=x&d=y');
});
