"""What the shared store knows of rooms: who is there, who owns one, and what a lost socket missed.

Keys, all with a time to live and none of them the truth:

    room:{room}:roles          set of roles present; scheduling asks whether the official is there
    room:{room}:away:{role}    since when this side is away; the county desk is shown it
    room:{room}:recording      what is wrong with the recording (JSON); the county desk is shown it
    room:{room}:excess         whose line was closed for sending too much (JSON); as above
    room:{room}:owner          "{node}/{epoch}": the lease of the process that holds the room
    room:{room}:epoch          counts the leases
    room:{room}:to:{person}    stream of the sequenced messages for one participant

The live path only appends to a bounded queue; one task writes. A store that is slow or gone costs
replays (the client gets a whole snapshot instead) and the hint in the waiting room, nothing else.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError
from redis.exceptions import RedisError, WatchError

from core.errors import Conflict
from core.ids import ParticipantId, RoomId
from core.store import Store
from signaling.effects import SequencedMessage

log = structlog.get_logger(__name__)

ROLES_TTL = timedelta(seconds=15)
LEASE_TTL = timedelta(seconds=15)
EPOCH_TTL = timedelta(days=2)
STREAM_TTL = timedelta(minutes=15)
STREAM_LENGTH = 256
"""Messages kept per participant: minutes of a busy room. Who missed more gets a snapshot."""
MAX_QUEUED = 4_096
"""Writes waiting for the store. When full the oldest is dropped: a gap that a snapshot repairs."""
_BATCH = 256
_RETRY_S = 1.0
_SEQUENCED: TypeAdapter[SequencedMessage] = TypeAdapter(SequencedMessage)
_STORE_TROUBLE = (RedisError, OSError, TimeoutError)


class UnheardSince(BaseModel):
    """Nothing of this track has been recorded since then, though its sender is there."""

    role: str
    track: str
    since: datetime


class RecordingAlarm(BaseModel):
    """What is wrong with a live talk's recording: nothing can be written, or somebody is missing
    from it. `trouble`: signaling.protocol.RecordingTrouble."""

    since: datetime
    trouble: str | None
    unheard: tuple[UnheardSince, ...]


class TooMuchSent(BaseModel):
    """Somebody's line was closed then, because it sent far more than any camera does."""

    role: str
    since: datetime


class RoomElsewhere(Conflict):
    """Another process holds this room."""

    code = "room_elsewhere"


@dataclass(frozen=True, slots=True)
class Lease:
    room_id: RoomId
    epoch: int
    token: str


@dataclass(frozen=True, slots=True)
class _Kept:
    lease: Lease
    participant_id: ParticipantId
    message: SequencedMessage


@dataclass(frozen=True, slots=True)
class _Roles:
    room_id: RoomId
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Alarm:
    """What the county desk is shown of a room under this word; None takes it away."""

    room_id: RoomId
    word: str
    value: str | None


_Job = _Kept | _Roles | _Alarm


