"""Where every packet of a leg stands and when it was captured: the mux's map of the journals.

A journal holds packets in order of arrival. One pass notes their sequence numbers and offsets (8
bytes each, so a day of talk fits in memory), the sender reports and the marks; the packets
themselves stay on disk until they are written.
"""

import contextlib
import mmap
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Final

from media import depayload, journal, reel, scan
from media.depayload import Packet
from media.journal import (
    JournalDamaged,
    JournalReader,
    Mark,
    MarkKind,
    RecordType,
    SenderReport,
    TrackRecord,
)
from media.timing import (
    ClockMap,
    SteadyClock,
    Unwrapper,
    fit_least_delayed,
    fit_median,
    ntp_to_ns,
    spread,
)

if TYPE_CHECKING:
    from media._reel import Track as _Track

MAX_REPORT_SPREAD_NS: Final = 100_000_000
"""Reports of one track that disagree by more than this with each other are noise or lies."""
MAX_DISAGREEMENT_NS: Final = 1_000_000_000
"""If the sender reports place a track further than this from its arrival, they are not believed."""
PROMPT_SHARE: Final = 100
"""Of a track's packets one in so many may be prompter than the one that reports are judged by."""
MAX_ROUND_TRIP_MS: Final = 1_500.0
"""Two satellites. A longer one is believed up to here."""
ANCHOR_EVERY_NS: Final = 100_000_000
_OFFSET_BITS: Final = 40  # a terabyte of journal per leg
_OFFSET_MASK: Final = (1 << _OFFSET_BITS) - 1
_SEQ_BITS: Final = 64 - _OFFSET_BITS
_RTP_RECORD: Final = struct.Struct(">HBBQBBHI")
"""A record's head and, behind it, an RTP header up to its time stamp."""
_RTP_HEADER_BYTES: Final = 12


@dataclass(slots=True)
class TrackIndex:
    """One track of one leg: where its packets stand and how its clock runs."""

    described: TrackRecord
    keys: "array[int]" = field(default_factory=lambda: array("Q"))  # extended seq | offset
    reports: list[tuple[SenderReport, int]] = field(default_factory=list)  # and arrival
    anchors: list[tuple[int, int]] = field(default_factory=list)  # RTP ns, arrival ns
    first_rtp_time: int = 0
    first_arrival_ns: int = 0
    last_arrival_ns: int = 0
    foreign: int = 0
    largest: tuple[int, int] | None = None
    seqs: Unwrapper = field(default_factory=lambda: Unwrapper(16))
    times: SteadyClock = field(init=False)
    highest_seq: int = 0
    is_in_order: bool = True
    anchored_rtp_time: int = -1  # the picture or sound that was last seen for `anchors`
    sized_rtp_time: int = -1  # … and for `largest`
    payload_type: int = field(init=False)  # the hot loop's copies of what `described` says
    is_vp8: bool = field(init=False)

    def __post_init__(self) -> None:
        self.times = SteadyClock(self.described.codec.clock_rate)
        self.payload_type = self.described.codec.payload_type
        self.is_vp8 = self.described.codec.mime.lower() == "video/vp8"

    def take(self, found: tuple[bytes, bytes, int, int, int, int, int, int]) -> None:
        """What `_reel.Track.found` says, in place of what one pass in Python would have noted."""
        keys, anchors, self.first_rtp_time, self.first_arrival_ns, self.last_arrival_ns = found[:5]
        self.keys.frombytes(keys)
        pairs = array("q", anchors)
        self.anchors = list(zip(pairs[::2], pairs[1::2], strict=True))
        self.foreign = found[5]
        self.largest = (found[6], found[7]) if found[6] else None

    def sort(self) -> None:
        """By sequence number; of packets that came twice the first stays."""
        if self.is_in_order:
            return
        kept = array("Q")
        last = -1
        for key in sorted(self.keys):
            if key >> _OFFSET_BITS != last:
                last = key >> _OFFSET_BITS
                kept.append(key)
        self.keys = kept


