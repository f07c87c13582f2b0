"""What the files of an alignment drill show, against what happened when.

Every flash and beep that must be there has a number; a track is where each of them was found, in ms
from its place on the session's timeline. What is compared are the same numbers of two tracks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.alignment_files import Found, beeps, flashes, match, spread
from bench.alignment_script import (
    CAMERA_FPS,
    DOCUMENT_EVERY,
    PARTIES,
    SECOND_NS,
    Course,
    flash_ticks,
    tick_ns,
)
from media import journal
from media.mux import MuxedFile, MuxResult
from media.timing import ntp_to_ns

SETTLE_S: Final = 2.0
"""After a join the picture waits for its first keyframe; instants nearer than this do not count."""
EDGE_S: Final = 0.5
MS_NS: Final = 1_000_000
LEAST_OF_NS: Final = 20 * SECOND_NS
SURE_SPAN_S: Final = 120.0
"""A leg this long shows a drift of parts in a million through a jitter of milliseconds."""


@dataclass(frozen=True, slots=True)
class Track:
    """What was found of one track, by instant: how far, in ms, from its place on the timeline."""

    off_ms: dict[int, float]
    run_off_ms: dict[int, float]
    expected: int
    unsure: int
    stray: int

    def summary(self) -> dict[str, Any]:
        values = sorted(self.off_ms.values())
        middle = round(values[len(values) // 2], 1) if values else None
        return {
            "expected": self.expected,
            "found": len(self.off_ms) + self.unsure,
            "unsure": self.unsure,
            "stray": self.stray,
            "late_ms": middle,
        }


class Timeline:
    """Where the instants lie on the session's timeline, and which of them a track must show."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self.instants_s = [tick_ns(t) / SECOND_NS for t in flash_ticks(course.seconds)]
        ahead_ms = (course.began_ns - course.t0_ns) / MS_NS
        self.at_ms = [ahead_ms + 1000 * s for s in self.instants_s]
        back_s = course.away["hall"][0][1]
        self.first_after_rejoin = sum(at_s <= back_s for at_s in self.instants_s)

    def due(self, party: str, *, is_sound: bool) -> set[int]:
        """The instants at which this party was surely sending, and let through."""
        course = self._course
        spans = [(a - EDGE_S, b + SETTLE_S) for a, b in course.away[party]]
        if is_sound:
            spans += [(a - EDGE_S, b + EDGE_S) for a, b in course.muted[party]]
        end_s = course.seconds - EDGE_S
        return {
            number
            for number, at_s in enumerate(self.instants_s)
            if at_s < end_s and not any(a <= at_s <= b for a, b in spans)
        }

    def track(
        self, work: Path, files: Iterable[MuxedFile], due: set[int], *, fps: float | None
    ) -> Track:
        """Decode a track's files, one after the other on the timeline. `fps`: of a picture."""
        off_ms: dict[int, float] = {}
        run_off_ms: dict[int, float] = {}
        unsure = stray = 0
        for file in files:
            expected = [at - file.offset_ms for at in self.at_ms]
            path = work / file.path
            onsets = beeps(path) if fps is None else flashes(path, fps)
            found: Found
            found, strays = match(onsets, expected)
            stray += strays
            for number, onset in found.items():
                if number not in due or number in off_ms:
                    continue
                if not onset.is_sure:
                    unsure += 1
                    continue
                off_ms[number] = onset.at_ms - expected[number]
                run_off_ms[number] = onset.run_ms - expected[number]
        return Track(off_ms, run_off_ms, len(due), unsure, stray)


@dataclass(frozen=True, slots=True)
class Seen:
    """All of one party."""

    party: str
    picture: Track
    sound: Track
    document: Track | None
    files: tuple[MuxedFile, ...]


def measure(timeline: Timeline, work: Path, result: MuxResult) -> list[Seen]:
    """Decode everything."""
    found = []
    for party in PARTIES:
        files = sorted((f for f in result.files if f.label == party), key=lambda f: f.offset_ms)
        own = [f for f in files if f.kind == "party"]
        papers = [f for f in files if f.kind == "document"]
        shown = timeline.due(party, is_sound=False)
        pictures = [f for f in own if f.has_video]
        sounds = [f for f in own if f.has_audio]
        due = timeline.due(party, is_sound=True)
        document_fps = CAMERA_FPS / DOCUMENT_EVERY
        document = timeline.track(work, papers, shown, fps=document_fps) if papers else None
        found.append(
            Seen(
                party,
                timeline.track(work, pictures, shown, fps=CAMERA_FPS),
                timeline.track(work, sounds, due, fps=None),
                document,
                tuple(files),
            )
        )
    return found


def _apart(one: dict[int, float], other: dict[int, float]) -> list[float]:
    return [one[n] - other[n] for n in sorted(one.keys() & other.keys())]


def _since(values: dict[int, float], first: int) -> dict[int, float]:
    return {n: v for n, v in values.items() if n >= first}


