"""Question: after a call over bad lines, do the files still say what happened when?

Two parties talk through the real relay and recorder, each behind a line that loses packets, each
with clocks that run wrong (alignment_script.py). They flash and beep at the same instants of one
true time. One joins late, is muted, is cut off and comes back on a new leg, saves bytes in silence,
changes its picture's size and its codec. Then the recording is finished by the real steps, every
file is decoded, and each flash and beep is looked for where the session's timeline has it.

    run(seconds, loss_percent, skew_ppm) -> rows: one per party, last the summary
"""

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.alignment_files import Found, beeps, flashes, match, spread
from bench.alignment_script import (
    CAMERA_FPS,
    DOCUMENT_EVERY,
    SECOND_NS,
    Script,
    clocks_of,
    flash_ticks,
    tick_ns,
)
from bench.link import Impairment
from bench.netlab import AHEAD, ROOT, Host, NetLab
from media import ffmpeg, journal
from media.finishing import Job
from media.mux import MuxedFile, MuxResult, read_result
from media.timing import ntp_to_ns

PARTIES: Final = ("hall", "office")
DELAY_MS: Final = {"hall": 30.0, "office": 10.0}
JITTER_MS: Final = 20.0
SEED: Final = 45
VERB_TIMEOUT_S: Final = 30.0
SETTLE_S: Final = 2.0
"""After a join the picture waits for its first keyframe; instants nearer than this do not count."""
EDGE_S: Final = 0.5
AV_LIMIT_MS: Final = 45.0
PARTIES_LIMIT_MS: Final = 80.0
MIN_FOUND: Final = 0.95
MS_NS: Final = 1_000_000
REAL_TIME_PRIORITY: Final = 5
LEAST_OF_NS: Final = 20 * SECOND_NS
SURE_SPAN_S: Final = 120.0
"""A leg this long shows a drift of parts in a million through a jitter of milliseconds."""
SKEW_ERROR_PPM: Final = 25.0