@dataclass(slots=True)
class Leg:
    """One leg of a participant: its segments mapped end to end, its tracks, what happened."""

    number: int
    readers: list[JournalReader]
    bases: list[int]
    tracks: dict[int, TrackIndex] = field(default_factory=dict)
    marks: list[tuple[int, int, Mark]] = field(default_factory=list)  # timeline ns, track, mark
    lost: list[tuple[int, int]] = field(default_factory=list)  # timeline ns from, to
    unread: list[tuple[int, int]] = field(default_factory=list)  # the same, where a disk gave none


def index_leg(number: int, readers: list[JournalReader]) -> Leg:
    """One pass over a leg's segments, in order."""
    leg = _indexed_quickly(number, readers)
    if leg is None:
        leg = _leg(number, readers)
        for reader, base in zip(readers, leg.bases, strict=True):
            _index_segment(leg, reader, base)
        for track in leg.tracks.values():
            track.sort()
    for reader in readers:
        t0_ns = reader.header.t0_mono_ns
        for before_ns, after_ns in scan.unread_times(reader):
            if after_ns is not None:
                leg.unread.append((max(0, (before_ns or t0_ns) - t0_ns), after_ns - t0_ns))
    leg.lost += leg.unread
    leg.marks = sorted(set(leg.marks), key=lambda mark: mark[0])
    return leg


def _leg(number: int, readers: list[JournalReader]) -> Leg:
    bases, total = [], 0
    for reader in readers:
        bases.append(total)
        total += reader.size_bytes
    return Leg(number, readers, bases)


def _indexed_quickly(number: int, readers: list[JournalReader]) -> Leg | None:
    """The same by media/_reel.c, which takes the packets and leaves the other records. None if it
    was not built, or where a journal is damaged or unusual: the pass in Python knows what to do.
    """
    lane = reel.built
    if lane is None:
        return None
    leg = _leg(number, readers)
    tracks: dict[int, _Track] = {}
    try:
        for reader, base in zip(readers, leg.bases, strict=True):
            data, t0_ns, seed = reader.data, reader.header.t0_mono_ns, reader.header.crc_seed
            _, offset = journal.parse_header(data)
            while (at := lane.walk(data, offset, base, t0_ns, seed, tracks)) < reader.size_bytes:
                record = journal.record_at(data, at, seed)
                if record is None:
                    return None
                _index_record(leg, record, record.at_ns - t0_ns)
                for index in leg.tracks.keys() - tracks.keys():
                    codec, is_vp8 = leg.tracks[index].described.codec, leg.tracks[index].is_vp8
                    tracks[index] = lane.Track(codec.payload_type, codec.clock_rate, is_vp8)
                offset = at + record.size_bytes
            reader.damage, reader.valid_end = [], reader.size_bytes
    except (reel.Unusual, OverflowError):
        return None
    for index, track in leg.tracks.items():
        track.take(tracks[index].found())
    return leg


def _index_segment(leg: Leg, reader: JournalReader, base: int) -> None:
    data, t0_ns, tracks = reader.data, reader.header.t0_mono_ns, leg.tracks
    record_at, rtp = _RTP_RECORD.unpack_from, int(RecordType.RTP)
    for kind, number, at_ns, body, length in scan.spans(reader):
        if kind != rtp:
            payload = data[body : body + length]
            record = journal.Record(RecordType(kind), number, at_ns, payload, body)
            _index_record(leg, record, at_ns - t0_ns)
            continue
        track = tracks.get(number)
        if track is None:
            continue
        offset = body - scan.HEAD.size
        if length < _RTP_HEADER_BYTES:
            track.foreign += 1
            continue
        _, _, _, _, _, type_byte, seq, rtp_time = record_at(data, offset)
        if type_byte & 0x7F != track.payload_type:
            track.foreign += 1
            continue
        _index_packet(track, seq, rtp_time, base + offset, at_ns - t0_ns)
        if track.is_vp8 and rtp_time != track.sized_rtp_time:
            _note_size(track, rtp_time, data, body, length)


