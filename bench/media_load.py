"""What does a recorded two-party call cost the server, and how late are its packets?

The server (MediaNode with the real Recorder) is a child process, and so are the callers
(bench/media_caller.py). CPU is the server process's own, over the measured window, by its CPU
clock; delay is what the callers see, from just before `send` to just after `recv`.

    run(calls, seconds) -> {"calls", "cpu_s_per_call_min", "packets_in", "packets_out", "lost",
                            "delay_ms": {"p50", "p99"}, …}
"""

import gc
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, Self

from bench.circumstances import circumstances
from bench.clip import make_clip
from bench.media_caller import messages, replying
from core.clock import SystemClock
from core.ids import ParticipantId, RoomId, SessionId, new_id
from core.log import configure_logging
from media import loop
from media.node import MediaNode, MediaRoom, be_prompt
from media.recorder import Recorder
from media.tracks import TrackName

CALLERS_PER_LOAD_PROCESS: Final = 40
WARM_UP_S: Final = 1.0
DRAIN_S: Final = 2.0
ENDED_EARLY: Final = "A child process of the benchmark has ended early; its words are on stderr."
HOUSE: Final = Path(__file__).resolve().parent.parent


class Gateway(Protocol):
    """A relay under test, in a process of its own."""

    name: str
    pid: int

    def connect(self, loads: Sequence["Load"]) -> None:
        """Bring every caller of every load process into its room, and start recording."""

    def count(self) -> dict[str, Any]:
        """What the server says of itself; ours only."""

    def hang_up(self) -> "Recipe":
        """End the calls and the recordings; how to make them playable."""

    def close(self) -> None:
        """End the process."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How recordings become one playable file for each party: commands to run in turn, and
    recordings that are finished as the house does it, in children of one warm parent.

    Their files appear in `folder`, named `party-…`; `parties` is how many there must be.
    """

    folder: Path
    parties: int
    commands: Sequence[Sequence[str]] = ()
    recordings: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """A process of callers, and how many there are in it: whole rooms only."""

    child: "Child"
    callers: int


def run(calls: int, seconds: int) -> dict[str, Any]:
    """Measure `calls` two-party calls through our relay for `seconds`, after a second of warm-up.

    Raises RuntimeError if a child fails; its own words are on stderr.
    """
    with clip_file() as clip, Reception(rooms=calls) as gateway:
        return measure(gateway, clip, rooms=calls, seconds=seconds)


