"""The append-only record of what one participant sent, one file per participant, leg and segment.

Packets are written as they arrived and are never rewritten; order, gaps and containers are decided
later, repeatably, by `media/mux.py`. Every record carries its length and a CRC32C, so a torn tail
is cut at the last valid record and damage in the middle costs only the records it touched.
Format, byte by byte: docs/recording.md. Writing is `media/party_tap.py`'s work; the book of a whole
recording (hashes, sealing, recovery) is `media/manifest.py`'s.
"""

import json
import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Final

import google_crc32c

from core.errors import Malformed, Unavailable
from core.ids import ParticipantId, SessionId
from media import unread
from media.tracks import CodecInfo, TrackName
from media.unread import Stretch

SUFFIX: Final = ".rrj"
MAGIC: Final = b"\x89RRJ\r\n\x1a\n"
"""As in PNG: the high bit, both line ends and ^Z show at once that a copy was mangled as text."""
VERSION: Final = 1

_PREAMBLE = struct.Struct(">8sHH")  # magic, version, length of the JSON that follows
_HEAD = struct.Struct(">HBBQ")  # payload length, type, track, monotonic time in ns
_CRC = struct.Struct(">I")
_SR = struct.Struct(">QI")  # NTP time (64 bits), RTP time
MAX_PAYLOAD_BYTES: Final = 0xFFFF
MAX_TRACKS: Final = 250
MAX_CLOCK_RATE: Final = 1_000_000
"""Ten times what any RTP payload format uses."""
NO_TRACK: Final = 255
RECORDER_LATE: Final = "recorder_late"
"""Detail of a GAP mark: the talk had begun, and its recorder had not."""
OVERHEAD_BYTES: Final = _HEAD.size + _CRC.size
"""What a record adds to its payload."""

_FILE_NAME = re.compile(
    r"^(?P<who>[A-Za-z0-9_-]{1,64})\.l(?P<leg>\d{4})\.s(?P<segment>\d{4})\.rrj$"
)


class JournalDamaged(Malformed):
    """The bytes are not a journal, or its header cannot be trusted."""

    code = "journal_damaged"


class JournalUnreadable(Unavailable):
    """The disk does not give a journal back. Nothing is wrong with it as far as anyone can tell."""

    code = "journal_unreadable"


class RecordType(IntEnum):
    """What a record holds. 0 is never written: it is what preallocated space reads as."""

    TRACK = 1
    RTP = 2
    SENDER_REPORT = 3
    MARK = 4
    GAP = 5
    SEAL = 6


class MarkKind(StrEnum):
    """What happened on the timeline besides packets."""

    JOIN = "join"
    LEAVE = "leave"
    MUTE = "mute"
    UNMUTE = "unmute"
    SILENT = "silent"
    BACK = "back"
    GAP = "gap"
    KEYFRAME_REQUESTED = "keyframe_requested"
    ROUND_TRIP = "round_trip"  # the shortest of this leg so far; detail: in ms


class SealReason(StrEnum):
    """Why a segment takes no more records."""

    ENDED = "ended"  # the leg was over
    ROTATED = "rotated"  # a write or a sync failed here; the next segment goes on
    RECOVERED = "recovered"  # the writer died; recovery closed the segment


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """Who speaks in this journal and how its times map to the session's timeline.

    Record times are CLOCK_MONOTONIC nanoseconds of the boot `boot_id`. `t0_mono_ns` is the
    session's time 0 in that clock and `t0_wall_ns` the same instant in Unix time, so journals of
    several legs, processes and boots align.
    """

    session_id: SessionId
    participant_id: ParticipantId
    leg: int
    segment: int
    role: str
    label: str
    t0_mono_ns: int
    t0_wall_ns: int
    boot_id: str

    @property
    def file_name(self) -> str:
        """The one name this segment may have."""
        return journal_name(self.participant_id, self.leg, self.segment)

    @property
    def crc_seed(self) -> int:
        """Where every record's checksum starts: a record copied in from another party fails.

        The segment is left out on purpose, so that records which may not have reached the disk can
        be repeated in the next segment as they are.
        """
        return int(
            google_crc32c.value(f"{self.session_id}/{self.participant_id}/{self.leg}".encode())
        )

    def encode(self) -> bytes:
        """Preamble, JSON in UTF-8, CRC32C over both."""
        text = json.dumps(asdict(self), ensure_ascii=False, sort_keys=True).encode()
        head = _PREAMBLE.pack(MAGIC, VERSION, len(text)) + text
        return head + _CRC.pack(google_crc32c.value(head))


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read. `offset` and `size_bytes` say where it stands in the file."""

    type: RecordType
    track: int
    at_ns: int
    payload: bytes
    offset: int

    @property
    def size_bytes(self) -> int:
        return len(self.payload) + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """A track as a TRACK record describes it; a codec change opens a new index."""

    index: int
    ssrc: int
    name: TrackName
    codec: CodecInfo


@dataclass(frozen=True, slots=True)
class SenderReport:
    """One RTCP sender report: the sender's wall clock against its RTP clock (RFC 3550, 6.4.1)."""

    ntp_time: int
    rtp_time: int