class Child:
    """A process that answers one line with one line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    async def on(cls, host: Host, *arguments: str) -> "Child":
        return cls(
            await asyncio.create_subprocess_exec(
                *host.command([*AHEAD, sys.executable, "-m", *arguments]),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=4 * 1024 * 1024,
                cwd=ROOT,
            )
        )

    async def ask(self, verb: str, **values: object) -> dict[str, Any]:
        """Raises RuntimeError if the process has ended; its own words are on standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn, asyncio.timeout(VERB_TIMEOUT_S):
            self._process.stdin.write(json.dumps({"verb": verb, **values}).encode() + b"\n")
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A process of the drill has ended at “{verb}”.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def aclose(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


# -- The call ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Call:
    """The call as it goes, and what really happened when, in true seconds."""

    script: Script
    server: Child
    children: dict[str, Child]
    began_ns: int = 0
    t0_ns: int = 0
    began_unix_ns: int = 0
    away: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    muted: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    async def hold(self) -> dict[str, Any]:
        """From the first join to the end; the relay's counts."""
        script = self.script
        await self._connect("hall", await self.server.ask("enter", party="hall"))
        self.t0_ns = (await self.server.ask("live"))["t0_ns"]
        self.began_ns, self.began_unix_ns = time.monotonic_ns(), time.time_ns()
        await self._start("hall")
        self.away = {"hall": [], "office": [(0.0, script.seconds)]}
        acts: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (script.office_joins_s, self._office_joins),
            (script.mute_s[0], lambda: self._mute(is_muted=True)),
            (script.mute_s[1], lambda: self._mute(is_muted=False)),
            (script.pauses_s[0], lambda: self._change("office", is_pausing=True)),
            (script.pauses_s[1], lambda: self._change("office", is_pausing=False)),
            (script.resize_s, lambda: self._change("office", size=[480, 360])),
            (script.away_s[0], self._hall_falls_out),
            (script.recode_s, lambda: self._change("office", codec="h264")),
        ]
        for at_s, act in sorted(acts, key=lambda item: item[0]):
            await self._until(at_s)
            await act()
        await self._until(script.seconds)
        for child in self.children.values():
            await child.ask("leave")
        return await self.server.ask("end")

    def facts(self) -> dict[str, Any]:
        """JSON-ready; times are monotonic and Unix nanoseconds, and true seconds."""
        names = ("began_ns", "t0_ns", "began_unix_ns", "away", "muted")
        return {"seconds": self.script.seconds} | {name: getattr(self, name) for name in names}

    def now_s(self) -> float:
        return (time.monotonic_ns() - self.began_ns) / SECOND_NS

    async def _until(self, at_s: float) -> None:
        """Wait, and meanwhile tell people what has changed in the room."""
        while (left_s := at_s - self.now_s()) > 0:
            for party, offer in (await self.server.ask("wanting"))["offers"].items():
                await self._negotiate(party, "again", offer)
            await asyncio.sleep(min(1.0, left_s))

    async def _negotiate(self, party: str, verb: str, offer: dict[str, Any]) -> None:
        answer = await self.children[party].ask(verb, sdp=offer["sdp"], sends=offer["sends"])
        await self.server.ask("answer", party=party, revision=offer["revision"], sdp=answer["sdp"])

    async def _connect(self, party: str, offer: dict[str, Any]) -> None:
        await self._negotiate(party, "join", offer)
        await self.children[party].ask("connected")
        async with asyncio.timeout(VERB_TIMEOUT_S):
            while not (await self.server.ask("connected", party=party))["is_connected"]:
                await asyncio.sleep(0.05)

    async def _start(self, party: str) -> None:
        await self.children[party].ask(
            "start",
            began_ns=self.began_ns,
            began_unix_ns=self.began_unix_ns,
            seconds=self.script.seconds,
        )

    async def _office_joins(self) -> None:
        await self._connect("office", await self.server.ask("enter", party="office"))
        await self._start("office")
        self.away["office"] = [(0.0, self.now_s())]

    async def _hall_falls_out(self) -> None:
        from_s = self.now_s()
        await self.children["hall"].ask("leave")
        await asyncio.sleep(max(0.0, self.script.away_s[1] - 1 - self.now_s()))
        await self._connect("hall", await self.server.ask("rejoin", party="hall"))
        await asyncio.sleep(max(0.0, self.script.away_s[1] - self.now_s()))
        await self._start("hall")
        self.away["hall"].append((from_s, self.now_s()))

    async def _mute(self, *, is_muted: bool) -> None:
        await self.server.ask("mute", party="hall", is_muted=is_muted)
        spans = self.muted.setdefault("hall", [])
        if is_muted:
            spans.append((self.now_s(), self.script.seconds))
        else:
            spans[-1] = (spans[-1][0], self.now_s())

    async def _change(self, party: str, **values: object) -> None:
        await self.children[party].ask("change", **values)


# -- Measuring -----------------------------------------------------------------------------------


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

    def __init__(self, call: Call) -> None:
        self._call = call
        self.instants_s = [tick_ns(t) / SECOND_NS for t in flash_ticks(call.script.seconds)]
        self._ahead_ms = (call.began_ns - call.t0_ns) / MS_NS
        self.at_ms = [self._ahead_ms + 1000 * s for s in self.instants_s]

    def seconds_of(self, at_ms: float) -> float:
        """True seconds of a place on the timeline."""
        return (at_ms - self._ahead_ms) / 1000

    def due(self, party: str, *, is_sound: bool) -> set[int]:
        """The instants at which this party was surely sending, and let through."""
        call = self._call
        spans = [(a - EDGE_S, b + SETTLE_S) for a, b in call.away[party]]
        if is_sound:
            spans += [(a - EDGE_S, b + EDGE_S) for a, b in call.muted.get(party, [])]
        end_s = call.script.seconds - EDGE_S
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


