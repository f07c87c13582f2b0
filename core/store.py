"""The shared store: presence, room leases, resume streams, single-use marks, rate limits.

One code path against the `redis.asyncio` API. Embedded, that API is served inside the process by
fakeredis (a kept library that runs the same commands); clustered, by a real Redis. Nothing here is
the truth about a booking, a case or a recording: the store may be emptied at any time and the house
stands (docs/ARCHITECTURE.md, invariant 3).
"""

from datetime import timedelta

import fakeredis
from redis.asyncio import Redis

from core.errors import TooMany

# Redis from the library's point of view is generic over bytes or str; we decode everything.
Store = Redis


def open_store(url: str) -> Store:
    """A store at `url` (redis://…), or one inside this process if `url` is empty."""
    if not url:
        return fakeredis.FakeAsyncRedis(decode_responses=True)
    return Redis.from_url(url, decode_responses=True, socket_timeout=5, health_check_interval=15)


async def use_once(store: Store, key: str, ttl: timedelta) -> bool:
    """Whether this is the first use of `key` within `ttl`. Atomic."""
    return bool(await store.set(f"once:{key}", "1", nx=True, ex=max(1, int(ttl.total_seconds()))))


async def limit(store: Store, key: str, *, most: int, per: timedelta) -> None:
    """Count one use of `key`; raise `TooMany` beyond `most` per window of length `per`."""
    name = f"limit:{key}"
    count = await store.incr(name)
    if count == 1:
        await store.expire(name, int(per.total_seconds()))
    if count > most:
        raise TooMany("Too many attempts. Please wait a minute and try again.")