@dataclass(frozen=True, slots=True)
class Mark:
    kind: MarkKind
    detail: str


@dataclass(frozen=True, slots=True)
class LostPackets:
    """Packets that reached the tap and could not be kept, because the disk did not take them."""

    from_ns: int
    to_ns: int
    packets: int
    cause: str


@dataclass(frozen=True, slots=True)
class Seal:
    """The last record. The digest covers every byte of the file before this record."""

    reason: SealReason
    records: int
    bytes: int
    sha256: str


def journal_name(participant_id: ParticipantId, leg: int, segment: int) -> str:
    """The file name of a segment. Raises `Malformed` for an id that does not fit a file name."""
    name = f"{participant_id}.l{leg:04d}.s{segment:04d}{SUFFIX}"
    if not _FILE_NAME.match(name):
        raise Malformed("A participant id or a leg number does not fit a journal's name.")
    return name


def is_journal_name(name: object) -> bool:
    """Whether this is what a journal is called: a bare name, never a path."""
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None


def journals_in(directory: Path) -> list[Path]:
    """The journals of a recording, ordered by participant, leg and segment."""
    return sorted(path for path in directory.iterdir() if _FILE_NAME.match(path.name))


def last_leg(directory: Path) -> int:
    """The highest leg number of any participant here; 0 if there is no journal."""
    found = (_FILE_NAME.match(path.name) for path in directory.iterdir())
    return max((int(match["leg"]) for match in found if match), default=0)


# --- writing -------------------------------------------------------------------------------------


def encode_record(
    seed: int, kind: int, track: int, at_ns: int, payload: bytes | bytearray | memoryview
) -> bytes:
    """One record, ready to append. Copies `payload`; raises `struct.error` beyond 65,535 bytes."""
    head = _HEAD.pack(len(payload), kind, track, at_ns) + payload
    return head + _CRC.pack(google_crc32c.extend(seed, head))


ArrivedPacket = tuple[int, int, bytes]
"""Track, CLOCK_MONOTONIC ns, the RTP packet."""

TrackCounts = list[tuple[int, int, int]]
"""For each track with any packets, in the order of their indices: which, how many, of how many
bytes."""

EncodedBatch = tuple[bytes, int, int, TrackCounts]
"""The records, when the first packet in them arrived and when the last (0: there is none), and what
there is of each track."""


def encode_batch(seed: int, batch: Iterable[ArrivedPacket | bytes]) -> EncodedBatch:
    """What arrived, in order, ready to append: packets become RTP records, bytes are records.

    The same bytes as `encode_record` gives, without copying any packet twice: this runs for every
    packet of every call, unless they are encoded in C as they come (media/taps.py).
    """
    parts: list[bytes] = []
    from_ns = to_ns = 0
    counts: dict[int, tuple[int, int, int]] = {}
    add, head_of, crc_of = parts.append, _HEAD.pack, _CRC.pack
    extend, kind = google_crc32c.extend, int(RecordType.RTP)
    for item in batch:
        if isinstance(item, bytes):
            add(item)
            continue
        track, at_ns, packet = item
        from_ns, to_ns = from_ns or at_ns, at_ns
        _, packets, octets = counts.get(track, (track, 0, 0))
        counts[track] = (track, packets + 1, octets + len(packet))
        head = head_of(len(packet), kind, track, at_ns)
        add(head)
        add(packet)
        add(crc_of(extend(extend(seed, head), packet)))
    return b"".join(parts), from_ns, to_ns, [counts[track] for track in sorted(counts)]


def encode_track(seed: int, at_ns: int, track: TrackRecord) -> bytes:
    text = _json({"ssrc": track.ssrc, "name": track.name.value, "codec": asdict(track.codec)})
    return encode_record(seed, RecordType.TRACK, track.index, at_ns, text)


def encode_sender_report(seed: int, track: int, at_ns: int, report: SenderReport) -> bytes:
    payload = _SR.pack(report.ntp_time, report.rtp_time)
    return encode_record(seed, RecordType.SENDER_REPORT, track, at_ns, payload)


def encode_mark(seed: int, track: int, at_ns: int, mark: Mark) -> bytes:
    text = _json({"kind": mark.kind.value, "detail": mark.detail[:1000]})
    return encode_record(seed, RecordType.MARK, track, at_ns, text)


def encode_gap(seed: int, track: int, gap: LostPackets) -> bytes:
    return encode_record(seed, RecordType.GAP, track, gap.to_ns, _json(asdict(gap)))


