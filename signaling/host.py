"""One room at work: feeds facts to the state machine and performs the effects it orders.

Everything that touches the room runs on the event loop, so there are no locks; what must wait (the
database, opening a recording) runs in tasks of this host and comes back as a fact. Attendance is
written in order by one task, behind the call, never in front of it. What it records with is
recording.py's, what it tells once a second status.py's.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, assert_never

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import Clock
from core.db import Database, violates
from core.errors import ReceptionError, Unavailable
from core.grants import Grant
from core.ids import AppointmentId, ParticipantId, RoomId, SessionId, new_id
from media.events import (
    TOO_MUCH,
    MediaEvent,
    OfferNeeded,
    PeerBack,
    PeerConnected,
    PeerLost,
    PeerSilent,
    QualityChanged,
    SpeakingChanged,
    TrackStarted,
)
from media.offers import ClientOffer
from media.tracks import TrackName
from signaling.effects import (
    AnswerOffer,
    AnswerRefused,
    AnswerTaken,
    ClosePeer,
    CloseSocket,
    Dispose,
    Effect,
    EndSession,
    Fact,
    FetchOffer,
    GoLive,
    MediaConnected,
    MediaGone,
    MediaSilent,
    NewLeg,
    NoteArrival,
    NoteDeparture,
    OfferFailed,
    OfferMade,
    OfferWanted,
    OpenPeer,
    PluggedIn,
    Post,
    RefuseOffer,
    Send,
    SessionClosed,
    SessionRefused,
    SessionStarted,
    SetMuted,
    SetPublishes,
    SocketId,
    Spoke,
    StartSession,
    TakeAnswer,
    Tick,
    Unplugged,
)
from signaling.outbox import Outbox
from signaling.ports import MediaPeer, MediaRoom, OpenRecorder
from signaling.presence import Lease, Presence
from signaling.protocol import CloseCode, EndReason, OfferedTrack, ServerMessage, Track
from signaling.recording import TalkRecorder
from signaling.room import Room
from signaling.session import (
    Beginning,
    Survivor,
    begin_recording,
    end_session,
    note_arrival,
    note_departure,
    start_session,
)
from signaling.status import RoomStatus

log = structlog.get_logger(__name__)

MAX_MEDIA_EVENTS: Final = 512
"""Media events waiting for one turn of the loop. When full the newest is dropped and logged: it
would take hundreds of facts within one turn, more than a room of twelve can have."""
MAX_LEDGER: Final = 512
"""Arrivals and departures waiting for the database. When full the newest is dropped and logged."""
START_WITHIN_S: Final = 15.0
MEDIA_ENDS_WITHIN_S: Final = 5.0
CLOSE_RECORDER_WITHIN_S: Final = 20.0
TELL_AFTER_S: Final = 5.0
"""People are told of the end when it is committed; if disk or database are slow, after this."""
RETRY_END_S: Final = 2.0
RETRY_NAME_S: Final = 2.0
DRAIN_WITHIN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Tools:
    """What every room of this process works with."""

    clock: Clock
    database: Database
    presence: Presence
    recordings_dir: Path
    node_name: str
    open_recorder: OpenRecorder
    on_session_event: Callable[[], None]
    forget: Callable[["RoomHost"], None]


@dataclass(frozen=True, slots=True)
class Plug:
    """A device's place in the room, and the answer to the offer it brought."""

    participant_id: ParticipantId
    leg: int
    answer: str


