"""Question: after a call over bad lines, do the files still say what happened when?

Two parties talk through the real relay and recorder, each behind a line that loses packets, each
with clocks that run wrong (alignment_script.py). They flash and beep at the same instants of one
true time. One joins late, is muted, is cut off and comes back on a new leg, saves bytes in silence,
changes its picture's size and its codec. Then the recording is finished by the real steps, every
file is decoded, and each flash and beep is looked for where the session's timeline has it.

    run(seconds, loss_percent, skew_ppm, …) -> rows: one per party, last the summary
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.alignment_measure import Timeline, between, measure, rows_of, skews_seen
from bench.alignment_script import PARTIES, SECOND_NS, Course, Script, clocks_of
from bench.circumstances import circumstances
from bench.lab_child import Child
from bench.link import Impairment
from bench.netlab import ROOT, NetLab
from media import ffmpeg, journal
from media.finishing import Job
from media.mux import MuxResult, read_result

OFFICE_DELAY_MS: Final = 10.0
JITTER_MS: Final = 20.0
SEED: Final = 45
CONNECT_WITHIN_S: Final = 30.0
AV_LIMIT_MS: Final = 45.0
PARTIES_LIMIT_MS: Final = 80.0
MIN_FOUND: Final = 0.95
REAL_TIME_PRIORITY: Final = 5
SKEW_ERROR_PPM: Final = 25.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a drill."""

    seconds: float
    loss_percent: float
    skew_ppm: float
    hall_delay_ms: float


# -- The call ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Call:
    """The call as it goes, and what really happened when."""

    script: Script
    server: Child
    children: dict[str, Child]
    course: Course = field(init=False)

    async def hold(self) -> dict[str, Any]:
        """From the first join to the end; the relay's counts."""
        script = self.script
        await self._connect("hall", await self.server.ask("enter", party="hall"))
        t0_ns = (await self.server.ask("live"))["t0_ns"]
        self.course = Course(script.seconds, t0_ns, time.monotonic_ns(), time.time_ns())
        await self._start("hall")
        self.course.away["office"].append((0.0, script.seconds))
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

    def now_s(self) -> float:
        return (time.monotonic_ns() - self.course.began_ns) / SECOND_NS

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
        async with asyncio.timeout(CONNECT_WITHIN_S):
            while not (await self.server.ask("connected", party=party))["is_connected"]:
                await asyncio.sleep(0.05)

    async def _start(self, party: str) -> None:
        await self.children[party].ask(
            "start",
            began_ns=self.course.began_ns,
            began_unix_ns=self.course.began_unix_ns,
            seconds=self.script.seconds,
        )

    async def _office_joins(self) -> None:
        await self._connect("office", await self.server.ask("enter", party="office"))
        await self._start("office")
        self.course.away["office"] = [(0.0, self.now_s())]

    async def _hall_falls_out(self) -> None:
        from_s = self.now_s()
        await self.children["hall"].ask("leave")
        await asyncio.sleep(max(0.0, self.script.away_s[1] - 1 - self.now_s()))
        await self._connect("hall", await self.server.ask("rejoin", party="hall"))
        await asyncio.sleep(max(0.0, self.script.away_s[1] - self.now_s()))
        await self._start("hall")
        self.course.away["hall"].append((from_s, self.now_s()))

    async def _mute(self, *, is_muted: bool) -> None:
        await self.server.ask("mute", party="hall", is_muted=is_muted)
        spans = self.course.muted["hall"]
        if is_muted:
            spans.append((self.now_s(), self.script.seconds))
        else:
            spans[-1] = (spans[-1][0], self.now_s())

    async def _change(self, party: str, **values: object) -> None:
        await self.children[party].ask("change", **values)


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
    journal_bytes = sum(path.stat().st_size for path in journal.journals_in(recording))
    job = Job(
        recording=str(recording),
        work=str(work),
        ffmpeg=ffmpeg.ffmpeg_path(None),
        started_at=datetime.now(UTC).isoformat(),
        limits=ffmpeg.Limits.fit_for(journal_bytes, talk_s=3600),
    )
    asked = json.dumps(asdict(job))
    done = subprocess.run(
        [sys.executable, "-m", "media.finishing", "seal", "mux"],
        input=asked, capture_output=True, text=True, cwd=ROOT, timeout=600, check=False,
    )  # fmt: skip
    result = read_result(work)
    if done.returncode or result is None:
        raise RuntimeError(f"Finishing failed: {done.stdout[-400:]} {done.stderr[-400:]}")
    return result


async def run(
    seconds: float = 600,
    loss_percent: float = 5,
    skew_ppm: float = 100,
    *,
    hall_delay_ms: float = 30,
    keep: Path | None = None,
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
        plan = Plan(seconds, loss_percent, skew_ppm, hall_delay_ms)
        call, relay, lost = await _hold(recording, plan)
        if keep is not None:
            (keep / "call.json").write_text(
                json.dumps(asdict(call.course), indent=1), encoding="utf-8"
            )
        result = await asyncio.to_thread(finish, recording, work)
        timeline = Timeline(call.course)
        seen = await asyncio.to_thread(measure, timeline, work, result)
        rows = rows_of(timeline, seen)
        for row in rows:
            yield row
        legs = sorted({p.name.partition(".")[2] for p in journal.journals_in(recording)})
        faults = {
            "packets_lost": lost,
            "legs": legs,
            "skew_seen_ppm": skews_seen(recording),
            "relay": relay,
        }
        yield summary(rows, between(timeline, seen), plan, faults)


async def _hold(recording: Path, plan: Plan) -> tuple[Call, dict[str, Any], dict[str, int]]:
    async with AsyncExitStack() as stack:
        stack.enter_context(in_real_time())
        lab = stack.enter_context(NetLab())
        at_server = lab.host("server")
        server = await Child.on(
            at_server, "bench.alignment_server", at_server.address, str(recording)
        )
        stack.push_async_callback(server.aclose)
        children, links = {}, {}
        delays_ms = {"hall": plan.hall_delay_ms, "office": OFFICE_DELAY_MS}
        for number, party in enumerate(PARTIES):
            host = lab.host(party)
            links[party] = lab.link(at_server, host, seed=SEED + number)
            bad = Impairment(
                loss=plan.loss_percent / 100, delay_ms=delays_ms[party], jitter_ms=JITTER_MS
            )
            links[party].set(up=bad, down=bad)
            children[party] = await Child.on(
                host, "bench.alignment_party", party, host.address, str(plan.skew_ppm)
            )
            stack.push_async_callback(children[party].aclose)
        call = Call(Script.of(plan.seconds), server, children)
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
    plan: Plan,
    faults: dict[str, Any],
) -> dict[str, Any]:
    """The verdict: the limits, and that everything that should have gone wrong did."""
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
        "packets_were_lost": not plan.loss_percent or all(faults["packets_lost"].values()),
        "a_new_leg_was_recorded": any(".l0002." in f".{name}" for name in faults["legs"]),
        "a_second_file_was_made": any(len(row["files"]) > 1 for row in rows),
        "clocks_ran_apart": _clocks_ran_apart(faults["skew_seen_ppm"], plan.skew_ppm),
    }
    return {
        "summary": True,
        **asdict(plan),
        "av_max_ms": max(row["av_run_together_ms"]["max"] or 0 for row in rows),
        **parties,
        "faults": faults,
        "goals": goals,
        "ok": all(goals.values()),
        **circumstances(),
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
