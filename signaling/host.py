"""One room at work: feeds facts to the state machine and performs the effects it orders.

Everything that touches the room runs on the event loop, so there are no locks; what must wait (the
database, opening a recording) runs in tasks of this host and comes back as a fact. Attendance is
written in order by one task, behind the call, never in front of it.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, assert_never

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import Clock
from core.db import Database, violates
from core.errors import ReceptionError, Unavailable
from core.grants import Grant
from core.ids import AppointmentId, ParticipantId, RecordingId, RoomId, SessionId, new_id
from media.events import (
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
from media.events import Quality as LineWord
from media.manifest import discard_if_empty
from media.offers import ClientOffer
from media.recorder import RecordingState as WrittenState
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
from signaling.ports import LiveRecorder, MediaPeer, MediaRoom, OpenRecorder
from signaling.presence import Lease, Presence, RecordingAlarm, UnheardSince
from signaling.protocol import (
    CloseCode,
    EndReason,
    LineQuality,
    OfferedTrack,
    Quality,
    RecordingState,
    RecordingStatus,
    RecordingTrouble,
    RoomState,
    ServerMessage,
    Track,
    TrackWritten,
    UnheardTrack,
)
from signaling.room import Room
from signaling.seat import Media
from signaling.session import (
    Beginning,
    Survivor,
    end_session,
    note_arrival,
    note_departure,
    start_session,
)
from signaling.unheard import TrackKey

log = structlog.get_logger(__name__)

MAX_MEDIA_EVENTS: Final = 512
"""Media events waiting for one turn of the loop. When full the newest is dropped and logged: it
would take hundreds of facts within one turn, more than a room of twelve can have."""
MAX_LEDGER: Final = 512
"""Arrivals and departures waiting for the database. When full the newest is dropped and logged."""
RECORDER_OPENS_WITHIN_S: Final = 5.0
START_WITHIN_S: Final = 15.0
MEDIA_ENDS_WITHIN_S: Final = 5.0
CLOSE_RECORDER_WITHIN_S: Final = 20.0
TELL_AFTER_S: Final = 5.0
"""People are told of the end when it is committed; if disk or database are slow, after this."""
RETRY_END_S: Final = 2.0
AWAY_AFTER_MS: Final = 60_000
"""A party that is away for so long is shown to the county desk, which can walk over and look."""
DRAIN_WITHIN_S: Final = 15.0

_WORDS: Final = {LineWord.GOOD: "good", LineWord.FAIR: "poor", LineWord.POOR: "bad"}


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
        self._recording_id = None if survivor is None else survivor.recording_id
        self._recorder: LiveRecorder | None = None
        self._sockets: dict[SocketId, Outbox] = {}
        self._peers: dict[ParticipantId, MediaPeer] = {}
        self._qualities: dict[ParticipantId, LineWord] = {}
        self._facts: deque[Fact] = deque()
        self._is_feeding = False
        self._plug: Plug | ReceptionError | None = None  # the outcome of the present `plug_in`
        self._heard: deque[tuple[MediaPeer | None, ParticipantId, MediaEvent]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_away_shown = False
        self._is_recorder_opening = False
        self._told: tuple[RecordingState, RecordingTrouble | None] | None = None
        self._alarm_since: datetime | None = None  # as shown to the desk; None: nothing is wrong
        self._missed: frozenset[TrackKey] = frozenset()
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
                self._qualities[participant_id] = event.quality
                continue
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
                self._qualities.pop(participant_id, None)
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
        recording_id = RecordingId(new_id())
        started_at = self._tools.clock.now()
        began_ns = self._tools.clock.monotonic_ns()
        recorder = await self._open_recorder(recording_id, started_at_now=True)
        begin = Beginning(
            session_id=self._session_id, appointment_id=self._appointment_id,
            room_id=self.room_id, official_id=self._official_id,
            county_id=present[0].county_id, node=self._tools.node_name,
            started_at=started_at, slot_ends_at=self.room.slot_ends_at,
            recording_id=None if recorder is None else recording_id,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_WITHIN_S):
                await self._tools.database.run(lambda tx: start_session(tx, begin, present))
        except Exception as error:  # whatever it was, the room must hear that it is not live
            if recorder is not None:
                self._spawn(self._discard(recorder, recording_id), "discard recording")
            self.feed(self._start_refused(error))
            return
        self._recorder, self._recording_id = recorder, begin.recording_id
        zero_ns = began_ns if recorder is None else recorder.t0_mono_ns
        elapsed_ms = (self._tools.clock.monotonic_ns() - zero_ns) // 1_000_000
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

    async def _open_recorder(
        self, recording_id: RecordingId, *, started_at_now: bool
    ) -> LiveRecorder | None:
        """The recorder, or None if this disk cannot record now: the talk goes on and says so."""
        tools = self._tools
        started_at = (None if started_at_now else self.room.live_since) or tools.clock.now()
        try:
            async with asyncio.timeout(RECORDER_OPENS_WITHIN_S):
                return await asyncio.to_thread(
                    tools.open_recorder,
                    tools.recordings_dir / recording_id,
                    session_id=self._session_id,
                    started_at=started_at,
                )
        except Exception:  # a disk has many ways to fail; none of them may stop the talk
            self._log.exception("recording_unavailable", session_id=self._session_id)
            return None

    async def _discard(self, recorder: LiveRecorder, recording_id: RecordingId) -> None:
        """A recording whose Session was not committed, as far as we know: without packets, nothing
        of it is to stay. With any it does: this is no place that deletes recordings."""
        await recorder.close()
        await asyncio.to_thread(discard_if_empty, self._tools.recordings_dir / recording_id)

    def _go_live(self) -> None:
        if self._recorder is not None or self._recording_id is None:
            self._media.go_live(self._recorder)
        else:
            # A session that outlived its node: its recording goes on in the same directory.
            self._spawn(self._go_on(self._recording_id), "go on recording")

    async def _go_on(self, recording_id: RecordingId) -> None:
        self._is_recorder_opening = True
        try:
            self._recorder = await self._open_recorder(recording_id, started_at_now=False)
        finally:
            self._is_recorder_opening = False
        if self._ending is None:
            self._media.go_live(self._recorder)

    # ── attendance ───────────────────────────────────────────────────────────────────────────────

    def _note_arrival(self, grant: Grant) -> None:
        session_id, now = self._session_id, self._tools.clock.now()
        self._write_later(lambda tx: note_arrival(tx, session_id, grant, now=now))

    def _note_departure(self, participant_id: ParticipantId) -> None:
        session_id, now = self._session_id, self._tools.clock.now()
        self._write_later(lambda tx: note_departure(tx, session_id, participant_id, now=now))

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
            await self._close_recorder()
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
        while True:
            try:
                return await self._tools.database.run(
                    lambda tx: end_session(
                        tx, self._session_id, reason, ended_at, epoch=self._epoch
                    )
                )
            except Exception:  # whatever is wrong with the database, the end must be written
                self._log.exception("session_end_not_committed", session_id=self._session_id)
                await asyncio.sleep(RETRY_END_S)

    async def _stop_media(self) -> None:
        try:
            async with asyncio.timeout(MEDIA_ENDS_WITHIN_S):
                await self._media.end()
        except Exception:  # media that cannot stop must not keep the session open
            self._log.exception("media_not_ended")

    async def _close_recorder(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        try:
            async with asyncio.timeout(CLOSE_RECORDER_WITHIN_S):
                await recorder.close()
        except Exception:  # the journals are on disk; finishing the recording recovers them
            self._log.exception("recording_not_closed", session_id=self._session_id)

    def _dispose(self) -> None:
        self.is_disposed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._ending is None:
            self._spawn(self._stop_media(), "stop media")
        if self._ending is None or self._ending.done():
            self._tools.forget(self)
        # Otherwise the ending task forgets the room when its commit is through.

    # ── status ───────────────────────────────────────────────────────────────────────────────────

    def report(self, second: int) -> None:
        """Once a second: what is written, how the lines are, who is there."""
        self._tools.presence.show_roles(self.room_id, self.room.roles_present())
        self._show_away()
        self._tell_recording()
        if second % 2 == 0 and self._peers:
            self._broadcast(self._line_qualities())

    def watch(self) -> None:
        """Between reports: what people must not wait a second for."""
        if self.room.state is RoomState.LIVE and self._recording_word() != self._told:
            self._tell_recording()

    def _tell_recording(self) -> None:
        """Tell everyone in the room how the recording is, and the county desk if it is not well."""
        if self.room.state is not RoomState.LIVE or self.room.is_waited_for:
            self._told = None
            self._show_recording(None)
            return
        status = self._recording_status()
        self._told = (status.state, status.trouble)
        self._broadcast(status)
        self._show_recording(status)

    def _show_recording(self, status: RecordingStatus | None) -> None:
        if status is None or not (status.trouble or status.unheard):
            if self._alarm_since is not None:
                self._tools.presence.show_recording(self.room_id, None)
            self._alarm_since, self._missed = None, frozenset()
            return
        now = self._tools.clock.now()
        self._alarm_since = self._alarm_since or now
        self._tools.presence.show_recording(
            self.room_id,
            RecordingAlarm(
                since=self._alarm_since,
                trouble=status.trouble,
                unheard=tuple(
                    UnheardSince(
                        role=self.room.seats[ParticipantId(each.participant_id)].role.value,
                        track=each.track.value,
                        since=now - timedelta(milliseconds=each.for_ms),
                    )
                    for each in status.unheard
                ),
            ),
        )
        missed = frozenset((ParticipantId(one.participant_id), one.track) for one in status.unheard)
        for participant_id, track in sorted(missed - self._missed):
            self._log.warning(
                "track_not_recorded", session_id=self._session_id,
                participant_id=participant_id, track=track,
            )  # fmt: skip
        self._missed = missed

    def _show_away(self) -> None:
        away_ms = self.room.party_away_ms(self.now_ms())
        if away_ms is not None and away_ms >= AWAY_AFTER_MS:
            since = self._tools.clock.now() - timedelta(milliseconds=away_ms)
            self._tools.presence.show_away(self.room_id, since)
            if not self._is_away_shown:
                self._log.warning("party_away", session_id=self._session_id)
            self._is_away_shown = True
        elif self._is_away_shown:
            self._tools.presence.show_away(self.room_id, None)
            self._is_away_shown = False

    def _recording_status(self) -> RecordingStatus:
        now_ms = self.now_ms()
        elapsed_ms = self.room.elapsed_ms(now_ms)
        state, trouble = self._recording_word()
        if self._recorder is None:
            return RecordingStatus(state=state, tracks=(), elapsed_ms=elapsed_ms, trouble=trouble)
        status = self._recorder.status()
        tracks = tuple(
            TrackWritten(
                participant_id=track.participant_id,
                track=Track(track.name.value),
                bytes_written=track.bytes_written,
                last_write_age_ms=track.last_write_age_ms,
            )
            for track in status.tracks
        )
        ages_ms = {
            (ParticipantId(each.participant_id), each.track): each.last_write_age_ms
            for each in tracks
        }
        # While nothing can be written everybody is missing from the recording, and nobody is to
        # blame but the disk.
        missed = () if trouble else self.room.unheard(ages_ms, now_ms)
        return RecordingStatus(
            state=state, tracks=tracks, elapsed_ms=elapsed_ms, trouble=trouble,
            lost_packets=status.lost_packets,
            unheard=tuple(
                UnheardTrack(participant_id=one.participant_id, track=one.track, for_ms=one.for_ms)
                for one in missed
            ),
        )  # fmt: skip

    def _recording_word(self) -> tuple[RecordingState, RecordingTrouble | None]:
        """The state in one word, and why it is trouble."""
        if self._recorder is None:
            if self._is_recorder_opening:
                return RecordingState.PREPARING, None
            return RecordingState.TROUBLE, RecordingTrouble.NOT_BEGUN
        status = self._recorder.status()
        match status.state:
            case WrittenState.PREPARING:
                return RecordingState.PREPARING, None
            case WrittenState.RECORDING:
                return RecordingState.RECORDING, None
            case WrittenState.TROUBLE:
                return RecordingState.TROUBLE, _trouble_of(status.disk.error or "")
            case _:
                assert_never(status.state)

    def _line_qualities(self) -> Quality:
        lines: list[LineQuality] = []
        for stats in self._media.stats():
            seat = self.room.seats.get(stats.participant_id)
            if seat is None or seat.has_left or seat.media is Media.NONE:
                continue  # nothing is known of a line that was never there
            is_up = seat.media is Media.CONNECTED
            word = _WORDS[self._qualities.get(stats.participant_id, LineWord.GOOD)]
            lines.append(
                LineQuality.model_validate(
                    {
                        "participant_id": stats.participant_id,
                        "rtt_ms": stats.round_trip_ms,
                        "loss_percent": round(100 * max(stats.loss_in, stats.loss_out), 1),
                        "quality": word if is_up else "lost",
                        "freezes": stats.freezes,
                        "frozen_ms": stats.frozen_ms,
                        "is_picture_held": stats.is_picture_held,
                    }
                )
            )
        return Quality(lines=tuple(lines))

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
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            try:
                async with asyncio.timeout(DRAIN_WITHIN_S):
                    await recorder.close()
            except Exception:  # what reached the kernel is kept; the rest was lost to the disk
                self._log.exception("recording_not_closed", session_id=self._session_id)
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


def _trouble_of(error: str) -> RecordingTrouble:
    """What a recorder's words about its disk mean to people."""
    if any(os.strerror(number) in error for number in (errno.ENOSPC, errno.EDQUOT)):
        return RecordingTrouble.DISK_FULL
    return RecordingTrouble.DISK_SILENT if "answer" in error else RecordingTrouble.DISK_FAILED


def _names(tracks: tuple[Track, ...]) -> tuple[TrackName, ...]:
    return tuple(TrackName(track.value) for track in tracks)


def _fact_of(participant_id: ParticipantId, event: MediaEvent) -> Fact | None:
    match event:
        case PeerConnected() | PeerBack():
            return MediaConnected(participant_id)
        case PeerSilent():
            return MediaSilent(participant_id)
        case PeerLost():
            return MediaGone(participant_id)
        case OfferNeeded():
            return OfferWanted(participant_id)
        case SpeakingChanged(speaking):
            return Spoke(participant_id, speaking)
        case TrackStarted() | QualityChanged():
            return None
        case _:
            assert_never(event)
