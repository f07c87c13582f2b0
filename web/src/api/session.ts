// Who is signed in. The cookie is the server's; this is only what the pages know about it.
import { shallowRef } from 'vue';
import type { Me } from '@/wire/api';
import { api, ApiError, onRefusal } from './client';

export const me = shallowRef<Me | null>(null);
let asked = false;

/** Ask once who is signed in; later calls answer from memory. */
export async function whoAmI(): Promise<Me | null> {
  if (asked) return me.value;
  try {
    me.value = await api.get('/api/me');
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    me.value = null;
  }
  asked = true;
  return me.value;
}

export async function signIn(username: string, password: string): Promise<Me> {
  const person = await api.post('/api/sign-in', { body: { username, password } });
  me.value = person;
  asked = true;
  return person;
}

export async function signOut(): Promise<void> {
  await api.post('/api/sign-out');
  me.value = null;
}

/** Run `then` when the server no longer knows us although we were signed in. */
export function onSignedOut(then: () => void): () => void {
  return onRefusal((problem) => {
    if (problem.status !== 401 || me.value === null) return;
    me.value = null;
    then();
  });
}

export function hasRole(...roles: string[]): boolean {
  return me.value?.roles.some((each) => roles.includes(each.role)) ?? false;
}