@contextmanager
def clip_file() -> Iterator[Path]:
    """The clip that all callers send, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="reception-clip-") as directory:
        path = Path(directory) / "clip.mkv"
        make_clip(path)
        yield path


def measure(
    gateway: Gateway,
    clip: Path,
    *,
    rooms: int,
    seconds: float,
    parties: int = 2,
    core: int | None = None,
    callers_per_process: int = CALLERS_PER_LOAD_PROCESS,
) -> dict[str, Any]:
    """Drive `rooms` rooms of `parties` through a gateway that has just been started.

    `core`: where the callers must run; None is anywhere. The gateway is left with its calls up.
    Raises RuntimeError if a process of the callers fails.
    """
    with ExitStack() as stack:
        loads = callers(
            stack, clip, rooms=rooms, parties=parties, core=core, per_process=callers_per_process
        )
        idle_kib = resident_kib(gateway.pid)
        gateway.connect(loads)
        row = drive(gateway, loads, rooms=rooms, parties=parties, seconds=seconds)
        busy_kib = resident_kib(gateway.pid)
    return {
        "server": gateway.name,
        **row,
        "server_rss_mib": busy_kib // 1024,
        "rss_mib_per_call": round((busy_kib - idle_kib) / 1024 / rooms, 2),
        **gateway.count(),
        **circumstances(),
    }


def callers(
    stack: ExitStack,
    clip: Path,
    *,
    rooms: int,
    parties: int = 2,
    core: int | None = None,
    per_process: int = CALLERS_PER_LOAD_PROCESS,
) -> list["Load"]:
    """Processes of callers for so many rooms, which end with `stack`; they know no gateway yet."""
    at_most = max(1, per_process // parties)
    shares = [min(at_most, rooms - at) for at in range(0, rooms, at_most)]
    return [
        Load(
            stack.enter_context(
                Child("bench.media_caller", str(clip), str(parties - 1), core=core)
            ),
            share * parties,
        )
        for share in shares
    ]


def drive(
    gateway: Gateway,
    loads: Sequence["Load"],
    *,
    rooms: int,
    parties: int = 2,
    seconds: float,
    warm_up_s: float = WARM_UP_S,
) -> dict[str, Any]:
    """Let callers who are connected talk for `seconds`, after the warm-up.

    May be repeated: cost and delay are those of these `seconds`, loss is that of the calls so far.
    """
    for load in loads:
        load.child.tell("drive", warm_up_s=warm_up_s, seconds=seconds, drain_s=DRAIN_S)
    time.sleep(warm_up_s)
    stolen_before_s, cpu_before_s = stolen_s(), cpu_s(gateway.pid)
    waited_before_s = waited_s(gateway.pid)
    time.sleep(seconds)
    stolen_after_s, cpu_after_s = stolen_s(), cpu_s(gateway.pid)
    waited_after_s = waited_s(gateway.pid)
    results = [load.child.hear() for load in loads]
    return {
        "calls": rooms,
        "parties": parties,
        **_summary(rooms * parties / 2, seconds, cpu_after_s - cpu_before_s, results),
        "waited_percent": round(100 * (waited_after_s - waited_before_s) / seconds, 2),
        "stolen_percent": round(100 * (stolen_after_s - stolen_before_s) / seconds, 2),
        "dropped_unread": {
            "server": socket_drops(gateway.pid),
            "callers": sum(socket_drops(load.child.pid) for load in loads),
        },
    }


def _summary(
    pairs: float, seconds: float, server_cpu_s: float, results: list[dict[str, Any]]
) -> dict[str, Any]:
    delays = sorted(delay for result in results for delay in result["delays_us"])
    sent = sum(result["sent_in_window"] for result in results)
    return {
        "cpu_s_per_call_min": round(server_cpu_s / (pairs * seconds / 60), 4),
        "packets_in": sent,
        "packets_out": len(delays),
        "lost": sum(result["expected"] - result["received"] for result in results),
        "unsent": sum(result["unsent"] for result in results),
        "delay_ms": {"p50": _quantile_ms(delays, 0.50), "p99": _quantile_ms(delays, 0.99)},
        "us_cpu_per_packet": round(server_cpu_s * 1e6 / sent, 2) if sent else None,
        "us_cpu_per_copy": round(server_cpu_s * 1e6 / len(delays), 2) if delays else None,
        "core_percent": round(100 * server_cpu_s / seconds, 1),
        "srtp_profile": "/".join(
            sorted({profile for result in results for profile in result["srtp_profiles"]})
        ),
        "generator": {
            "core_percent": [round(100 * result["cpu_s"] / seconds, 1) for result in results],
            "late_ms_p99": max(result["late_us_p99"] for result in results) / 1000,
        },
        "recorded": True,
        "seconds": seconds,
    }


def in_words(row: dict[str, Any]) -> str:
    """A row in a line, for people."""
    delay_ms = row["delay_ms"]
    late = (
        "nothing arrived"
        if delay_ms["p50"] is None
        else f"delay p50 {delay_ms['p50']:.2f} ms, p99 {delay_ms['p99']:.2f} ms"
    )
    return (
        f"{row['server']}, {row['calls']} calls: {row['cpu_s_per_call_min']:.2f} CPU-s per "
        f"call-minute, {row['lost']} packets lost, {late}"
    )


def _quantile_ms(ordered_us: list[int], fraction: float) -> float | None:
    if not ordered_us:
        return None
    at = min(len(ordered_us) - 1, math.ceil(fraction * len(ordered_us)) - 1)
    return round(ordered_us[at] / 1000, 3)


def cpu_s(pid: int) -> float:
    """User and system time of another process and all its threads, to the nanosecond.

    Linux numbers a process's CPU clock after its pid: (~pid << 3) | 2, as clock_getcpuclockid(3)
    does; /proc counts in hundredths of a second, which is a tenth of what one call costs.
    """
    return time.clock_gettime((~pid << 3) | 2)


def waited_s(pid: int) -> float:
    """How long another process's threads were ready and had no processor; 0 if nobody counts it."""
    waited_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has ended, a kernel that does not say
            waited_ns += int((task / "schedstat").read_text(encoding="ascii").split()[1])
    return waited_ns / 1e9


def stolen_s() -> float:
    """How long this machine's processors wanted to run and their host ran something else."""
    cpu = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    return int(cpu[8]) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """The resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) if found else 0


def socket_drops(pid: int) -> int:
    """Datagrams that the kernel dropped because this process read its sockets too late.

    Says whose the loss is: a starved server's, or that of callers who were starved themselves.
    """
    mine = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed since it was listed
            mine.add(os.readlink(link))
    dropped = 0
    for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
        *_, inode, _, _, drops = line.split()
        if f"socket:[{inode}]" in mine:
            dropped += int(drops)
    return dropped


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Children started in this block, and all their threads, run on that core only."""
    if core is None:
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


