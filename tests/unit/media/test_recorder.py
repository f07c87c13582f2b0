"""The recorder keeps the call going whatever the disk does, and says the truth about it."""

import asyncio
import contextlib
import errno
import gc
import os
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.ids import ParticipantId, SessionId
from media import journal, manifest, party_tap, recorder
from media.disk import OsDisk
from media.journal import NO_TRACK, MarkKind, RecordType, SealReason
from media.recorder import Recorder, RecordingState, RecordingUnavailable, Trouble
from media.tracks import CodecInfo, TrackName
from media.verification import verify

OPUS = CodecInfo("audio/opus", 111, 48_000, 2, "")
STARTED = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
WHO = ParticipantId("a" * 32)


class SickDisk(OsDisk):
    """The real disk until told otherwise."""

    def __init__(self) -> None:
        self.write_error: int | None = None
        self.write_at_most: int | None = None
        self.sync_error: int | None = None
        self.names_error: int | None = None
        self.failures = 0
        self.named = 0

    def create(self, path: Path) -> int:
        if self.write_error is not None:
            self.failures += 1
            raise OSError(self.write_error, os.strerror(self.write_error))
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.write_error is not None:
            if self.write_at_most:
                # A full disk takes what still fits, then refuses.
                taken, self.write_at_most = self.write_at_most, 0
                return super().write(fd, data[:taken])
            self.failures += 1
            raise OSError(self.write_error, os.strerror(self.write_error))
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        if self.sync_error is not None:
            self.failures += 1
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(fd)

    def sync_names(self, directory: Path) -> None:
        if self.names_error is not None:
            self.failures += 1
            raise OSError(self.names_error, os.strerror(self.names_error))
        super().sync_names(directory)
        self.named += 1


