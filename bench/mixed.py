"""Do calls stay calm while the house around them works?

Ten recorded calls, and at the same time fifty requests a second to the API and a recording that is
muxed, checked and composed. Once with everything in one process (the embedded default), once with
the calls in a room process apart. What late callers saw is told and measured again, `TRIALS` times
at most. Then one room process and two: the second carries as much again.

    run(calls, seconds) -> {"rows": [{"how", "lost", "delay_ms", "api", "finished", …}], "scale", …}

`python -m bench.mixed house DIRECTORY` is the process that is both; it takes the verbs of
bench/media_load.py's server and `finish`. `python -m bench.mixed desk URL PASSWORD SECONDS` asks.
"""

import asyncio
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import event

from app.rehearsal import ask
from app.seed import found
from app.serve import make_server
from bench.circumstances import circumstances
from bench.media_caller import messages, replying
from bench.media_load import Child, Load, Reception, _Server, callers, clip_file, drive, measure
from bench.recorded import STARTED, make_recording
from core.clock import SystemClock
from core.edge import Services
from core.ids import RecordingId, new_id
from core.log import configure_logging
from core.settings import Settings
from media import loop
from media.model import Recording, RecordingState
from media.node import MediaNode, be_prompt

REQUESTS_PER_S: Final = 50
RECORDING_S: Final = 180
"""Long enough that its picture is still being composed when the calls have been measured."""
TARGET_P99_MS: Final = {"together": 20.0, "apart": 5.0}
TARGET_SCALE: Final = 1.8
TRIALS: Final = 3
CYCLES: Final = 8
CORES: Final = (0, 1)
ROUNDS: Final = ((0,), CORES, (1,))
"""Who talks in a cycle, by core."""
ROUND_WARM_UP_S: Final = 0.5
USERNAME: Final = "xinfang"
QUESTIONS: Final = ("/api/me", "/api/org-units", "/api/public/days", "/api/cases", "/readyz")
WARM_UP_S: Final = 4
ANSWER_WITHIN_S: Final = 5.0

Row = dict[str, Any]


def run(calls: int, seconds: int) -> dict[str, Any]:
    """Measure `calls` calls for `seconds`, each way. Raises RuntimeError if a child fails."""
    with clip_file() as clip:
        beside = [row for how in TARGET_P99_MS for row in _judged(how, clip, calls, seconds)]
        rounds = _rooms_apart(clip, calls, max(2.0, seconds / 4))
    scale = scale_of(rounds)
    return {
        "rows": beside + rounds,
        "scale": scale,
        "scale_met": scale >= TARGET_SCALE and not any(row["lost"] for row in rounds),
        "met": is_met(beside),
    }


def is_met(beside: Sequence[Row]) -> bool:
    """Whether nothing was lost, ever, and each way was in time when its callers were."""
    last = {row["how"]: row for row in beside}
    return not any(row["lost"] for row in beside) and all(
        not row["callers_late"] and row["delay_ms"]["p99"] < TARGET_P99_MS[how]
        for how, row in last.items()
    )


def are_late(row: Row) -> bool:
    """Whether the callers were too late themselves to tell of a delay that is asked for."""
    late: bool = row["generator"]["late_ms_p99"] >= TARGET_P99_MS[row["how"]]
    return late


def scale_of(rounds: Sequence[Row]) -> float:
    """How much more two room processes carry than one, in rounds of one and of two.

    Cores are few and shared with the callers, so what a process could carry is told by what a
    packet costs it: two carry twice one, less what each packet has become dearer. By medians, for
    what else a machine does makes single rounds a third dearer, and never one cheaper; and each
    core's own, for it falls on one more than on the other.
    """

    def cost_us(processes: int, core: int) -> float:
        rows = [row for row in rounds if core in row["on"] and len(row["on"]) == processes]
        costs_us: list[float] = [row["us_cpu_per_packet"][row["on"].index(core)] for row in rows]
        return statistics.median(costs_us)

    alone_us, together_us = (
        sum(cost_us(processes, core) for core in CORES) for processes in (1, len(CORES))
    )
    return round(2 * alone_us / together_us, 2)


