"""One session's recording: a subscriber that may not drop, whatever the disk does.

A recorder is open for as long as the talk: it owns the directory, hands out one tap per leg, says
what has truly been written, and closes what the writer has written. How a packet gets from the
relay's loop to the disk, and one module to the next, each knowing only those before it:

    disk ◀ segment ◀ party_tap ◀ writer ◀ recorder
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from core.clock import Clock
from core.errors import Unavailable
from core.ids import ParticipantId, SessionId
from media import journal, manifest
from media.disk import Disk, OsDisk
from media.journal import JournalHeader
from media.party_tap import STALLED_AFTER_NS, DueSync, PartyTap, TrackCount
from media.tracks import TrackName
from media.writer import WRITER

log = structlog.get_logger(__name__)

DISK_SAMPLED_EVERY_NS: Final = 5_000_000_000
CLOSE_PATIENCE_S: Final = 10.0
"""How long the end of a talk waits for a disk that refuses its last packets."""
ASK_AGAIN_S: Final = 0.5


class RecordingUnavailable(Unavailable):
    """A recording cannot begin or cannot be finished on this disk now."""

    code = "recording_unavailable"


class RecordingState(StrEnum):
    """From bytes written, never from intent."""

    PREPARING = "preparing"
    RECORDING = "recording"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True)
class TrackStatus:
    """What has been given to the kernel for one track of one participant, over all legs."""

    participant_id: ParticipantId
    name: TrackName
    bytes_written: int
    packets: int
    last_write_age_ms: int | None


@dataclass(frozen=True, slots=True)
class DiskStatus:
    free_bytes: int
    total_bytes: int
    error: str | None  # why the last write or sync failed, as long as it is not repaired
    booked_bytes: int = 0  # set aside for this recording's open journals, not yet written
    is_short: bool = False  # the disk refused to set more aside


@dataclass(frozen=True, slots=True)
class RecordingStatus:
    state: RecordingState
    elapsed_ms: int
    tracks: tuple[TrackStatus, ...]
    disk: DiskStatus
    lost_packets: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """A segment was given up. Handed to the alarm in the writer's thread."""

    session_id: SessionId
    participant_id: ParticipantId
    cause: str


@dataclass(frozen=True, slots=True)
class _Legs:
    """The legs that may still write, and the sum of those that are over: a line that breaks every
    few seconds must not leave something behind each time. Replaced as a whole, so that the loop
    reads it without a lock."""

    open: tuple[PartyTap, ...] = ()
    past: tuple[TrackCount, ...] = ()
    past_lost_packets: int = 0

    def and_one(self, tap: PartyTap) -> "_Legs":
        return replace(self, open=(*self.open, tap))

    def without(self, over: list[PartyTap]) -> "_Legs":
        return _Legs(
            tuple(tap for tap in self.open if tap not in over),
            _by_name([*self.past, *(count for tap in over for count in tap.counts())]),
            self.past_lost_packets + sum(tap.lost_packets for tap in over),
        )

    def counts(self) -> tuple[TrackCount, ...]:
        return _by_name([*self.past, *(count for tap in self.open for count in tap.counts())])

    @property
    def lost_packets(self) -> int:
        return self.past_lost_packets + sum(tap.lost_packets for tap in self.open)