class RoomHost:
    """The room, its sockets, its media and its recorder, for as long as the room is needed."""

    def __init__(
        self,
        tools: Tools,
        room: Room,
        media: MediaRoom,
        *,
        appointment_id: AppointmentId,
        official_id: str,
        lease: Lease,
        survivor: Survivor | None = None,
    ) -> None:
        self.room = room
        self.lease = lease
        self.is_disposed = False
        self._tools = tools
        self._media = media
        self._appointment_id = appointment_id
        self._official_id = official_id
        self._epoch = 1 if survivor is None else survivor.epoch
        self._session_id = SessionId(new_id()) if survivor is None else survivor.session_id
        self._recording = TalkRecorder(
            tools.open_recorder, tools.recordings_dir, self._session_id,
            None if survivor is None else survivor.recording_id,
        )  # fmt: skip
        self._late: asyncio.Task[None] | None = None  # gives a live talk its recorder
        self._has_begun_late = False  # the recording: the database may not know it yet
        self.status = RoomStatus(
            room, media, self._recording,
            clock=tools.clock, presence=tools.presence, broadcast=self._broadcast,
        )  # fmt: skip
        self._sockets: dict[SocketId, Outbox] = {}
        self._peers: dict[ParticipantId, MediaPeer] = {}
        self._facts: deque[Fact] = deque()
        self._is_feeding = False
        self._plug: Plug | ReceptionError | None = None  # the outcome of the present `plug_in`
        self._heard: deque[tuple[MediaPeer | None, ParticipantId, MediaEvent]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._ledger: deque[Callable[[AsyncSession], Awaitable[None]]] = deque()
        self._ledger_task: asyncio.Task[None] | None = None
        self._log = log.bind(room_id=room.room_id)

    @property
    def room_id(self) -> RoomId:
        return self.room.room_id

    def now_ms(self) -> int:
        return self._tools.clock.monotonic_ns() // 1_000_000

    # ── facts in ─────────────────────────────────────────────────────────────────────────────────

    def add_socket(self, outbox: Outbox) -> None:
        """Make a socket known before the fact that mentions it."""
        self._sockets[outbox.socket_id] = outbox

    def drop_socket(self, socket_id: SocketId) -> None:
        self._sockets.pop(socket_id, None)

    def feed(self, fact: Fact) -> None:
        """Let the room handle `fact` and everything that follows from it at once."""
        self._facts.append(fact)
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._facts:
                effects = self.room.handle(self._facts.popleft(), self.now_ms())
                # Results of effects come before facts that were already waiting: an offer must
                # reach the client as the room was when it asked.
                results = [fact for effect in effects for fact in self._perform(effect)]
                self._facts.extendleft(reversed(results))
        finally:
            self._is_feeding = False
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self.room.due_ms()
        if due_ms is not None and not self.is_disposed:
            wait_s = max(0, due_ms - self.now_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.feed, Tick())

    def _hear(self, participant_id: ParticipantId, event: MediaEvent) -> None:
        """What media calls, possibly from inside one of our own calls: only queue it."""
        if len(self._heard) >= MAX_MEDIA_EVENTS:
            self._log.warning("media_event_dropped", kind=type(event).__name__)
            return
        if not self._heard:
            asyncio.get_running_loop().call_soon(self._take_heard)
        self._heard.append((self._peers.get(participant_id), participant_id, event))

    def _take_heard(self) -> None:
        heard, self._heard = self._heard, deque()
        for peer, participant_id, event in heard:
            # A peer that has been removed since, or replaced by a new one, has nothing to say.
            if peer is not None and self._peers.get(participant_id) is not peer:
                continue
            if isinstance(event, QualityChanged):
                self.status.qualities[participant_id] = event.quality
                continue
            if event == PeerLost(TOO_MUCH):
                self.status.note_excess(participant_id)
            if (fact := _fact_of(participant_id, event)) is not None:
                self.feed(fact)

    # ── effects out ──────────────────────────────────────────────────────────────────────────────

    def _perform(self, effect: Effect) -> list[Fact]:  # noqa: PLR0912  one arm per effect
        """Perform one effect; the facts that result at once, in order."""
        match effect:
            case Send(socket_id, message):
                self._send(socket_id, message)
            case Post(participant_id, socket_id, message):
                self._tools.presence.keep(self.lease, participant_id, message)
                if socket_id is not None:
                    self._send(socket_id, message)
            case CloseSocket(socket_id, code):
                if outbox := self._sockets.pop(socket_id, None):
                    outbox.close(code)
            case OpenPeer():
                self._open_peer(effect)
            case ClosePeer(participant_id):
                self._peers.pop(participant_id, None)
                self.status.qualities.pop(participant_id, None)
                self._media.remove_peer(participant_id)
            case NewLeg(participant_id):
                self._peers[participant_id].new_leg()
            case FetchOffer(participant_id):
                return [self._fetch_offer(participant_id)]
            case TakeAnswer():
                return [self._take_answer(effect)]
            case AnswerOffer():
                self._answer_offer(effect)
            case RefuseOffer(refusal):
                self._plug = refusal
            case SetPublishes(participant_id, tracks):
                self._peers[participant_id].set_publishes(_names(tracks))
            case SetMuted(participant_id, track, muted):
                self._peers[participant_id].set_muted(TrackName(track), muted)
            case StartSession(present):
                self._spawn(self._start_session(present), "start session")
            case GoLive():
                self._go_live()
            case NoteArrival(grant):
                self._note_arrival(grant)
            case NoteDeparture(participant_id):
                self._note_departure(participant_id)
            case EndSession(reason):
                self._ending = self._spawn(self._end_session(reason), "end session")
            case Dispose():
                self._dispose()
            case _:
                assert_never(effect)
        return []

    def _send(self, socket_id: SocketId, message: ServerMessage) -> None:
        if outbox := self._sockets.get(socket_id):
            outbox.send(message)

    def _broadcast(self, message: ServerMessage) -> None:
        for outbox in self._sockets.values():
            outbox.send(message)

    def _open_peer(self, effect: OpenPeer) -> None:
        grant = effect.grant
        participant_id = ParticipantId(grant.participant_id)
        peer = self._media.add_peer(
            participant_id,
            label=grant.label_zh,
            role=grant.role,
            publishes=_names(effect.publishes),
            on_event=lambda event: self._hear(participant_id, event),
        )
        self._peers[participant_id] = peer
        for track in effect.muted:
            peer.set_muted(TrackName(track), True)

    def _fetch_offer(self, participant_id: ParticipantId) -> Fact:
        try:
            offer = self._peers[participant_id].offer()
        except Exception:
            # The edge of our code: a fault in the media plane must not stop the room.
            self._log.exception("offer_failed", participant_id=participant_id)
            return OfferFailed(participant_id)
        tracks = tuple(
            OfferedTrack(
                mid=track.mid,
                participant_id=track.participant_id,
                track=Track(track.name.value),
                direction=track.direction,
            )
            for track in offer.tracks
        )
        return OfferMade(participant_id, offer.revision, offer.sdp, tracks)

    def _take_answer(self, effect: TakeAnswer) -> Fact:
        who, socket_id, request_id = effect.participant_id, effect.socket_id, effect.request_id
        try:
            self._peers[who].answer(effect.revision, effect.sdp)
        except ReceptionError as refusal:
            return AnswerRefused(who, socket_id, request_id, refusal.code, refusal.message)
        except Exception:
            # A parser may raise anything over a hostile SDP; the sender learns only that.
            self._log.exception("answer_failed", participant_id=who)
            words = "This answer cannot be used. Ask for a new offer with media_lost."
            return AnswerRefused(who, socket_id, request_id, "sdp_refused", words)
        return AnswerTaken(who, socket_id, request_id, effect.revision)

    # ── devices ──────────────────────────────────────────────────────────────────────────────────

    def plug_in(self, grant: Grant, publishes: tuple[Track, ...], offer: ClientOffer) -> Plug:
        """Seat a device that brought an offer, and answer it. Raises what the room refuses with."""
        self.feed(PluggedIn(grant, publishes, offer))
        plug, self._plug = self._plug, None
        if isinstance(plug, Plug):
            return plug
        raise plug or Unavailable("The room could not answer. Try again.")

    def unplug(self, plug: Plug) -> None:
        """End what `plug_in` began. Ending it twice, or after another began, changes nothing."""
        self.feed(Unplugged(plug.participant_id, plug.leg))

    @property
    def has_devices(self) -> bool:
        return any(seat.is_device and not seat.has_left for seat in self.room.seats.values())

    def let_go(self, grant_ids: frozenset[str]) -> None:
        """Unplug the devices that came in with one of these Grants, which were taken back."""
        for seat in list(self.room.seats.values()):
            if seat.is_device and not seat.has_left and seat.grant.grant_id in grant_ids:
                self._log.info("device_let_go", participant_id=seat.participant_id)
                self.feed(Unplugged(seat.participant_id, seat.leg))

    def is_plugged(self, plug: Plug) -> bool:
        """Whether that device still has its seat, on the leg that it began with."""
        seat = self.room.seats.get(plug.participant_id)
        return (
            not self.is_disposed
            and seat is not None
            and not seat.has_left
            and seat.leg == plug.leg
            and plug.participant_id in self._peers
        )

    def ice_name(self, plug: Plug) -> str:
        """Our name of the present ICE session of a device that is plugged in."""
        return self._peers[plug.participant_id].ice_name

    def restart_ice(self, plug: Plug, remote_ufrag: str) -> str:
        return self._peers[plug.participant_id].restart_ice(remote_ufrag)

    def _answer_offer(self, effect: AnswerOffer) -> None:
        who = ParticipantId(effect.grant.participant_id)
        try:
            answer = self._peers[who].accept(effect.offer, watch=effect.grant.watch)
        except Exception:
            # The edge of our code: a fault in the media plane must not stop the room.
            self._log.exception("offer_not_answered", participant_id=who)
            return
        self._plug = Plug(who, effect.leg, answer)

    # ── going live ───────────────────────────────────────────────────────────────────────────────

    async def _start_session(self, present: tuple[Grant, ...]) -> None:
        started_at = self._tools.clock.now()
        began_ns = self._tools.clock.monotonic_ns()
        recorder = await self._recording.open(started_at, began_ns)
        begin = Beginning(
            session_id=self._session_id, appointment_id=self._appointment_id,
            room_id=self.room_id, official_id=self._official_id,
            county_id=present[0].county_id, node=self._tools.node_name,
            started_at=started_at, slot_ends_at=self.room.slot_ends_at,
            recording_id=None if recorder is None else self._recording.recording_id,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_WITHIN_S):
                await self._tools.database.run(lambda tx: start_session(tx, begin, present))
        except Exception as error:  # whatever it was, the room must hear that it is not live
            self._recording.forsake()
            self.feed(self._start_refused(error))
            return
        self._recording.is_named = recorder is not None
        elapsed_ms = (self._tools.clock.monotonic_ns() - began_ns) // 1_000_000
        self._log.info("session_started", session_id=self._session_id, recorded=bool(recorder))
        self._tools.on_session_event()
        self.feed(SessionStarted(self._session_id, started_at, elapsed_ms))

    def _start_refused(self, error: Exception) -> SessionRefused:
        if isinstance(error, IntegrityError) and violates(
            error, "uq_sessions_appointment_id", "sessions.appointment_id"
        ):
            self._log.warning("session_exists", appointment_id=self._appointment_id)
            return SessionRefused("session_exists", "This appointment has already been called.")
        self._log.error("session_not_started", exc_info=error)
        return SessionRefused(
            "session_unavailable", "The session could not be opened. Please admit again."
        )

    def _go_live(self) -> None:
        if self._recording.goes_on:
            # A session that outlived its node: its recording goes on in the same directory.
            self._late = self._spawn(self._go_on(), "go on recording")
            return
        self._media.go_live(self._recording.recorder)
        if self._recording.recorder is None:
            self._late = self._spawn(self._record_late(), "begin recording late")

    async def _go_on(self) -> None:
        recorder = await self._recording.open(*self._time_zero())
        self._media.go_live(recorder)
        if recorder is None:
            await self._record_late()

    async def _record_late(self) -> None:
        """The talk is live without a recorder: give it one as soon as the disk does."""
        recorder = await self._recording.pursue(*self._time_zero())
        if recorder is None:
            return
        self.status.late_ms = self.room.elapsed_ms(self.now_ms())
        self._log.warning(
            "recording_late", session_id=self._session_id, late_ms=self.status.late_ms
        )
        self._has_begun_late = not self._recording.is_named
        self._recording.is_named = True
        self._media.record(recorder)
        while self._has_begun_late:
            try:
                await self._tools.database.run(self._name_recording)
                return
            except Exception:  # whatever is wrong with the database, the recording must be found
                self._log.exception("recording_not_named", session_id=self._session_id)
                await asyncio.sleep(RETRY_NAME_S)

    def _time_zero(self) -> tuple[datetime, int]:
        """When the session began, on the wall and on the monotonic clock."""
        now_ns = self._tools.clock.monotonic_ns()
        elapsed_ms = self.room.elapsed_ms(now_ns // 1_000_000)
        return self.room.live_since or self._tools.clock.now(), now_ns - elapsed_ms * 1_000_000

    async def _name_recording(self, tx: AsyncSession) -> None:
        """Tell the database of a recording that began late."""
        recording_id = self._recording.recording_id
        if self._has_begun_late and recording_id is not None:
            await begin_recording(tx, self._session_id, recording_id, epoch=self._epoch)

    # ── attendance ───────────────────────────────────────────────────────────────────────────────

    def _note_arrival(self, grant: Grant) -> None:
        session_id, epoch, now = self._session_id, self._epoch, self._tools.clock.now()
        self._write_later(lambda tx: note_arrival(tx, session_id, grant, now=now, epoch=epoch))

    def _note_departure(self, participant_id: ParticipantId) -> None:
        session_id, epoch, now = self._session_id, self._epoch, self._tools.clock.now()
        self._write_later(
            lambda tx: note_departure(tx, session_id, participant_id, now=now, epoch=epoch)
        )

    def _write_later(self, work: Callable[[AsyncSession], Awaitable[None]]) -> None:
        if len(self._ledger) >= MAX_LEDGER:
            self._log.warning("attendance_dropped", session_id=self._session_id)
            return
        self._ledger.append(work)
        if self._ledger_task is None or self._ledger_task.done():
            self._ledger_task = self._spawn(self._write_ledger(), "write attendance")

    async def _write_ledger(self) -> None:
        while self._ledger:
            work = self._ledger.popleft()
            try:
                await self._tools.database.run(work)
            except Exception:  # one line lost must not cost the lines behind it
                self._log.exception("attendance_not_written", session_id=self._session_id)

    # ── ending ───────────────────────────────────────────────────────────────────────────────────

    async def _end_session(self, reason: EndReason) -> None:
        """Stop, seal, commit, tell. Nothing here can keep the session from ending but the
        database, and that is asked until it answers.
        """
        ended_at = self._tools.clock.now()
        told = asyncio.get_running_loop().call_later(TELL_AFTER_S, self.feed, SessionClosed())
        try:
            await self._stop_media()
            await self._recording.close(CLOSE_RECORDER_WITHIN_S)
            ended = await self._commit_end(reason, ended_at)
        finally:
            told.cancel()
        self._log.info(
            "session_ended", session_id=self._session_id, reason=reason, ended_here=ended,
            duration_s=self.room.elapsed_ms(self.now_ms()) // 1000,
        )  # fmt: skip
        if ended:
            self._tools.on_session_event()
        self.feed(SessionClosed())
        if self.is_disposed:
            self._tools.forget(self)

    async def _commit_end(self, reason: EndReason, ended_at: datetime) -> bool:
        async def work(tx: AsyncSession) -> bool:
            await self._name_recording(tx)
            return await end_session(tx, self._session_id, reason, ended_at, epoch=self._epoch)

        while True:
            try:
                return await self._tools.database.run(work)
            except Exception:  # whatever is wrong with the database, the end must be written
                self._log.exception("session_end_not_committed", session_id=self._session_id)
                await asyncio.sleep(RETRY_END_S)

    async def _stop_media(self) -> None:
        if self._late is not None:
            self._late.cancel()  # nobody is recorded from here on
        try:
            async with asyncio.timeout(MEDIA_ENDS_WITHIN_S):
                await self._media.end()
        except Exception:  # media that cannot stop must not keep the session open
            self._log.exception("media_not_ended")

    def _dispose(self) -> None:
        self.is_disposed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._ending is None:
            self._spawn(self._stop_media(), "stop media")
        if self._ending is None or self._ending.done():
            self._tools.forget(self)
        # Otherwise the ending task forgets the room when its commit is through.

    # ── leaving the room to others ───────────────────────────────────────────────────────────────

    async def drain(self) -> None:
        """This process stops: the session stays live in the database, its journals are flushed,
        and clients are told to come back.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self._ending is not None:
            # An end that has begun is finished; it is only a commit away.
            await asyncio.wait({self._ending}, timeout=DRAIN_WITHIN_S)
        for outbox in self._sockets.values():
            outbox.close(CloseCode.RESTART)
        self._sockets.clear()
        await self._stop_media()
        await self._recording.close(DRAIN_WITHIN_S)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=MEDIA_ENDS_WITHIN_S)
        for task in self._tasks:
            task.cancel()
        self.is_disposed = True

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task of this host; its failure is logged, never lost."""
        task = asyncio.create_task(work, name=f"{name} {self.room_id}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("room_task_failed", task=task.get_name(), exc_info=error)


def _names(tracks: tuple[Track, ...]) -> tuple[TrackName, ...]:
    return tuple(TrackName(track.value) for track in tracks)


def _fact_of(participant_id: ParticipantId, event: MediaEvent) -> Fact | None:
    match event:
        case PeerConnected() | PeerBack():
            return MediaConnected(participant_id)
        case PeerSilent():
            return MediaSilent(participant_id)
        case PeerLost(reason):
            return MediaGone(participant_id, has_sent_too_much=reason == TOO_MUCH)
        case OfferNeeded():
            return OfferWanted(participant_id)
        case SpeakingChanged(speaking):
            return Spoke(participant_id, speaking)
        case TrackStarted() | QualityChanged():
            return None
        case _:
            assert_never(event)