def in_words(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    late = ", the callers themselves were late: again" if row.get("callers_late") else ""
    return f"{row['how']}: {row['lost']} lost, p99 {row['delay_ms']['p99']:.2f} ms{late}"


def _judged(how: str, clip: Path, calls: int, seconds: int) -> list[Row]:
    """One measurement, or as many as it takes until callers are in time, `TRIALS` at most."""
    rows: list[Row] = []
    while len(rows) < TRIALS and not (rows and not rows[-1]["callers_late"]):
        row = _beside(how, clip, calls, seconds)
        rows.append({**row, "callers_late": are_late(row)})
    return rows


def _beside(how: str, clip: Path, calls: int, seconds: int) -> dict[str, Any]:
    """Calls while the house works: in the same process, or in one beside it."""
    with ExitStack() as stack:
        house = stack.enter_context(_House(calls, seconds))
        gateway = house if how == "together" else stack.enter_context(Reception(calls))
        if how == "apart":
            house.work()
        row = measure(gateway, clip, rooms=calls, seconds=seconds)
        return {"how": how, **row, "server": "reception", **house.worked()}


def _rooms_apart(clip: Path, calls: int, seconds: float) -> list[Row]:
    """`calls` calls in each of two room processes, which talk in turn and together.

    A process costs up to a tenth more or less than the next one that does the same, and a core is
    not quite like another; so the same two are looked at alone and together, one short round after
    another. Each has a core, which it shares with its own callers and nobody else's.
    """
    with ExitStack() as stack, ThreadPoolExecutor(len(CORES)) as threads:
        gateways = [stack.enter_context(Reception(calls, core=core)) for core in CORES]
        loads = [callers(stack, clip, rooms=calls, core=core) for core in CORES]
        for gateway, its in zip(gateways, loads, strict=True):
            gateway.connect(its)

        def talk(core: int) -> Row:
            return drive(
                gateways[core], loads[core], rooms=calls, seconds=seconds,
                warm_up_s=ROUND_WARM_UP_S,
            )  # fmt: skip

        return [_together(who, list(threads.map(talk, who))) for who in ROUNDS * CYCLES]


def _together(cores: Sequence[int], each: Sequence[Row]) -> Row:
    """Rows of processes that ran at the same time, as one."""
    return {
        "how": f"{len(each)} room process{'es' if len(each) > 1 else ''}",
        "on": list(cores),
        "calls": sum(row["calls"] for row in each),
        "packets_in": sum(row["packets_in"] for row in each),
        "packets_out": sum(row["packets_out"] for row in each),
        "lost": sum(row["lost"] for row in each),
        "us_cpu_per_packet": [row["us_cpu_per_packet"] for row in each],
        "delay_ms": {"p99": max(row["delay_ms"]["p99"] for row in each)},
        "waited_percent": [row["waited_percent"] for row in each],
        "stolen_percent": max(row["stolen_percent"] for row in each),
        **circumstances(),
    }


class _House(Reception):
    """The whole house as the gateway under test: `connect` also sets it to work."""

    def __init__(self, calls: int, seconds: int) -> None:
        self._rooms = calls
        self._parties = 2
        self._seconds = seconds
        self._desk: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="reception-mixed-"))
        self._child = Child("bench.mixed", "house", str(self.directory))
        self._about = self._child.ask("about")
        self.pid = self._child.pid

    def connect(self, loads: Sequence[Load]) -> None:
        super().connect(loads)
        self.work()

    def work(self) -> None:
        """Begin to finish a recording, and to ask the API."""
        self._child.ask("finish")
        words = [self._about["url"], self._about["password"], str(self._seconds + WARM_UP_S)]
        self._desk = subprocess.Popen(
            [sys.executable, "-m", "bench.mixed", "desk", *words], stdout=subprocess.PIPE
        )

    def worked(self) -> dict[str, Any]:
        """What the API's answers were like, and how far the recording has come."""
        assert self._desk is not None, "nobody has set it to work"
        told, _ = self._desk.communicate(timeout=self._seconds + 120)
        return {"api": json.loads(told), **self._child.ask("finished")}

    def close(self) -> None:
        if self._desk is not None and self._desk.poll() is None:
            self._desk.kill()
            self._desk.wait()
        self._child.close()
        shutil.rmtree(self.directory, ignore_errors=True)


# -- The house's process -------------------------------------------------------------------------