class Desk:
    """A recorder on a manual clock, driven pass by pass."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock(STARTED, 1_000_000_000)
        self.disk = SickDisk()
        self.troubles: list[Trouble] = []
        self.recorder = self.open()
        self.tap = self.recorder.party(WHO, 1, "kiosk", "petitioner")
        self.track = self.tap.open_track(77, TrackName.MICROPHONE, OPUS)
        self.sent: list[bytes] = []

    def open(self) -> Recorder:
        return Recorder.open(
            self.directory,
            session_id=SessionId("s" * 32),
            started_at=STARTED,
            clock=self.clock,
            disk=self.disk,
            reserve_bytes=0,
            on_trouble=self.troubles.append,
            background=False,
        )

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            packet = b"packet %d" % len(self.sent)
            self.tap.rtp(self.track, packet, self.clock.monotonic_ns())
            self.sent.append(packet)

    def tick(self, milliseconds: int = 40) -> None:
        self.clock.advance(timedelta(milliseconds=milliseconds))
        self.recorder.write_through()
        for tap in self.recorder.sync_due():
            tap.sync(self.clock.monotonic_ns())

    def mend(self) -> None:
        """Go on until a trouble that is over is no longer told."""
        for _ in range(3):
            self.send()
            self.tick(1100)

    def kept(self) -> list[bytes]:
        """Every packet on disk once, in the order in which it arrived."""
        found: dict[bytes, None] = {}
        for path in journal.journals_in(self.directory):
            with journal.open_journal(path) as reader:
                found |= {r.payload: None for r in reader.records() if r.type is RecordType.RTP}
        return list(found)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "recording")


def test_state_comes_from_bytes_written_not_from_intent(desk: Desk) -> None:
    assert desk.recorder.status().state is RecordingState.PREPARING
    desk.send()
    assert desk.recorder.status().state is RecordingState.PREPARING
    desk.tick()
    status = desk.recorder.status()
    assert status.state is RecordingState.RECORDING
    assert status.tracks[0].bytes_written == len(desk.sent[0])
    assert status.tracks[0].last_write_age_ms == 0
    desk.clock.advance(timedelta(seconds=3))
    assert desk.recorder.status().tracks[0].last_write_age_ms == 3000
    assert desk.recorder.status().elapsed_ms == 3040


async def test_sealed_recording_is_intact_and_complete(desk: Desk) -> None:
    desk.tap.mark(MarkKind.JOIN, desk.clock.monotonic_ns())
    desk.send(100)
    desk.tick()
    desk.tap.rtcp_sr(desk.track, 1 << 40, 5, desk.clock.monotonic_ns())
    desk.send(100)
    sealed = await desk.recorder.seal()
    assert desk.kept() == desk.sent
    assert verify(desk.directory).is_intact
    assert sealed.manifest.journals[0].sealed == SealReason.ENDED
    assert sealed.lost_packets == 0
    assert (await desk.recorder.seal()) == sealed


async def test_packets_after_the_seal_are_ignored(desk: Desk) -> None:
    desk.send(3)
    await desk.recorder.seal()
    desk.send(1)
    desk.tick()
    assert desk.kept() == desk.sent[:3]
    assert verify(desk.directory).is_intact


@pytest.mark.parametrize("fits", [0, 1, 50, 500])
async def test_on_a_full_disk_the_call_goes_on_and_nothing_is_lost_when_space_returns(
    desk: Desk, fits: int
) -> None:
    desk.send(50)
    desk.tick()
    desk.disk.write_error, desk.disk.write_at_most = errno.ENOSPC, fits
    for _ in range(100):
        desk.send(5)
        desk.tick()
    assert desk.disk.failures > 0
    assert desk.recorder.status().state is RecordingState.TROUBLE
    assert "No space" in (desk.recorder.status().disk.error or "")
    assert len(desk.troubles) == 1
    desk.disk.write_error = None
    desk.tick(1100)
    assert desk.kept() == desk.sent
    assert desk.recorder.status().state is RecordingState.TROUBLE  # not yet on the disk
    desk.mend()
    assert desk.recorder.status().state is RecordingState.RECORDING
    desk.send(5)
    sealed = await desk.recorder.seal()
    assert desk.kept() == desk.sent
    assert verify(desk.directory).is_intact
    assert len(sealed.manifest.journals) == 2


async def test_a_failed_sync_is_fatal_for_the_segment_and_for_nothing_else(desk: Desk) -> None:
    desk.send(20)
    desk.tick()
    desk.send(20)
    desk.disk.sync_error = errno.EIO
    desk.tick(500)
    assert desk.disk.failures == 1
    assert desk.recorder.status().state is RecordingState.TROUBLE
    desk.disk.sync_error = None
    desk.send(20)
    desk.tick()
    repeating = list(desk.sent)
    desk.mend()
    assert desk.recorder.status().state is RecordingState.RECORDING
    await desk.recorder.seal()
    first, second = journal.journals_in(desk.directory)
    with journal.open_journal(first) as reader:
        assert list(reader.records())[-1].type is RecordType.SEAL
    with journal.open_journal(second) as reader:
        repeated = [r.payload for r in reader.records() if r.type is RecordType.RTP]
    # What the kernel had taken but the disk may have lost stands in the next segment again.
    assert repeated[: len(repeating)] == repeating
    assert desk.kept() == desk.sent


def test_a_new_file_waits_for_no_directory_and_its_name_is_synced_with_its_first_bytes(
    desk: Desk,
) -> None:
    desk.send(5)
    desk.tick()
    assert desk.kept() == desk.sent, "the pass of the one writer asks the disk for no name"
    assert desk.disk.named == 0
    desk.send(5)
    desk.tick(500)
    assert desk.disk.named == 1
    desk.send(5)
    desk.tick(500)
    assert desk.disk.named == 1, "a name is synced once"


async def test_a_name_that_cannot_be_synced_is_as_fatal_as_bytes_that_cannot(desk: Desk) -> None:
    desk.send(20)
    desk.tick()
    desk.disk.names_error = errno.EIO
    desk.tick(500)
    assert desk.disk.failures == 1
    assert desk.recorder.status().state is RecordingState.TROUBLE
    desk.disk.names_error = None
    desk.mend()
    assert desk.recorder.status().state is RecordingState.RECORDING
    await desk.recorder.seal()
    _, second = journal.journals_in(desk.directory)
    with journal.open_journal(second) as reader:
        repeated = [r.payload for r in reader.records() if r.type is RecordType.RTP]
    assert repeated == desk.sent


async def test_a_full_buffer_drops_the_newest_and_says_how_many(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(party_tap, "MAX_BUFFERED_BYTES", 2000)
    desk.tap._set_limit()
    desk.disk.write_error = errno.ENOSPC
    desk.send(200)
    lost = desk.recorder.status().lost_packets
    assert 0 < lost < 200
    desk.tick()
    desk.disk.write_error = None
    desk.tick(1100)
    desk.send(1)
    await desk.recorder.seal()
    kept = desk.kept()
    assert kept == desk.sent[: 200 - lost] + desk.sent[-1:]
    with journal.open_journal(journal.journals_in(desk.directory)[-1]) as reader:
        gaps = [journal.parse_gap(r) for r in reader.records() if r.type is RecordType.GAP]
    assert [gap.packets for gap in gaps] == [lost]


def test_the_tap_swallows_a_callers_mistake_and_counts_it(desk: Desk) -> None:
    desk.tap.rtp(NO_TRACK, b"x", 1)
    desk.tap.rtp(0, bytes(70_000), 1)
    assert desk.recorder.status().lost_packets == 2


def test_too_full_a_disk_is_refused_before_the_call(tmp_path: Path) -> None:
    clock = ManualClock(STARTED)
    with pytest.raises(RecordingUnavailable):
        Recorder.open(
            tmp_path, session_id=SessionId("s"), started_at=STARTED, clock=clock,
            reserve_bytes=1 << 62, background=False,
        )  # fmt: skip
    # The refusal gave the directory back.
    Recorder.open(
        tmp_path, session_id=SessionId("s"), started_at=STARTED, clock=clock,
        reserve_bytes=0, background=False,
    )  # fmt: skip


def test_a_live_recording_can_neither_be_recovered_nor_opened_twice(desk: Desk) -> None:
    desk.send()
    desk.tick()
    with pytest.raises(manifest.RecordingBusy):
        manifest.recover(desk.directory, patience_s=0)
    with pytest.raises(manifest.RecordingBusy):
        desk.open()


async def test_after_a_crash_the_same_timeline_goes_on_in_the_next_leg(desk: Desk) -> None:
    desk.send(3)
    desk.tick()
    os.close(desk.recorder.lock_fd)  # what the kernel does when a process dies
    desk.clock.advance(timedelta(seconds=5))
    again = desk.open()
    assert again.t0_mono_ns == desk.recorder.t0_mono_ns
    tap = again.party(WHO, 1, "kiosk", "petitioner")
    track = tap.open_track(78, TrackName.MICROPHONE, OPUS)
    tap.rtp(track, b"later", desk.clock.monotonic_ns())
    sealed = await again.seal()
    assert desk.kept() == [*desk.sent, b"later"]
    assert [(e.leg, e.segment, e.sealed) for e in sealed.manifest.journals] == [
        (1, 0, SealReason.RECOVERED),
        (2, 0, SealReason.ENDED),
    ]
    assert sealed.manifest.journals[1].first_ms == 5040


async def test_a_journal_that_the_disk_does_not_give_back_keeps_nobody_from_recording(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.send(3)
    desk.tick()
    os.close(desk.recorder.lock_fd)
    desk.clock.advance(timedelta(seconds=5))
    asked = []

    def bad_sector(fd: int, size: int, offset: int) -> bytes:
        asked.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", bad_sector)
    again = desk.open()
    monkeypatch.undo()
    assert len(asked) == 1
    tap = again.party(WHO, 1, "kiosk", "petitioner")
    tap.rtp(tap.open_track(78, TrackName.MICROPHONE, OPUS), b"later", desk.clock.monotonic_ns())
    again.close_now(patience_s=0)
    assert desk.kept() == [*desk.sent, b"later"]


def test_recording_again_maps_no_journal_into_the_room_s_memory(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector behind a mapping is a SIGBUS: every room of the process would be gone."""
    desk.send(3)
    desk.tick()
    os.close(desk.recorder.lock_fd)
    monkeypatch.delattr(journal, "mmap")
    assert desk.open().t0_mono_ns == desk.recorder.t0_mono_ns


