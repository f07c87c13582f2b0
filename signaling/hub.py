"""The rooms of this process: opened when the first participant comes, forgotten when over.

A room is placed by its lease in the shared store and, once live, by its row in the database; what
the row says wins. `start` takes back the sessions that this node left live when it died: their
rooms stand empty for the grace time, for whoever comes back, and are ended if nobody does.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession

from core import given_grants
from core.edge import Services
from core.errors import Gone, Unavailable
from core.grants import Grant
from core.ids import AppointmentId, ParticipantId, RoomId, SessionId
from media.recorder import Recorder
from signaling.doorway import Doorway
from signaling.effects import Entered, Returned, RoomMessage, Said, SocketGone, SocketId, Tick
from signaling.host import RoomHost, Tools
from signaling.model import SessionState
from signaling.outbox import Outbox
from signaling.ports import LiveRecorder, MediaNode, OpenRecorder
from signaling.presence import Lease, Presence, RoomElsewhere
from signaling.protocol import CloseCode
from signaling.room import Room
from signaling.rules import LiveSession, RoomNotOpen, Rules
from signaling.session import Survivor, live_sessions, session_of, take_over

log = structlog.get_logger(__name__)

OPEN_WITHIN_S: Final = 10.0
RENEW_EVERY_S: Final = 5
LET_GO_EVERY_S: Final = 2
LEGS_PER_EPOCH: Final = 1_000


class SessionOver(Gone):
    """The appointment's one session has ended; there is nothing to come back to."""

    code = "session_ended"


class SeatExpired(Gone):
    """No room holds this seat any more; entering again may still be possible."""

    code = "seat_expired"


class Draining(Unavailable):
    """This process is stopping."""

    code = "restarting"


@dataclass(frozen=True, slots=True)
class Member:
    """A socket that is in a room: what the endpoint holds of it."""

    host: RoomHost
    participant_id: ParticipantId
    socket_id: SocketId

    def say(self, message: RoomMessage) -> None:
        """Hand one request to the room; its reply leaves through the outbox."""
        self.host.feed(Said(self.participant_id, self.socket_id, message))

    def gone(self) -> None:
        """The socket is closed, whoever closed it."""
        self.host.drop_socket(self.socket_id)
        self.host.feed(SocketGone(self.participant_id, self.socket_id))


