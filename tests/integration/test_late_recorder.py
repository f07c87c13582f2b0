"""A disk that hangs or refuses when a talk begins: the talk goes on, and its recorder is found."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path

import pytest

from app.caller import Caller
from core.clock import SystemClock
from core.db import Database
from core.ids import AppointmentId, ParticipantId, RecordingId, RoomId, SessionId, new_id
from core.store import open_store
from media import journal, manifest
from media.client import RtcClient, flash_and_beep, loopback_gathering
from media.journal import MarkKind, RecordType
from media.model import Recording
from media.recorder import Recorder
from signaling import recording
from signaling.effects import Entered, SocketId
from signaling.host import RoomHost, Tools
from signaling.outbox import Outbox
from signaling.presence import Presence
from signaling.protocol import RecordingState, RecordingStatus, RecordingTrouble
from signaling.recording import TalkRecorder
from signaling.room import Room
from signaling.rules import LiveSession, Rules
from signaling.session import Beginning, Survivor, start_session, take_over
from tests.support.databases import create_tables
from tests.support.matters import START, make_prefecture
from tests.support.rooms import FakeMediaRoom, make_grant
from tests.support.signal_house import eventually, make_appointment, running_house

KIOSK = ParticipantId("petitioner-1")


class SickDisk:
    """Opens recorders, but not at once: it hangs until `heal`, and refuses `refusals` times."""

    def __init__(self, *, hangs: bool = False, refusals: int = 0) -> None:
        self.asked: list[Path] = []
        self.refused = 0
        self.opened: list[Path] = []
        self._refusals = refusals
        self._healed = threading.Event()
        if not hangs:
            self._healed.set()

    def heal(self) -> None:
        self._healed.set()

    def __call__(
        self, directory: Path, *, session_id: SessionId, started_at: datetime, t0_mono_ns: int
    ) -> Recorder:
        self.asked.append(directory)
        assert self._healed.wait(60), "the test has forgotten its disk"
        if self.refused < self._refusals:
            self.refused += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        recorder = Recorder.open(
            directory, session_id=session_id, started_at=started_at, t0_mono_ns=t0_mono_ns,
            clock=SystemClock(),
        )  # fmt: skip
        self.opened.append(directory)
        return recorder


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again at once, not after seconds."""
    monkeypatch.setattr(recording, "ASK_AGAIN_S", (0.05,))


def is_free(directory: Path) -> bool:
    """Whether nobody holds the directory's lock, or the directory is gone."""
    with suppress(FileNotFoundError):
        lock = manifest.lock_directory(directory)
        if lock is None:
            return False
        os.close(lock)
    return True


