"""What a recording says about the faults that its call went through, against what arrived.

The journal's own packets are the witness: where they stop and begin again is the gap. The marks
around it and the gap in the finished file have to stand there too, to a tenth of a second.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from media import manifest
from media.journal import MarkKind, RecordType, open_journal, parse_mark, parse_track
from media.mux import Gap, mux
from media.tracks import TrackName

MS: Final = 1_000_000
TOLERANCE_MS: Final = 100
SILENCE_MS: Final = 1_500
"""Media away for longer has to be marked; in a file half a second is a gap (docs/recording.md)."""
FILE_GAP_MS: Final = 500
LOOK_MS: Final = 100
"""How often the relay looks after a peer: when it stood still itself, it knows the last look."""
SLACK_NS: Final = 3_000 * MS
TICKS_PER_MS: Final = 48  # of sound


@dataclass(frozen=True, slots=True)
class Disturbance:
    """When something was done to a call, on the clock of the journals."""

    kind: str
    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One disturbance as the recording tells it. Distances are in milliseconds, None if unmarked.

    `gap_ms` is how long no sound arrived, `missing_ms` what of it did not come later either;
    `left_ms` and `back_ms` how far the marks of its ends stand from the last packet before and the
    first after; `file_ms` how far the file's gap is from lying there and being as long.
    """

    kind: str
    gap_ms: int
    left_ms: int | None
    back_ms: int | None
    file_ms: int | None
    missing_ms: int

    @property
    def is_true(self) -> bool:
        needed: list[int | None] = []
        if self.missing_ms > FILE_GAP_MS + TOLERANCE_MS:
            needed.append(self.file_ms)
        if self.gap_ms > SILENCE_MS + 2 * TOLERANCE_MS:
            needed.append(self.back_ms)
            # A server that was killed can note nothing any more; its journals just end.
            needed += [] if self.kind == "server" else [self._left_beyond_ms]
        return all(one is not None and one <= TOLERANCE_MS for one in needed)

    @property
    def _left_beyond_ms(self) -> int | None:
        """How far the first mark is from where it has to be."""
        if self.kind != "hang" or self.left_ms is None:
            return self.left_ms
        return max(0, self.left_ms - LOOK_MS)


@dataclass(slots=True)
class _Party:
    participant_id: str
    t0_ns: int
    sound: list[tuple[int, int, int]]
    """Arrival (ns), leg and RTP time (48 kHz) of each packet of sound, as they arrived."""
    left_ns: list[int]
    back_ns: list[int]


def judge(recording: Path, out: Path, faults: Iterable[Disturbance]) -> list[Verdict]:
    """Close the recording, make its files in `out`, and look up every fault of the petitioner."""
    book = manifest.recover(recording)
    petitioner = next(entry for entry in book.journals if entry.role == "petitioner")
    party = _read(recording, book, petitioner.participant_id)
    files = mux(recording, out).files
    gaps = [
        gap
        for file in files
        if file.kind == "party" and file.participant_id == party.participant_id
        for gap in file.gaps
        if gap.track == TrackName.MICROPHONE
    ]
    return [_verdict(party, gaps, fault) for fault in faults]


def _read(recording: Path, book: manifest.Manifest, participant_id: str) -> _Party:
    party = _Party(participant_id, 0, [], [], [])
    for entry in book.journals:
        if entry.participant_id != participant_id:
            continue
        with open_journal(recording / entry.path) as reader:
            party.t0_ns = reader.header.t0_mono_ns
            tracks: set[int] = set()
            for record in reader.records():
                if record.type is RecordType.TRACK:
                    if parse_track(record).name is TrackName.MICROPHONE:
                        tracks.add(record.track)
                elif record.type is RecordType.RTP and record.track in tracks:
                    rtp_time = int.from_bytes(record.payload[4:8], "big")
                    party.sound.append((record.at_ns, entry.leg, rtp_time))
                elif record.type is RecordType.MARK:
                    kind = parse_mark(record).kind
                    if kind in (MarkKind.SILENT, MarkKind.GAP, MarkKind.LEAVE):
                        party.left_ns.append(record.at_ns)
                    elif kind in (MarkKind.BACK, MarkKind.JOIN):
                        party.back_ns.append(record.at_ns)
    party.sound.sort()
    return party


def _verdict(party: _Party, gaps: list[Gap], fault: Disturbance) -> Verdict:
    first = bisect_left(party.sound, (fault.from_ns - 100 * MS,))
    last = bisect_left(party.sound, (fault.to_ns + SLACK_NS,))
    window = party.sound[first:last]
    gap_ns, left, back = max(
        ((b[0] - a[0], a, b) for a, b in pairwise(window)), default=(0, (0, 0, 0), (0, 0, 0))
    )
    start_ms, end_ms = ((at[0] - party.t0_ns) // MS for at in (left, back))
    # What was sent again after the line's return lies inside the gap, and makes it shorter.
    wanted_ms = gap_ns // MS if left[1] != back[1] else _longest_step_ms(window)
    found = [
        max(
            start_ms - gap.start_ms, gap.end_ms - end_ms, abs(gap.end_ms - gap.start_ms - wanted_ms)
        )
        for gap in gaps
    ]
    return Verdict(
        fault.kind, gap_ns // MS,
        _nearest_ms(party.left_ns, left[0]), _nearest_ms(party.back_ns, back[0]),
        min(found, default=None), wanted_ms,
    )  # fmt: skip


def _longest_step_ms(window: list[tuple[int, int, int]]) -> int:
    """The longest time for which the senders of these packets captured nothing that arrived."""
    steps = [
        (b - a) & 0xFFFFFFFF
        for leg in {leg for _, leg, _ in window}
        for a, b in pairwise(sorted(rtp_time for _, at_leg, rtp_time in window if at_leg == leg))
    ]
    return max(steps, default=0) // TICKS_PER_MS


def _nearest_ms(marks: list[int], at_ns: int) -> int | None:
    return min((abs(mark - at_ns) // MS for mark in marks), default=None)