def _index_record(leg: Leg, record: journal.Record, at_ns: int) -> None:
    try:
        match record.type:
            case RecordType.SENDER_REPORT:
                if (track := leg.tracks.get(record.track)) is not None:
                    track.reports.append((journal.parse_sender_report(record), at_ns))
            case RecordType.TRACK:
                described = journal.parse_track(record)
                leg.tracks.setdefault(record.track, TrackIndex(described))
            case RecordType.MARK:
                leg.marks.append((at_ns, record.track, journal.parse_mark(record)))
            case RecordType.GAP:
                gap = journal.parse_gap(record)
                leg.lost.append((at_ns - (gap.to_ns - gap.from_ns), at_ns))
            case RecordType.SEAL | RecordType.RTP:
                pass
    except JournalDamaged:
        # A valid checksum over words we do not know: a newer writer. The rest is still good.
        return


def _index_packet(track: TrackIndex, seq: int, rtp_time: int, offset: int, at_ns: int) -> None:
    highest = track.highest_seq
    if seq == highest + 1 & 0xFFFF and track.keys:
        extended = highest + 1  # the next one in order: nearly every packet
        newer = True
    else:
        extended = track.seqs.near(seq)
        newer = extended > highest
    if extended >> _SEQ_BITS:  # two days of video, or somebody who leaps through the numbers
        track.foreign += 1
        return
    if not track.keys:
        track.first_rtp_time = track.times(rtp_time, at_ns)
        track.first_arrival_ns = at_ns
    track.last_arrival_ns = at_ns
    track.keys.append(extended << _OFFSET_BITS | offset)
    if not newer:
        # Repairs say nothing about delay; they also must not pull the reference back.
        track.is_in_order = False
        return
    track.highest_seq = track.seqs.last = extended
    if rtp_time == track.anchored_rtp_time:
        return  # another packet of the same picture: it left, and arrived, after the first
    track.anchored_rtp_time = rtp_time
    rtp_ns = track.times(rtp_time, at_ns) * 1_000_000_000 // track.described.codec.clock_rate
    if not track.anchors or rtp_ns - track.anchors[-1][0] > ANCHOR_EVERY_NS:
        track.anchors.append((rtp_ns, at_ns))
    elif at_ns - rtp_ns < track.anchors[-1][1] - track.anchors[-1][0]:
        track.anchors[-1] = (rtp_ns, at_ns)


def _note_size(
    track: TrackIndex, rtp_time: int, data: bytes | mmap.mmap, body: int, length: int
) -> None:
    """Keep the largest VP8 picture: the container's header must name one size for all.

    A picture is done with as soon as its first packet has been seen.
    """
    where = _payload_span(data, body, length)
    if where is None:
        return
    piece = depayload.read_vp8(data[where[0] : min(where[1], where[0] + _VP8_HEAD_BYTES)])
    if piece is None or not piece.starts:
        return
    track.sized_rtp_time = rtp_time
    size = depayload.vp8_size(piece.data)
    if size is not None and (track.largest is None or size > track.largest):
        track.largest = size


_VP8_HEAD_BYTES: Final = 32  # the longest descriptor and a keyframe's header


def _payload_span(data: bytes | mmap.mmap, body: int, length: int) -> tuple[int, int] | None:
    """Where the payload of the RTP packet of `length` bytes at `body` begins and ends.

    Read in place (RFC 3550, 5.1). None if the packet lies about its own length.
    """
    first = data[body]
    if first >> 6 != 2:
        return None
    start = _RTP_HEADER_BYTES + 4 * (first & 0x0F)
    if first & 0x10:
        if start + 4 > length:
            return None
        start += 4 + 4 * (data[body + start + 2] << 8 | data[body + start + 3])
    end = length
    if first & 0x20:
        padding = data[body + length - 1]
        if not 0 < padding <= length - start:
            return None
        end -= padding
    return (body + start, body + end) if start <= end else None


# --- the timeline --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placing:
    """From a track's extended RTP time to nanoseconds on the session's timeline: one clock read on
    the next, and what came with the least delay was still under way for some time."""

    clock_rate: int
    clocks: tuple[ClockMap, ...]
    under_way_ns: int

    def __call__(self, ticks: int) -> int:
        ns = ticks * 1_000_000_000 // self.clock_rate
        for clock in self.clocks:
            ns = clock(ns)
        return ns - self.under_way_ns


