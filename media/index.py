"""Where every packet of a leg stands and when it was captured: the mux's map of the journals.

A journal holds packets in order of arrival. One pass notes their sequence numbers and offsets (8
bytes each, so a day of talk fits in memory), the sender reports and the marks; the packets
themselves stay on disk until they are written.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from media import depayload, journal, rtp
from media.depayload import Packet
from media.journal import JournalDamaged, JournalReader, Mark, RecordType, SenderReport, TrackRecord
from media.timing import (
    ClockMap,
    Unwrapper,
    fit_least_delayed,
    fit_median,
    ntp_to_ns,
    spread,
)

MAX_REPORT_SPREAD_NS: Final = 100_000_000
"""Reports of one track that disagree by more than this with each other are noise or lies."""
MAX_DISAGREEMENT_NS: Final = 1_000_000_000
"""If the sender reports place a track further than this from its arrival, they are not believed."""
ANCHOR_EVERY_NS: Final = 100_000_000
_OFFSET_BITS: Final = 40  # a terabyte of journal per leg
_OFFSET_MASK: Final = (1 << _OFFSET_BITS) - 1
_RECORD_HEAD: Final = struct.Struct(">HBBQ")


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
    times: Unwrapper = field(default_factory=lambda: Unwrapper(32))
    highest_seq: int = 0

    def sort(self) -> None:
        """By sequence number; of packets that came twice the first stays."""
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

    def packet(self, key: int) -> tuple[bytes, int]:
        """The RTP packet at an index key and its arrival on the timeline in ns."""
        offset = key & _OFFSET_MASK
        which = bisect_right(self.bases, offset) - 1
        reader = self.readers[which]
        length, _, _, at_ns = _RECORD_HEAD.unpack_from(reader.data, offset - self.bases[which])
        start = offset - self.bases[which] + _RECORD_HEAD.size
        return reader.data[start : start + length], at_ns - reader.header.t0_mono_ns


def index_leg(number: int, readers: list[JournalReader]) -> Leg:
    """One pass over a leg's segments, in order."""
    bases, total = [], 0
    for reader in readers:
        bases.append(total)
        total += reader.size_bytes
    leg = Leg(number, readers, bases)
    for reader, base in zip(readers, bases, strict=True):
        for record in reader.records():
            _index_record(leg, record, base, record.at_ns - reader.header.t0_mono_ns)
    for track in leg.tracks.values():
        track.sort()
    leg.marks = sorted(set(leg.marks), key=lambda mark: mark[0])
    return leg


def _index_record(leg: Leg, record: journal.Record, base: int, at_ns: int) -> None:
    try:
        match record.type:
            case RecordType.RTP:
                if (track := leg.tracks.get(record.track)) is not None:
                    _index_packet(track, record.payload, base + record.offset, at_ns)
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
            case RecordType.SEAL:
                pass
    except JournalDamaged:
        # A valid checksum over words we do not know: a newer writer. The rest is still good.
        return


def _index_packet(track: TrackIndex, packet: bytes, offset: int, at_ns: int) -> None:
    if len(packet) < rtp.HEADER_BYTES or packet[1] & 0x7F != track.described.codec.payload_type:
        track.foreign += 1
        return
    _, _, seq, rtp_time, _ = rtp.HEADER.unpack_from(packet)
    extended = track.seqs.near(seq)
    newer = extended > track.highest_seq
    if newer:
        track.seqs(seq)
        track.highest_seq = extended
    if not track.keys:
        track.first_rtp_time = track.times(rtp_time)
        track.first_arrival_ns = at_ns
    track.last_arrival_ns = at_ns
    if newer:
        # Repairs say nothing about delay; they also must not pull the reference back.
        ticks = track.times(rtp_time)
        rtp_ns = ticks * 1_000_000_000 // track.described.codec.clock_rate
        if not track.anchors or rtp_ns - track.anchors[-1][0] > ANCHOR_EVERY_NS:
            track.anchors.append((rtp_ns, at_ns))
        elif at_ns - rtp_ns < track.anchors[-1][1] - track.anchors[-1][0]:
            track.anchors[-1] = (rtp_ns, at_ns)
    track.keys.append(extended << _OFFSET_BITS | offset)
    _note_size(track, packet)


def _note_size(track: TrackIndex, packet: bytes) -> None:
    """Keep the largest VP8 picture: the container's header must name one size for all."""
    if track.described.codec.mime.lower() != "video/vp8":
        return
    try:
        start = rtp.payload_offset(packet)
    except ValueError:
        return
    piece = depayload.read_vp8(packet[start : start + 32])
    if piece is not None and piece.starts:
        size = depayload.vp8_size(piece.data)
        if size is not None and (track.largest is None or size > track.largest):
            track.largest = size


# --- the timeline --------------------------------------------------------------------------------


def timeline_maps(leg: Leg) -> dict[int, Callable[[int], int]]:
    """For every track of a leg: extended RTP time to nanoseconds on the session's timeline.

    Sender reports map RTP to the participant's clock, and that clock, common to all tracks of the
    leg, to ours. A track without credible reports is placed by its least delayed packets.
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
    return {
        index: _track_map(track, to_participant.get(index), to_timeline)
        for index, track in leg.tracks.items()
        if track.anchors
    }


def _near(rtp_time: int, track: TrackIndex, at_ns: int) -> int:
    """The extended form of a report's RTP time: near what the track played when it arrived."""
    played = (at_ns - track.first_arrival_ns) * track.described.codec.clock_rate // 1_000_000_000
    unwrap = Unwrapper(32)
    unwrap.last = track.first_rtp_time + played
    return unwrap.near(rtp_time)


def _track_map(
    track: TrackIndex, to_participant: ClockMap | None, to_timeline: ClockMap | None
) -> Callable[[int], int]:
    rate = track.described.codec.clock_rate
    by_arrival = fit_least_delayed(track.anchors)
    if to_participant is not None and to_timeline is not None:
        chosen, second = to_participant, to_timeline
        disagreement = sorted(second(chosen(x)) - y for x, y in track.anchors)
        if abs(disagreement[len(disagreement) // 2]) <= MAX_DISAGREEMENT_NS:
            return lambda ticks: second(chosen(ticks * 1_000_000_000 // rate))
    return lambda ticks: by_arrival(ticks * 1_000_000_000 // rate)


def packets(leg: Leg, track: TrackIndex) -> Iterator[Packet]:
    """A track's packets in sequence order; malformed ones are left out."""
    times = Unwrapper(32)
    times.last = track.first_rtp_time
    for key in track.keys:
        data, _ = leg.packet(key)
        try:
            start, length = rtp.payload_offset(data), rtp.payload_length(data)
        except ValueError:
            continue
        rtp_time = int.from_bytes(data[4:8], "big")
        yield Packet(
            seq=key >> _OFFSET_BITS,
            rtp_time=times(rtp_time),
            marker=bool(data[1] & 0x80),
            payload=data[start : start + length],
        )
