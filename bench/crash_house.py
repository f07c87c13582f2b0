"""kill -9 of a whole server around the end of its talks: one case each, whatever was interrupted.

A founded prefecture, its real server with database and durable work, and talks between two Python
callers over the wires that pages use. Every round some talks end; then the server is killed at a
random moment of what follows (the ending itself, the case, the steps that make files), or when a
thread of it is about to write to the database for the n-th time. It is started again at once, and
what earlier rounds left unfinished goes on beside the next one's talks, to be killed again.

    run(folder, seed, kills, until) -> rows; the last judges all sessions
"""

import asyncio
import contextlib
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from app.caller import Caller
from app.rehearsal import Desk, ask, book
from app.seed import found
from app.seed_facts import PAST_VISITS
from bench import crash_proof
from bench.crash_strace import traced
from core.clock import LOCAL_ZONE
from core.settings import Settings
from media import manifest
from media.chain import Chain
from media.client import RtcClient, flash_and_beep, loopback_gathering
from signaling.client import SignalingClosed, SignalingRefused
from tests.support.server import ServerProcess

TALKS_AT_ONCE: Final = 2
TALK_S: Final = (0.5, 1.5)
MOMENTS: Final = ("ending", "after", "write")
ENDING_S: Final = (0.0, 0.2)
AFTER_S: Final = (0.2, 5.0)
WRITE_AT_MOST: Final = 30
"""Within so many writes of one thread to the database a talk has been ended and its case opened."""
WRITTEN_WITHIN_S: Final = 4.0
RESUME_GRACE_S: Final = 5
SETTLED_WITHIN_S: Final = 240.0
VISIT: Final = PAST_VISITS[0]

Row = dict[str, Any]


