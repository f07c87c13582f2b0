"""A subscriber that may not drop: what the relay receives goes into journals, off the hot loop.

The relay's loop only puts the packet it holds on a list. One writer thread per process makes
records of them, gives these to the kernel every 60 ms and asks the disk to keep them every 400 ms,
so a killed process loses less than 100 ms and a power cut less than a second. A segment whose write
or sync fails is never trusted again: the next segment repeats everything that was not known to be
on disk. While the disk takes nothing the call goes on, the state says so, and packets wait in a
bounded buffer.

Each journal books space ahead of what it has written, the more the longer it has grown, so that a
disk that others fill still takes what a running talk sends for minutes. What is booked lies beyond
the file's end: the file's length stays what was written, and whoever copies it copies no emptiness.
"""

import asyncio
import contextlib
import ctypes
import errno
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import structlog

from core.clock import Clock
from core.errors import Unavailable
from core.ids import ParticipantId, SessionId
from media import journal, manifest
from media.journal import (
    ArrivedPacket,
    JournalHeader,
    LostPackets,
    MarkKind,
    Seal,
    SealReason,
    TrackRecord,
)
from media.tracks import CodecInfo, TrackName

log = structlog.get_logger(__name__)

WRITE_EVERY_S: Final = 0.06
"""With the pass itself and a late wake-up this stays under the promised 100 ms. A file's share of a
pass costs the same whatever it carries, so shorter passes cost more."""
SYNC_EVERY_NS: Final = 400_000_000
RETRY_EVERY_NS: Final = 1_000_000_000
SYNC_AT_MOST_NS: Final = 10_000_000_000
"""A disk that takes writes and refuses every sync costs one more segment each time it is asked, so
it is asked ever more rarely."""
STALLED_AFTER_NS: Final = 1_500_000_000
TROUBLE_SHOWN_NS: Final = 2_000_000_000
"""A trouble is told at least for so long: who asks once a second must hear of each."""
DISK_SAMPLED_EVERY_NS: Final = 5_000_000_000
MAX_BUFFERED_BYTES: Final = 8 * 1024 * 1024
"""Per participant and leg: about a minute of a VGA call. When full, new packets are dropped and
counted; a GAP record names the time and the number as soon as there is room again."""
FIRST_BOOKED_BYTES: Final = 1024 * 1024
MOST_BOOKED_BYTES: Final = 32 * 1024 * 1024
"""A journal books as much as it has, between these two: a talk of minutes has three minutes or more
ahead of it, and a leg that was lost at once holds no more than the first."""
BOOK_AGAIN_NS: Final = 5_000_000_000
"""A full disk is not asked at every pass: some file systems search long before they refuse."""
QUIET_AFTER_NS: Final = 60_000_000_000
"""A leg that has said nothing for so long gives back what it booked: most never speak again."""
LAST_SEGMENT: Final = 9999  # its number has four digits
CLOSE_PATIENCE_S: Final = 10.0
"""How long the end of a talk waits for a disk that refuses its last packets."""
ASK_AGAIN_S: Final = 0.5
SYNC_PATIENCE_S: Final = 1.0
"""How long closing a file waits for a sync of it that is under way."""


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