async def test_a_recorder_that_comes_after_the_talk_began_is_the_talks(tmp_path: Path) -> None:
    """The real five seconds: the disk hangs for more than six."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    database = Database(url)
    await create_tables(database)
    await database.close()
    disk = SickDisk(hangs=True)
    async with running_house(tmp_path, url, open_recorder=disk) as house:
        room = await house.appointment()
        with loopback_gathering():
            async with AsyncExitStack() as stack:
                kiosk, chair = [
                    await stack.enter_async_context(
                        Caller.join(house.url, house.grant(room, role), RtcClient(flash_and_beep()))
                    )
                    for role in ("petitioner", "official")
                ]
                await kiosk.wait_ready()
                await chair.wait_ready()
                asked_at = asyncio.get_running_loop().time()
                await chair.admit()
                session_id = await chair.wait_live()
                assert disk.asked and not disk.opened, "the disk did not hang"
                told = await kiosk.signaling.next(RecordingStatus)
                assert told.trouble is RecordingTrouble.NOT_BEGUN
                before = await house.session_of(room)
                assert before is not None and before.recording_id is None
                await asyncio.sleep(max(0.0, asked_at + 6.5 - asyncio.get_running_loop().time()))
                disk.heal()
                for caller in (kiosk, chair):
                    told = await caller.signaling.next(
                        RecordingStatus, lambda m: m.state is RecordingState.RECORDING, within_s=20
                    )
                    assert told.trouble is None
                    assert told.late_ms >= 5_000
                await chair.end()
                await kiosk.wait_ended()
    assert len(disk.asked) == 1, "a hanging disk is not asked twice"
    (directory,) = disk.opened
    paths = journal.journals_in(directory)
    assert len(paths) == 2
    for path in paths:
        with journal.open_journal(path) as reader:
            records = list(reader.records())
            t0_ns = reader.header.t0_mono_ns
        packets = [each for each in records if each.type is RecordType.RTP]
        marks = [journal.parse_mark(each) for each in records if each.type is RecordType.MARK]
        # Its place on the talk's timeline is where it was said, not where recording began.
        assert packets and packets[0].at_ns - t0_ns >= 5_000_000_000
        assert (MarkKind.GAP, "recorder_late") in [(mark.kind, mark.detail) for mark in marks]
    assert is_free(directory)
    database = Database(url)
    try:
        async with database.reading() as tx:
            row = await tx.get(Recording, directory.name)
    finally:
        await database.close()
    assert row is not None
    assert (row.session_id, row.state) == (session_id, "captured")


@pytest.fixture
async def refused_after_a_restart(
    sqlite_database: Database, tmp_path: Path
) -> AsyncIterator[tuple[RoomHost, FakeMediaRoom, SickDisk]]:
    """A live session, taken back by a new process whose disk refuses the recorder twice."""
    prefecture = await make_prefecture(sqlite_database)
    appointment_id = AppointmentId(await make_appointment(sqlite_database, prefecture))
    begin = Beginning(
        session_id=SessionId(new_id()), appointment_id=appointment_id,
        room_id=RoomId(appointment_id), official_id=prefecture.official_id,
        county_id=prefecture.units["513328"], node="node-1", started_at=SystemClock().now(),
        slot_ends_at=None, recording_id=RecordingId(new_id()),
    )  # fmt: skip
    await sqlite_database.run(lambda tx: start_session(tx, begin, (make_grant("petitioner"),)))
    survivor = await sqlite_database.run(lambda tx: take_over(tx, begin.session_id))
    assert survivor is not None
    disk, media, store = SickDisk(refusals=2), FakeMediaRoom(), open_store("")
    tools = Tools(
        clock=SystemClock(), database=sqlite_database, presence=Presence(store, "node-1"),
        recordings_dir=tmp_path, node_name="node-1", open_recorder=disk,
        on_session_event=lambda: None, forget=lambda _: None,
    )  # fmt: skip
    host = await _taken_back(tools, media, survivor)
    yield host, media, disk
    await host.drain()
    await store.aclose()


async def _taken_back(tools: Tools, media: FakeMediaRoom, survivor: Survivor) -> RoomHost:
    live = LiveSession(
        session_id=survivor.session_id, started_at=survivor.started_at, elapsed_ms=30_000,
        slot_ends_at=None, participants=survivor.participants,
    )  # fmt: skip
    rules = Rules(grace_ms=60_000, countdown_ms=0)
    now_ms = SystemClock().monotonic_ns() // 1_000_000
    return RoomHost(
        tools, Room.restored(survivor.room_id, rules, live, now_ms), media,
        lease=await tools.presence.take_lease(survivor.room_id), official_id=survivor.official_id,
        appointment_id=survivor.appointment_id, survivor=survivor,
    )  # fmt: skip


async def test_after_a_restart_a_refused_recorder_is_asked_for_again_until_it_is_there(
    refused_after_a_restart: tuple[RoomHost, FakeMediaRoom, SickDisk],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, media, disk = refused_after_a_restart
    monkeypatch.setattr(recording, "ASK_AGAIN_S", (0.3,))
    box = Outbox(SocketId(1))
    host.add_socket(box)
    grant = make_grant("petitioner", room_id=host.room_id)
    host.feed(Entered(grant, box.socket_id, "j", "token"))

    async def is_live_without() -> bool:
        return media.live_with == [None] and disk.refused >= 1

    await eventually(is_live_without)
    host.status.report(1)
    told = [message for message in box._waiting if isinstance(message, RecordingStatus)][-1]
    assert (told.state, told.trouble) == (RecordingState.TROUBLE, RecordingTrouble.NOT_RESUMED)

    async def is_recorded() -> bool:
        return media.recorder is not None

    await eventually(is_recorded)
    assert disk.refused == 2, "the disk did not refuse twice"
    assert len(disk.asked) == 3
    assert set(disk.asked) == set(disk.opened), "it goes on in the same directory"
    assert media.recorded_late == 1
    host.status.report(2)
    told = [message for message in box._waiting if isinstance(message, RecordingStatus)][-1]
    assert told.trouble is None
    assert told.late_ms >= 30_000
    await host.drain()
    assert is_free(disk.opened[0])


def talk_recorder(disk: SickDisk, directory: Path) -> TalkRecorder:
    return TalkRecorder(disk, directory, SessionId("5" * 32), None)


async def test_a_recorder_that_comes_when_the_talk_is_over_is_closed_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "OPENS_WITHIN_S", 0.05)
    disk = SickDisk(hangs=True)
    one = talk_recorder(disk, tmp_path)
    assert await one.open(START, 0) is None
    assert disk.asked and not disk.opened, "the disk did not hang"
    pursuing = asyncio.create_task(one.pursue(START, 0))
    await asyncio.sleep(0)
    pursuing.cancel()
    await one.close(1)
    disk.heal()

    async def is_gone() -> bool:
        return bool(disk.opened) and not disk.opened[0].exists()

    await eventually(is_gone)
    assert one.recorder is None


async def test_a_forsaken_opening_does_not_become_the_next_talks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "OPENS_WITHIN_S", 0.05)
    disk = SickDisk(hangs=True)
    one = talk_recorder(disk, tmp_path)
    assert await one.open(START, 0) is None
    one.forsake()  # the Session could not be committed; the official admits again
    monkeypatch.setattr(recording, "OPENS_WITHIN_S", 10)
    second = asyncio.create_task(one.open(START, 0))
    await asyncio.sleep(0.05)
    disk.heal()
    recorder = await second
    assert recorder is not None
    first_dir, second_dir = disk.asked
    assert first_dir != second_dir
    assert one.recording_id == second_dir.name

    async def is_first_gone() -> bool:
        return first_dir in disk.opened and not first_dir.exists()

    await eventually(is_first_gone)
    one.is_named = True
    await one.close(5)
    assert second_dir.exists()
    assert is_free(second_dir)


async def test_nobody_asks_again_when_the_talk_is_over(tmp_path: Path) -> None:
    disk = SickDisk(refusals=1_000)
    one = talk_recorder(disk, tmp_path)
    assert await one.open(START, 0) is None
    pursuing = asyncio.create_task(one.pursue(START, 0))

    async def is_refused_often() -> bool:
        return disk.refused >= 3

    await eventually(is_refused_often)
    await one.close(1)
    assert await pursuing is None
    count = len(disk.asked)
    await asyncio.sleep(0.2)
    assert len(disk.asked) == count