async def test_seal_on_a_full_disk_fails_in_words_and_may_be_repeated(desk: Desk) -> None:
    desk.send(5)
    desk.tick()
    desk.disk.write_error = errno.ENOSPC
    desk.send(5)
    with pytest.raises(RecordingUnavailable):
        await desk.recorder.seal()
    desk.disk.write_error = None
    await desk.recorder.seal()
    assert desk.kept() == desk.sent


async def test_a_pass_that_comes_late_writes_nothing_where_another_may_write(desk: Desk) -> None:
    desk.send(5)
    desk.tick()
    desk.disk.write_error = errno.ENOSPC
    desk.send(5)
    with pytest.raises(RecordingUnavailable):
        desk.recorder.close_now(patience_s=0)
    desk.disk.write_error = None
    book = manifest.recover(desk.directory, patience_s=0)
    desk.tick(2000)  # the writer's thread had this recorder in its hands all the while
    assert [path.name for path in journal.journals_in(desk.directory)] == [
        entry.path for entry in book.journals
    ]
    assert verify(desk.directory).is_intact


async def test_a_packet_that_slips_in_while_the_recording_is_closed_begins_no_file(
    desk: Desk,
) -> None:
    desk.send(5)
    desk.tick()
    desk.recorder.close_now(patience_s=0)
    # The loop had found the tap open just before, and comes to what waits just after.
    desk.tap.intake.keep(desk.track, b"late", desk.clock.monotonic_ns())
    desk.tick(2000)
    (only,) = journal.journals_in(desk.directory)
    assert manifest.recover(desk.directory, patience_s=0).journals[0].path == only.name
    assert desk.kept() == desk.sent


