"""A room at work against stand-ins: orders reach media and recorder, faults stay where they are."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import select

from core.clock import ManualClock
from core.db import Database
from core.events import Event, EventKind
from core.ids import AppointmentId, ParticipantId, RoomId, SessionId
from core.store import open_store
from media.events import PeerConnected, PeerLost, SpeakingChanged
from media.model import Recording
from media.recorder import RecordingState as WrittenState
from media.recorder import TrackStatus
from media.tracks import TrackName
from signaling.effects import Entered, RoomMessage, Said, SocketGone, SocketId, Tick
from signaling.host import RoomHost, Tools
from signaling.model import Session
from signaling.outbox import Outbox
from signaling.presence import Presence, RecordingAlarm
from signaling.protocol import (
    Admit,
    Answer,
    CloseCode,
    End,
    Ended,
    Error,
    Leave,
    Message,
    Offer,
    Ok,
    RecordingState,
    RecordingStatus,
    RecordingTrouble,
    RoomState,
    Track,
)
from signaling.room import Room
from signaling.rules import Rules
from tests.support.matters import START, make_prefecture
from tests.support.rooms import FakeMediaRoom, FakeRecorder, make_grant
from tests.support.signal_house import make_appointment

KIOSK = ParticipantId("petitioner-1")
CHAIR = ParticipantId("official-1")


@dataclass
class Bench:
    """A host with everything around it in reach."""

    host: RoomHost
    media: FakeMediaRoom
    clock: ManualClock
    database: Database
    recorders: list[FakeRecorder]
    official_id: str
    county_id: str
    presence: Presence
    boxes: dict[ParticipantId, Outbox] = field(default_factory=dict)
    forgotten: list[RoomHost] = field(default_factory=list)
    pokes: list[None] = field(default_factory=list)

    def enter(self, role: str) -> Outbox:
        box = Outbox(SocketId(len(self.boxes) + 1))
        room_id = self.host.room_id
        grant = make_grant(
            role, room_id=room_id, official_id=self.official_id, county_id=self.county_id
        )
        self.boxes[ParticipantId(grant.participant_id)] = box
        self.host.add_socket(box)
        self.host.feed(Entered(grant, box.socket_id, "j", "token"))
        return box

    def say(self, who: ParticipantId, message: RoomMessage) -> None:
        self.host.feed(Said(who, self.boxes[who].socket_id, message))

    async def ready(self) -> None:
        self.enter("petitioner")
        self.enter("official")
        for who in (KIOSK, CHAIR):
            self.media.peers[who].on_event(PeerConnected(1, "AEAD_AES_128_GCM"))
        await asyncio.sleep(0)

    async def live(self) -> None:
        await self.ready()
        self.say(CHAIR, Admit(type="admit", id="a"))
        await self.until(lambda: self.host.room.state is RoomState.LIVE)

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not check():
                await asyncio.sleep(0.005)

    async def session(self) -> Session | None:
        async with self.database.reading() as tx:
            return await tx.scalar(select(Session).where(Session.room_id == self.host.room_id))


def waiting(box: Outbox, kind: type[Message]) -> list[Message]:
    return [message for message in box._waiting if isinstance(message, kind)]


@pytest.fixture
async def bench(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    prefecture = await make_prefecture(sqlite_database)
    appointment_id = await make_appointment(sqlite_database, prefecture)
    clock = ManualClock(START)
    store = open_store("")
    presence = Presence(store, "node-1")
    recorders: list[FakeRecorder] = []

    def open_recorder(
        directory: Path, *, session_id: SessionId, started_at: datetime, t0_mono_ns: int
    ) -> FakeRecorder:
        recorders.append(FakeRecorder(directory, session_id, started_at, t0_mono_ns))
        return recorders[-1]

    forgotten: list[RoomHost] = []
    pokes: list[None] = []
    tools = Tools(
        clock=clock, database=sqlite_database, presence=presence, recordings_dir=tmp_path,
        node_name="node-1", open_recorder=open_recorder,
        on_session_event=lambda: pokes.append(None), forget=forgotten.append,
    )  # fmt: skip
    room_id = RoomId(appointment_id)
    media = FakeMediaRoom()
    host = RoomHost(
        tools, Room(room_id, Rules(grace_ms=60_000, countdown_ms=0), 0), media,
        appointment_id=AppointmentId(appointment_id), official_id=prefecture.official_id,
        lease=await presence.take_lease(room_id),
    )  # fmt: skip
    yield Bench(
        host, media, clock, sqlite_database, recorders, prefecture.official_id,
        prefecture.units["513328"], presence,
        forgotten=forgotten, pokes=pokes,
    )  # fmt: skip
    await host.drain()
    await store.aclose()


async def test_going_live_hands_the_recorder_to_media_after_the_commit(bench: Bench) -> None:
    await bench.ready()
    assert bench.media.live_with == []
    bench.say(CHAIR, Admit(type="admit", id="a"))
    await bench.until(lambda: bool(bench.media.live_with))
    assert bench.media.live_with == [bench.recorders[0]]
    session = await bench.session()
    assert session is not None
    assert (session.state, session.started_at) == ("live", START)
    assert bench.recorders[0].started_at == START
    async with bench.database.reading() as tx:
        recording = (await tx.scalars(select(Recording))).one()
    assert (recording.id, recording.state) == (session.recording_id, "capturing")
    assert len(bench.pokes) == 1


async def test_the_recording_is_closed_before_the_end_is_told(bench: Bench) -> None:
    await bench.live()
    bench.say(CHAIR, End(type="end", id="e"))
    assert not waiting(bench.boxes[KIOSK], Ended)
    await bench.until(lambda: bool(bench.forgotten))
    assert bench.media.is_ended
    assert bench.recorders[0].is_closed
    assert waiting(bench.boxes[KIOSK], Ended)
    assert bench.boxes[KIOSK].close_code is CloseCode.OVER
    session = await bench.session()
    assert session is not None and session.end_reason == "ended_by_official"


async def test_a_recording_that_cannot_be_sealed_does_not_keep_the_session_open(
    bench: Bench,
) -> None:
    await bench.live()
    bench.recorders[0].close_error = OSError(5, "Input/output error")
    bench.say(CHAIR, End(type="end", id="e"))
    await bench.until(lambda: bool(bench.forgotten))
    session = await bench.session()
    assert session is not None and session.state == "ended"


async def test_a_database_that_is_away_at_the_end_is_asked_until_it_answers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.live()
    monkeypatch.setattr("signaling.host.RETRY_END_S", 0.01)
    real, failures = bench.database.run, [ConnectionError("away")] * 3

    async def run(work: object) -> object:
        if failures:
            raise failures.pop()
        return await real(cast("Callable[..., object]", work))  # type: ignore[arg-type]

    monkeypatch.setattr(bench.database, "run", run)
    bench.say(CHAIR, End(type="end", id="e"))
    await bench.until(lambda: bool(bench.forgotten))
    assert not failures
    async with bench.database.reading() as tx:
        events = await tx.scalars(select(Event).where(Event.kind == EventKind.SESSION_ENDED))
        assert len(list(events)) == 1


async def test_people_are_told_of_the_end_though_the_database_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.live()
    monkeypatch.setattr("signaling.host.RETRY_END_S", 0.01)
    monkeypatch.setattr("signaling.host.TELL_AFTER_S", 0.05)
    real, is_away = bench.database.run, [True]

    async def run(work: object) -> object:
        if is_away:
            raise ConnectionError("away")
        return await real(cast("Callable[..., object]", work))  # type: ignore[arg-type]

    monkeypatch.setattr(bench.database, "run", run)
    bench.say(CHAIR, End(type="end", id="e"))
    await bench.until(lambda: bool(waiting(bench.boxes[KIOSK], Ended)))
    assert not bench.forgotten  # the room is remembered until its end is written
    is_away.clear()
    await bench.until(lambda: bool(bench.forgotten))


async def test_a_session_that_cannot_be_written_is_not_live_and_leaves_no_recording(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.ready()

    async def run(_: object) -> object:
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(bench.database, "run", run)
        bench.say(CHAIR, Admit(type="admit", id="a"))
        await bench.until(lambda: bool(waiting(bench.boxes[CHAIR], Error)))
    assert bench.media.live_with == []
    assert bench.host.room.state is RoomState.WAITING
    await bench.until(lambda: bench.recorders[0].is_closed)
    bench.say(CHAIR, Admit(type="admit", id="b"))
    await bench.until(lambda: bench.host.room.state is RoomState.LIVE)
    assert bench.media.live_with == [bench.recorders[1]]


async def test_an_appointment_is_not_called_twice(bench: Bench) -> None:
    await bench.ready()
    async with bench.database.transaction() as tx:
        tx.add(
            Session(
                id="e" * 32, appointment_id=bench.host.room_id, room_id=bench.host.room_id,
                official_id=bench.official_id, county_id=bench.county_id, node="node-2",
                epoch=1, state="live", started_at=START, ended_at=None, end_reason=None,
                recording_id=None, slot_ends_at=None,
            )
        )  # fmt: skip
    bench.say(CHAIR, Admit(type="admit", id="a"))
    await bench.until(lambda: bool(waiting(bench.boxes[CHAIR], Error)))
    (error,) = waiting(bench.boxes[CHAIR], Error)
    assert isinstance(error, Error) and error.code == "session_exists"
    assert bench.media.live_with == []


async def test_the_state_of_the_recording_comes_from_what_the_recorder_says(bench: Bench) -> None:
    await bench.live()
    bench.host.status.report(1)
    (status,) = waiting(bench.boxes[KIOSK], RecordingStatus)
    assert isinstance(status, RecordingStatus) and status.state is RecordingState.PREPARING


async def shown_to_the_desk(bench: Bench) -> RecordingAlarm | None:
    await bench.presence._idle.wait()
    words = await bench.presence._store.get(f"room:{bench.host.room_id}:recording")
    return None if words is None else RecordingAlarm.model_validate_json(str(words))


async def test_trouble_is_told_at_once_and_its_end_too(bench: Bench) -> None:
    await bench.live()
    presence = asyncio.create_task(bench.presence.run())
    try:
        recorder, box = bench.recorders[0], bench.boxes[KIOSK]
        recorder.state = WrittenState.RECORDING
        bench.host.status.report(1)
        bench.host.status.watch()
        assert len(waiting(box, RecordingStatus)) == 1  # nothing has changed since the report
        assert await shown_to_the_desk(bench) is None
        recorder.state = WrittenState.TROUBLE
        recorder.disk_error = f"write: {os.strerror(errno.ENOSPC)}"
        bench.clock.advance(timedelta(seconds=1))
        bench.host.status.watch()
        told = waiting(box, RecordingStatus)[-1]
        assert isinstance(told, RecordingStatus)
        assert (told.state, told.trouble) == (RecordingState.TROUBLE, RecordingTrouble.DISK_FULL)
        alarm = await shown_to_the_desk(bench)
        assert alarm is not None
        assert (alarm.trouble, alarm.since) == ("disk_full", bench.clock.now())
        recorder.state = WrittenState.RECORDING
        recorder.disk_error = None
        bench.host.status.watch()
        told = waiting(box, RecordingStatus)[-1]
        assert isinstance(told, RecordingStatus) and told.state is RecordingState.RECORDING
        assert await shown_to_the_desk(bench) is None
    finally:
        presence.cancel()


async def test_who_is_there_and_not_recorded_is_told_to_the_room_and_the_desk(
    bench: Bench,
) -> None:
    await bench.live()
    presence = asyncio.create_task(bench.presence.run())
    try:
        recorder = bench.recorders[0]
        recorder.state = WrittenState.RECORDING
        recorder.tracks = tuple(
            TrackStatus(who, name, 1_000, 10, 80)
            for who in (KIOSK, CHAIR)
            for name in (TrackName.CAMERA, TrackName.MICROPHONE)
            if (who, name) != (KIOSK, TrackName.CAMERA)
        )
        bench.clock.advance(timedelta(seconds=19))
        bench.host.status.report(1)
        assert await shown_to_the_desk(bench) is None
        bench.clock.advance(timedelta(seconds=1))
        bench.host.status.report(2)
        told = waiting(bench.boxes[CHAIR], RecordingStatus)[-1]
        assert isinstance(told, RecordingStatus)
        assert told.state is RecordingState.RECORDING
        assert [(one.participant_id, one.track, one.for_ms) for one in told.unheard] == [
            (KIOSK, Track.CAMERA, 20_000)
        ]
        alarm = await shown_to_the_desk(bench)
        assert alarm is not None and alarm.trouble is None
        assert [(one.role, one.track) for one in alarm.unheard] == [("petitioner", "camera")]
        assert alarm.unheard[0].since == START
        # While the disk takes nothing everybody is missing, and only the disk is to blame.
        recorder.state = WrittenState.TROUBLE
        bench.host.status.report(3)
        told = waiting(bench.boxes[CHAIR], RecordingStatus)[-1]
        assert isinstance(told, RecordingStatus) and told.unheard == ()
    finally:
        presence.cancel()


async def test_nothing_is_said_about_a_recording_before_live(bench: Bench) -> None:
    await bench.ready()
    bench.host.status.report(1)
    assert not waiting(bench.boxes[KIOSK], RecordingStatus)


async def test_an_answer_reaches_media_and_a_parser_that_falls_over_is_contained(
    bench: Bench,
) -> None:
    box = bench.enter("petitioner")
    (offer,) = waiting(box, Offer)
    assert isinstance(offer, Offer)
    bench.media.peers[KIOSK].refuse = RuntimeError("a bug")
    bench.say(KIOSK, Answer(type="answer", id="x1", revision=offer.revision, sdp="v=0"))
    (error,) = waiting(box, Error)
    assert isinstance(error, Error) and (error.id, error.code) == ("x1", "sdp_refused")
    bench.media.peers[KIOSK].refuse = None
    bench.say(KIOSK, Answer(type="answer", id="x2", revision=offer.revision, sdp="v=0"))
    assert waiting(box, Ok) == [Ok(id="x2")]
    assert bench.media.peers[KIOSK].answers == [(1, "v=0")]


async def test_media_events_of_a_peer_that_is_gone_are_ignored(bench: Bench) -> None:
    await bench.live()
    old = bench.media.peers[KIOSK]
    old.on_event(SpeakingChanged(True))
    old.on_event(PeerLost("closed"))
    bench.say(KIOSK, Leave(type="leave", id="l"))
    await asyncio.sleep(0)
    bench.enter("petitioner")
    assert bench.host.room.seats[KIOSK].media.value == "none"


async def test_time_alone_ends_a_room_that_everyone_lost(bench: Bench) -> None:
    await bench.live()
    for who, box in bench.boxes.items():
        bench.media.peers[who].on_event(PeerLost("no_consent"))
        bench.host.feed(SocketGone(who, box.socket_id))
    await asyncio.sleep(0)
    bench.clock.advance(timedelta(seconds=61))
    bench.host.feed(Tick())
    await bench.until(lambda: bool(bench.forgotten))
    session = await bench.session()
    assert session is not None and session.end_reason == "timed_out"


async def test_draining_keeps_the_session_live_and_lets_the_recording_go(bench: Bench) -> None:
    await bench.live()
    await bench.host.drain()
    assert bench.boxes[KIOSK].close_code is CloseCode.RESTART
    assert bench.recorders[0].is_closed
    session = await bench.session()
    assert session is not None and session.state == "live"