class Disk(Protocol):
    """The system calls a journal needs. Each may raise `OSError`."""

    def create(self, path: Path) -> int: ...
    def write(self, fd: int, data: bytes | memoryview) -> int: ...
    def book(self, fd: int, offset: int, size_bytes: int) -> None: ...
    def sync(self, fd: int) -> None: ...
    def sync_names(self, directory: Path) -> None: ...
    def truncate(self, fd: int, size_bytes: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def space(self, directory: Path) -> tuple[int, int]: ...


class OsDisk:
    """The real one."""

    def create(self, path: Path) -> int:
        """A new file; its name is on disk after `sync_names` only. Refuses an existing one."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        return os.open(path, flags, 0o640)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def book(self, fd: int, offset: int, size_bytes: int) -> None:
        """Set space aside; the file's length stays. `EOPNOTSUPP` where a file system cannot.

        Not `posix_fallocate`: where a file system cannot, that writes zeros behind the end instead.
        """
        if _fallocate is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if _fallocate(fd, _FALLOC_FL_KEEP_SIZE, offset, size_bytes):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_names(self, directory: Path) -> None:
        manifest.sync_directory(directory)

    def truncate(self, fd: int, size_bytes: int) -> None:
        os.ftruncate(fd, size_bytes)

    def close(self, fd: int) -> None:
        os.close(fd)

    def space(self, directory: Path) -> tuple[int, int]:
        """Bytes free for us, and the size of the file system."""
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


_FALLOC_FL_KEEP_SIZE: Final = 1
_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)  # Linux only
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_CANNOT_BOOK: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class _Chunk(NamedTuple):
    """Encoded records that were taken together."""

    data: bytes
    records: int
    packets: int = 0
    from_ns: int = 0
    to_ns: int = 0


def _together(first: _Chunk | None, then: _Chunk | None) -> _Chunk | None:
    """Counts and times of two that follow each other."""
    if first is None or then is None:
        return first or then
    return _Chunk(b"", 0, first.packets + then.packets, first.from_ns, then.to_ns)


class _Segment:
    """One open journal file. Used with the tap's disk lock held."""

    def __init__(self, disk: Disk, path: Path, header: JournalHeader) -> None:
        self.disk = disk
        self.path = path
        self.header = header
        self.fd = disk.create(path)
        self.is_named = False  # whether its name is known to be on the disk
        self.size_bytes = 0
        self.records = 0
        self.digest = hashlib.sha256()
        self.booked_to = 0
        self.can_book = True
        self.is_short = False
        self.book_again_ns = 0
        # What the next segment must repeat if a sync fails; bounded as the buffer is. When full the
        # oldest are forgotten, for the kernel has them, and told of as lost if the disk has not.
        self.unsynced: deque[_Chunk] = deque()
        self.unsynced_bytes = 0
        self.unsynced_from = 0  # how many chunks were there before the first of these
        # Counts and times only: what a sync will cover, and what the one under way does not.
        self._forgotten: _Chunk | None = None
        self._forgotten_since: _Chunk | None = None
        self._covered = 0  # how many chunks were there when the last sync began
        self.sync_began_ns: int | None = None
        self.is_sealed = False
        self.given_up = False

    @property
    def syncing(self) -> bool:
        return self.sync_began_ns is not None

    def append(self, data: bytes, records: int) -> None:
        """All or nothing as far as the file system allows; raises `OSError` after undoing."""
        view = memoryview(data)
        try:
            while view:
                taken = self.disk.write(self.fd, view)
                if not taken:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                view = view[taken:]
        except OSError:
            # A torn tail is harmless, but a whole one is tidier; never mind if even this fails.
            with contextlib.suppress(OSError):
                self.disk.truncate(self.fd, self.size_bytes)
            raise
        self.size_bytes += len(data)
        self.records += records
        self.digest.update(data)

    def book(self, size_bytes: int) -> None:
        """Set `size_bytes` aside behind what is written. Raises `OSError` if they are not there."""
        if not self.can_book:
            return
        try:
            self.disk.book(self.fd, self.size_bytes, size_bytes)
        except OSError as problem:
            if problem.errno not in _CANNOT_BOOK:
                raise
            self.can_book = False
        else:
            self.booked_to = self.size_bytes + size_bytes

    def book_ahead(self, now_ns: int) -> None:
        """Book again when half is used up. A refusal harms nothing yet: it is only noted."""
        wanted = min(max(self.size_bytes, FIRST_BOOKED_BYTES), MOST_BOOKED_BYTES)
        if self.booked_to - self.size_bytes >= wanted // 2 or now_ns < self.book_again_ns:
            return
        for size_bytes in (wanted, FIRST_BOOKED_BYTES):
            try:
                self.book(size_bytes)
            except OSError:
                self.is_short, self.book_again_ns = True, now_ns + BOOK_AGAIN_NS
            else:
                self.is_short = size_bytes < wanted
                return

    def sync(self) -> None:
        """Have the disk keep what was written, and, the first time, the name that it stands under.

        Not at creation: that is the one writer's turn, and a tired disk takes its time for a name.
        Raises `OSError`.
        """
        self.disk.sync(self.fd)
        if not self.is_named:
            self.disk.sync_names(self.path.parent)
            self.is_named = True

    def give_back(self) -> None:
        """Let go of what is booked and not written."""
        if self.booked_to > self.size_bytes:
            with contextlib.suppress(OSError):
                self.disk.truncate(self.fd, self.size_bytes)
        self.booked_to = 0

    def keep_for_repeat(self, chunk: _Chunk) -> None:
        self.unsynced.append(chunk)
        self.unsynced_bytes += len(chunk.data)
        while self.unsynced_bytes > MAX_BUFFERED_BYTES:
            is_covered = self.unsynced_from < self._covered
            oldest = self._drop_oldest()._replace(data=b"")
            if is_covered:
                self._forgotten = _together(self._forgotten, oldest)
            else:
                self._forgotten_since = _together(self._forgotten_since, oldest)

    @property
    def forgotten(self) -> _Chunk | None:
        """What cannot be repeated, and is not known to be on the disk."""
        return _together(self._forgotten, self._forgotten_since)

    def begin_sync(self) -> None:
        """A sync is about to be asked for; it covers what has been written until now."""
        self._covered = self.unsynced_from + len(self.unsynced)
        self._forgotten, self._forgotten_since = self.forgotten, None

    def end_sync(self) -> None:
        """The sync that was begun last has worked."""
        self._forgotten = None
        while self.unsynced and self.unsynced_from < self._covered:
            self._drop_oldest()

    def _drop_oldest(self) -> _Chunk:
        oldest = self.unsynced.popleft()
        self.unsynced_bytes -= len(oldest.data)
        self.unsynced_from += 1
        return oldest

    def seal(self, reason: SealReason, at_ns: int) -> None:
        seal = Seal(reason, self.records, self.size_bytes, self.digest.hexdigest())
        self.append(journal.encode_seal(self.header.crc_seed, at_ns, seal), 1)
        self.is_sealed = True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.disk.close(self.fd)


class TrackCount(NamedTuple):
    """What has been given to the kernel for one track, in one leg or in several."""

    participant_id: ParticipantId
    name: TrackName
    bytes_written: int
    packets: int
    last_write_ns: int | None

    def and_also(self, other: "TrackCount") -> "TrackCount":
        wrote = [at for at in (self.last_write_ns, other.last_write_ns) if at is not None]
        return self._replace(
            bytes_written=self.bytes_written + other.bytes_written,
            packets=self.packets + other.packets,
            last_write_ns=max(wrote, default=None),
        )

    def status(self, now_ns: int) -> TrackStatus:
        age_ms = None
        if self.last_write_ns is not None:
            age_ms = max(0, now_ns - self.last_write_ns) // 1_000_000
        return TrackStatus(self.participant_id, self.name, self.bytes_written, self.packets, age_ms)


class _Track:
    """Counters of one track index. All belong to the writer; the loop reads what was written."""

    __slots__ = ("bytes", "bytes_written", "described", "last_write_ns", "packets", "written")

    def __init__(self, described: TrackRecord) -> None:
        self.described = described
        self.packets = 0
        self.bytes = 0
        self.written = 0
        self.bytes_written = 0
        self.last_write_ns: int | None = None


class PartyTap:
    """One participant's leg, as the relay's loop sees it: cheap calls that never block or raise.

    `track_index` is what `open_track` returned. Times are CLOCK_MONOTONIC nanoseconds.
    """

    def __init__(self, recorder: "Recorder", header: JournalHeader) -> None:
        self._recorder = recorder
        self._header = header
        self._seed = header.crc_seed
        # Packets, and encoded records of other kinds, on their way to the writer. `list.append` and
        # slicing are atomic under the interpreter lock, so the loop takes no lock of ours.
        self._pending: list[ArrivedPacket | bytes] = []
        self._accepted_bytes = 0  # only the loop adds
        self._taken_bytes = 0  # only the writer adds
        self._tracks: list[_Track] = []
        self._closed = False
        self._is_losing = False
        self._lost_from_ns = 0
        self._lost_to_ns = 0
        self._lost_packets = 0
        self.lost_packets_total = 0
        # The disk's side, with `_disk_lock` held.
        self._disk_lock = threading.Lock()
        self._sync_ended = threading.Condition(self._disk_lock)
        self.is_over = False
        """Everything is on the disk and the file closed, or given up. The directory may be
        another's by now: a pass of the writer that comes late must not write."""
        self._segment: _Segment | None = None
        self._next_segment = 0  # not yet asked
        self._carried: deque[_Chunk] = deque()  # records the disk has not surely got
        self._carried_bytes = 0
        self._retry_at_ns = 0
        self._synced_at_ns = 0
        self._wrote_at_ns = 0
        self._failed_at_ns = 0
        self._failed_syncs = 0  # since the last one that worked
        self._is_mended = True  # written and synced since the last failure
        self._unsure_packets = 0  # only the writer adds
        self.trouble: str | None = None
        self.oldest_waiting_ns: int | None = None

    @property
    def participant_id(self) -> ParticipantId:
        return self._header.participant_id

    # --- the loop's side -------------------------------------------------------------------------

    def open_track(self, ssrc: int, name: TrackName, codec: CodecInfo) -> int:
        """A new track index; call again when the codec or the SSRC changes.

        Returns `journal.NO_TRACK` after 250 tracks of one leg: its packets count as lost.
        """
        index = len(self._tracks)
        if index >= journal.MAX_TRACKS or self._closed:
            return journal.NO_TRACK
        described = TrackRecord(index, ssrc, name, codec)
        self._tracks.append(_Track(described))
        at_ns = self._recorder.monotonic_ns()
        self._append(journal.encode_track(self._seed, at_ns, described), at_ns)
        return index

    def rtp(self, track_index: int, packet: bytes, arrival_ns: int) -> None:
        """One decrypted RTP packet as received. Kept until it is written, not copied."""
        size = len(packet)
        if not 0 <= track_index < len(self._tracks) or size > journal.MAX_PAYLOAD_BYTES:
            # The relay must not fall over a caller's mistake, and the loss must be on the record.
            self._lose(arrival_ns)
        elif self._has_room(size + journal.OVERHEAD_BYTES, arrival_ns):
            self._pending.append((track_index, arrival_ns, packet))

    def rtcp_sr(self, track_index: int, ntp_time: int, rtp_time: int, arrival_ns: int) -> None:
        """A sender report of this track: the sender's NTP time (64 bits) and RTP time."""
        report = journal.SenderReport(ntp_time & (1 << 64) - 1, rtp_time & 0xFFFFFFFF)
        record = journal.encode_sender_report(self._seed, track_index & 0xFF, arrival_ns, report)
        self._append(record, arrival_ns)

    def mark(
        self, kind: MarkKind, at_ns: int, track_index: int | None = None, detail: str = ""
    ) -> None:
        """Something that happened besides packets; `detail` is cut after 1,000 characters."""
        track = journal.NO_TRACK if track_index is None else track_index & 0xFF
        record = journal.encode_mark(self._seed, track, at_ns, journal.Mark(kind, detail))
        self._append(record, at_ns)

    def end(self) -> None:
        """This leg is over. The writer seals its file, has it synced and closes it."""
        if self._closed:
            return
        self._closed = True
        if self._is_losing:
            self._tell_loss()

    def _append(self, record: bytes, at_ns: int) -> None:
        if self._has_room(len(record), at_ns, packets=0):
            self._pending.append(record)

    def _has_room(self, size_bytes: int, at_ns: int, packets: int = 1) -> bool:
        """Whether one more record may wait; if so, it is counted as waiting."""
        if self._closed:
            return False  # the session is over; what still trickles in belongs to nobody
        waiting = self._accepted_bytes - self._taken_bytes + self._carried_bytes
        if waiting + size_bytes > MAX_BUFFERED_BYTES:
            self._lose(at_ns, packets)
            return False
        if self._is_losing:
            self._tell_loss()
        self._accepted_bytes += size_bytes
        return True

    def _lose(self, at_ns: int, packets: int = 1) -> None:
        if not self._is_losing:
            self._is_losing, self._lost_from_ns = True, at_ns
        self._lost_to_ns = at_ns
        self._lost_packets += packets
        self.lost_packets_total += packets

    def _tell_loss(self) -> None:
        gap = LostPackets(
            self._lost_from_ns, self._lost_to_ns, self._lost_packets, self.trouble or "buffer_full"
        )
        self._is_losing, self._lost_packets = False, 0
        record = journal.encode_gap(self._seed, journal.NO_TRACK, gap)
        self._pending.append(record)
        self._accepted_bytes += len(record)

    # --- the writer's side -----------------------------------------------------------------------

    def write_pending(self, now_ns: int) -> None:
        """Give what is pending to the kernel. Called by the writer's thread.

        No refusal of the disk is raised. Without memory it raises, and the next pass tries again.
        """
        with self._disk_lock:
            if self._is_mended and now_ns - self._failed_at_ns >= TROUBLE_SHOWN_NS:
                self.trouble = None
            if self.is_over or (self._segment is not None and self._segment.is_sealed):
                return
            # Asked first: what the loop had left here before it ended the leg is written with it.
            is_ended = self._closed
            if self.oldest_waiting_ns is None and (self._pending or self._carried):
                self.oldest_waiting_ns = now_ns
            self._take_pending()
            try:
                if self._carried:
                    if self._segment is None:
                        if now_ns < self._retry_at_ns:
                            return
                        self._open_segment(now_ns)
                    self._write_carried()
                    self._note_written(now_ns)
                if is_ended:
                    self._seal(now_ns)
                else:
                    self._book_for_more(now_ns)
            except OSError as problem:
                self._give_up("write", problem, now_ns)

    def _note_written(self, now_ns: int) -> None:
        self._wrote_at_ns = now_ns
        self.oldest_waiting_ns = None
        for track in self._tracks:
            if track.packets != track.written:
                track.written = track.packets
                track.bytes_written = track.bytes
                track.last_write_ns = now_ns

    def _seal(self, now_ns: int) -> None:
        """The leg is over and everything is written: nothing follows but a sync. Raises `OSError`.

        Not beside a sync that is under way: if that one fails this file is not the leg's last.
        """
        segment = self._segment
        if segment is None:
            self.is_over = self._is_mended = True
        elif not segment.syncing and not segment.is_sealed:
            segment.seal(SealReason.ENDED, now_ns)
            segment.give_back()

    def _book_for_more(self, now_ns: int) -> None:
        segment = self._segment
        if segment is None:
            return
        if self._wrote_at_ns == now_ns:
            self._book_ahead(segment, now_ns)
        elif now_ns - self._wrote_at_ns >= QUIET_AFTER_NS:
            segment.give_back()

    def _take_pending(self) -> None:
        """Turn what the loop has left here into one chunk of records."""
        taken = self._pending[:]
        if not taken:
            return
        # First: what cannot be encoded now (there may be no memory for it) must wait, not vanish.
        data = journal.encode_batch(self._seed, taken)
        del self._pending[: len(taken)]
        packets, from_ns, to_ns = 0, 0, 0
        for item in taken:
            if not isinstance(item, bytes):
                track = self._tracks[item[0]]
                track.packets += 1
                track.bytes += len(item[2])
                packets += 1
                to_ns = item[1]
                from_ns = from_ns or to_ns
        self._carry(_Chunk(data, len(taken), packets, from_ns, to_ns))
        self._taken_bytes += len(data)

    def _carry(self, chunk: _Chunk) -> None:
        self._carried.append(chunk)
        self._carried_bytes += len(chunk.data)

    def _open_segment(self, now_ns: int) -> None:
        """Begin the next file, if there is room for more than its beginning.

        A number is used up only by a file that stays: a disk may be full for days.
        """
        if self._next_segment > LAST_SEGMENT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        header = journal.next_segment(self._header, self._next_segment)
        path = self._recorder.directory / header.file_name
        try:
            segment = _Segment(self._recorder.disk, path, header)
        except FileExistsError:
            self._next_segment += 1
            raise
        # Every segment can be read alone: it describes all tracks of its leg again.
        tracks = [
            journal.encode_track(self._seed, now_ns, track.described) for track in self._tracks
        ]
        head = header.encode() + b"".join(tracks)
        try:
            segment.book(len(head) + FIRST_BOOKED_BYTES)
            segment.append(head, len(tracks))
        except OSError:
            segment.close()
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._next_segment += 1
        self._segment = segment
        self._synced_at_ns = now_ns

    def _write_carried(self) -> None:
        assert self._segment is not None
        while self._carried:
            chunk = self._carried[0]
            self._segment.append(chunk.data, chunk.records)
            self._segment.keep_for_repeat(self._carried.popleft())
            self._carried_bytes -= len(chunk.data)

    def _book_ahead(self, segment: _Segment, now_ns: int) -> None:
        was_short = segment.is_short
        segment.book_ahead(now_ns)
        if segment.is_short and not was_short:
            self._recorder.warn_of_space(self.participant_id, self.booked_bytes)

    @property
    def booked_bytes(self) -> int:
        """What the disk has set aside for this leg and has not got yet."""
        segment = self._segment
        return 0 if segment is None else max(0, segment.booked_to - segment.size_bytes)

    @property
    def is_short(self) -> bool:
        segment = self._segment
        return segment is not None and segment.is_short

    def is_stalled(self, now_ns: int) -> bool:
        """Whether a write or a sync has been with the disk for too long."""
        waiting_ns, segment = self.oldest_waiting_ns, self._segment
        syncing_ns = None if segment is None else segment.sync_began_ns
        return any(
            since_ns is not None and now_ns - since_ns > STALLED_AFTER_NS
            for since_ns in (waiting_ns, syncing_ns)
        )

    def has_waiting(self) -> bool:
        return bool(self._pending)

    def _give_up(self, what: str, problem: OSError, now_ns: int) -> None:
        """This segment is never written again; what the disk may not have goes to the next."""
        segment, self._segment = self._segment, None
        self._retry_at_ns = now_ns + RETRY_EVERY_NS
        self._failed_at_ns, self._is_mended = now_ns, False
        cause = f"{what}: {os.strerror(problem.errno or 0)}"
        if segment is not None:
            segment.given_up = True
            self._carried.extendleft(reversed(segment.unsynced))
            self._carried_bytes += segment.unsynced_bytes
            if segment.forgotten is not None:
                self._tell_unsure(segment.forgotten, cause)
            if not segment.is_sealed:
                with contextlib.suppress(OSError):
                    segment.seal(SealReason.ROTATED, now_ns)
            segment.give_back()
            if not segment.syncing:
                segment.close()
        if self.trouble != cause:
            self.trouble = cause
            self._recorder.raise_alarm(self.participant_id, cause)

    def _tell_unsure(self, forgotten: _Chunk, cause: str) -> None:
        """What was too much to repeat, and may not be on the disk either, counts as lost."""
        gap = LostPackets(forgotten.from_ns, forgotten.to_ns, forgotten.packets, cause)
        record = journal.encode_gap(self._seed, journal.NO_TRACK, gap)
        self._carried.appendleft(_Chunk(record, 1))
        self._carried_bytes += len(record)
        self._unsure_packets += forgotten.packets

    def sync_due(self, now_ns: int) -> "DueSync | None":
        """The sync to be made now, if there is one: who gets it must make it."""
        with self._disk_lock:
            segment = self._segment
            if segment is None or segment.syncing:
                return None
            if not segment.unsynced and not segment.is_sealed:
                return None
            if now_ns - self._synced_at_ns < _sync_every_ns(self._failed_syncs):
                return None
            segment.sync_began_ns = now_ns
            return DueSync(self, segment)

    def sync(self, segment: _Segment, now_ns: int) -> None:
        """Ask the disk to keep it (may take long). `DueSync`'s part."""
        with self._disk_lock:
            segment.begin_sync()
        problem: OSError | None = None
        try:
            segment.sync()
        except OSError as failed:
            problem = failed
        with self._disk_lock:
            segment.sync_began_ns = None
            if segment.given_up:
                segment.close()
            elif problem is None:
                segment.end_sync()
                self._synced_at_ns = now_ns
                self._failed_syncs, self._is_mended = 0, True
                if segment.is_sealed:
                    self._close(segment)
            else:
                # The kernel may have thrown the pages away and will report success next time, so
                # this file is over (https://lwn.net/Articles/752063/).
                self._give_up("sync", problem, now_ns)
                self._retry_at_ns = now_ns
                self._failed_syncs += 1
            self._sync_ended.notify_all()

    def finish(self, now_ns: int) -> None:
        """Write, seal, sync and close. Raises `OSError` if the disk refuses; may be repeated."""
        self.end()
        self._retry_at_ns = 0
        self.write_pending(now_ns)
        with self._disk_lock:
            # The kernel tells of a failure once: a sync under way would hear it, ours would not.
            if not self._sync_ended.wait_for(self._is_calm, SYNC_PATIENCE_S):
                raise OSError("a sync does not end")
            if self._carried:
                raise OSError(f"the last records could not be written ({self.trouble})")
            segment = self._segment
            try:
                self._seal(now_ns)
                if segment is not None:
                    segment.sync()
                    self._close(segment)
            except OSError as problem:
                self._give_up("seal", problem, now_ns)
                raise

    def _close(self, segment: _Segment) -> None:
        """It is sealed, and on the disk: the leg is over."""
        self._segment, self.is_over = None, True
        segment.close()

    def _is_calm(self) -> bool:
        return self._segment is None or not self._segment.syncing

    def abandon(self) -> int:
        """Let go of the file after `finish` failed; how many packets stay unwritten."""
        with self._disk_lock:
            self.is_over = True
            segment, self._segment = self._segment, None
            if segment is not None:
                segment.given_up = True
                if not segment.syncing:
                    segment.close()
            waiting = sum(not isinstance(item, bytes) for item in self._pending)
            return waiting + sum(chunk.packets for chunk in self._carried)

    @property
    def lost_packets(self) -> int:
        return self.lost_packets_total + self._unsure_packets

    def counts(self) -> list[TrackCount]:
        """As of the last write; read by the loop without a lock."""
        who = self.participant_id
        return [
            TrackCount(who, t.described.name, t.bytes_written, t.written, t.last_write_ns)
            for t in self._tracks
        ]


@dataclass(frozen=True, slots=True)
class DueSync:
    """One file whose bytes should be on the disk now. The file is this one for good: until its turn
    comes it may have been given up, and another may be in its place."""

    _tap: PartyTap
    _segment: _Segment

    def sync(self, now_ns: int) -> None:
        """Once. May take long; never raises."""
        self._tap.sync(self._segment, now_ns)


def _sync_every_ns(failed_syncs: int) -> int:
    """How long until the next sync after so many in a row have failed. After one as ever, so that a
    power cut then still costs less than a second."""
    return min(SYNC_EVERY_NS << min(max(0, failed_syncs - 1), 8), SYNC_AT_MOST_NS)


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
        except BaseException as problem:
            os.close(lock_fd)  # or nobody could record here until this process ends
            if isinstance(problem, OSError):
                raise _unusable(problem) from problem
            raise
        if background:
            _WRITER.add(recorder)
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
        tap = PartyTap(self, header)
        with self._legs_lock:
            self._legs = self._legs.and_one(tap)
        return tap

    def status(self) -> RecordingStatus:
        """What has truly been written. Cheap; touches no disk."""
        now_ns = self._clock.monotonic_ns()
        legs = self._legs
        taps = legs.open
        tracks = tuple(count.status(now_ns) for count in legs.counts())
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
        now_ns = self._clock.monotonic_ns()
        found = [tap.sync_due(now_ns) for tap in self._legs.open]
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
        _WRITER.remove(self)
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


def _by_name(counts: Iterable[TrackCount]) -> tuple[TrackCount, ...]:
    """Add up the legs and codec changes of each participant's track; the freshest write counts."""
    merged: dict[tuple[ParticipantId, TrackName], TrackCount] = {}
    for new in counts:
        old = merged.get((new.participant_id, new.name))
        merged[new.participant_id, new.name] = new if old is None else old.and_also(new)
    return tuple(merged.values())


class _Writer:
    """The process's one writer thread and its few syncing ones; runs while recorders are open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recorders: list[Recorder] = []
        self._thread: threading.Thread | None = None
        # A sync may take seconds on a tired disk; four at a time keep the others' promise.
        self._syncing = ThreadPoolExecutor(max_workers=4, thread_name_prefix="journal-sync")

    def add(self, recorder: Recorder) -> None:
        with self._lock:
            self._recorders.append(recorder)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                self._thread.start()

    def remove(self, recorder: Recorder) -> None:
        """The recorder's files are the caller's from here on, except for a running sync."""
        with self._lock:
            if recorder in self._recorders:
                self._recorders.remove(recorder)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(WRITE_EVERY_S)
            with self._lock:
                recorders = list(self._recorders)
                if not recorders:
                    self._thread = None
                    return
            for recorder in recorders:
                try:
                    recorder.write_through()
                    for due in recorder.sync_due():
                        self._submit(due, recorder.monotonic_ns())
                except Exception:
                    # One recording's surprise must not stop the others'.
                    log.exception("journal_writer_failed", directory=recorder.directory.name)

    def _submit(self, due: DueSync, now_ns: int) -> None:
        try:
            self._syncing.submit(due.sync, now_ns)
        except RuntimeError as problem:
            # No thread could be started. It waits in the pool's line for one that is there.
            log.warning("journal_sync_delayed", reason=str(problem))


_WRITER: Final = _Writer()