async def test_a_closed_recording_is_not_opened_again(desk: Desk) -> None:
    desk.send(5)
    await desk.recorder.seal()
    with pytest.raises(manifest.RecordingBusy):
        desk.open()
    assert verify(desk.directory).is_intact


async def test_a_seal_beside_a_running_sync_leaves_no_file_open(desk: Desk) -> None:
    desk.send(5)
    desk.tick()
    desk.clock.advance(timedelta(seconds=1))
    (claimed,) = desk.recorder.sync_due()
    await asyncio.gather(
        desk.recorder.seal(), asyncio.to_thread(claimed.sync, desk.clock.monotonic_ns())
    )
    assert _open_files(desk.directory) == []
    assert verify(desk.directory).is_intact


async def test_a_sync_that_fails_while_the_file_is_being_closed_is_heard(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a lost page once, to whichever sync comes first."""
    monkeypatch.setattr(recorder, "ASK_AGAIN_S", 0.01)
    desk.send(5)
    desk.tick()
    desk.clock.advance(timedelta(seconds=1))
    (claimed,) = desk.recorder.sync_due()
    works = desk.disk.sync

    def fail_once(fd: int) -> None:
        monkeypatch.setattr(desk.disk, "sync", works)
        desk.disk.failures += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(desk.disk, "sync", fail_once)
    await asyncio.gather(
        desk.recorder.close(), asyncio.to_thread(claimed.sync, desk.clock.monotonic_ns())
    )
    assert desk.disk.failures == 1
    first, second = journal.journals_in(desk.directory)
    with journal.open_journal(second) as repeated:
        packets = [r.payload for r in repeated.records() if r.type is RecordType.RTP]
    assert packets == desk.sent, "what the failed sync may have lost stands in the next segment"
    with journal.open_journal(first) as given_up:
        *_, last = given_up.records()
    assert journal.parse_seal(last).reason is SealReason.ROTATED


def test_a_line_that_breaks_often_leaves_its_packets_and_nothing_else(desk: Desk) -> None:
    forgotten = []
    for leg in range(2, 30):
        desk.send(3)
        desk.tap.mark(MarkKind.GAP, desk.clock.monotonic_ns(), None, "new_leg")
        desk.tap.end()
        forgotten.append(weakref.ref(desk.tap))
        desk.tap = desk.recorder.party(WHO, leg, "kiosk", "petitioner")
        desk.track = desk.tap.open_track(77 + leg, TrackName.MICROPHONE, OPUS)
        desk.tick(500)
        desk.tick(500)
    desk.send(3)
    desk.tick()
    open_journals = [name for name in _open_files(desk.directory) if name.endswith(journal.SUFFIX)]
    assert [Path(name).name for name in open_journals] == [f"{WHO}.l0029.s0000.rrj"]
    gc.collect()
    assert [ref() for ref in forgotten] == [None] * len(forgotten)
    (track,) = desk.recorder.status().tracks
    assert (track.packets, track.bytes_written) == (len(desk.sent), sum(map(len, desk.sent)))
    assert desk.kept() == desk.sent
    book = desk.recorder.seal_now().manifest
    assert [entry.sealed for entry in book.journals] == [SealReason.ENDED] * 29
    assert verify(desk.directory).is_intact


def test_a_line_that_breaks_often_over_a_full_disk_fills_one_buffer_and_not_one_a_leg(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(party_tap, "MAX_BUFFERED_BYTES", 4000)
    desk.disk.write_error = errno.ENOSPC
    for leg in range(2, 12):
        desk.send(50)
        desk.tick()
        desk.tap.end()
        desk.tap = desk.recorder.party(WHO, leg, "kiosk", "petitioner")
        desk.track = desk.tap.open_track(77 + leg, TrackName.MICROPHONE, OPUS)
    lost = desk.recorder.status().lost_packets
    desk.disk.write_error = None
    for _ in range(4):
        desk.tick(1100)
    desk.send(1)
    desk.recorder.seal_now()
    assert sum(map(len, desk.kept())) < 4000
    assert len(desk.kept()) == len(desk.sent) - lost


def test_what_a_leg_said_last_is_in_its_journal_and_what_comes_after_its_end_is_not(
    desk: Desk,
) -> None:
    desk.send(2)
    desk.tap.mark(MarkKind.LEAVE, desk.clock.monotonic_ns())
    desk.tap.end()
    desk.tap.rtp(desk.track, b"after", desk.clock.monotonic_ns())
    desk.tick()
    desk.tick(500)
    (path,) = journal.journals_in(desk.directory)
    with journal.open_journal(path) as reader:
        *_, last, seal = reader.records()
    assert journal.parse_mark(last).kind is MarkKind.LEAVE
    assert journal.parse_seal(seal).reason is SealReason.ENDED
    assert desk.kept() == desk.sent


def test_a_leg_that_ends_on_a_sick_disk_is_closed_when_that_is_well(desk: Desk) -> None:
    desk.send(5)
    desk.tick()
    desk.disk.write_error = errno.ENOSPC
    desk.send(5)
    desk.tap.end()
    for _ in range(5):
        desk.tick(1100)
    assert desk.recorder.status().state is RecordingState.TROUBLE
    desk.disk.write_error, desk.disk.sync_error = None, errno.EIO
    desk.tick(1100)
    desk.disk.sync_error = None
    for _ in range(5):
        desk.tick(1100)
    assert [Path(name).name for name in _open_files(desk.directory)] == ["recording.lock"]
    assert desk.recorder.status().state is RecordingState.RECORDING
    assert desk.recorder.status().tracks[0].packets == len(desk.sent)
    assert desk.kept() == desk.sent
    desk.recorder.seal_now()
    assert verify(desk.directory).is_intact


def test_an_ended_leg_whose_only_unsynced_record_is_its_seal_is_over_all_the_same(
    desk: Desk,
) -> None:
    desk.send(5)
    desk.tick(500)
    desk.tick(500)
    desk.tap.end()
    desk.disk.sync_error = errno.EIO
    desk.tick(500)
    desk.disk.sync_error = None
    for _ in range(4):
        desk.tick(1100)
    assert desk.recorder.status().state is RecordingState.RECORDING
    assert len(journal.journals_in(desk.directory)) == 1
    assert [Path(name).name for name in _open_files(desk.directory)] == ["recording.lock"]


def _open_files(directory: Path) -> list[str]:
    names = []
    for fd in _open_fds():
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in names if str(directory) in name]


def _open_fds() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{fd}").is_symlink()]
