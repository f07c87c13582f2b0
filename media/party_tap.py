"""One participant's leg on its way to the disk: what waits, what is written, what is repeated.

The relay's loop only puts the packet it holds into the intake (media/taps.py), where it becomes a
record; the writer (media/writer.py) gives these to the kernel, the syncing threads ask the disk to
keep them. While the disk takes nothing, packets wait in a bounded buffer, and what does not fit is
counted and told. When the leg ends its file is sealed, synced and closed, and nothing of it stays
but counters.
"""

import contextlib
import errno
import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from core.ids import ParticipantId
from media import journal
from media.disk import Disk
from media.journal import (
    JournalHeader,
    LostPackets,
    MarkKind,
    SealReason,
    TrackRecord,
)
from media.segment import Chunk, Segment
from media.taps import Intake
from media.tracks import CodecInfo, TrackName

SYNC_EVERY_NS: Final = 450_000_000
"""Asked at each pass of the writer: while these come in time, every eighth syncs, 480 ms apart."""
RETRY_EVERY_NS: Final = 1_000_000_000
SYNC_AT_MOST_NS: Final = 10_000_000_000
"""A disk that takes writes and refuses every sync costs one more segment each time it is asked, so
it is asked ever more rarely."""
STALLED_AFTER_NS: Final = 1_500_000_000
TROUBLE_SHOWN_NS: Final = 2_000_000_000
"""A trouble is told at least for so long: who asks once a second must hear of each."""
MAX_BUFFERED_BYTES: Final = 8 * 1024 * 1024
"""Per participant, over all legs that still wait: about a minute of a VGA call. When full, new
packets are dropped and counted; a GAP record names the time and the number as soon as there is room
again."""
QUIET_AFTER_NS: Final = 60_000_000_000
"""A leg that has said nothing for so long gives back what it booked: most never speak again."""
LAST_SEGMENT: Final = 9999  # its number has four digits
SYNC_PATIENCE_S: Final = 1.0
"""How long closing a file waits for a sync of it that is under way."""


