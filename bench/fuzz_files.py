"""Fuzz targets for what is read back from disk, and for what a hostile participant gets written.

Nobody outside writes our journals; but disks do, and so does whoever holds a copy. What a
participant sends ends up in them packet by packet, and is opened long after its sender has left.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final, assert_never

import av
import google_crc32c

from bench.fuzz_net import CAMERA_SSRC, SOUND_SSRC, rtp
from bench.fuzz_target import Target, Taste, at_the_end, pieces, run_of
from core.errors import Malformed
from core.ids import ParticipantId, SessionId
from media import depayload, inspection, journal, manifest, scan, signing
from media.depayload import H264Depayloader, Packet, Vp8Depayloader
from media.index import index_leg, packets, timeline_maps
from media.journal import (
    JournalDamaged,
    JournalHeader,
    JournalReader,
    LostPackets,
    Mark,
    MarkKind,
    Record,
    RecordType,
    Seal,
    SealReason,
    SenderReport,
    TrackRecord,
)
from media.mux import RESULT_NAME, MuxFailed, mux, read_result
from media.sdp import H264, OPUS, VP8
from media.tracks import TrackName
from media.verification import verify

SECOND: Final = 1_000_000_000
T0_NS: Final = 1_000 * SECOND
HEADER: Final = JournalHeader(
    SessionId("5" * 32), ParticipantId("a" * 32), 1, 0, "petitioner", "席", T0_NS,
    1_770_000_000 * SECOND, "boot",
)  # fmt: skip
CAMERA: Final = TrackRecord(0, CAMERA_SSRC, TrackName.CAMERA, VP8)
SOUND: Final = TrackRecord(1, SOUND_SSRC, TrackName.MICROPHONE, OPUS)
PICTURE: Final = TrackRecord(2, 5555, TrackName.CAMERA, H264)
LONGEST_FILE_S: Final = 3_600
"""More than any run of inputs lasts by our own clock, by far."""

KEYFRAME_VP8: Final = b"\x90\x80\x81\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" + bytes(20)
SPS: Final = bytes.fromhex("6742c01f8c8d40501ed00f08846a")
PPS: Final = bytes.fromhex("68ce3c80")


def _scratch() -> Path:
    """A folder for as long as the target lasts."""
    directory = Path(tempfile.mkdtemp(prefix="reception-fuzz-"))
    at_the_end(partial(shutil.rmtree, directory, ignore_errors=True))
    return directory


# -- Journals ------------------------------------------------------------------------------------


def a_journal() -> bytes:
    """One record of each kind, and a seal."""
    seed = HEADER.crc_seed
    at = T0_NS + SECOND
    body = [
        HEADER.encode(),
        journal.encode_track(seed, at, CAMERA),
        journal.encode_track(seed, at, SOUND),
        journal.encode_record(seed, RecordType.RTP, 0, at, rtp(1, payload=KEYFRAME_VP8)),
        journal.encode_record(seed, RecordType.RTP, 1, at, rtp(1, SOUND_SSRC, OPUS.payload_type)),
        journal.encode_sender_report(seed, 0, at, SenderReport(1 << 60, 3000)),
        journal.encode_mark(seed, 255, at, Mark(MarkKind.ROUND_TRIP, "12.5")),
        journal.encode_gap(seed, 0, LostPackets(at, at + SECOND, 3, "ENOSPC")),
    ]
    size = sum(map(len, body))
    seal = Seal(SealReason.ENDED, len(body) - 1, size, "0" * 64)
    return b"".join(body) + journal.encode_seal(seed, at, seal)


def _read_all(data: bytes) -> None:
    """A journal as `inspect`, `verify`, recovery and mux read it."""
    reader = JournalReader(Path("x.rrj"), data)
    found = list(reader.records())
    assert reader.damaged_bytes + reader.torn_bytes <= reader.size_bytes
    damage, end = reader.damage, reader.valid_end
    assert [
        (int(r.type), r.track, r.at_ns, r.offset + scan.HEAD.size, len(r.payload)) for r in found
    ] == list(scan.spans(reader)), "the quick walk and the careful one differ"
    assert (reader.damage, reader.valid_end) == (damage, end)
    scan.final_seal(reader)
    for record in found:
        _parse(record)
    leg = index_leg(1, [reader])
    maps = timeline_maps(leg)
    for number, track in leg.tracks.items():
        for packet in packets(leg, track):
            if number in maps:
                maps[number](packet.rtp_time)


def _parse(record: Record) -> None:
    for read in (
        journal.parse_track,
        journal.parse_sender_report,
        journal.parse_mark,
        journal.parse_gap,
        journal.parse_seal,
    ):
        try:
            read(record)
        except JournalDamaged:
            continue


def _journal() -> Taste:
    """Any bytes as a file."""

    def taste(data: bytes) -> None:
        try:
            _read_all(data)
        except JournalDamaged:
            return

    return taste


def _header() -> Taste:
    """Any text as a header whose checksum holds, before a record that may or may not fit it."""
    rest = a_journal()[len(HEADER.encode()) :]

    def taste(data: bytes) -> None:
        head = journal._PREAMBLE.pack(journal.MAGIC, journal.VERSION, len(data)) + data
        whole = head + google_crc32c.value(head).to_bytes(4, "big") + rest
        try:
            _read_all(whole)
        except JournalDamaged:
            return

    return taste


def _records() -> Taste:
    """Records whose checksums hold, of any type, time and content: the low three bits of the kind
    say which type, the next two the track, the rest how much later it came."""
    head, seed = HEADER.encode(), HEADER.crc_seed

    def taste(data: bytes) -> None:
        body, at_ns = [head], T0_NS
        for kind, payload in pieces(data, 200):
            at_ns += (kind >> 5) ** 3 * SECOND // 100
            body.append(journal.encode_record(seed, kind & 7, kind >> 3 & 3, at_ns, payload))
        _read_all(b"".join(body))

    return taste


def _record_seeds() -> Sequence[bytes]:
    reader = JournalReader(Path("x.rrj"), a_journal())
    items = [(int(r.type) | min(r.track, 3) << 3 | 0x20, r.payload) for r in reader.records()]
    return [run_of(*items), run_of(*reversed(items)), *(run_of(item) for item in items)]


def _record() -> Taste:
    """One record behind a good header, and a good record behind it, which damage must not hide.

    A first byte below 128 is type and track of a record whose checksum holds; else the rest stands
    in the file as it is.
    """
    head, seed = HEADER.encode(), HEADER.crc_seed
    good = journal.encode_mark(seed, 0, T0_NS, Mark(MarkKind.JOIN, ""))
    last = _only(good)
    assert _is_understood(last)
    as_last = (last.type, last.track, last.at_ns, last.payload)
    reader = JournalReader(Path("x.rrj"), head)

    def taste(data: bytes) -> bool:
        kind, body = data[0] if data else 0, data[1:]
        if kind < 0x80:
            body = journal.encode_record(seed, kind & 7, kind >> 3, T0_NS, body)
        reader.data = b"".join((head, body, good))
        reader.size_bytes = len(reader.data)
        found = list(reader.records())
        state = reader.damage, reader.valid_end
        assert reader.valid_end == reader.size_bytes
        assert [(r.type, r.track, r.at_ns, len(r.payload)) for r in found] == [
            (kind, track, at_ns, size) for kind, track, at_ns, _, size in scan.spans(reader)
        ], "the quick walk and the careful one differ"
        assert (reader.damage, reader.valid_end) == state
        assert scan.final_seal(reader) is None
        end = found.pop()
        # Once understood it is so each time, and to read, write and read it costs the most here.
        assert (end.type, end.track, end.at_ns, end.payload) == as_last
        return sum(map(_is_understood, found)) > 0

    return taste


_SEED: Final = HEADER.crc_seed


def _is_understood(record: Record) -> bool:
    """Whether its own parser takes it; what was taken is written so that it reads the same."""
    seed, at_ns = _SEED, record.at_ns
    try:
        match record.type:
            case RecordType.TRACK:
                track = journal.parse_track(record)
                again = journal.encode_track(seed, at_ns, track)
                assert journal.parse_track(_only(again)) == track
            case RecordType.SENDER_REPORT:
                report = journal.parse_sender_report(record)
                again = journal.encode_sender_report(seed, record.track, at_ns, report)
                assert _only(again).payload == record.payload
            case RecordType.MARK:
                mark = journal.parse_mark(record)
                again = journal.encode_mark(seed, record.track, at_ns, mark)
                assert journal.parse_mark(_only(again)) == replace(mark, detail=mark.detail[:1000])
            case RecordType.GAP:
                gap = journal.parse_gap(record)
                assert journal.parse_gap(_only(journal.encode_gap(seed, record.track, gap))) == gap
            case RecordType.SEAL:
                seal = journal.parse_seal(record)
                assert journal.parse_seal(_only(journal.encode_seal(seed, at_ns, seal))) == seal
            case RecordType.RTP:
                pass
            case _:
                assert_never(record.type)
    except JournalDamaged:
        return False
    return True


def _only(encoded: bytes) -> Record:
    """The record in these bytes."""
    size, kind, track, at_ns = scan.HEAD.unpack_from(encoded)
    payload = encoded[scan.HEAD.size : scan.HEAD.size + size]
    return Record(RecordType(kind), track, at_ns, payload, 0)


def _one_record_seeds() -> Sequence[bytes]:
    records = list(JournalReader(Path("x.rrj"), a_journal()).records())
    sealed = [bytes([r.type | min(r.track, 9) << 3]) + r.payload for r in records]
    raw = [b"\x80" + encode_again(r) for r in records]
    return [*sealed, *raw, b"\x80" + b"".join(map(encode_again, records[3:5]))]


def encode_again(record: Record) -> bytes:
    """The bytes that it was read from."""
    return journal.encode_record(
        HEADER.crc_seed, record.type, record.track, record.at_ns, record.payload
    )


# -- Manifest, signature, mux.json ---------------------------------------------------------------


def _manifest() -> Taste:
    """Any text as `manifest.json` beside a whole journal: `verify` says what is wrong."""
    directory = _scratch()
    (directory / HEADER.file_name).write_bytes(a_journal())
    book = directory / manifest.FILE_NAME

    def taste(data: bytes) -> None:
        book.write_bytes(data)
        found = verify(directory)
        assert found.problems or found.journals == 1, "a journal that is not in the book is missed"
        try:
            inspection.inspect(directory)
        except JournalDamaged:
            return

    return taste


def _manifest_text() -> Taste:
    """Any text as a manifest, without the files that it tells of; what was read is written so that
    it reads the same."""

    def taste(data: bytes) -> bool:
        try:
            book = manifest.parse_manifest(data)
        except JournalDamaged:
            return False
        assert manifest.parse_manifest(manifest._encode(book)) == book
        return True

    return taste


def _manifest_seeds() -> Sequence[bytes]:
    directory = _scratch()
    (directory / HEADER.file_name).write_bytes(a_journal())
    manifest.recover(directory)
    text = (directory / manifest.FILE_NAME).read_bytes()
    book = manifest.parse_manifest(text)
    (entry,) = book.journals
    second = replace(entry, leg=2, path=entry.path.replace("l0001", "l0002"), first_ms=None)
    broken = entry.path.replace("s0000", "s0001")
    others = [
        replace(book, journals=()),
        replace(book, journals=(entry, second), previous_sha256="f" * 64),
        replace(book, journals=(second,), unreadable=(broken,)),
        replace(book, journals=(), session_id="", unreadable=(broken, entry.path)),
    ]
    return [
        text,
        *map(manifest._encode, others),
        text.replace(b'.rrj"', b'.rrj/../x"'),
        text.replace(b'"records": 8', b'"records": "8"'),
    ]


def _signature() -> Taste:
    def taste(data: bytes) -> None:
        try:
            signature = signing.Signature.decode(data)
        except Malformed:
            return
        assert not signature.is_over(b"not what was signed")

    return taste


def _signature_seeds() -> Sequence[bytes]:
    return [signing.Signature(b"p" * 32, b"v" * 64).encode()]


def _mux_json() -> Taste:
    directory = _scratch()

    def taste(data: bytes) -> None:
        (directory / RESULT_NAME).write_bytes(data)
        read_result(directory)

    return taste


def _mux_json_seeds() -> Sequence[bytes]:
    recording, out = _scratch(), _scratch()
    (recording / HEADER.file_name).write_bytes(_hostile_journal(_calls()[0]))
    mux(recording, out, with_speech=False)
    return [(out / RESULT_NAME).read_bytes()]


# -- Payloads ------------------------------------------------------------------------------------


def _payloads() -> Taste:
    """Payloads in a row; the kind's low bit is the marker, the next two skip numbers."""

    def taste(data: bytes) -> None:
        for depayloader in (Vp8Depayloader(), H264Depayloader()):
            seq, frames = 0, 0
            for count, (kind, payload) in enumerate(pieces(data, 64)):
                seq += 1 + (kind >> 1 & 3)
                packet = Packet(seq, count // 3 * 3000, bool(kind & 1), payload)
                frame = depayloader.push(packet)
                if frame is not None:
                    frames += 1
                    assert frame.data
                    assert frame.size is None or all(0 < side <= 16_384 for side in frame.size)
            assert depayloader.lost_frames >= 0
        for _, payload in pieces(data, 64):
            assert 0 <= depayload.opus_duration_us(payload) <= 120_000
            for unit in depayload.split_annex_b(payload):
                depayload.h264_size(unit)

    return taste


def _payload_seeds() -> Sequence[bytes]:
    stap = b"\x18" + b"".join(len(u).to_bytes(2, "big") + u for u in (SPS, PPS, b"\x65" + bytes(9)))
    return [
        run_of((1, KEYFRAME_VP8), (0, b"\x80\x01\x02\x03"), (1, b"\x90\x80\x82\x31\x02\x00\x9d")),
        run_of((0, SPS), (0, PPS), (1, b"\x65" + bytes(30))),
        run_of((1, stap), (0, b"\x7c\x85" + bytes(20)), (1, b"\x7c\x45" + bytes(20))),
        run_of((0, b"\xf8\xff\xfe"), (0, b"\x03\x02"), (0, b"")),
    ]


# -- From packets to files -----------------------------------------------------------------------

_TRACKS: Final = (CAMERA, SOUND, PICTURE)


def _hostile_journal(data: bytes) -> bytes:
    """What a participant sent, as the recorder writes it: packets on three tracks, sender reports.

    The kind's low two bits are the track (3: a sender report), the next how much later it came.
    """
    seed, at_ns = HEADER.crc_seed, T0_NS
    body = [HEADER.encode(), *(journal.encode_track(seed, at_ns, track) for track in _TRACKS)]
    for kind, payload in pieces(data, 200):
        at_ns += (kind >> 2 & 0xF) ** 2 * 10_000_000
        if kind & 3 == 3:
            ntp, ticks = int.from_bytes(payload[:8], "big"), int.from_bytes(payload[8:12], "big")
            report = SenderReport(ntp, ticks)
            body.append(journal.encode_sender_report(seed, kind >> 6, at_ns, report))
        elif len(payload) >= 12:
            # Version, payload type and SSRC have been looked at before anything is recorded.
            packet = bytearray(payload)
            packet[0] = packet[0] & 0x3F | 0x80
            packet[1] = packet[1] & 0x80 | _TRACKS[kind & 3].codec.payload_type
            body.append(journal.encode_record(seed, RecordType.RTP, kind & 3, at_ns, packet))
    return b"".join(body)


def _calls() -> Sequence[bytes]:
    pictures = [
        (0 | n % 3 << 2, rtp(n, payload=KEYFRAME_VP8 if n % 4 == 0 else b"\x90\x80\x01\x31" * 5))
        for n in range(12)
    ]
    sounds = [
        (1 | 1 << 2, rtp(n, SOUND_SSRC, OPUS.payload_type, b"\xf8\xff\xfe" + bytes(n)))
        for n in range(12)
    ]
    h264 = [
        (2 | 1 << 2, rtp(n, 5555, H264.payload_type, unit))
        for n, unit in enumerate((SPS, PPS, b"\x65" + bytes(40), b"\x41" + bytes(40)))
    ]
    reports = [
        (3 | 8 << 2 | t << 6, ((3_900_000_000 + n) << 32).to_bytes(8, "big") + bytes([0, 0, n, 0]))
        for n in range(3)
        for t in range(2)
    ]
    mixed = [item for pair in zip(pictures, sounds, strict=True) for item in pair]
    jumps = [
        (1 | 1 << 2, rtp(n, SOUND_SSRC, OPUS.payload_type, b"\xf8\xff\xfe")[:4] + stamp + body)
        for n, (stamp, body) in enumerate(
            (t.to_bytes(4, "big"), SOUND_SSRC.to_bytes(4, "big") + b"\xf8\xff\xfe")
            for t in (0, 960, 1 << 31, (1 << 31) + 960, 0xFFFFFFFF)
        )
    ]
    return [
        run_of(*mixed, *reports),
        run_of(*h264, *sounds),
        run_of(*pictures, *jumps, *reports),
        run_of(*(item for n in range(9) for item in (pictures[0], (0, rtp(n * 7_000))))),
    ]


def _mux() -> Taste:
    """A whole recording of a hostile participant, muxed: it gives files or says that there is
    nothing to show, and nobody's clock makes a file longer than an hour."""
    recording, out = _scratch(), _scratch()

    def taste(data: bytes) -> None:
        (recording / HEADER.file_name).write_bytes(_hostile_journal(data))
        try:
            result = mux(recording, out, with_speech=False)
        except MuxFailed:
            return
        for file in result.files:
            assert file.duration_ms <= LONGEST_FILE_S * 1000, "a clock made a file this long"
            with suppress(av.FFmpegError):  # `finishing` looks at it, in a child with limits
                av.open(str(out / file.path)).close()
            (out / file.path).unlink()

    return taste


TARGETS: Final = (
    Target("journal", _journal, lambda: [a_journal()], 4096),
    Target(
        "journal-header",
        _header,
        lambda: [
            json.dumps(asdict(HEADER), sort_keys=True).encode(),
            json.dumps(asdict(replace(HEADER, leg=9)), ensure_ascii=False).encode(),
        ],
        4096,
    ),
    Target("journal-records", _records, _record_seeds, 8192),
    Target("journal-record", _record, _one_record_seeds, 1500, "journal"),
    Target("manifest", _manifest, _manifest_seeds, 8192),
    Target("manifest-text", _manifest_text, _manifest_seeds, 8192, "manifest"),
    Target("signature", _signature, _signature_seeds),
    Target("mux-json", _mux_json, _mux_json_seeds, 8192),
    Target("payload", _payloads, _payload_seeds),
    Target("mux", _mux, _calls, 8192),
)