class Child:
    """A child process that is a module of ours; one JSON line there, one back."""

    def __init__(self, module: str, *arguments: str, core: int | None = None) -> None:
        with on_core(core):
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=HOUSE,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.pid = self._process.pid

    def tell(self, verb: str, **values: object) -> None:
        try:
            self._stdin.write(json.dumps({"verb": verb, **values}) + "\n")
            self._stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(ENDED_EARLY) from None

    def hear(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(ENDED_EARLY)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, verb: str, **values: object) -> dict[str, Any]:
        self.tell(verb, **values)
        return self.hear()

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- Our relay -----------------------------------------------------------------------------------


class Reception:
    """Our relay as a gateway under test; `rooms` rooms of `parties`, each recorded apart."""

    name = "reception"

    def __init__(self, rooms: int, parties: int = 2, core: int | None = None) -> None:
        self._rooms = rooms
        self._parties = parties
        self.directory = Path(tempfile.mkdtemp(prefix="reception-bench-"))
        self._child = Child("bench.media_load", "server", str(self.directory), core=core)
        self.pid = self._child.pid
        try:
            self._child.ask("count")  # it runs
        except BaseException:
            self.close()
            raise

    def connect(self, loads: Sequence[Load]) -> None:
        offers = self._child.ask("open", rooms=self._rooms, parties=self._parties)["offers"]
        first = 0
        for load in loads:
            answers = load.child.ask("whole", offers=offers[first : first + load.callers])["sdps"]
            self._child.ask("answer", first=first, answers=answers)
            first += load.callers
        for load in loads:
            load.child.ask("connected")
        self._child.ask("live")

    def count(self) -> dict[str, Any]:
        return self._child.ask("count")

    def addresses(self) -> int:
        """How many addresses the node takes media from: proven, and not dropped since."""
        return int(self._child.ask("addresses")["addresses"])

    def hang_up(self) -> Recipe:
        self._child.ask("hang_up")
        recordings = [self.directory / str(number) for number in range(self._rooms)]
        return Recipe(self.directory, self._rooms * self._parties, recordings=recordings)

    def clear(self) -> None:
        """Throw away the recordings of the calls that were hung up."""
        for recording in self.directory.iterdir():
            shutil.rmtree(recording, ignore_errors=True)

    def close(self) -> None:
        self._child.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server:
    """The server's process. Every call is a room, live and recorded into its own directory."""

    def __init__(self, node: MediaNode, directory: Path) -> None:
        self._node = node
        self._directory = directory
        self._rooms: list[MediaRoom] = []
        self._recorders: list[Recorder] = []
        self._recorded = 0  # in earlier rounds

    async def open(self, rooms: int, parties: int) -> dict[str, Any]:
        offers = []
        for number in range(rooms):
            room = self._node.open_room(RoomId(f"call{number}"))
            self._rooms.append(room)
            peers = [
                room.add_peer(
                    ParticipantId(new_id()),
                    label=f"party {place}",
                    role="official" if place else "petitioner",
                    publishes=[TrackName.CAMERA, TrackName.MICROPHONE],
                    on_event=lambda event: None,
                )
                for place in range(parties)
            ]
            offers += [peer.offer().sdp for peer in peers]
        return {"offers": offers}

    async def answer(self, first: int, answers: list[str]) -> dict[str, Any]:
        peers = [peer for room in self._rooms for peer in room.peers()]
        for peer, sdp in zip(peers[first : first + len(answers)], answers, strict=True):
            peer.answer(1, sdp)
        return {}

    async def live(self) -> dict[str, Any]:
        for number, room in enumerate(self._rooms, self._recorded):
            recorder = Recorder.open(
                self._directory / str(number),
                session_id=SessionId(new_id()),
                started_at=datetime.now(UTC),
                clock=SystemClock(),
                reserve_bytes=0,
            )
            self._recorders.append(recorder)
            room.go_live(recorder)
        gc.collect()
        return {}

    async def count(self) -> dict[str, Any]:
        peers = [peer for room in self._rooms for peer in room.peers()]
        rejected = sum(peer.stats().rejected for peer in peers)
        counters = {**self._node.counters(), "rejected": rejected}
        return {"dropped": {k: v for k, v in counters.items() if v}}

    async def addresses(self) -> dict[str, Any]:
        return {"addresses": len(self._node._book.by_address)}

    async def hang_up(self) -> dict[str, Any]:
        for room in self._rooms:
            await room.end()
        self._rooms.clear()
        for recorder in self._recorders:
            await recorder.close()
        self._recorded += len(self._recorders)
        self._recorders.clear()
        return {}


async def _serve(directory: Path) -> None:
    reply = replying()
    configure_logging(level="WARNING")
    node = await MediaNode.start(host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock())
    server = _Server(node, directory)
    be_prompt()
    try:
        async for message in messages():
            verb = message.pop("verb")
            reply(await getattr(server, verb)(**message))
    finally:
        await server.hang_up()
        await node.aclose()


if __name__ == "__main__":
    if sys.argv[1] == "server":
        loop.run(_serve(Path(sys.argv[2])))
    else:
        print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