def timeline_maps(leg: Leg) -> dict[int, Placing]:
    """For every track of a leg: extended RTP time to nanoseconds on the session's timeline.

    Sender reports map RTP to the participant's clock, and that clock, common to all tracks of the
    leg, to ours. A track without credible reports is placed by its least delayed packets. What came
    with the least delay was still on its way for half of the shortest round trip.
    """
    to_participant: dict[int, ClockMap] = {}
    arrivals: list[tuple[int, int]] = []
    for index, track in leg.tracks.items():
        pairs, arrived = [], []
        # A report repeated in the next segment counts once, at its first arrival.
        for report, at_ns in dict(reversed(track.reports)).items():
            ntp_ns = ntp_to_ns(report.ntp_time)
            ticks = _near(report.rtp_time, track, at_ns)
            pairs.append((ticks * 1_000_000_000 // track.described.codec.clock_rate, ntp_ns))
            arrived.append((ntp_ns, at_ns))
        if not pairs or not track.anchors:
            continue
        fitted = fit_median(pairs)
        if spread(fitted, pairs) <= MAX_REPORT_SPREAD_NS:
            to_participant[index] = fitted
            arrivals += arrived
    to_timeline = fit_least_delayed(arrivals) if arrivals else None
    under_way_ns = shortest_round_trip_ns(leg) // 2
    return {
        index: _track_map(track, to_participant.get(index), to_timeline, under_way_ns)
        for index, track in leg.tracks.items()
        if track.anchors
    }


def shortest_round_trip_ns(leg: Leg) -> int:
    """As the relay measured it while the leg lasted; 0 if it could not, or if it cannot be."""
    known = []
    for _, _, mark in leg.marks:
        if mark.kind is MarkKind.ROUND_TRIP:
            with contextlib.suppress(ValueError):
                known.append(float(mark.detail))
    shortest_ms = min(filter(isfinite, known), default=0.0)
    # Receivers compute it from what clients say: bounded, like everything that comes from outside.
    return round(min(max(shortest_ms, 0.0), MAX_ROUND_TRIP_MS) * 1_000_000)


def _near(rtp_time: int, track: TrackIndex, at_ns: int) -> int:
    """The extended form of a report's RTP time: near what the track played when it arrived."""
    played = (at_ns - track.first_arrival_ns) * track.described.codec.clock_rate // 1_000_000_000
    unwrap = Unwrapper(32)
    unwrap.last = track.first_rtp_time + played
    return unwrap.near(rtp_time)


def _track_map(
    track: TrackIndex,
    to_participant: ClockMap | None,
    to_timeline: ClockMap | None,
    under_way_ns: int,
) -> Placing:
    rate = track.described.codec.clock_rate
    if to_participant is not None and to_timeline is not None:
        chosen, second = to_participant, to_timeline
        early = sorted(second(chosen(x)) - y for x, y in track.anchors)
        # By the promptest packets, for a sender that has no time to send is late with all others;
        # not by the very first, for one packet can say anything.
        if abs(early[-1 - len(early) // PROMPT_SHARE]) <= MAX_DISAGREEMENT_NS:
            return Placing(rate, (chosen, second), under_way_ns)
    return Placing(rate, (fit_least_delayed(track.anchors),), under_way_ns)


def packets(leg: Leg, track: TrackIndex) -> Iterator[Packet]:
    """A track's packets in sequence order; malformed ones are left out."""
    first = (track.first_rtp_time, track.first_arrival_ns)
    times = SteadyClock(track.described.codec.clock_rate, first)
    readers, bases, record_at = leg.readers, leg.bases, _RTP_RECORD.unpack_from
    data, base, is_single = readers[0].data, 0, len(readers) == 1
    t0_ns = readers[0].header.t0_mono_ns
    last_rtp_time, extended = -1, 0
    for key in track.keys:
        offset = key & _OFFSET_MASK
        if not is_single:
            which = bisect_right(bases, offset) - 1
            data, base = readers[which].data, bases[which]
            t0_ns = readers[which].header.t0_mono_ns
        at = offset - base
        length, _, _, at_ns, _, type_byte, _, rtp_time = record_at(data, at)
        where = _payload_span(data, at + scan.HEAD.size, length)
        if where is None:
            continue
        if rtp_time != last_rtp_time:
            last_rtp_time, extended = rtp_time, times(rtp_time, at_ns - t0_ns)
        yield Packet(key >> _OFFSET_BITS, extended, type_byte >= 0x80, data[where[0] : where[1]])