def run(folder: Path, seed: random.Random, kills: int, until: float) -> Iterator[Row]:
    """Rounds until `kills` are through, or until that CLOCK_MONOTONIC time; the verdict last."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            house = runner.run(stack.enter_async_context(_living(folder, seed)))
            for _ in range(kills):
                yield runner.run(house.round())
                if time.monotonic() > until:
                    break
            yield runner.run(house.verdict())
        finally:
            runner.run(stack.aclose())


@asynccontextmanager
async def _living(folder: Path, seed: random.Random) -> AsyncIterator["_House"]:
    """A prefecture with a reception day that begins within minutes, and its server."""
    var_dir = folder / "var"
    founding = await found(Settings(var_dir=var_dir))
    assert founding is not None, "the scratch database was not empty"
    server = ServerProcess(
        var_dir,
        {"RECEPTION_COUNTDOWN_S": "1", "RECEPTION_RESUME_GRACE_S": str(RESUME_GRACE_S)},
    )
    await asyncio.to_thread(server.start)
    try:
        async with (
            Desk(server.url, founding.password) as desk,
            httpx.AsyncClient(base_url=server.url, timeout=30) as hall,
        ):
            code = founding.kiosk_codes[VISIT.county]
            await ask(hall, "POST", "/api/kiosk/enrol", json={"code": code})
            house = _House(server, desk, hall, await _publish(desk), seed)
            with loopback_gathering():
                yield house
    finally:
        await asyncio.to_thread(server.stop)


async def _publish(desk: Desk) -> str:
    """A day with as many slots as the rest of the local day gives, for at most three hours."""
    now = datetime.now(LOCAL_ZONE) + timedelta(minutes=4)
    starts = (now + timedelta(minutes=5 - now.minute % 5)).replace(second=0, microsecond=0)
    ends = min(starts + timedelta(hours=3), starts.replace(hour=23, minute=59))
    scheduler = await desk.as_("xinfang")
    me = await ask(await desk.as_("lingdao"), "GET", "/api/me")
    counties = await ask(scheduler, "GET", "/api/org-units", params={"level": "county"})
    made = await ask(
        scheduler, "POST", "/api/reception-days",
        json={
            "official_id": me["official_id"], "day": starts.date().isoformat(),
            "starts": starts.time().isoformat(), "ends": ends.time().isoformat(),
            "slot_minutes": 15, "rooms": 8, "place": "州群众工作局", "topics": ["草场"],
            "county_ids": [county["id"] for county in counties],
        },
    )  # fmt: skip
    return str(made["id"])


@dataclass(slots=True)
class _House:
    """A running server, who may call, and everything that was ever begun there."""

    server: ServerProcess
    desk: Desk
    hall: httpx.AsyncClient
    day_id: str
    seed: random.Random
    sessions: set[str] = field(default_factory=set)
    finalised: dict[Path, dict[str, str]] = field(default_factory=dict)
    finalised_lost: list[str] = field(default_factory=list)

    async def round(self) -> Row:
        """Talks begin, are ended, and the server is killed and started again."""
        moment = self.seed.choice(MOMENTS)
        row: Row = {"phase": moment, "kills": 0, "missed": 0, "trouble": [], "points": []}
        async with AsyncExitStack() as stack:
            leaders = [await self._talk(stack) for _ in range(TALKS_AT_ONCE)]
            await asyncio.sleep(self.seed.uniform(*TALK_S))
            if moment == "write":
                await self._killed_at_a_write(leaders, row)
            else:
                ending = [asyncio.create_task(leader.end(), name="end") for leader in leaders]
                if moment == "after":
                    await asyncio.gather(*ending)
                await asyncio.sleep(
                    self.seed.uniform(*(AFTER_S if moment == "after" else ENDING_S))
                )
                await asyncio.to_thread(self.server.kill)
                await asyncio.gather(*ending, return_exceptions=True)
        assert self.server.process is not None
        if self.server.process.returncode == -signal.SIGKILL:
            row["kills"] = 1
        else:
            row["trouble"].append(f"the server ended with {self.server.process.returncode}")
        self._look_at_finalised()
        await asyncio.to_thread(self.server.start)
        return row

    async def _talk(self, stack: AsyncExitStack) -> Caller:
        """One talk, live; the official's caller."""
        appointment = await book(self.hall, self.day_id, VISIT)
        path = f"/api/appointments/{appointment['id']}"
        visit = await ask(
            self.hall, "POST", "/api/kiosk/check-in", json={"number": appointment["number"]}
        )
        notice = {"version": visit["notice_version"], "language": "zh-CN"}
        await ask(self.hall, "POST", f"{path}/notice", json=notice)
        official = await self.desk.as_("lingdao")
        petitioner = await stack.enter_async_context(self._seated(self.hall, path))
        leader = await stack.enter_async_context(self._seated(official, path))
        await petitioner.wait_ready()
        await leader.wait_ready()
        await leader.admit()
        self.sessions.add(await leader.wait_live())
        return leader

    @asynccontextmanager
    async def _seated(self, client: httpx.AsyncClient, path: str) -> AsyncIterator[Caller]:
        seat = await ask(client, "POST", f"{path}/enter")
        rtc = RtcClient(flash_and_beep())
        # The server may die under them: that is what they are here for.
        with contextlib.suppress(SignalingClosed, SignalingRefused):
            async with Caller.join(seat["ws_url"], seat["grant"], rtc) as caller:
                yield caller

    async def _killed_at_a_write(self, leaders: list[Caller], row: Row) -> None:
        """Kill where a thread of the server writes to the database for the n-th time from now."""
        assert self.server.process is not None
        point = ("pwrite64", self.seed.randint(1, WRITE_AT_MOST))
        row["points"] = [f"{point[0]} {point[1]}"]
        with traced(self.server.process.pid, kill_at=point):
            ending = [asyncio.create_task(leader.end(), name="end") for leader in leaders]
            deadline = time.monotonic() + WRITTEN_WITHIN_S
            while self.server.process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            if self.server.process.poll() is None:
                row["missed"] = 1
                await asyncio.to_thread(self.server.kill)
            await asyncio.gather(*ending, return_exceptions=True)

    def _look_at_finalised(self) -> None:
        """With the server dead: nothing that had its manifest may have changed since."""
        for directory, before in self.finalised.items():
            self.finalised_lost += [
                f"{directory.name}: {name}" for name in crash_proof.changed(before, directory)
            ]
        self.finalised = {
            path.parent: crash_proof.fingerprint(path.parent)
            for path in self.server.var_dir.glob(f"recordings/*/{manifest.FILE_NAME}")
        }

    async def verdict(self) -> Row:
        """Wait until nothing is under way any more, and count."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while (unsettled := self._unsettled()) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            print(unsettled, flush=True)
        self._look_at_finalised()
        chain = Chain(self.server.var_dir / "recordings").verify()
        cases = Counter(row[0] for row in self._ask("SELECT session_id FROM cases"))
        sessions = self.sessions | {row[0] for row in self._ask("SELECT id FROM sessions")}
        return {
            "phase": "verdict",
            "kills": 0,
            "sessions": sum(cases[session] == 1 for session in sessions),
            "recordings": len(self.finalised),
            "cases_missing": [session for session in sessions if not cases[session]],
            "cases_doubled": [session for session, count in cases.items() if count > 1],
            "unplayable": self._unplayable(),
            "finalised_lost": self.finalised_lost,
            "trouble": [*unsettled, *(problem.words for problem in chain.problems)],
        }

    def _unsettled(self) -> list[str]:
        """What is still on its way, in words."""
        sessions = self._ask("SELECT id, state FROM sessions WHERE state != 'ended'")
        recordings = self._ask(
            "SELECT id, state FROM recordings WHERE state NOT IN ('ready', 'failed')"
        )
        events = self._ask("SELECT id, kind FROM events WHERE handled_at IS NULL")
        return [f"{name} is {state}" for name, state in (*sessions, *recordings, *events)]

    def _unplayable(self) -> list[str]:
        """Sessions that do not have a file with sound of each of their two parties."""
        heard = Counter(
            row[0]
            for row in self._ask(
                "SELECT DISTINCT r.session_id, f.participant_id FROM recordings r"
                " JOIN recording_files f ON f.recording_id = r.id"
                " WHERE r.state = 'ready' AND f.kind = 'party' AND f.has_audio"
            )
        )
        states = dict(self._ask("SELECT session_id, state || coalesce(error, '') FROM recordings"))
        return [
            f"{session}: {heard[session]} parties are heard, {states.get(session)}"
            for session in self.sessions
            if heard[session] != 2
        ]

    def _ask(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.server.var_dir / "reception.db")) as database:
            return database.execute(query).fetchall()