def rows_of(timeline: Timeline, seen: list[Seen]) -> list[dict[str, Any]]:
    """A row per party."""
    rows = []
    first_after = timeline.first_after_rejoin
    for one in seen:
        picture, sound = one.picture.off_ms, one.sound.off_ms
        row = {
            "party": one.party,
            "av_ms": spread(_apart(picture, sound)),
            "av_run_together_ms": spread(_apart(picture, one.sound.run_off_ms)),
            "av_after_rejoin_ms": spread(
                _apart(_since(picture, first_after), _since(sound, first_after))
            ),
            "picture": one.picture.summary(),
            "sound": one.sound.summary(),
            "files": [
                {"path": f.path.replace(f.participant_id, one.party), "offset_ms": f.offset_ms,
                 "duration_ms": f.duration_ms, "lost_frames": f.lost_frames,
                 "gaps": [g.cause for g in f.gaps]}
                for f in one.files
            ],
        }  # fmt: skip
        if one.document is not None:
            row["document"] = one.document.summary()
            row["document_camera_ms"] = spread(_apart(one.document.off_ms, picture))
        rows.append(row)
    return rows


def between(timeline: Timeline, seen: list[Seen]) -> dict[str, Any]:
    """How far the two parties lie apart: pictures and sounds of the same instants."""
    hall, office = seen
    first_after = timeline.first_after_rejoin
    pictures = _apart(hall.picture.off_ms, office.picture.off_ms)
    sounds = _apart(hall.sound.run_off_ms, office.sound.run_off_ms)
    after = _apart(_since(hall.picture.off_ms, first_after), office.picture.off_ms)
    after += _apart(_since(hall.sound.run_off_ms, first_after), office.sound.run_off_ms)
    return {
        "party_party_ms": spread(pictures + sounds),
        "party_party_after_rejoin_ms": spread(after),
    }


def skews_seen(recording: Path) -> dict[str, dict[str, float | None]]:
    """From the journals' sender reports: how fast each party's clocks ran, in ppm.

    `wall` against ours, `camera` and `sound` against the party's own wall clock, over the longest
    leg of `span_s`. None where the line's jitter hides it.
    """
    longest: dict[str, dict[str, float | None]] = {}
    for path in journal.journals_in(recording):
        with journal.open_journal(path) as reader:
            label, clocks = reader.header.label, _skews_of(reader)
        if (clocks["span_s"] or 0) > (longest.get(label, clocks)["span_s"] or 0):
            longest[label] = clocks
        longest.setdefault(label, clocks)
    return longest


def _skews_of(leg: journal.JournalReader) -> dict[str, float | None]:
    tracks: dict[int, journal.TrackRecord] = {}
    walls: list[tuple[int, int]] = []
    media: dict[str, list[tuple[float, float]]] = {}
    for record in leg.records():
        if record.type is journal.RecordType.TRACK:
            tracks[record.track] = journal.parse_track(record)
        elif record.type is journal.RecordType.SENDER_REPORT:
            report, track = journal.parse_sender_report(record), tracks[record.track]
            wall_ns = ntp_to_ns(report.ntp_time)
            walls.append((wall_ns, record.at_ns - wall_ns))
            points = media.setdefault(f"{track.name} {record.track}", [])
            points.append((wall_ns, report.rtp_time * SECOND_NS / track.codec.clock_rate))
    span_s = (walls[-1][0] - walls[0][0]) / SECOND_NS if walls else 0.0
    found: dict[str, float | None] = {"span_s": round(span_s, 1), "wall": None}
    least: dict[int, tuple[int, int]] = {}
    for wall_ns, delay_ns in walls:
        window = wall_ns // LEAST_OF_NS
        least[window] = min(least.get(window, (wall_ns, delay_ns)), (wall_ns, delay_ns), key=_delay)
    if span_s >= SURE_SPAN_S:
        # Who runs fast reports ever higher times, which then seem to arrive ever earlier.
        found["wall"] = -_slope_ppm(list(least.values()))
    for name, key in (("camera", "camera"), ("sound", "microphone")):
        runs = [_unwrapped(points) for label, points in media.items() if label.startswith(key)]
        if runs and (name == "camera" or span_s >= SURE_SPAN_S):
            found[name] = round(_slope_ppm(max(runs, key=len)) - 1e6, 1)
    return found


def _delay(point: tuple[int, int]) -> int:
    return point[1]


def _unwrapped(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """RTP times go round once in 13 or 25 hours, and may do so in any call."""
    first_ns = points[0][1]
    return [(x, y if y >= first_ns else float("nan")) for x, y in points]


def _slope_ppm(points: Sequence[tuple[float, float]]) -> float:
    """Through the points by least squares; those that are no numbers are left out."""
    values = np.array([point for point in points if point[1] == point[1]], dtype=np.float64)
    x, y = (values - values[0]).T
    return round(float(np.polyfit(x, y, 1)[0]) * 1e6, 1)
