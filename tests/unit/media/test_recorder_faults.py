"""A disk that fails at every single call a recording makes, and what must still be true then.

`Faulty` counts the calls. A walk first runs a whole recording to learn how many there are, then
runs it again once for each of them, failing there; every run asserts that its fault happened.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.clock import ManualClock
from core.ids import ParticipantId, SessionId
from media import journal, manifest, party_tap, recorder, segment
from media.disk import OsDisk
from media.journal import LostPackets, RecordType
from media.recorder import Recorder, RecordingState, RecordingUnavailable
from media.taps import Intake
from media.tracks import CodecInfo, TrackName
from media.verification import verify

OPUS = CodecInfo("audio/opus", 111, 48_000, 2, "")
STARTED = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
PARTIES = (ParticipantId("a" * 32), ParticipantId("b" * 32))
CALLS = ("create", "write", "book", "sync", "sync_names", "truncate")
PASS_MS = 60
PASSES = 20
PACKETS_PER_PASS = 3


@dataclass
class Faulty(OsDisk):
    """The real disk, but calls `first` to `last` of one kind fail with `error`."""

    call: str = ""
    first: int = 0
    last: int = 0
    error: int = errno.EIO
    short: int = 0
    """A failing write takes so many bytes before; 0: none."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CALLS, 0))
    failed: int = 0
    synced: set[bytes] = field(default_factory=set)
    """Every packet that was in a file at a sync that the recorder heard to have worked."""
    paths: dict[int, Path] = field(default_factory=dict)

    def _fails(self, call: str) -> bool:
        self.counts[call] += 1
        fails = call == self.call and self.first <= self.counts[call] <= self.last
        self.failed += fails
        return fails

    def _raise(self) -> None:
        raise OSError(self.error, os.strerror(self.error))

    def create(self, path: Path) -> int:
        if self._fails("create"):
            self._raise()
        fd = super().create(path)
        self.paths[fd] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self._fails("write"):
            if self.short:
                return super().write(fd, data[: self.short])
            self._raise()
        return super().write(fd, data)

    def book(self, fd: int, offset: int, size_bytes: int) -> None:
        if self._fails("book"):
            self._raise()
        super().book(fd, offset, size_bytes)

    def sync(self, fd: int) -> None:
        if self._fails("sync"):
            self._raise()
        super().sync(fd)
        self.synced |= set(packets_of(self.paths[fd]))

    def sync_names(self, directory: Path) -> None:
        if self._fails("sync_names"):
            self._raise()
        super().sync_names(directory)

    def truncate(self, fd: int, size_bytes: int) -> None:
        if self._fails("truncate"):
            self._raise()
        super().truncate(fd, size_bytes)


def packets_of(path: Path) -> Iterator[bytes]:
    with journal.open_journal(path) as reader:
        yield from (r.payload for r in reader.records() if r.type is RecordType.RTP)


class Talk:
    """Two parties on a manual clock; `passes` of the writer, syncs when they are due."""

    def __init__(self, directory: Path, disk: OsDisk) -> None:
        self.directory = directory
        self.clock = ManualClock(STARTED, 1_000_000_000)
        self.recorder = Recorder.open(
            directory, session_id=SessionId("s" * 32), started_at=STARTED, clock=self.clock,
            disk=disk, background=False,
        )  # fmt: skip
        self.taps = [self.recorder.party(who, 1, "label", "role") for who in PARTIES]
        self.tracks = [tap.open_track(7, TrackName.MICROPHONE, OPUS) for tap in self.taps]
        self.sent: list[bytes] = []
        self.states: list[RecordingState] = []
        """What people were told after each pass."""

    def go_on(self, passes: int = 1) -> None:
        for _ in range(passes):
            for tap, track in zip(self.taps, self.tracks, strict=True):
                for _ in range(PACKETS_PER_PASS):
                    packet = b"%06d" % len(self.sent) + bytes(200)
                    tap.rtp(track, packet, self.clock.monotonic_ns())
                    self.sent.append(packet)
            self.clock.advance(timedelta(milliseconds=PASS_MS))
            self.recorder.write_through()
            for due in self.recorder.sync_due():
                due.sync(self.clock.monotonic_ns())
            self.states.append(self.recorder.status().state)

    @property
    def told(self) -> str:
        return self.states[-1].value

    def kept(self) -> set[bytes]:
        return {one for path in journal.journals_in(self.directory) for one in packets_of(path)}

    def gaps(self) -> list[LostPackets]:
        found = []
        for path in journal.journals_in(self.directory):
            with journal.open_journal(path) as reader:
                found += [journal.parse_gap(r) for r in reader.records() if r.type == 5]
        return found