class Hub:
    """Owns this process's rooms. `start` before the first socket, `aclose` at the end."""

    def __init__(
        self,
        services: Services,
        node: MediaNode,
        *,
        on_session_event: Callable[[], None] | None = None,
        open_recorder: OpenRecorder | None = None,
    ) -> None:
        self.services = services
        self.doorway = Doorway()
        self._node = node
        self._presence = Presence(services.store, services.settings.node_name)
        self._tools = Tools(
            clock=services.clock,
            database=services.database,
            presence=self._presence,
            recordings_dir=services.settings.recordings_dir,
            node_name=services.settings.node_name,
            open_recorder=open_recorder or self._open_recorder,
            on_session_event=on_session_event or _nobody,
            forget=self._forget,
        )
        self._hosts: dict[RoomId, RoomHost] = {}
        self._opening: dict[RoomId, asyncio.Task[RoomHost]] = {}
        self._socket_ids = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Take back what this node left live, and begin to report."""
        self._spawn(self._presence.run(), "write presence")
        await self._recover()
        self._spawn(self._report_forever(), "report rooms")

    async def drain(self) -> None:
        """Take nobody in any more, and leave every room so that it can be taken back."""
        if self._is_draining:
            return
        self._is_draining = True
        if self._opening:
            await asyncio.wait(set(self._opening.values()), timeout=OPEN_WITHIN_S)
        hosts = list(self._hosts.values())
        await asyncio.gather(*(host.drain() for host in hosts))
        self._hosts.clear()
        log.info("hub_drained", rooms=len(hosts))

    async def aclose(self) -> None:
        """Drain and stop. The media node is closed by whoever made it, afterwards."""
        await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def room_count(self) -> int:
        return len(self._hosts)

    # ── coming in ────────────────────────────────────────────────────────────────────────────────

    def new_outbox(self) -> Outbox:
        return Outbox(SocketId(next(self._socket_ids)))

    async def enter(self, outbox: Outbox, grant: Grant, request_id: str) -> Member:
        """Seat the bearer of a verified, unused Grant. The reply leaves through `outbox`.

        Raises `SessionOver`, `RoomElsewhere`, `Draining` or `Unavailable` instead of replying.
        """
        host = await self._host(grant, may_open=True)
        token = self.services.grant_key.sign_resume(grant)
        host.add_socket(outbox)
        host.feed(Entered(grant, outbox.socket_id, request_id, token))
        return _member(host, grant, outbox)

    async def come_back(
        self, outbox: Outbox, grant: Grant, request_id: str, resume_token: str, last_seq: int
    ) -> Member:
        """Give the bearer of a verified resume token its seat again.

        Raises as `enter`, and `SeatExpired` if no room here holds the seat: a waiting room does not
        outlive its process, a live session does.
        """
        host = await self._host(grant, may_open=False)
        participant_id = ParticipantId(grant.participant_id)
        missed = await self._presence.missed(host.lease, participant_id, last_seq)
        host.add_socket(outbox)
        host.feed(Returned(grant, outbox.socket_id, request_id, resume_token, last_seq, missed))
        return _member(host, grant, outbox)

    async def device_room(self, grant: Grant) -> RoomHost:
        """The open room that a device's Grant names; devices open none.

        Raises as `enter`, and `RoomNotOpen` if nobody is there.
        """
        try:
            return await self._host(grant, may_open=False)
        except SeatExpired as nobody:
            raise RoomNotOpen from nobody

    async def _host(self, grant: Grant, *, may_open: bool) -> RoomHost:
        room_id = RoomId(grant.room_id)
        while True:
            if self._is_draining:
                raise Draining("This server is restarting. Please wait a moment.")
            host = self._hosts.get(room_id)
            if host is not None and not host.is_disposed:
                return host
            opening = self._opening.get(room_id)
            if opening is None:
                opening = asyncio.create_task(
                    self._open(grant, may_open=may_open), name=f"open {room_id}"
                )
                self._opening[room_id] = opening
                opening.add_done_callback(partial(self._opened, room_id))
                # Ours: its refusal is our answer, and it outlives a caller that goes away.
                return await asyncio.shield(opening)
            # Someone else's: look again when it is done, since our rights may differ from theirs.
            await asyncio.wait({opening})

    def _opened(self, room_id: RoomId, task: asyncio.Task[RoomHost]) -> None:
        self._opening.pop(room_id, None)
        if not task.cancelled():
            task.exception()  # the caller has been told; a caller that left needs no traceback

    async def _open(self, grant: Grant, *, may_open: bool) -> RoomHost:
        appointment_id = AppointmentId(grant.appointment_id)
        async with asyncio.timeout(OPEN_WITHIN_S):
            async with self.services.database.reading() as tx:
                session = await session_of(tx, appointment_id)
            if session is not None and session.state == SessionState.ENDED:
                raise SessionOver("This session has ended.")
            if session is not None and session.node != self.services.settings.node_name:
                raise RoomElsewhere("This room is held by another server. Enter again.")
            if session is not None:
                host = await self._take_back(SessionId(session.id))
                if host is None:
                    raise SessionOver("This session has ended.")
                return host
            if not may_open:
                raise SeatExpired("This seat is no longer held. Please enter again.")
            return await self._new_room(grant)

    async def _new_room(self, grant: Grant) -> RoomHost:
        room_id = RoomId(grant.room_id)
        lease = await self._lease(room_id)
        room = Room(room_id, self._rules(first_leg=1), self._now_ms())
        host = RoomHost(
            self._tools, room, self._node.open_room(room_id), lease=lease,
            appointment_id=AppointmentId(grant.appointment_id), official_id=grant.official_id,
        )  # fmt: skip
        self._hosts[room_id] = host
        host.feed(Tick())  # starts its clock: whoever had it opened may be gone already
        log.info("room_opened", room_id=room_id)
        return host

    def _now_ms(self) -> int:
        return self.services.clock.monotonic_ns() // 1_000_000

    def _rules(self, *, first_leg: int) -> Rules:
        settings = self.services.settings
        return Rules(
            grace_ms=settings.resume_grace_s * 1000,
            countdown_ms=settings.countdown_s * 1000,
            first_leg=first_leg,
        )

    async def _lease(self, room_id: RoomId) -> Lease:
        try:
            return await self._presence.take_lease(room_id)
        except (RedisError, OSError, TimeoutError) as trouble:
            # Who owns a live session is decided in the database; without the store only the hint
            # about other servers' waiting rooms is missing.
            log.warning("room_without_lease", room_id=room_id, reason=str(trouble))
            return Lease(room_id, 0, "")

    # ── taking back ──────────────────────────────────────────────────────────────────────────────

    async def _recover(self) -> None:
        async with self.services.database.reading() as tx:
            found = await live_sessions(tx, self.services.settings.node_name)
        for session_id in found:
            await self._take_back(session_id)
        if found:
            log.warning("sessions_taken_back", count=len(found))

    async def _take_back(self, session_id: SessionId) -> RoomHost | None:
        """The room of a session that was left live; None if it has ended meanwhile."""

        async def work(tx: AsyncSession) -> Survivor | None:
            return await take_over(tx, session_id)

        survivor = await self.services.database.run(work)
        if survivor is None:
            return None
        room_id = survivor.room_id
        lease = await self._lease(room_id)
        now = self.services.clock.now()
        live = LiveSession(
            session_id=survivor.session_id, started_at=survivor.started_at,
            elapsed_ms=_elapsed_ms(survivor.started_at, now),
            slot_ends_at=survivor.slot_ends_at, participants=survivor.participants,
        )  # fmt: skip
        rules = self._rules(first_leg=1 + (survivor.epoch - 1) * LEGS_PER_EPOCH)
        host = RoomHost(
            self._tools, Room.restored(room_id, rules, live, self._now_ms()),
            self._node.open_room(room_id), lease=lease, official_id=survivor.official_id,
            appointment_id=survivor.appointment_id, survivor=survivor,
        )  # fmt: skip
        self._hosts[room_id] = host
        host.feed(Tick())
        log.info("room_restored", room_id=room_id, session_id=session_id, epoch=survivor.epoch)
        return host

    # ── while rooms live ─────────────────────────────────────────────────────────────────────────

    async def _report_forever(self) -> None:
        for second in itertools.count(1):
            await asyncio.sleep(0.5)
            self._each_host(lambda host: host.status.watch())
            await asyncio.sleep(0.5)
            self._each_host(partial(_report, second=second))
            if second % LET_GO_EVERY_S == 0:
                await self._let_devices_go()
            if second % RENEW_EVERY_S == 0:
                await self._renew_leases()

    def _each_host(self, tell: Callable[[RoomHost], None]) -> None:
        for host in list(self._hosts.values()):
            try:
                tell(host)
            except Exception:  # one room's fault must not silence the others
                log.exception("report_failed", room_id=host.room_id)

    async def _let_devices_go(self) -> None:
        """Unplug devices whose Grants were taken back, wherever that was said."""
        for host in [host for host in self._hosts.values() if host.has_devices]:
            try:
                async with asyncio.timeout(1):
                    taken_back = await given_grants.taken_back_in(self.services.store, host.room_id)
            except (RedisError, OSError, TimeoutError) as trouble:
                log.warning("taken_back_unknown", reason=str(trouble))
                return  # asked again; nothing new begins with such a Grant meanwhile
            host.let_go(taken_back)

    async def _renew_leases(self) -> None:
        for host in list(self._hosts.values()):
            if not host.lease.token or host.is_disposed:
                continue
            try:
                async with asyncio.timeout(1):
                    ours = await self._presence.renew_lease(host.lease)
            except (RedisError, OSError, TimeoutError) as trouble:
                log.warning("leases_not_renewed", reason=str(trouble))
                return
            if not ours:
                # We were thought dead and someone else has the room: let go without a word to the
                # database, where the higher epoch would refuse us anyway.
                log.error("room_lease_lost", room_id=host.room_id)
                self._hosts.pop(host.room_id, None)
                self._spawn(host.drain(), "abandon room")

    def _forget(self, host: RoomHost) -> None:
        if self._hosts.get(host.room_id) is host:
            del self._hosts[host.room_id]
        people = tuple(host.room.seats)
        self._spawn(self._presence.release(host.lease, people), "release lease")
        log.info("room_closed", room_id=host.room_id)

    def _open_recorder(
        self, directory: Path, *, session_id: SessionId, started_at: datetime, t0_mono_ns: int
    ) -> LiveRecorder:
        return Recorder.open(
            directory,
            session_id=session_id,
            started_at=started_at,
            t0_mono_ns=t0_mono_ns,
            clock=self.services.clock,
            reserve_bytes=self.services.settings.min_free_disk_mib * 1024 * 1024,
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("hub_task_failed", task=task.get_name(), exc_info=error)


def refusal_code(code: str) -> CloseCode:
    """How the socket is closed after a refusal to come in: come back, or do not."""
    retry = (Draining.code, Unavailable.code)
    return CloseCode.RESTART if code in retry else CloseCode.REFUSED


def _member(host: RoomHost, grant: Grant, outbox: Outbox) -> Member:
    return Member(host, ParticipantId(grant.participant_id), outbox.socket_id)


def _elapsed_ms(since: datetime, now: datetime) -> int:
    return max(0, round((now - since).total_seconds() * 1000))


def _report(host: RoomHost, *, second: int) -> None:
    host.status.report(second)


def _nobody() -> None:
    """Nobody wants to be told; the dispatcher looks by itself."""
