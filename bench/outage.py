"""Question: does a call outlive its transports, and how soon is media back?

Real kiosk pages in Chromium, each behind its own line and NAT (lanes.py), talk with an official's
pages through a real server (outage_stage.py). Lines are cut, NATs rebound, pages reloaded and
closed, browsers and the server killed or halted (outage_faults.py). What is measured is what a
person would notice (outage_watch.py), and each row says what proves that its fault happened.
Afterwards the journals are read (aftermath.py): every gap has to stand there, where it was.

    run(plan) -> rows {"kind", "outage_s", "back_s", "noticed_s", "proof", …}, then one row for each
    fault as the recording tells it; summary(rows), of one campaign or of several parts
"""

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Final

from bench import aftermath, lanes
from bench.circumstances import circumstances
from bench.outage_faults import OF_A_CALL, OF_THE_HOUSE
from bench.outage_stage import Stage, staged
from bench.outage_watch import Call, Row, settle
from media.journal import open_journal

KINDS: Final = (*OF_A_CALL, *OF_THE_HOUSE)
LONG_S: Final = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign: `count` rounds of every kind (and every length of outage) on each lane."""

    count: int
    lanes: int
    kinds: tuple[str, ...]
    outages_s: tuple[int, ...]


def run(plan: Plan) -> Iterator[dict[str, Any]]:
    """Rows as they come. Needs root, Chromium and the tools of lanes.py; else RuntimeError."""
    if missing := lanes.missing_tools():
        raise RuntimeError(f"the outage drill needs {', '.join(missing)}")
    yield {"part": {**asdict(plan), **circumstances()}}
    command = lanes.shelter("bench.outage", json.dumps(asdict(plan)))
    with Popen(command, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
        finally:
            process.terminate()
    if process.returncode not in (0, -signal.SIGTERM):
        raise RuntimeError(f"the outage drill ended with {process.returncode}")


class _Campaign:
    """Inside the shelter: the rounds of one plan on one stage."""

    def __init__(self, plan: Plan, stage: Stage, say: Callable[[dict[str, Any]], None]) -> None:
        self._plan = plan
        self._stage = stage
        self._say = say

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tg:
            for call in self._stage.calls:
                tg.create_task(self._disturb(call), name=f"lane {call.lane.number}")
        for kind in self._plan.kinds:
            if kind in OF_THE_HOUSE:
                for _ in range(self._plan.count):
                    await self._befall(kind)

    async def _disturb(self, call: Call) -> None:
        for number in range(self._plan.count):
            for kind in self._plan.kinds:
                if kind in OF_A_CALL:
                    for outage_s in self._lengths(kind, number):
                        await self._fault(call, kind, outage_s)

    def _lengths(self, kind: str, number: int) -> tuple[int, ...]:
        if kind != "link":
            return (0,)
        # Minutes each: of the long ones a quarter as many tell enough.
        return tuple(one for one in self._plan.outages_s if one < LONG_S or number % 4 == 0)

    async def _fault(self, call: Call, kind: str, outage_s: int) -> None:
        try:
            await settle(call)
            row = await OF_A_CALL[kind](call, outage_s)
        except Exception as error:  # a lane that broke is a result, not an accident
            row = Row(kind, call.lane.number, outage_s, trouble=repr(error)[:300])
        self._say(row.as_dict())

    async def _befall(self, kind: str) -> None:
        try:
            await asyncio.gather(*(settle(call) for call in self._stage.calls))
            rows = await OF_THE_HOUSE[kind](self._stage)
        except Exception as error:  # as above: the campaign goes on and counts it
            rows = [Row(kind, 0, 0, trouble=repr(error)[:300])]
        for row in rows:
            self._say(row.as_dict())


async def _campaign(plan: Plan, folder: Path, say: Callable[[dict[str, Any]], None]) -> None:
    async with staged(folder, lanes=plan.lanes, moves_clock="clock" in plan.kinds) as stage:
        await _Campaign(plan, stage, say).run()
    for call in stage.calls:
        _aftermath(folder, call, say)


def _aftermath(folder: Path, call: Call, say: Callable[[dict[str, Any]], None]) -> None:
    """What the call's recording says about every fault; the server has let go of it."""
    for recording in filter(Path.is_dir, (folder / "var" / "recordings").iterdir()):
        with open_journal(next(recording.glob("*.rrj"))) as reader:
            if reader.header.session_id != call.session_id:
                continue
        files = folder / f"files-{call.lane.number}"
        for verdict in aftermath.judge(recording, files, call.faults):
            say({"recorded": verdict.is_true, "lane": call.lane.number, **asdict(verdict)})
        return
    raise RuntimeError(f"lane {call.lane.number} has no recording")


def main() -> None:
    """Inside the shelter: rows as JSON lines on standard output."""
    asked = json.loads(sys.argv[1])
    plan = Plan(asked["count"], asked["lanes"], tuple(asked["kinds"]), tuple(asked["outages_s"]))
    lanes.prepare()
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        asyncio.run(_campaign(plan, Path(folder), lambda row: print(json.dumps(row), flush=True)))


if __name__ == "__main__":
    main()