class Presence:
    """One process's part of the shared store. `run` is its writing task, owned by the hub."""

    def __init__(self, store: Store, node: str) -> None:
        self._store = store
        self._node = node
        self._queue: deque[_Job] = deque(maxlen=MAX_QUEUED)
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    # ── the live path: never waits ───────────────────────────────────────────────────────────────

    def keep(self, lease: Lease, participant_id: ParticipantId, message: SequencedMessage) -> None:
        """Have `message` kept for this participant's next resume."""
        self._put(_Kept(lease, participant_id, message))

    def show_roles(self, room_id: RoomId, roles: frozenset[str]) -> None:
        """Say who is present; repeat within `ROLES_TTL`. An empty set says nobody."""
        self._put(_Roles(room_id, roles))

    def show_away(self, room_id: RoomId, role: str, since: datetime | None) -> None:
        """Say since when this side is away; repeat within `ROLES_TTL`. None: it is back."""
        self._put(_Alarm(room_id, f"away:{role}", None if since is None else since.isoformat()))

    def show_recording(self, room_id: RoomId, alarm: RecordingAlarm | None) -> None:
        """Say what is wrong with the recording; repeat within `ROLES_TTL`. None: nothing is."""
        self._put(_Alarm(room_id, "recording", None if alarm is None else alarm.model_dump_json()))

    def show_excess(self, room_id: RoomId, alarm: TooMuchSent | None) -> None:
        """Say whose line was closed; repeat within `ROLES_TTL`. None: it is long ago."""
        self._put(_Alarm(room_id, "excess", None if alarm is None else alarm.model_dump_json()))

    def _put(self, job: _Job) -> None:
        self._queue.append(job)
        self._idle.clear()
        self._woken.set()

    # ── the writing task ─────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Write what is queued, for ever."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                try:
                    await self._write(batch)
                except _STORE_TROUBLE as trouble:
                    # Nothing is written again: replays have a gap and fall back to snapshots.
                    log.warning("presence_not_written", count=len(batch), reason=str(trouble))
                    await asyncio.sleep(_RETRY_S)
            self._idle.set()

    async def _write(self, batch: Iterable[_Job]) -> None:
        async with self._store.pipeline(transaction=False) as pipe:
            for job in batch:
                match job:
                    case _Kept():
                        name = _stream(job.lease.room_id, job.participant_id)
                        pipe.xadd(
                            name,
                            {"m": job.message.model_dump_json()},
                            id=f"{job.lease.epoch}-{job.message.seq}",
                            maxlen=STREAM_LENGTH,
                            approximate=True,
                        )
                        pipe.expire(name, STREAM_TTL)
                    case _Roles():
                        name = f"room:{job.room_id}:roles"
                        pipe.delete(name)
                        if job.roles:
                            pipe.sadd(name, *sorted(job.roles))
                            pipe.expire(name, ROLES_TTL)
                    case _Alarm(room_id, word, value):
                        if value is None:
                            pipe.delete(f"room:{room_id}:{word}")
                        else:
                            pipe.set(f"room:{room_id}:{word}", value, ex=ROLES_TTL)
            await pipe.execute(raise_on_error=False)

    # ── asked while someone comes in ─────────────────────────────────────────────────────────────

    async def missed(
        self, lease: Lease, participant_id: ParticipantId, last_seq: int, *, patience_s: float = 0.5
    ) -> tuple[SequencedMessage, ...] | None:
        """The kept messages after `last_seq`; None if the store cannot say in time."""
        try:
            async with asyncio.timeout(patience_s):
                await self._idle.wait()
                # Typed for bytes or str and for RESP3; ours decodes and answers pairs.
                entries: Any = await self._store.xrange(
                    _stream(lease.room_id, participant_id),
                    min=f"{lease.epoch}-{last_seq + 1}",
                    max=f"{lease.epoch}-{2**63 - 1}",
                )
            return tuple(_SEQUENCED.validate_json(fields["m"]) for _, fields in entries)
        except (*_STORE_TROUBLE, KeyError, ValidationError) as trouble:
            log.warning("missed_messages_unknown", reason=type(trouble).__name__)
            return None

    async def roles(self, room_id: RoomId) -> frozenset[str]:
        """Who is present in a room, by role."""
        found: Any = await self._store.smembers(f"room:{room_id}:roles")
        return frozenset(found)

    # ── leases ───────────────────────────────────────────────────────────────────────────────────

    async def take_lease(self, room_id: RoomId) -> Lease:
        """Become the room's owner under a new epoch. Raises `RoomElsewhere`.

        A lease that this node's name already holds is taken over: there is one process of a name,
        and it has been restarted.
        """
        key = f"room:{room_id}:owner"
        async with self._store.pipeline(transaction=True) as pipe:
            while True:
                try:
                    await pipe.watch(key)
                    owner: Any = await pipe.get(key)
                    if owner is not None and owner.rpartition("/")[0] != self._node:
                        raise RoomElsewhere("This room is held by another server. Enter again.")
                    epoch = int(await pipe.incr(f"room:{room_id}:epoch"))
                    lease = Lease(room_id, epoch, f"{self._node}/{epoch}")
                    pipe.multi()  # type: ignore[no-untyped-call]  # the library's gap
                    pipe.set(key, lease.token, ex=LEASE_TTL)
                    pipe.expire(f"room:{room_id}:epoch", EPOCH_TTL)
                    await pipe.execute()
                    return lease
                except WatchError:
                    continue  # someone else was asking at the same time

    async def renew_lease(self, lease: Lease) -> bool:
        """Keep the lease alive; False if someone else owns the room now."""
        key = f"room:{lease.room_id}:owner"
        async with self._store.pipeline(transaction=True) as pipe:
            while True:
                try:
                    await pipe.watch(key)
                    owner: Any = await pipe.get(key)
                    if owner is not None and owner != lease.token:
                        return False
                    pipe.multi()  # type: ignore[no-untyped-call]  # the library's gap
                    pipe.set(key, lease.token, ex=LEASE_TTL)
                    await pipe.execute()
                    return True
                except WatchError:
                    continue

    async def release(self, lease: Lease, participants: Iterable[ParticipantId]) -> None:
        """The room is over here: free the lease if it is still ours, forget who was there."""
        key = f"room:{lease.room_id}:owner"
        with contextlib.suppress(*_STORE_TROUBLE):
            if await self._store.get(key) == lease.token:
                await self._store.delete(key)
            streams = [_stream(lease.room_id, each) for each in participants]
            room = f"room:{lease.room_id}"
            words = ("roles", "away:petitioner", "away:official", "recording", "excess")
            shown = (f"{room}:{what}" for what in words)
            await self._store.delete(*shown, *streams)


def _stream(room_id: RoomId, participant_id: ParticipantId) -> str:
    return f"room:{room_id}:to:{participant_id}"