def calls_of_a_whole_recording(directory: Path) -> dict[str, int]:
    disk = Faulty()
    talk = Talk(directory, disk)
    talk.go_on(PASSES)
    talk.recorder.seal_now()
    return disk.counts


@pytest.mark.parametrize(
    ("call", "error", "short", "lasts"),
    [
        ("create", errno.ENOSPC, 0, 1),
        ("create", errno.EIO, 0, 3),
        ("write", errno.ENOSPC, 0, 1),
        ("write", errno.EIO, 0, 1),
        ("write", errno.ENOSPC, 0, 4),
        ("write", errno.EDQUOT, 100, 2),
        ("book", errno.ENOSPC, 0, 1),
        ("book", errno.EOPNOTSUPP, 0, 1000),
        ("sync", errno.EIO, 0, 1),
        ("sync", errno.ENOSPC, 0, 3),
        ("sync_names", errno.EIO, 0, 1),
        ("sync_names", errno.ENOSPC, 0, 3),
        ("truncate", errno.EIO, 0, 1),
    ],
)
def test_whichever_call_fails_the_talk_goes_on_and_nothing_is_lost(
    tmp_path: Path, call: str, error: int, short: int, lasts: int
) -> None:
    total = calls_of_a_whole_recording(tmp_path / "whole")[call]
    assert total >= 2
    for first in range(1, total + 1):
        disk = Faulty(call=call, first=first, last=first + lasts - 1, error=error, short=short)
        talk = Talk(tmp_path / f"{first}", disk)
        talk.go_on(PASSES)
        synced = set(disk.synced)
        assert synced <= talk.kept()
        told = RecordingState.TROUBLE in talk.states
        talk.go_on(60)  # what fails for a while has ended long before
        assert talk.recorder.status().state is RecordingState.RECORDING
        close(talk)
        assert disk.failed, f"{call} {first} never failed"
        harms = call in ("create", "write", "sync") and not short and first < total - 4
        assert told or not harms, f"{call} {first} was not told"
        assert talk.kept() == set(talk.sent), f"{call} {first}"
        assert talk.gaps() == []
        book = manifest.recover(talk.directory, patience_s=0)
        assert not book.unreadable
        assert verify(talk.directory).is_intact
        assert open_files(talk.directory) == []


def close(talk: Talk) -> None:
    """As the end of a talk does: again, when the disk refused the first time."""
    try:
        talk.recorder.close_now(patience_s=0)
    except RecordingUnavailable:
        pytest.fail("a disk that works again was not written to")


def test_a_fault_at_the_very_end_leaves_what_recovery_can_close(tmp_path: Path) -> None:
    whole = Faulty()
    talk = Talk(tmp_path / "whole", whole)
    talk.go_on(PASSES)
    before = dict(whole.counts)
    talk.recorder.close_now(patience_s=0)
    faults = 0
    for call in ("write", "sync", "truncate"):
        for first in range(before[call] + 1, whole.counts[call] + 1):
            disk = Faulty(call=call, first=first, last=10**9)
            talk = Talk(tmp_path / f"{call}{first}", disk)
            talk.go_on(PASSES)
            synced = set(disk.synced)
            try:
                talk.recorder.close_now(patience_s=0)
            except RecordingUnavailable:
                faults += 1
            assert disk.failed
            assert open_files(talk.directory) == []
            # The directory is free for whoever finishes, and a second closing is no new fault.
            talk.recorder.close_now(patience_s=0)
            manifest.recover(talk.directory, patience_s=0)
            assert synced <= talk.kept() <= set(talk.sent)
            assert verify(talk.directory).is_intact
    assert faults >= 4