class Recorder:
    """One session's recording while it grows. Made by `open`, ended by `close`."""

    def __init__(
        self,
        directory: Path,
        *,
        session_id: SessionId,
        clock: Clock,
        disk: Disk,
        timeline: "_Timeline",
        legs_before: int,
        lock_fd: int,
        on_trouble: Callable[[Trouble], None] | None,
    ) -> None:
        self.directory = directory
        self.disk = disk
        self._session_id = session_id
        self._clock = clock
        self._timeline = timeline
        # A process that was restarted counts its legs from 1 again, on new transports with new
        # clocks; in the book they follow the ones from before.
        self._legs_before = legs_before
        self.lock_fd = lock_fd
        self._on_trouble = on_trouble
        self._legs = _Legs()
        self._legs_lock = threading.Lock()  # for replacing them: the loop adds, the writer removes
        self._space = disk.space(directory)
        self._space_at_ns = clock.monotonic_ns()
        self._passed_at_ns = clock.monotonic_ns()
        self._is_closed = False
        self._sealed: manifest.Manifest | None = None
        self._seal_lock = threading.Lock()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        session_id: SessionId,
        started_at: datetime,
        clock: Clock,
        disk: Disk | None = None,
        reserve_bytes: int = 0,
        on_trouble: Callable[[Trouble], None] | None = None,
        background: bool = True,
        t0_mono_ns: int | None = None,
    ) -> "Recorder":
        """Begin (or, after a crash, go on with) the recording in `directory`.

        Time 0 of the timeline is `t0_mono_ns` (the monotonic clock at `started_at`; None: now), or,
        if journals already stand there, theirs. Raises
        `RecordingUnavailable` if less than `reserve_bytes` is free or the directory cannot be made,
        `manifest.RecordingBusy` if another process writes here.
        `on_trouble` is called in the writer's thread and must not block. `background=False` leaves
        writing to `write_through` (rehearsals and tests).
        """
        real = disk or OsDisk()
        try:
            _make_directory(directory)
            free, _ = real.space(directory)
            lock_fd = manifest.lock_directory(directory)
        except OSError as problem:
            raise _unusable(problem) from problem
        if lock_fd is None:
            raise manifest.RecordingBusy("This recording is being written or closed elsewhere.")
        try:
            if (directory / manifest.FILE_NAME).exists():
                raise manifest.RecordingBusy(
                    "This recording has been closed and takes nothing more."
                )
            if free < reserve_bytes:
                raise RecordingUnavailable(
                    "The disk is too full to record. Free some space first.",
                    free_bytes=free,
                    reserve_bytes=reserve_bytes,
                )
            _sync_what_stands(directory)
            recorder = cls(
                directory,
                session_id=session_id,
                clock=clock,
                disk=real,
                timeline=_timeline_of(directory, started_at, t0_mono_ns, clock),
                legs_before=journal.last_leg(directory),
                lock_fd=lock_fd,
                on_trouble=on_trouble,
            )
            if background:
                WRITER.add(recorder)
        except BaseException as problem:
            os.close(lock_fd)  # or nobody could record here until this process ends
            if isinstance(problem, OSError):
                raise _unusable(problem) from problem
            raise
        return recorder

    @property
    def t0_mono_ns(self) -> int:
        """The session's time 0 on this machine's monotonic clock."""
        return self._timeline.t0_mono_ns

    def monotonic_ns(self) -> int:
        return self._clock.monotonic_ns()

    def party(self, participant_id: ParticipantId, leg: int, label: str, role: str) -> PartyTap:
        """A tap for one leg of one participant, numbered within this process.

        Touches no disk: the writer makes the file.
        """
        header = JournalHeader(
            session_id=self._session_id,
            participant_id=participant_id,
            leg=self._legs_before + leg,
            segment=0,
            role=role,
            label=label,
            t0_mono_ns=self._timeline.t0_mono_ns,
            t0_wall_ns=self._timeline.t0_wall_ns,
            boot_id=self._timeline.boot_id,
        )
        _ = header.file_name  # an id that fits no file name is refused here, not in the writer
        with self._legs_lock:
            same = (tap for tap in self._legs.open if tap.participant_id == participant_id)
            tap = PartyTap(self, header, tuple(tap for tap in same if not tap.is_over))
            self._legs = self._legs.and_one(tap)
        return tap

    def status(self) -> RecordingStatus:
        """What has truly been written. Cheap; touches no disk."""
        now_ns = self._clock.monotonic_ns()
        legs = self._legs
        taps = legs.open
        tracks = tuple(_status_of(count, now_ns) for count in legs.counts())
        trouble = next((tap.trouble for tap in taps if tap.trouble), None)
        # The one writer may be held up by another recording's file: then nobody asks for ours.
        unasked = now_ns - self._passed_at_ns > STALLED_AFTER_NS
        stalled = any(tap.is_stalled(now_ns) or (unasked and tap.has_waiting()) for tap in taps)
        if trouble or stalled:
            state = RecordingState.TROUBLE
        elif any(track.bytes_written for track in tracks):
            state = RecordingState.RECORDING
        else:
            state = RecordingState.PREPARING
        error = trouble or ("the disk does not answer" if stalled else None)
        return RecordingStatus(
            state=state,
            elapsed_ms=max(0, now_ns - self.t0_mono_ns) // 1_000_000,
            tracks=tracks,
            disk=DiskStatus(
                *self._space,
                error,
                booked_bytes=sum(tap.booked_bytes for tap in taps),
                is_short=any(tap.is_short for tap in taps),
            ),
            lost_packets=legs.lost_packets,
        )

    def raise_alarm(self, participant_id: ParticipantId, cause: str) -> None:
        """A segment was given up: log it and tell whoever asked. In the writer's thread."""
        log.error("recording_trouble", session_id=self._session_id, cause=cause)
        if self._on_trouble is not None:
            self._on_trouble(Trouble(self._session_id, participant_id, cause))

    def warn_of_space(self, participant_id: ParticipantId, booked_bytes: int) -> None:
        """The disk sets nothing more aside; what it has is kept. In the writer's thread."""
        log.warning(
            "recording_space_short",
            session_id=self._session_id,
            participant_id=participant_id,
            booked_bytes=booked_bytes,
        )

    def write_through(self) -> None:
        """One pass of the writer: everything pending goes to the kernel."""
        now_ns = self._clock.monotonic_ns()
        for tap in self._legs.open:
            try:
                tap.write_pending(now_ns)
            except Exception:
                # One party's surprise must not stop the others'.
                log.exception("journal_writer_failed", directory=self.directory.name)
        self._passed_at_ns = self._clock.monotonic_ns()
        # A trouble is shown for as long as any, though its leg be over.
        over = [tap for tap in self._legs.open if tap.is_over and not tap.trouble]
        if over:
            with self._legs_lock:
                self._legs = self._legs.without(over)
        if now_ns - self._space_at_ns > DISK_SAMPLED_EVERY_NS:
            self._space_at_ns = now_ns
            with contextlib.suppress(OSError):
                self._space = self.disk.space(self.directory)

    def sync_due(self) -> list[DueSync]:
        """The syncs to be made now; whoever asks makes every one of them."""
        now_ns, legs = self._clock.monotonic_ns(), self._legs.open
        if not any(tap.is_sync_due(now_ns) for tap in legs):
            return []
        # Files that are synced together stay so: one job for all of them, each time.
        found = [tap.sync_due(now_ns) for tap in legs]
        return [due for due in found if due is not None]

    async def close(self) -> None:
        """Write, seal and sync the journals, and let go of the directory. May be repeated.

        The book stays open: whoever finishes the recording closes it (`manifest.recover`, in a
        child), because hashing an hour takes seconds for which no other call may wait. And whoever
        opens the directory before that, after a process that stopped in mid-session, goes on in new
        segments. Raises `RecordingUnavailable` if the disk refuses for `CLOSE_PATIENCE_S`: then too
        the directory is let go, for whoever finishes the recording can close what is there.
        """
        await asyncio.to_thread(self.close_now)

    def close_now(self, *, patience_s: float = CLOSE_PATIENCE_S) -> None:
        """`close` for callers without a loop."""
        with self._seal_lock:
            if self._is_closed:
                return
            until = time.monotonic() + patience_s
            try:
                while not self._could_finish(or_raise=time.monotonic() >= until):
                    time.sleep(ASK_AGAIN_S)
            except BaseException:
                unwritten = sum(tap.abandon() for tap in self._legs.open)
                log.error("recording_cut_short", session_id=self._session_id, packets=unwritten)
                raise
            finally:
                self._let_go()

    def _could_finish(self, *, or_raise: bool) -> bool:
        try:
            self._finish_taps()
        except RecordingUnavailable:
            if or_raise:
                raise
            return False
        return True

    async def seal(self) -> "SealedRecording":
        """`close`, and close the book too. For short recordings: everything is read and hashed.

        Idempotent; may be retried. Raises `RecordingUnavailable` if the disk refuses.
        """
        return await asyncio.to_thread(self.seal_now)

    def seal_now(self) -> "SealedRecording":
        """`seal` for callers without a loop."""
        with self._seal_lock:
            if self._sealed is None:
                self._finish_taps()
                try:
                    self._sealed = manifest.close_book(self.directory, sealed_at=self._clock.now())
                except OSError as problem:
                    raise _unfinished(problem) from problem
                self._let_go()
            return SealedRecording(
                directory=self.directory,
                manifest=self._sealed,
                lost_packets=self._legs.lost_packets,
            )

    def _finish_taps(self) -> None:
        """Finish every leg; one that cannot be finished keeps none of the others open."""
        WRITER.remove(self)
        problem: OSError | None = None
        for tap in self._legs.open:
            try:
                tap.finish(self._clock.monotonic_ns())
            except OSError as refused:
                problem = refused
        if problem is not None:
            raise _unfinished(problem) from problem

    def _let_go(self) -> None:
        self._is_closed = True
        os.close(self.lock_fd)