class _Working(_Server):
    """The verbs of the house: calls, and the work beside them."""

    def __init__(
        self, node: MediaNode, directory: Path, application: Any, about: dict[str, Any]
    ) -> None:
        super().__init__(node, directory / "calls")
        self._application = application  # typed as any ASGI application
        self._services: Services = application.state.services
        self._about = about
        self._recording_id = RecordingId(new_id())

    async def about(self) -> dict[str, Any]:
        return self._about

    async def finish(self) -> dict[str, Any]:
        """Start the durable work on the recording that was made before."""
        await self._application.state.retry_recording(self._recording_id)
        return {}

    async def finished(self) -> dict[str, Any]:
        async with self._services.database.reading() as tx:
            recording = await tx.get(Recording, self._recording_id)
            assert recording is not None
            stage = recording.stage or recording.state
            return {"finishing": {"stage": stage, "percent": recording.progress_percent}}

    async def make(self) -> None:
        """A recording that waits to be finished."""
        directory = self._services.settings.recordings_dir / self._recording_id
        await asyncio.to_thread(make_recording, directory, RECORDING_S)
        async with self._services.database.transaction() as tx:
            tx.add(
                Recording(
                    id=self._recording_id, session_id=new_id(), started_at=STARTED,
                    state=RecordingState.CAPTURED,
                )
            )  # fmt: skip


async def _serve(directory: Path) -> None:
    reply = replying()
    configure_logging(level="WARNING")
    settings = Settings(
        var_dir=directory / "var", port=_free_port(), media_host="127.0.0.1", media_port=0
    )
    be_prompt()
    founding = await found(settings)
    assert founding is not None, "a fresh directory"
    async with _served(settings) as application:
        node = await MediaNode.start(
            host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock()
        )
        about = {"url": f"http://127.0.0.1:{settings.port}", "password": founding.password}
        server = _Working(node, directory, application, about)
        await server.make()
        try:
            async for message in messages():
                verb = message.pop("verb")
                reply(await getattr(server, verb)(**message))
        finally:
            await server.hang_up()
            await node.aclose()


@asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[Any]:
    """The real application in this process, both roles; its ASGI object."""
    started = asyncio.Event()
    server = make_server(settings, on_started=started.set)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    application: Any = server.config.app

    @event.listens_for(application.state.services.database.engine.sync_engine, "connect")
    def _alone(connection: Any, _record: Any) -> None:  # the DBAPI's connections have no type
        # The recording stands here without a session.
        connection.execute("PRAGMA foreign_keys=OFF")

    task = asyncio.create_task(server.serve(), name="serve")
    try:
        await asyncio.wait_for(started.wait(), 120)
        yield application
    finally:
        server.should_exit = True
        await task


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- The desk's process --------------------------------------------------------------------------


async def _desk(url: str, password: str, seconds: float) -> dict[str, Any]:
    """Ask at a steady rate, whether or not the answers keep up."""
    took_ms: list[float] = []
    failures = 0

    async def question(client: httpx.AsyncClient, path: str) -> None:
        nonlocal failures
        began = time.perf_counter()
        try:
            failures += (await client.get(path)).is_error
        except httpx.TransportError:
            failures += 1
        took_ms.append((time.perf_counter() - began) * 1000)

    async with (
        httpx.AsyncClient(base_url=url, timeout=ANSWER_WITHIN_S) as client,
        asyncio.TaskGroup() as asked,
    ):
        sign_in = {"username": USERNAME, "password": password}
        await ask(client, "POST", "/api/sign-in", json=sign_in)
        begin, count = time.monotonic(), int(seconds * REQUESTS_PER_S)
        for number in range(count):
            asked.create_task(question(client, QUESTIONS[number % len(QUESTIONS)]))
            due = begin + (number + 1) / REQUESTS_PER_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    took_ms.sort()
    return {
        "requests": count,
        "failures": failures,
        "p50_ms": round(took_ms[count // 2], 1),
        "p99_ms": round(took_ms[int(count * 0.99)], 1),
    }


if __name__ == "__main__":
    if sys.argv[1] == "house":
        loop.run(_serve(Path(sys.argv[2])))
    else:
        address, secret, length_s = sys.argv[2:]
        print(json.dumps(asyncio.run(_desk(address, secret, float(length_s)))))