def test_a_short_write_is_finished_by_another(tmp_path: Path) -> None:
    disk = Faulty(call="write", first=1, last=10**9, short=37)
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(5)
    talk.recorder.seal_now()
    assert disk.failed > 50
    assert talk.kept() == set(talk.sent)
    assert len(journal.journals_in(talk.directory)) == len(PARTIES)
    assert RecordingState.TROUBLE not in talk.states


def test_a_file_that_takes_no_byte_and_says_no_error_is_a_full_disk(tmp_path: Path) -> None:
    class Zero(OsDisk):
        def write(self, fd: int, data: bytes | memoryview) -> int:
            return 0

    talk = Talk(tmp_path / "recording", Zero())
    talk.go_on(2)
    assert talk.recorder.status().state is RecordingState.TROUBLE


def test_trouble_is_told_within_a_pass_and_long_enough_to_be_heard(tmp_path: Path) -> None:
    disk = Faulty(call="sync", first=3, last=3)
    talk = Talk(tmp_path / "recording", disk)
    while not disk.failed:
        talk.go_on()
    assert talk.told == "trouble"
    troubled_ms = PASS_MS
    while talk.told == "trouble":
        talk.go_on()
        troubled_ms += PASS_MS
    assert 2000 <= troubled_ms <= 3000


def test_a_disk_full_for_hours_uses_up_neither_numbers_nor_files(tmp_path: Path) -> None:
    disk = Faulty(call="write", first=1, last=10**9, error=errno.ENOSPC)
    talk = Talk(tmp_path / "recording", disk)
    for _ in range(300):
        talk.go_on()
        talk.clock.advance(timedelta(seconds=60))
    assert disk.failed >= 300
    assert journal.journals_in(talk.directory) == []
    assert [Path(name).name for name in open_files(talk.directory)] == ["recording.lock"]
    disk.last = 0
    talk.go_on(5)
    names = {path.name for path in journal.journals_in(talk.directory)}
    assert names == {f"{who}.l0001.s0000.rrj" for who in PARTIES}


def test_a_disk_that_refuses_every_sync_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    disk = Faulty(call="sync", first=1, last=10**9)
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(1000)  # a minute
    assert disk.failed >= 10
    assert set(talk.states[20:]) == {RecordingState.TROUBLE}
    assert len(journal.journals_in(talk.directory)) <= 15 * len(PARTIES)
    assert talk.kept() == set(talk.sent)


def test_what_did_not_fit_is_told_with_number_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(party_tap, "MAX_BUFFERED_BYTES", 20_000)
    disk = Faulty()
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(20)
    began_ns = talk.clock.monotonic_ns()
    disk.call, disk.first, disk.last, disk.error = "write", 1, 10**9, errno.ENOSPC
    talk.go_on(100)
    ended_ns = talk.clock.monotonic_ns()
    assert disk.failed
    lost = talk.recorder.status().lost_packets
    assert 0 < lost < 100 * PACKETS_PER_PASS * len(PARTIES)
    disk.last = 0
    talk.go_on(60)
    sealed = talk.recorder.seal_now()
    assert talk.recorder.status().lost_packets == sealed.lost_packets
    gaps = talk.gaps()
    assert sum(gap.packets for gap in gaps) == len(talk.sent) - len(talk.kept())
    assert sealed.lost_packets == len(talk.sent) - len(talk.kept())
    for gap in gaps:
        assert began_ns <= gap.from_ns <= gap.to_ns <= ended_ns + 2 * 10**9
        assert "No space" in gap.cause


class Stuck(OsDisk):
    """A disk whose sync fails late: the test calls it when it likes."""

    error = 0

    def sync(self, fd: int) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        super().sync(fd)