def _make_directory(directory: Path) -> None:
    """Make it, and those above it; a power cut must not take it away with all that is in it."""
    if not directory.is_dir():
        _make_directory(directory.parent)
        directory.mkdir(exist_ok=True, mode=0o750)
        manifest.sync_directory(directory.parent)


def _sync_what_stands(directory: Path) -> None:
    """A process that died here has left its last records, and names, with the kernel alone."""
    for path in journal.journals_in(directory):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        except OSError as problem:
            # What is new must be recorded all the same; closing the book meets this again.
            log.warning("journal_not_synced", directory=directory.name, reason=problem.strerror)
    try:
        manifest.sync_directory(directory)
    except OSError as problem:
        log.warning("journal_not_synced", directory=directory.name, reason=problem.strerror)


def _unusable(problem: OSError) -> RecordingUnavailable:
    return RecordingUnavailable(
        "The recording's directory cannot be used. Check the disk.",
        reason=os.strerror(problem.errno or 0),
    )


def _unfinished(problem: OSError) -> RecordingUnavailable:
    return RecordingUnavailable(
        "The recording could not be closed. It can be recovered later.", reason=str(problem)
    )


@dataclass(frozen=True, slots=True)
class SealedRecording:
    """A finished recording: its journals are sealed and its manifest is on disk."""

    directory: Path
    manifest: manifest.Manifest
    lost_packets: int