def measure(call: Call, work: Path, result: MuxResult) -> list[Seen]:
    """Decode everything."""
    timeline = Timeline(call)
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


def rows_of(call: Call, seen: list[Seen]) -> list[dict[str, Any]]:
    """A row per party."""
    rows = []
    back_s = call.away["hall"][0][1]
    timeline = Timeline(call)
    first_after = sum(at_s <= back_s for at_s in timeline.instants_s)
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


def between(call: Call, seen: list[Seen]) -> dict[str, Any]:
    """How far the two parties lie apart: pictures and sounds of the same instants."""
    hall, office = seen
    back_s = call.away["hall"][0][1]
    first_after = sum(at_s <= back_s for at_s in Timeline(call).instants_s)
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


@contextlib.contextmanager
def in_real_time() -> Iterator[None]:
    """Meanwhile this process and what it starts go before all others of the machine, if that is
    allowed: a caller who waits for a processor is late by his own fault, not by the recording's."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REAL_TIME_PRIORITY))
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, policy, parameter)


# -- The whole -----------------------------------------------------------------------------------


def finish(recording: Path, work: Path) -> MuxResult:
    """Seal and mux by the real steps, in the real child. Raises RuntimeError with its words."""
    job = Job(
        str(recording), str(work), ffmpeg.ffmpeg_path(None), "drill", datetime.now(UTC).isoformat()
    )
    asked = json.dumps({name: getattr(job, name) for name in Job.__dataclass_fields__})
    done = subprocess.run(
        [sys.executable, "-m", "media.finishing", "seal", "mux"],
        input=asked, capture_output=True, text=True, cwd=ROOT, timeout=600, check=False,
    )  # fmt: skip
    result = read_result(work)
    if done.returncode or result is None:
        raise RuntimeError(f"Finishing failed: {done.stdout[-400:]} {done.stderr[-400:]}")
    return result


async def run(
    seconds: float = 600, loss_percent: float = 5, skew_ppm: float = 100, keep: Path | None = None
) -> AsyncIterator[dict[str, Any]]:
    """A row per party and last the summary. `keep`: leave recording, files and what happened when
    in this new directory.

    Raises LabUnavailable without root or TUN, RuntimeError if a part of the drill fails.
    """
    async with AsyncExitStack() as stack:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alignment-")))
        recording, work = folder / "recording", folder / "work"
        call, relay, lost = await _hold(recording, seconds, loss_percent, skew_ppm)
        if keep is not None:
            (keep / "call.json").write_text(json.dumps(call.facts(), indent=1), encoding="utf-8")
        result = await asyncio.to_thread(finish, recording, work)
        seen = await asyncio.to_thread(measure, call, work, result)
        rows = rows_of(call, seen)
        for row in rows:
            yield row
        legs = sorted({p.name.partition(".")[2] for p in journal.journals_in(recording)})
        faults = {
            "packets_lost": lost,
            "legs": legs,
            "skew_seen_ppm": skews_seen(recording),
            "relay": relay,
        }
        plan = {"seconds": seconds, "loss_percent": loss_percent, "skew_ppm": skew_ppm}
        yield summary(rows, between(call, seen), plan, faults)


async def _hold(
    recording: Path, seconds: float, loss_percent: float, skew_ppm: float
) -> tuple[Call, dict[str, Any], dict[str, int]]:
    async with AsyncExitStack() as stack:
        stack.enter_context(in_real_time())
        lab = stack.enter_context(NetLab())
        at_server = lab.host("server")
        server = await Child.on(
            at_server, "bench.alignment_server", at_server.address, str(recording)
        )
        stack.push_async_callback(server.aclose)
        children, links = {}, {}
        for number, party in enumerate(PARTIES):
            host = lab.host(party)
            links[party] = lab.link(at_server, host, seed=SEED + number)
            bad = Impairment(loss=loss_percent / 100, delay_ms=DELAY_MS[party], jitter_ms=JITTER_MS)
            links[party].set(up=bad, down=bad)
            children[party] = await Child.on(
                host, "bench.alignment_party", party, host.address, str(skew_ppm)
            )
            stack.push_async_callback(children[party].aclose)
        call = Call(Script.of(seconds), server, children)
        relay = await call.hold()
        relay["parties"] = {p: await child.ask("counts") for p, child in children.items()}
        lost = {}
        for party, link in links.items():
            for way, counts in link.count().items():
                lost[f"{party}_{way}"] = counts["lost"]
        return call, relay, lost


def summary(
    rows: list[dict[str, Any]],
    parties: dict[str, Any],
    plan: dict[str, Any],
    faults: dict[str, Any],
) -> dict[str, Any]:
    """The verdict: the limits, and that everything that should have gone wrong did."""
    skew_ppm, loss_percent = plan["skew_ppm"], plan["loss_percent"]
    goals = {
        "av": all(_within(row["av_run_together_ms"], AV_LIMIT_MS) for row in rows)
        and all(_within(row["av_ms"], AV_LIMIT_MS) for row in rows),
        "party_party": _within(parties["party_party_ms"], PARTIES_LIMIT_MS),
        "document": all(
            _within(row["document_camera_ms"], AV_LIMIT_MS) for row in rows if "document" in row
        ),
        "found": all(
            row[kind]["found"] >= MIN_FOUND * row[kind]["expected"]
            for row in rows
            for kind in ("picture", "sound")
        ),
        "packets_were_lost": not loss_percent or all(faults["packets_lost"].values()),
        "a_new_leg_was_recorded": any(".l0002." in f".{name}" for name in faults["legs"]),
        "a_second_file_was_made": any(len(row["files"]) > 1 for row in rows),
        "clocks_ran_apart": _clocks_ran_apart(faults["skew_seen_ppm"], skew_ppm),
    }
    return {
        "summary": True,
        **plan,
        "av_max_ms": max(row["av_run_together_ms"]["max"] or 0 for row in rows),
        **parties,
        "faults": faults,
        "goals": goals,
        "ok": all(goals.values()),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "load": [round(value, 2) for value in os.getloadavg()],
        },
    }


def _within(values: dict[str, Any], limit_ms: float) -> bool:
    return values["max"] is not None and values["max"] <= limit_ms


def _clocks_ran_apart(seen: dict[str, dict[str, float | None]], skew_ppm: float) -> bool:
    """Every clock ran as the script has it, as far as the reports can tell."""
    for party in PARTIES:
        clocks, told = clocks_of(party, skew_ppm), seen.get(party, {})
        wanted = {
            "wall": clocks.wall_ppm,
            "camera": clocks.camera_ppm - clocks.wall_ppm,
            "sound": clocks.sound_ppm - clocks.wall_ppm,
        }
        if told.get("camera") is None:
            return False
        for name, ppm in wanted.items():
            value = told.get(name)
            if value is not None and abs(value - ppm) > SKEW_ERROR_PPM:
                return False
    return True


def in_words(row: dict[str, Any]) -> str:
    """A row for people."""
    if row.get("summary"):
        missed = ", ".join(name for name, ok in row["goals"].items() if not ok) or "none"
        return (
            f"{row['seconds']:.0f} s, {row['loss_percent']} % lost, {row['skew_ppm']} ppm: "
            f"A/V at most {row['av_max_ms']} ms, parties {row['party_party_ms']['max']} ms; "
            f"missed: {missed}"
        )
    return (
        f"{row['party']}: A/V p50 {row['av_run_together_ms']['p50']} p95 "
        f"{row['av_run_together_ms']['p95']} max {row['av_run_together_ms']['max']} ms, "
        f"{row['picture']['found']}/{row['picture']['expected']} flashes, "
        f"{row['sound']['found']}/{row['sound']['expected']} beeps"
    )
