// The one way to the server. Success is JSON of the type that the OpenAPI document promises; failure is
// always an `ApiError` with a stable code, whatever went wrong between here and there.
import type { paths } from '@/wire/api';

export class ApiError extends Error {
  constructor(
    /** Stable and translatable: `errors.<code>`. `offline` and `server_error` are our own. */
    readonly code: string,
    message: string,
    /** 0 when no answer came at all. */
    readonly status: number,
    readonly details: Readonly<Record<string, unknown>> = {},
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

export type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';
type Scalar = string | number | boolean;
type Query = Readonly<Record<string, Scalar | readonly Scalar[] | null | undefined>>;

interface Options {
  path?: Readonly<Record<string, Scalar>>;
  query?: Query;
  /** A plain value is sent as JSON; FormData and Blob as they are. */
  body?: unknown;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
}

/** Fill `{names}` of a path. A missing name is a mistake of ours, not of the network. */
export function fillPath(template: string, values: Readonly<Record<string, Scalar>> = {}): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`path ${template} needs ${name}`);
    return encodeURIComponent(String(value));
  });
}

export function queryString(query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === null || value === undefined) continue;
    for (const item of Array.isArray(value) ? value : [value]) search.append(name, String(item));
  }
  const text = search.toString();
  return text ? `?${text}` : '';
}

/** problem+json → ApiError; anything else with a bad status → ApiError by status. */
export async function readProblem(response: Response): Promise<ApiError> {
  const type = response.headers.get('content-type') ?? '';
  if (type.includes('json')) {
    const body: unknown = await response.json().catch(() => null);
    if (body && typeof body === 'object' && 'code' in body && typeof body.code === 'string') {
      const words =
        'detail' in body && typeof body.detail === 'string'
          ? body.detail
          : 'message' in body && typeof body.message === 'string'
            ? body.message
            : body.code;
      // RFC 9457 puts further members beside the standard ones.
      const { details: nested, ...beside } = body as { details?: unknown } & Record<
        string,
        unknown
      >;
      const details = nested && typeof nested === 'object' ? { ...beside, ...nested } : beside;
      return new ApiError(body.code, words, response.status, details);
    }
  }
  return new ApiError('server_error', `HTTP ${response.status}`, response.status);
}

async function send(method: Method, template: string, options: Options): Promise<Response> {
  const { body } = options;
  const isRaw = body instanceof FormData || body instanceof Blob;
  const headers: Record<string, string> = {
    Accept: 'application/json, application/problem+json',
    ...options.headers,
  };
  if (body !== undefined && !isRaw) headers['Content-Type'] = 'application/json';
  const init: RequestInit = { method: method.toUpperCase(), credentials: 'same-origin', headers };
  if (body !== undefined) init.body = isRaw ? body : JSON.stringify(body);
  if (options.signal) init.signal = options.signal;
  let response: Response;
  try {
    response = await fetch(fillPath(template, options.path) + queryString(options.query), init);
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError('offline', 'The server cannot be reached.', 0);
  }
  if (!response.ok) {
    const problem = await readProblem(response);
    for (const listener of refused) listener(problem);
    throw problem;
  }
  return response;
}

const refused = new Set<(problem: ApiError) => void>();

/** Hear of every refusal, e.g. to notice that the sign-in has ended. Returns the way to stop. */
export function onRefusal(listener: (problem: ApiError) => void): () => void {
  refused.add(listener);
  return () => refused.delete(listener);
}

/** Untyped core, for answers that are not described in the OpenAPI document. */
export async function request<T>(method: Method, path: string, options: Options = {}): Promise<T> {
  const response = await send(method, path, options);
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

/** A file: slips, exports. */
export async function requestBlob(path: string, options: Options = {}): Promise<Blob> {
  return (await send('get', path, { headers: { Accept: '*/*' }, ...options })).blob();
}

// ── types from the OpenAPI document ────────────────────────────────────────────────────────────

type PathsWith<M extends Method> = {
  [P in keyof paths]: paths[P] extends Record<M, infer O> ? (O extends object ? P : never) : never;
}[keyof paths] &
  string;
type Operation<P extends keyof paths, M extends Method> =
  paths[P] extends Record<M, infer O> ? O : never;
type Json<R> = R extends { content: { 'application/json': infer T } } ? T : undefined;
type Answer<O> = O extends { responses: infer R }
  ? R extends Record<200, infer A>
    ? Json<A>
    : R extends Record<201, infer A>
      ? Json<A>
      : R extends Record<202, infer A>
        ? Json<A>
        : undefined
  : never;
type Parameters_<O> = O extends { parameters: infer P } ? P : never;
type PathOf<O> = Parameters_<O> extends { path: infer P } ? { path: P } : { path?: undefined };
type QueryOf<O> =
  Parameters_<O> extends { query?: infer Q } ? { query?: Q } : { query?: undefined };
type BodyOf<O> = O extends { requestBody: { content: { 'application/json': infer B } } }
  ? { body: B }
  : O extends { requestBody?: { content: { 'application/json': infer B } } }
    ? { body?: B }
    : { body?: unknown };
type Arguments<O> = PathOf<O> & QueryOf<O> & BodyOf<O> & Pick<Options, 'headers' | 'signal'>;
type Rest<O> = Partial<Arguments<O>> extends Arguments<O> ? [Arguments<O>?] : [Arguments<O>];

function call<M extends Method>(method: M) {
  return <P extends PathsWith<M>>(
    path: P,
    ...[options]: Rest<Operation<P, M>>
  ): Promise<Answer<Operation<P, M>>> => request(method, path, (options ?? {}) as Options);
}

/** `api.get('/api/cases/{case_id}', { path: { case_id } })`, typed from the OpenAPI document. */
export const api = {
  get: call('get'),
  post: call('post'),
  put: call('put'),
  patch: call('patch'),
  delete: call('delete'),
} as const;