class Owner(Protocol):
    """What a tap needs of the recording it belongs to."""

    directory: Path
    disk: Disk

    def monotonic_ns(self) -> int: ...
    def raise_alarm(self, participant_id: ParticipantId, cause: str) -> None: ...
    def warn_of_space(self, participant_id: ParticipantId, booked_bytes: int) -> None: ...


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

    def __init__(
        self, recorder: Owner, header: JournalHeader, earlier: "tuple[PartyTap, ...]" = ()
    ) -> None:
        """`earlier`: the participant's legs that are still being written; they share the buffer."""
        self._recorder = recorder
        self._header = header
        self._earlier = earlier
        self._seed = header.crc_seed
        self.intake = Intake(0, header.crc_seed)
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
        # Everything is on the disk and the file closed, or given up. The directory may be another's
        # by now: a pass of the writer that comes late must not write.
        self.is_over = False
        self._segment: Segment | None = None
        self._next_segment = 0  # not yet asked
        self._carried: deque[Chunk] = deque()  # records the disk has not surely got
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
        self._set_limit()

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
        self.intake.tracks = index + 1
        at_ns = self._recorder.monotonic_ns()
        self._append(journal.encode_track(self._seed, at_ns, described), at_ns)
        return index

    def rtp(self, track_index: int, packet: bytes, arrival_ns: int) -> None:
        """One decrypted RTP packet as received. Waits until it is written."""
        size = len(packet)
        if not 0 <= track_index < len(self._tracks) or size > journal.MAX_PAYLOAD_BYTES:
            # The relay must not fall over a caller's mistake, and the loss must be on the record.
            self._lose(arrival_ns)
        elif not self.intake.put(track_index, packet, arrival_ns) and self._has_room(
            size + journal.OVERHEAD_BYTES, arrival_ns
        ):
            self.intake.keep(track_index, packet, arrival_ns)
            self.intake.accepted_bytes += size + journal.OVERHEAD_BYTES

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
        self.intake.is_open = False

    def _append(self, record: bytes, at_ns: int) -> None:
        if self._has_room(len(record), at_ns, packets=0):
            self.intake.add(record)
            self.intake.accepted_bytes += len(record)

    @property
    def waiting_bytes(self) -> int:
        """What is held in memory because the disk has not taken it."""
        return self.intake.accepted_bytes - self._taken_bytes + self._carried_bytes

    def _has_room(self, size_bytes: int, at_ns: int, packets: int = 1) -> bool:
        """Whether one more record may wait. Who then lets it wait counts it, in that order."""
        if self._closed:
            return False  # the session is over; what still trickles in belongs to nobody
        waiting_bytes = self.waiting_bytes
        if self._earlier:
            waiting_bytes += sum(leg.waiting_bytes for leg in self._earlier)
        if waiting_bytes + size_bytes > MAX_BUFFERED_BYTES:
            self._lose(at_ns, packets)
            return False
        if self._is_losing:
            self._tell_loss()
        return True

    def _lose(self, at_ns: int, packets: int = 1) -> None:
        if not self._is_losing:
            self._is_losing, self._lost_from_ns = True, at_ns
            self.intake.is_open = False
        self._lost_to_ns = at_ns
        self._lost_packets += packets
        self.lost_packets_total += packets

    def _tell_loss(self) -> None:
        gap = LostPackets(
            self._lost_from_ns, self._lost_to_ns, self._lost_packets, self.trouble or "buffer_full"
        )
        record = journal.encode_gap(self._seed, journal.NO_TRACK, gap)
        self.intake.add(record)
        # Last: without memory for it, the loss is still to be told.
        self.intake.accepted_bytes += len(record)
        self._is_losing, self._lost_packets = False, 0
        self.intake.is_open = True

    # --- the writer's side -----------------------------------------------------------------------

    def write_pending(self, now_ns: int) -> None:
        """Give what is pending to the kernel. Called by the writer's thread.

        No refusal of the disk is raised. Without memory it raises, and the next pass tries again.
        """
        with self._disk_lock:
            if self._is_mended and now_ns - self._failed_at_ns >= TROUBLE_SHOWN_NS:
                self.trouble = None
            if self._earlier:
                self._earlier = tuple(leg for leg in self._earlier if not leg.is_over)
                self._set_limit()
            if self.is_over or (self._segment is not None and self._segment.is_sealed):
                return
            # Asked first: what the loop had left here before it ended the leg is written with it.
            is_ended = self._closed
            if self.oldest_waiting_ns is None and (self.intake.waiting or self._carried):
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
        """Make one chunk of what the loop has left here."""
        taken = self.intake.take()
        if taken is None:
            return
        data, records, all_packets, from_ns, to_ns, counts = taken
        for index, packets, octets in counts:
            track = self._tracks[index]
            track.packets += packets
            track.bytes += octets
        self._carry(Chunk(data, records, all_packets, from_ns, to_ns))
        self._taken_bytes += len(data)

    def _set_limit(self) -> None:
        """What waits has changed. Beside earlier legs the sum has to be looked at each time."""
        most_bytes = MAX_BUFFERED_BYTES + self._taken_bytes - self._carried_bytes
        self.intake.limit_bytes = 0 if self._earlier else most_bytes

    def _carry(self, chunk: Chunk) -> None:
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
            segment = Segment(self._recorder.disk, path, header)
        except FileExistsError:
            self._next_segment += 1
            raise
        # Every segment can be read alone: it describes all tracks of its leg again.
        tracks = [
            journal.encode_track(self._seed, now_ns, track.described) for track in self._tracks
        ]
        head = header.encode() + b"".join(tracks)
        try:
            segment.begin(head, len(tracks))
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
            self._segment.keep_for_repeat(self._carried.popleft(), MAX_BUFFERED_BYTES)
            self._carried_bytes -= len(chunk.data)
        self._set_limit()

    def _book_ahead(self, segment: Segment, now_ns: int) -> None:
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
        return self.intake.waiting > 0

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
            self._set_limit()
        if self.trouble != cause:
            self.trouble = cause
            self._recorder.raise_alarm(self.participant_id, cause)

    def _tell_unsure(self, forgotten: Chunk, cause: str) -> None:
        """What was too much to repeat, and may not be on the disk either, counts as lost."""
        gap = LostPackets(forgotten.from_ns, forgotten.to_ns, forgotten.packets, cause)
        record = journal.encode_gap(self._seed, journal.NO_TRACK, gap)
        self._carried.appendleft(Chunk(record, 1))
        self._carried_bytes += len(record)
        self._unsure_packets += forgotten.packets

    def _to_sync(self) -> Segment | None:
        """The file, if it holds what the disk has not been asked to keep."""
        segment = self._segment
        if segment is None or segment.syncing or not (segment.unsynced or segment.is_sealed):
            return None
        return segment

    def is_sync_due(self, now_ns: int) -> bool:
        """Whether there is something to sync, and it is time. Asks for no lock: only the writer's
        thread makes it so."""
        if self._to_sync() is None:
            return False
        return now_ns - self._synced_at_ns >= _sync_every_ns(self._failed_syncs)

    def sync_due(self, now_ns: int) -> "DueSync | None":
        """A sync, if there is something to sync: who gets it must make it.

        Not before its time for a disk that has refused the last one (`_sync_every_ns`).
        """
        with self._disk_lock:
            segment = self._to_sync()
            if segment is None or (self._failed_syncs and not self.is_sync_due(now_ns)):
                return None
            segment.sync_began_ns = now_ns
            return DueSync(self, segment)

    def sync(self, segment: Segment, now_ns: int) -> None:
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

    def _close(self, segment: Segment) -> None:
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
            return self.intake.packets + sum(chunk.packets for chunk in self._carried)

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
    _segment: Segment

    def sync(self, now_ns: int) -> None:
        """Once. May take long; never raises."""
        self._tap.sync(self._segment, now_ns)


def _sync_every_ns(failed_syncs: int) -> int:
    """How long until the next sync after so many in a row have failed. After one as ever, so that a
    power cut then still costs less than a second."""
    return min(SYNC_EVERY_NS << min(max(0, failed_syncs - 1), 8), SYNC_AT_MOST_NS)