def encode_seal(seed: int, at_ns: int, seal: Seal) -> bytes:
    return encode_record(seed, RecordType.SEAL, NO_TRACK, at_ns, _json(asdict(seal)))


def _json(value: dict[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


# --- reading -------------------------------------------------------------------------------------


def parse_track(record: Record) -> TrackRecord:
    """Raises `JournalDamaged` for a description this version does not speak."""
    value = _object(record)
    codec = value.get("codec")
    try:
        if not isinstance(codec, dict):
            raise TypeError("codec")
        described = TrackRecord(
            index=record.track,
            ssrc=int(str(value["ssrc"])),
            name=TrackName(str(value["name"])),
            codec=CodecInfo(
                mime=str(codec["mime"]),
                payload_type=int(codec["payload_type"]),
                clock_rate=int(codec["clock_rate"]),
                channels=int(codec["channels"]),
                fmtp=str(codec["fmtp"]),
            ),
        )
        if not 0 < described.codec.clock_rate <= MAX_CLOCK_RATE:
            raise ValueError("clock_rate")  # times are divided by it
        return described
    except (KeyError, TypeError, ValueError, OverflowError) as problem:
        raise JournalDamaged("A track description cannot be read.") from problem


def parse_sender_report(record: Record) -> SenderReport:
    if len(record.payload) != _SR.size:
        raise JournalDamaged("A sender report has the wrong size.")
    return SenderReport(*_SR.unpack(record.payload))


def parse_mark(record: Record) -> Mark:
    value = _object(record)
    try:
        return Mark(MarkKind(str(value["kind"])), str(value["detail"]))
    except (KeyError, ValueError) as problem:
        raise JournalDamaged("A mark cannot be read.") from problem


def parse_gap(record: Record) -> LostPackets:
    value = _object(record)
    try:
        gap = LostPackets(
            from_ns=int(str(value["from_ns"])),
            to_ns=int(str(value["to_ns"])),
            packets=int(str(value["packets"])),
            cause=str(value["cause"]),
        )
        if not (0 <= gap.from_ns < 1 << 64 and 0 <= gap.to_ns < 1 << 64):
            raise ValueError("to_ns")  # like a record's time
        return gap
    except (KeyError, ValueError) as problem:
        raise JournalDamaged("A gap cannot be read.") from problem


def parse_seal(record: Record) -> Seal:
    value = _object(record)
    try:
        return Seal(
            reason=SealReason(str(value["reason"])),
            records=int(str(value["records"])),
            bytes=int(str(value["bytes"])),
            sha256=str(value["sha256"]),
        )
    except (KeyError, ValueError) as problem:
        raise JournalDamaged("A seal cannot be read.") from problem


def _object(record: Record) -> dict[str, object]:
    try:
        text = record.payload.decode()
        value = json.loads(text)
        if "\\u" in text:  # half a surrogate pair is valid in JSON, and nowhere else
            _json(value)
    except (ValueError, RecursionError) as problem:  # not JSON, not UTF-8; nested without end
        raise JournalDamaged("A record's text cannot be read.") from problem
    if not isinstance(value, dict):
        raise JournalDamaged("A record's text is not an object.")
    return value


def parse_header(data: bytes | mmap.mmap) -> tuple[JournalHeader, int]:
    """The header and where the first record starts. Raises `JournalDamaged` with words."""
    if len(data) < _PREAMBLE.size:
        raise JournalDamaged("The file ends inside the journal's header.")
    magic, version, length = _PREAMBLE.unpack_from(data)
    if magic != MAGIC:
        raise JournalDamaged("This file is not a journal.")
    if version != VERSION:
        raise JournalDamaged(f"This journal has version {version}; this program reads {VERSION}.")
    end = _PREAMBLE.size + length
    if len(data) < end + _CRC.size:
        raise JournalDamaged("The file ends inside the journal's header.")
    if google_crc32c.value(bytes(data[:end])) != _CRC.unpack_from(data, end)[0]:
        raise JournalDamaged("The journal's header does not match its checksum.")
    try:
        value = json.loads(data[_PREAMBLE.size : end])
        header = JournalHeader(**{name: value[name] for name in JournalHeader.__slots__})
        _check_header(header)
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise JournalDamaged("The journal's header cannot be read.") from problem
    return header, end + _CRC.size


def _check_header(header: JournalHeader) -> None:
    """Raises ValueError for values that `encode` does not write: a checksum proves no types."""
    for name in JournalHeader.__slots__:
        value, is_number = getattr(header, name), name in _HEADER_NUMBERS
        if is_number and not (type(value) is int and 0 <= value < 1 << 63):
            raise ValueError(name)
        if not is_number:
            if not isinstance(value, str):
                raise ValueError(name)
            value.encode()  # half a surrogate pair is valid in JSON, and nowhere else


_HEADER_NUMBERS: Final = frozenset({"leg", "segment", "t0_mono_ns", "t0_wall_ns"})


class JournalReader:
    """A journal opened for reading; its records can be walked more than once.

    Walking never raises for damaged records: it skips to the next one whose checksum holds and
    counts what it skipped in `damaged_bytes` (and where, in `damage`). What follows the last valid
    record is the torn tail: `valid_end` is where it begins. Both are complete after one full walk.
    `unread`: where `data` has zeros because the disk does not give what stands there.
    """

    def __init__(
        self, path: Path, data: bytes | mmap.mmap, unread: tuple[Stretch, ...] = ()
    ) -> None:
        self.path = path
        self.data = data
        self.unread = unread
        self.header, self.start = parse_header(data)
        self.valid_end = self.start
        self.size_bytes = len(data)
        self.damage: list[tuple[int, int]] = []

    @property
    def damaged_bytes(self) -> int:
        return sum(end - start for start, end in self.damage)

    @property
    def torn_bytes(self) -> int:
        return self.size_bytes - self.valid_end

    def records(self) -> Iterator[Record]:
        """Every valid record in file order. Memory: one record at a time."""
        self.damage = []
        self.valid_end = self.start
        seed = self.header.crc_seed
        offset = self.start
        while (record := record_at(self.data, offset, seed)) is not None or (
            record := _next_record(self.data, offset, seed)
        ) is not None:
            if record.offset != offset:
                self.damage.append((offset, record.offset))
            offset = record.offset + record.size_bytes
            self.valid_end = offset
            yield record


def read_header(path: Path) -> JournalHeader:
    """The header alone, read plainly: safe in a process that must not die of a bad sector.

    Raises `JournalDamaged` if it cannot be trusted, `OSError`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return parse_header(os.pread(fd, _LONGEST_HEADER_BYTES, 0))[0]
    finally:
        os.close(fd)


@contextmanager
def open_journal(path: Path, *, leaving_out: bool = False) -> Iterator[JournalReader]:
    """Map the file for reading, after it was read once: what the disk refuses to give ends in words
    there, and in a mapping in SIGBUS. Not for a room's process, where even the rest of that chance
    is too much: `read_header`.

    Raises `JournalDamaged` if the header cannot be trusted, `JournalUnreadable`, and `OSError` for
    a file that is not there. `leaving_out`: read what the disk does give; the reader's `unread`
    says what it does not. Then `JournalUnreadable` means that the header is gone.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise JournalDamaged("The journal is empty.")
        refused = unread.refused(file.fileno())
        words = f"The disk does not give {path.name} back: {refused.why}."
        if refused.stretches and not leaving_out:
            raise JournalUnreadable(words)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            unread.blank(data, refused.stretches)
            try:
                reader = JournalReader(path, data, refused.stretches)
            except JournalDamaged as damaged:
                if refused.stretches:
                    raise JournalUnreadable(words) from damaged
                raise
            yield reader


_LONGEST_HEADER_BYTES: Final = _PREAMBLE.size + 0xFFFF + _CRC.size


_HIGHEST_TYPE: Final = max(RecordType)
_TYPES: Final = re.compile(b"[\x01-\x06]")
assert _TYPES.fullmatch(bytes([_HIGHEST_TYPE])) and not _TYPES.match(bytes([_HIGHEST_TYPE + 1]))


def record_at(data: bytes | mmap.mmap, offset: int, seed: int) -> Record | None:
    """The record at `offset` if its type is known and its checksum holds."""
    body = offset + _HEAD.size
    if body + _CRC.size > len(data):
        return None
    length, kind, track, at_ns = _HEAD.unpack_from(data, offset)
    end = body + length
    if not 1 <= kind <= _HIGHEST_TYPE or end + _CRC.size > len(data):
        return None
    (crc,) = _CRC.unpack_from(data, end)
    if google_crc32c.extend(seed, data[offset:end]) != crc:
        return None
    return Record(RecordType(kind), track, at_ns, data[body:end], offset)


def _next_record(data: bytes | mmap.mmap, offset: int, seed: int) -> Record | None:
    """The first valid record after a damaged place, or None: the rest is a torn tail.

    Most offsets are refused by the type byte, and looked for at the speed of C: a block that the
    disk gave back as zeros is gone through in no time. The checksum decides the others, so a chance
    match needs one in 2**32 per candidate.
    """
    for found in _TYPES.finditer(data, offset + 3, max(0, len(data) - OVERHEAD_BYTES + 3)):
        record = record_at(data, found.start() - 2, seed)
        if record is not None:
            return record
    return None


def next_segment(header: JournalHeader, segment: int) -> JournalHeader:
    """The header of the same leg's following segment."""
    return replace(header, segment=segment)