@dataclass(frozen=True, slots=True)
class _Timeline:
    t0_mono_ns: int
    t0_wall_ns: int
    boot_id: str


def _timeline_of(
    directory: Path, started_at: datetime, t0_mono_ns: int | None, clock: Clock
) -> _Timeline:
    """A new timeline, or the one its journals already share, in this boot's monotonic clock.

    Any one of them can tell; one that the disk does not give back keeps nobody from recording.
    """
    boot_id = manifest.boot_id()
    for path in journal.journals_in(directory):
        try:
            first = journal.read_header(path)
        except (journal.JournalDamaged, OSError) as problem:
            log.warning("journal_header_unreadable", directory=directory.name, reason=str(problem))
            continue
        if first.boot_id == boot_id:
            return _Timeline(first.t0_mono_ns, first.t0_wall_ns, boot_id)
        # Another boot: its monotonic clock says nothing here, the wall clock must do.
        since_ns = int(clock.now().timestamp() * 1e9) - first.t0_wall_ns
        return _Timeline(clock.monotonic_ns() - since_ns, first.t0_wall_ns, boot_id)
    t0_mono_ns = clock.monotonic_ns() if t0_mono_ns is None else t0_mono_ns
    return _Timeline(t0_mono_ns, int(started_at.timestamp() * 1e9), boot_id)


def _status_of(count: TrackCount, now_ns: int) -> TrackStatus:
    at_ns = count.last_write_ns
    age_ms = None if at_ns is None else max(0, now_ns - at_ns) // 1_000_000
    return TrackStatus(count.participant_id, count.name, count.bytes_written, count.packets, age_ms)


def _by_name(counts: Iterable[TrackCount]) -> tuple[TrackCount, ...]:
    """Add up the legs and codec changes of each participant's track; the freshest write counts."""
    merged: dict[tuple[ParticipantId, TrackName], TrackCount] = {}
    for new in counts:
        old = merged.get((new.participant_id, new.name))
        merged[new.participant_id, new.name] = new if old is None else old.and_also(new)
    return tuple(merged.values())