def test_a_sync_that_never_answers_is_told_and_what_waits_for_it_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(party_tap, "MAX_BUFFERED_BYTES", 50_000)
    disk = Stuck()
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(6)
    talk.clock.advance(timedelta(milliseconds=400))
    stuck = talk.recorder.sync_due()
    assert len(stuck) == len(PARTIES)
    talk.go_on(20)
    assert talk.told == "recording"
    talk.go_on(10)
    assert talk.told == "trouble"  # 1.8 s
    talk.go_on(200)
    assert talk.kept() == set(talk.sent)  # the kernel takes it all the while
    for tap in talk.taps:
        assert tap._segment is not None
        assert tap._segment.unsynced_bytes <= 50_000
    disk.error = errno.EIO
    for due in stuck:
        due.sync(talk.clock.monotonic_ns())
    disk.error = 0
    talk.go_on(60)
    talk.recorder.seal_now()
    unsure = sum(gap.packets for gap in talk.gaps())
    repeated = sum(
        sum(1 for _ in packets_of(path))
        for path in journal.journals_in(talk.directory)
        if ".s0001." in path.name
    )
    # Everything is either in the second segment, or told of as perhaps lost.
    assert unsure > 0
    assert repeated + unsure >= len(talk.sent)
    assert talk.recorder.status().lost_packets == unsure


class Slow(OsDisk):
    """A disk on whose syncs things happen meanwhile."""

    meanwhile: Callable[[], None] | None = None
    fails = False

    def sync(self, fd: int) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)


def test_what_was_forgotten_during_a_sync_is_not_covered_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long sync works, the next one fails: what came between and was too much to repeat may be
    nowhere."""
    monkeypatch.setattr(party_tap, "MAX_BUFFERED_BYTES", 20_000)
    disk = Slow()
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(4)
    covered = set(talk.sent)
    talk.clock.advance(timedelta(milliseconds=400))
    first, other = talk.recorder.sync_due()
    disk.meanwhile = lambda: talk.go_on(200)
    first.sync(talk.clock.monotonic_ns())
    other.sync(talk.clock.monotonic_ns())
    disk.fails = True
    talk.clock.advance(timedelta(milliseconds=400))
    for due in talk.recorder.sync_due():
        due.sync(talk.clock.monotonic_ns())
    disk.fails = False
    talk.go_on(60)
    talk.recorder.seal_now()
    told = sum(gap.packets for gap in talk.gaps())
    again = {
        packet
        for path in journal.journals_in(talk.directory)
        if ".s0000." not in path.name
        for packet in packets_of(path)
    }
    first_s = {one for i, one in enumerate(talk.sent) if i // PACKETS_PER_PASS % 2 == 0}
    assert told > 0
    assert len(first_s - covered - again) <= told


def test_a_disk_that_comes_back_after_a_long_sync_needs_no_new_segment(tmp_path: Path) -> None:
    talk = Talk(tmp_path / "recording", OsDisk())
    talk.go_on(6)
    talk.clock.advance(timedelta(milliseconds=400))
    stuck = talk.recorder.sync_due()
    talk.go_on(40)
    assert talk.told == "trouble"
    for due in stuck:
        due.sync(talk.clock.monotonic_ns())
    talk.go_on()
    assert talk.told == "recording"
    assert len(journal.journals_in(talk.directory)) == len(PARTIES)


# --- space that is set aside ---------------------------------------------------------------------


def on_disk_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def can_book(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "probe", os.O_CREAT | os.O_WRONLY)
    try:
        OsDisk().book(fd, 0, 1 << 20)
    except OSError:
        pytest.skip("this file system sets nothing aside")
    finally:
        os.close(fd)


@pytest.mark.usefixtures("can_book")
def test_a_growing_journal_books_ahead_and_its_length_stays_what_was_written(
    tmp_path: Path,
) -> None:
    talk = Talk(tmp_path / "recording", OsDisk())
    talk.go_on()
    (first, _) = journal.journals_in(talk.directory)
    assert on_disk_bytes(first) >= segment.FIRST_BOOKED_BYTES
    assert first.stat().st_size < 2000
    status = talk.recorder.status()
    assert status.disk.booked_bytes >= len(PARTIES) * segment.FIRST_BOOKED_BYTES // 2
    talk.recorder.seal_now()
    # What was booked is given back when the journal is sealed.
    assert on_disk_bytes(first) < 64 * 1024


@pytest.mark.usefixtures("can_book")
def test_what_is_booked_grows_with_the_journal_up_to_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "FIRST_BOOKED_BYTES", 8 * 1024)
    monkeypatch.setattr(segment, "MOST_BOOKED_BYTES", 64 * 1024)
    talk = Talk(tmp_path / "recording", OsDisk())
    booked = []
    for _ in range(10):
        talk.go_on(25)
        booked.append(talk.recorder.status().disk.booked_bytes // len(PARTIES))
    assert booked[0] < booked[4] <= 64 * 1024
    assert booked[-1] >= 32 * 1024


@pytest.mark.usefixtures("can_book")
def test_a_leg_that_says_nothing_more_gives_its_space_back_and_books_again(tmp_path: Path) -> None:
    talk = Talk(tmp_path / "recording", OsDisk())
    talk.go_on()
    talk.clock.advance(timedelta(seconds=61))
    talk.recorder.write_through()
    assert talk.recorder.status().disk.booked_bytes == 0
    (first, _) = journal.journals_in(talk.directory)
    assert on_disk_bytes(first) < 64 * 1024
    talk.go_on()
    assert talk.recorder.status().disk.booked_bytes > 0
    talk.recorder.seal_now()
    assert talk.kept() == set(talk.sent)


def test_a_refused_booking_is_told_before_anything_is_lost_and_not_asked_at_every_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "FIRST_BOOKED_BYTES", 4096)
    disk = Faulty(
        call="book", first=3, last=10**9, error=errno.ENOSPC
    )  # each journal has its first
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(100)  # six seconds; each journal has had its first
    status = talk.recorder.status()
    assert status.disk.is_short
    assert status.state is RecordingState.RECORDING
    assert 4 <= disk.failed <= 12
    disk.last = 0
    talk.go_on(100)
    assert not talk.recorder.status().disk.is_short


def test_a_file_given_up_before_its_sync_began_is_closed_and_the_next_is_synced(
    tmp_path: Path,
) -> None:
    disk = Faulty(call="write", error=errno.EIO)
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(4)
    talk.clock.advance(timedelta(milliseconds=400))
    waiting = talk.recorder.sync_due()  # the pool is busy with others' files
    disk.first, disk.last = disk.counts["write"] + 1, disk.counts["write"] + 2 * len(PARTIES)
    for _ in range(3):
        talk.clock.advance(timedelta(milliseconds=1100))
        for tap, track in zip(talk.taps, talk.tracks, strict=True):
            tap.rtp(track, b"%06d" % len(talk.sent), talk.clock.monotonic_ns())
            talk.sent.append(b"%06d" % len(talk.sent))
        talk.recorder.write_through()
    waiting += talk.recorder.sync_due()
    assert disk.failed and len(waiting) == 2 * len(PARTIES)
    for due in waiting:
        due.sync(talk.clock.monotonic_ns())
    assert sorted(Path(name).name for name in open_files(talk.directory)) == [
        *(f"{who}.l0001.s0001.rrj" for who in PARTIES), "recording.lock",
    ]  # fmt: skip
    assert disk.synced == set(talk.sent)
    talk.recorder.seal_now()


class Scarce:
    """An intake whose answer finds no memory, at these of the calls to any of its kind."""

    def __init__(self, real: Intake, calls: list[int], fails: set[int]) -> None:
        vars(self).update(real=real, calls=calls, fails=fails)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["real"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["real"], name, value)

    def take(self) -> object:
        calls, fails = vars(self)["calls"], vars(self)["fails"]
        calls.append(len(calls))
        if calls[-1] in fails:
            raise MemoryError
        return vars(self)["real"].take()


def test_a_pass_without_memory_loses_nothing_and_stops_nobody_else(tmp_path: Path) -> None:
    talk, calls = Talk(tmp_path / "recording", OsDisk()), list[int]()
    talk.go_on(1)
    for tap in talk.taps:
        # The second party's first, and the first party's second.
        tap.intake = Scarce(tap.intake, calls, {1, 2})  # type: ignore[assignment]
    talk.go_on(3)
    assert len(calls) == 6
    assert talk.kept() == set(talk.sent)
    talk.recorder.seal_now()
    assert talk.recorder.status().lost_packets == 0


def test_no_memory_for_the_digest_writes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, real, fails = Talk(tmp_path / "recording", OsDisk()), segment.Segment._hash, [1, 2]
    monkeypatch.setattr(segment, "HASH_AT_BYTES", 1000)

    def scarce(one: segment.Segment, pieces: Sequence[bytes]) -> None:
        if fails:
            fails.pop()
            raise MemoryError
        real(one, pieces)

    talk.go_on(3)
    monkeypatch.setattr(segment.Segment, "_hash", scarce)
    talk.go_on(20)
    talk.recorder.seal_now()
    assert not fails
    kept = [p for path in journal.journals_in(talk.directory) for p in packets_of(path)]
    assert sorted(kept) == sorted(talk.sent)
    assert verify(talk.directory).is_intact


def test_a_loss_that_finds_no_memory_to_be_told_is_told_later(tmp_path: Path) -> None:
    talk = Talk(tmp_path / "recording", OsDisk())
    tap, track, now_ns = talk.taps[0], talk.tracks[0], talk.clock.monotonic_ns()
    tap.rtp(track, bytes(70_000), now_ns)  # too large for a record: lost

    class Full(Scarce):
        def add(self, record: bytes) -> None:
            raise MemoryError

    real = tap.intake
    tap.intake = Full(real, [], set())  # type: ignore[assignment]
    with pytest.raises(MemoryError):
        tap.rtp(track, b"after it", now_ns)
    tap.intake = real
    before_bytes = tap.waiting_bytes
    tap.rtp(track, b"after it", now_ns)
    assert tap.waiting_bytes > before_bytes
    talk.go_on(2)
    assert [(gap.packets, gap.cause) for gap in talk.gaps()] == [(1, "buffer_full")]
    assert real.is_open


async def test_the_end_waits_for_a_disk_that_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "ASK_AGAIN_S", 0.01)
    disk = Faulty(call="write", first=10**9, last=10**9, error=errno.ENOSPC)
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(20)
    disk.first = disk.counts["write"] + 1
    closing = asyncio.create_task(talk.recorder.close())
    async with asyncio.timeout(30):
        while disk.failed < 5:
            await asyncio.sleep(0.01)
        disk.last = 0
        await closing
    assert talk.kept() == set(talk.sent)


def open_files(directory: Path) -> list[str]:
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue  # the listing's own
    return [name for name in names if str(directory) in name]


class OneRefused(OsDisk):
    """Refuses to sync the files of one party."""

    def __init__(self, party: str) -> None:
        self.refused: set[int] = set()
        self._party = party

    def create(self, path: Path) -> int:
        fd = super().create(path)
        if self._party in path.name:
            self.refused.add(fd)
        return fd

    def sync(self, fd: int) -> None:
        if fd in self.refused:
            raise OSError(errno.EIO, "no")
        super().sync(fd)


def test_files_of_one_recording_are_synced_together(tmp_path: Path) -> None:
    talk = Talk(tmp_path / "recording", OsDisk())
    talk.go_on()
    talk.clock.advance(timedelta(milliseconds=300))
    late = talk.recorder.party(ParticipantId("c" * 32), 1, "label", "role")
    talk.taps.append(late)
    talk.tracks.append(late.open_track(9, TrackName.MICROPHONE, OPUS))
    talk.go_on()
    assert talk.recorder.sync_due() == []
    for _ in range(2):
        talk.clock.advance(timedelta(milliseconds=150))
        talk.recorder.write_through()
        due = talk.recorder.sync_due()
        assert len(due) == 3
        for one in due:
            one.sync(talk.clock.monotonic_ns())
        talk.go_on(5)
    talk.recorder.seal_now()


def test_a_disk_that_refuses_one_file_is_not_asked_for_it_with_every_other(tmp_path: Path) -> None:
    disk = OneRefused(PARTIES[0])
    talk = Talk(tmp_path / "recording", disk)
    talk.go_on(200)
    assert talk.told == "trouble"
    mine = [p for p in journal.journals_in(talk.directory) if PARTIES[0] in p.name]
    assert 2 <= len(mine) <= 8, "each refusal costs a segment, so they become rarer"
    disk.refused = set()
    talk.recorder.seal_now()
