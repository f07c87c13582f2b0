"""Question: does a call outlive its transports, and how soon is media back?

Real kiosk pages in Chromium, each behind its own line and NAT (lanes.py), talk with an official's
pages through a real server. Lines are cut, NATs rebound, pages reloaded, browsers and the server
killed. What is measured is what a person would notice: the last of four streams (sound and picture,
both ways) to arrive again after the fault is over. Each row says what proves that the fault
happened. Afterwards the journals are read: every gap has to stand there, where it was.

    run(plan) -> rows {"kind", "outage_s", "back_s", "noticed_s", "proof", …}, the summary last
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Final

import httpx
from playwright.async_api import BrowserContext, Page, Playwright, async_playwright

from app.rehearsal import Desk, ask, book
from app.seed import found
from app.seed_facts import PAST_VISITS
from bench import aftermath, lanes
from bench.aftermath import Disturbance, Verdict
from bench.circumstances import circumstances
from bench.lanes import MEDIA_PORT, SERVER_ADDRESS, SERVER_PORT, Lane
from core.clock import LOCAL_ZONE
from core.settings import Settings
from media.journal import open_journal
from tests.support.browser import CHROMIUM, person
from tests.support.server import ServerProcess

KINDS: Final = ("link", "reload", "kill", "nat", "socket", "clock", "server")
OUTAGES_S: Final = (5, 10, 20, 30, 120)
URL: Final = f"http://{SERVER_ADDRESS}:{SERVER_PORT}"
WATCH: Final = Path(__file__).with_name("watch.js")
WALL_CLOCK: Final = Path(__file__).with_name("wall_clock.c")
CLOCK_JUMP_S: Final = 3600
WHOLE_HOUSE: Final = ("clock", "server")
"""Kinds that befall all lanes at once."""
VISIT: Final = PAST_VISITS[0]
PATIENCE_S: Final = 30.0
REST_WITHIN_S: Final = 90.0
SETTLED_S: Final = 4.0
"""All four streams flow this long before the next fault: congestion control has found its rate."""
SOCKET_CUT_S: Final = 3.0
NOTICE_S: Final = 8.0
FLAGS: Final = (
    f"--unsafely-treat-insecure-origin-as-secure={URL}",
    # Small pictures, seldom: the campaign measures lines, not this machine's encoders.
    "--use-fake-device-for-media-stream=fps=10",
)
STREAMS: Final = ("sound_up_s", "picture_up_s", "sound_down_s", "picture_down_s")


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign: `count` rounds of every kind (and every length of outage) on each lane."""

    count: int
    lanes: int
    kinds: tuple[str, ...]
    outages_s: tuple[int, ...]


def run(plan: Plan) -> Iterator[dict[str, Any]]:
    """Rows as they come, the summary last. Needs root, Chromium and the tools of lanes.py."""
    if missing := lanes.missing_tools():
        raise RuntimeError(f"the outage drill needs {', '.join(missing)}")
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


class LabServer(ServerProcess):
    """The real server on the lab's own address, with a wall clock that can be moved."""

    @property
    def url(self) -> str:
        return URL

    def lend_clock(self, folder: Path) -> bool:
        """Have the server read its wall clock through us; False if this machine cannot compile."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            return False
        library, offset = folder / "wall_clock.so", folder / "wall_clock"
        offset.write_bytes(bytes(8))
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(WALL_CLOCK)], check=True
        )
        self.extra |= {"LD_PRELOAD": str(library), "WALL_CLOCK": str(offset)}
        return True

    def move_clock(self, offset_s: int) -> None:
        with Path(self.extra["WALL_CLOCK"]).open("r+b") as file:
            file.write(offset_s.to_bytes(8, "little", signed=True))


@dataclass(slots=True)
class Call:
    """One talk: a kiosk on its lane and the official's page beside the server."""

    lane: Lane
    appointment_id: str
    office: Page
    open_kiosk: Callable[[], Awaitable[Page]]
    kiosk: Page | None = None
    session_id: str = ""
    faults: list[Disturbance] = field(default_factory=list)


@dataclass(slots=True)
class Row:
    kind: str
    lane: int
    outage_s: float
    proof: str = ""
    noticed_s: float | None = None
    ready_s: float | None = None
    """Of a server that was killed: when the next one answered. Mostly this machine's own speed."""
    sound_up_s: float | None = None
    picture_up_s: float | None = None
    sound_down_s: float | None = None
    picture_down_s: float | None = None
    legs: tuple[int, int] = (0, 0)
    trouble: str = ""

    @property
    def back_s(self) -> float | None:
        """When the last of the four streams was there again."""
        times = [getattr(self, name) for name in STREAMS]
        return None if None in times else max(times)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "back_s": self.back_s}


# ── the stage ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Stage:
    server: LabServer
    calls: list[Call]


@asynccontextmanager
async def _stage(plan: Plan, folder: Path) -> AsyncIterator["_Stage"]:
    """A founded prefecture, its server, and one live call per lane."""
    async with AsyncExitStack() as stack:
        var_dir = folder / "var"
        founding = await found(Settings(var_dir=var_dir))
        assert founding is not None
        server = LabServer(
            var_dir,
            {
                "RECEPTION_HOST": SERVER_ADDRESS, "RECEPTION_MEDIA_HOST": SERVER_ADDRESS,
                "RECEPTION_MEDIA_ADDRESSES": f'["{SERVER_ADDRESS}"]', "RECEPTION_COUNTDOWN_S": "1",
                "RECEPTION_LOG_LEVEL": "INFO",
            },
            port=SERVER_PORT, media_port=MEDIA_PORT,
        )  # fmt: skip
        stack.callback(server.stop)
        if "clock" in plan.kinds and not server.lend_clock(folder):
            raise RuntimeError(
                "moving the wall clock needs a C compiler; leave out the kind: clock"
            )
        await asyncio.to_thread(server.start)
        desk = await stack.enter_async_context(Desk(URL, founding.password))
        hall = await stack.enter_async_context(httpx.AsyncClient(base_url=URL, timeout=30))
        await ask(hall, "POST", "/api/kiosk/enrol", json={
            "code": founding.kiosk_codes[VISIT.county]})  # fmt: skip
        day_id = await desk.publish("lingdao", *_coming_hours(), topics=["草场"])
        official = await desk.as_("lingdao")
        driver = await stack.enter_async_context(async_playwright())
        office = await stack.enter_async_context(
            person(driver, folder / "office", flags=FLAGS, size=(1280, 720))
        )
        await office.add_init_script(path=WATCH)
        await office.add_cookies(_cookies(official))
        calls = []
        for number in range(plan.lanes):
            lane = Lane(number)
            lane.build()
            appointment = await book(hall, day_id, VISIT)
            await _arrive(hall, appointment)
            opener = _kiosk_opener(
                driver, stack, folder, lane,
                appointment_id=appointment["id"], cookies=_cookies(hall),
            )  # fmt: skip
            page = await office.new_page()
            call = Call(lane, appointment["id"], page, opener)
            await _begin(call)
            seen = await ask(official, "GET", f"/api/appointments/{appointment['id']}")
            call.session_id = seen["session_id"]
            calls.append(call)
        yield _Stage(server, calls)


def _coming_hours() -> tuple[Any, Any, Any]:
    """From within minutes to the end of the local day, at most three hours."""
    now = datetime.now(LOCAL_ZONE) + timedelta(minutes=4)
    start = (now + timedelta(minutes=5 - now.minute % 5)).replace(second=0, microsecond=0)
    last = start.replace(hour=23, minute=59)
    return start.date(), start.time(), min(start + timedelta(hours=3), last).time()


async def _arrive(hall: httpx.AsyncClient, appointment: dict[str, Any]) -> None:
    number = {"number": appointment["number"]}
    visit = await ask(hall, "POST", "/api/kiosk/check-in", json=number)
    path = f"/api/appointments/{appointment['id']}"
    notice = {"version": visit["notice_version"], "language": "zh-CN"}
    await ask(hall, "POST", f"{path}/notice", json=notice)
    check = {"picture": True, "bar_moves": True, "heard_self": True}
    await ask(hall, "POST", f"{path}/device-check", json=check)


def _cookies(client: httpx.AsyncClient) -> list[Any]:  # playwright's own TypedDict
    return [
        {"name": cookie.name, "value": cookie.value or "", "url": URL}
        for cookie in client.cookies.jar
    ]


def _kiosk_opener(
    driver: Playwright, stack: AsyncExitStack, folder: Path, lane: Lane, *, appointment_id: str,
    cookies: list[Any],
) -> Callable[[], Awaitable[Page]]:  # fmt: skip
    """How to start this kiosk's browser, the first time and after each time it is killed."""
    executable = lane.browser(folder, CHROMIUM)
    profiles = iter(range(1_000_000))

    async def start() -> Page:
        context: BrowserContext = await stack.enter_async_context(
            person(
                driver, folder / f"kiosk-{lane.number}-{next(profiles)}", flags=FLAGS,
                size=(540, 960), executable=str(executable),
            )
        )  # fmt: skip
        await context.add_init_script(path=WATCH)
        await context.add_init_script(
            f"sessionStorage.setItem('reception.visit', '{appointment_id}')"
        )
        await context.add_cookies(cookies)
        page = context.pages[0]
        await page.goto(f"{URL}/kiosk/call")
        return page

    return start


async def _begin(call: Call) -> None:
    """Both come in, the official admits; until all four streams flow."""
    call.kiosk = await call.open_kiosk()
    await call.office.goto(f"{URL}/office/call/{call.appointment_id}")
    admit = call.office.get_by_role("button", name="接通", exact=True)
    deadline = time.monotonic() + PATIENCE_S
    while not await admit.is_enabled():
        if time.monotonic() > deadline:
            raise RuntimeError("the kiosk never became ready")
        await asyncio.sleep(0.2)
    await admit.click()
    await _settle(call)


# ── watching ─────────────────────────────────────────────────────────────────────────────────────


async def _first_after(page: Page, stream: str, since_s: float) -> float | None:
    """How long after `since_s` (Unix time) this page got something of `stream`; None if not yet."""
    at_ms: float | None = await page.evaluate(
        "([stream, since]) => window.drill?.[stream].find((at) => at > since) ?? null",
        [stream, since_s * 1000],
    )
    return None if at_ms is None else round(at_ms / 1000 - since_s, 3)


async def _longest_gap(page: Page, stream: str, since_s: float) -> float:
    """The longest time without `stream` since then, an unfinished one included."""
    gap_ms: float = await page.evaluate(
        """([stream, since]) => {
          const times = [since, ...window.drill[stream].filter((at) => at > since), Date.now()];
          return Math.max(...times.slice(1).map((at, i) => at - times[i])); }""",
        [stream, since_s * 1000],
    )
    return round(gap_ms / 1000, 3)


async def _told(page: Page, role: str, states: Sequence[str], since_s: float) -> float | None:
    at_ms: float | None = await page.evaluate(
        """([role, states, since]) => window.drill.told
             .find(([at, who, state]) => at > since && who === role && states.includes(state))
             ?.[0] ?? null""",
        [role, list(states), since_s * 1000],
    )
    return None if at_ms is None else round(at_ms / 1000 - since_s, 3)


async def _leg(page: Page) -> int:
    leg: int = await page.evaluate("() => window.drill?.legs.at(-1) ?? 0")
    return leg


async def _fill_gaps(call: Call, row: Row, since_s: float) -> None:
    """The longest time that each stream was away since then: for faults that last an instant."""
    assert call.kiosk is not None
    row.sound_up_s = await _longest_gap(call.office, "audio", since_s)
    row.picture_up_s = await _longest_gap(call.office, "video", since_s)
    row.sound_down_s = await _longest_gap(call.kiosk, "audio", since_s)
    row.picture_down_s = await _longest_gap(call.kiosk, "video", since_s)


async def _settle(call: Call) -> None:
    """Until nothing has been missing on any stream for a while."""
    assert call.kiosk is not None
    deadline = time.monotonic() + REST_WITHIN_S
    while time.monotonic() < deadline:
        since_s = time.time()
        await asyncio.sleep(SETTLED_S)
        gaps = [
            await _longest_gap(page, stream, since_s)
            for page in (call.kiosk, call.office)
            for stream in ("audio", "video")
        ]
        if max(gaps) < 1.0:
            return
    raise RuntimeError(f"lane {call.lane.number} does not come to rest")


async def _measure(call: Call, row: Row, since_s: float) -> None:
    """Fill in when each stream was back, patiently."""
    assert call.kiosk is not None
    deadline = time.monotonic() + PATIENCE_S
    ways = (
        ("sound_up_s", call.office, "audio"), ("picture_up_s", call.office, "video"),
        ("sound_down_s", call.kiosk, "audio"), ("picture_down_s", call.kiosk, "video"),
    )  # fmt: skip
    while row.back_s is None and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        for name, page, stream in ways:
            if getattr(row, name) is None:
                setattr(row, name, await _first_after(page, stream, since_s))


# ── the faults ───────────────────────────────────────────────────────────────────────────────────


async def _link(call: Call, outage_s: int) -> Row:
    """Every packet of the lane is lost for `outage_s`."""
    assert call.kiosk is not None
    row = Row("link", call.lane.number, outage_s)
    before = await _leg(call.kiosk)
    cut_s, from_ns = time.time(), time.monotonic_ns()
    call.lane.cut("down")
    await asyncio.sleep(outage_s)
    dropped = call.lane.mend()
    mended_s, to_ns = time.time(), time.monotonic_ns()
    call.faults.append(Disturbance("link", from_ns, to_ns))
    row.noticed_s = await _told(call.office, "petitioner", ("silent",), cut_s)
    await _measure(call, row, mended_s)
    row.legs = (before, await _leg(call.kiosk))
    # What was under way, or waited in a busy browser, may still arrive for a moment.
    last = [await _first_after(page, "audio", cut_s + 2) for page in (call.kiosk, call.office)]
    row.proof = f"{dropped} packets dropped"
    if dropped < outage_s or any(one is not None and one < outage_s - 2.2 for one in last):
        row.trouble = f"the line was not down: {dropped} dropped, heard after 2 s + {last}"
    return row


async def _reload(call: Call, _: int) -> Row:
    assert call.kiosk is not None
    row = Row("reload", call.lane.number, 0)
    before = await _leg(call.kiosk)
    from_s, from_ns = time.time(), time.monotonic_ns()
    await call.kiosk.reload(wait_until="commit")
    await _measure(call, row, from_s)
    # Packets of the old page were still under way when it went: count from the new leg's first.
    row.legs = (before, await _leg(call.kiosk))
    up = [await _longest_gap(call.office, stream, from_s) for stream in ("audio", "video")]
    row.sound_up_s, row.picture_up_s = up
    call.faults.append(Disturbance("reload", from_ns, time.monotonic_ns()))
    row.proof = f"leg {before} → {row.legs[1]}"
    if row.legs[1] <= before:
        row.trouble = "the page was not reloaded"
    return row


async def _kill(call: Call, _: int) -> Row:
    """kill -9 of the kiosk's whole browser; a new one takes the same seat."""
    assert call.kiosk is not None
    row = Row("kill", call.lane.number, NOTICE_S)
    before = await _leg(call.kiosk)
    pids = call.lane.pids()
    from_s, from_ns = time.time(), time.monotonic_ns()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(NOTICE_S)
    row.noticed_s = await _told(call.office, "petitioner", ("silent",), from_s)
    row.proof = f"{len(pids)} processes killed"
    if call.lane.pids():
        row.trouble = "the browser lives"
    again_s = time.time()
    call.kiosk = await call.open_kiosk()
    await _measure(call, row, again_s)
    call.faults.append(Disturbance("kill", from_ns, time.monotonic_ns()))
    row.legs = (before, await _leg(call.kiosk))
    return row


async def _nat(call: Call, _: int) -> Row:
    """The router forgets every mapping: all flows go on from new public ports."""
    assert call.kiosk is not None
    row = Row("nat", call.lane.number, 0)
    before = await _leg(call.kiosk)
    ports = call.lane.public_ports()
    from_s, from_ns = time.time(), time.monotonic_ns()
    call.lane.rebind()
    await asyncio.sleep(6)
    call.faults.append(Disturbance("nat", from_ns, time.monotonic_ns()))
    await _fill_gaps(call, row, from_s)
    row.legs = (before, await _leg(call.kiosk))
    row.proof = (
        f"public port {' '.join(sorted(ports))} → {' '.join(sorted(call.lane.public_ports()))}"
    )
    if call.lane.public_ports() & ports:
        row.trouble = "the mapping stayed"
    return row


async def _socket(call: Call, _: int) -> Row:
    """Only signaling is reset and refused; media must not notice."""
    assert call.kiosk is not None
    row = Row("socket", call.lane.number, SOCKET_CUT_S)
    before = await _leg(call.kiosk)
    opened = await call.kiosk.evaluate("() => window.drill.sockets.length")
    from_s, from_ns = time.time(), time.monotonic_ns()
    call.lane.cut("signaling")
    await asyncio.sleep(SOCKET_CUT_S)
    resets = call.lane.mend()
    await asyncio.sleep(4)
    call.faults.append(Disturbance("socket", from_ns, time.monotonic_ns()))
    await _fill_gaps(call, row, from_s)
    row.legs = (before, await _leg(call.kiosk))
    reopened = await call.kiosk.evaluate("() => window.drill.sockets.length") - opened
    row.proof = f"{resets} resets, {reopened} sockets opened again"
    if not resets or not reopened:
        row.trouble = "the socket was not cut, or did not come back"
    if row.legs[0] != row.legs[1]:
        row.trouble = "media began anew"
    return row


async def _clock_moved(server: LabServer, calls: list[Call]) -> list[Row]:
    """The server's wall clock jumps an hour ahead, and back again."""
    rows = [Row("clock", call.lane.number, 0) for call in calls]
    pages = [(call, call.kiosk) for call in calls if call.kiosk is not None]
    before = [await _leg(kiosk) for _, kiosk in pages]
    sockets = [await kiosk.evaluate("() => window.drill.sockets.length") for _, kiosk in pages]
    from_s, from_ns = time.time(), time.monotonic_ns()
    moved = []
    for offset_s in (CLOCK_JUMP_S, 0):
        server.move_clock(offset_s)
        await asyncio.sleep(6)
        async with httpx.AsyncClient() as client:
            said = (await client.get(f"{URL}/livez")).headers["date"]
        moved.append(round(parsedate_to_datetime(said).timestamp() - time.time()))
    for (call, kiosk), row, leg, opened in zip(pages, rows, before, sockets, strict=True):
        await _fill_gaps(call, row, from_s)
        row.legs = (leg, await _leg(kiosk))
        row.proof = f"the server's Date was off by {moved[0]} s, then by {moved[1]} s"
        reopened = await kiosk.evaluate("() => window.drill.sockets.length") - opened
        if abs(moved[0] - CLOCK_JUMP_S) > 5 or abs(moved[1]) > 5:
            row.trouble = "the clock did not move"
        elif reopened or row.legs[0] != row.legs[1]:
            row.trouble = "a transport began anew"
        call.faults.append(Disturbance("clock", from_ns, time.monotonic_ns()))
    return rows


async def _server_killed(server: LabServer, calls: list[Call]) -> list[Row]:
    """kill -9 of the server and a restart at once, as its supervisor would."""
    rows = [Row("server", call.lane.number, 0) for call in calls]
    before = [await _leg(call.kiosk) for call in calls if call.kiosk is not None]
    from_s, from_ns = time.time(), time.monotonic_ns()
    server.kill()
    assert server.process is not None
    died = server.process.returncode == -signal.SIGKILL
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    await starting
    ready_s = round(time.time() - from_s, 2)
    for call, row, leg in zip(calls, rows, before, strict=True):
        assert call.kiosk is not None
        # What the dead server had sent may still have been decoded a moment later.
        await _measure(call, row, from_s + 0.5)
        for name in STREAMS:
            if (value := getattr(row, name)) is not None:
                setattr(row, name, round(value + 0.5, 3))
        row.ready_s = ready_s
        row.legs = (leg, await _leg(call.kiosk))
        row.proof = f"killed, ready again after {ready_s} s"
        row.trouble = "" if died and row.legs[1] > leg else "the server was not killed"
        call.faults.append(Disturbance("server", from_ns, time.monotonic_ns()))
    return rows


_FAULTS: Final[dict[str, Callable[[Call, int], Awaitable[Row]]]] = {
    "link": _link, "reload": _reload, "kill": _kill, "nat": _nat, "socket": _socket,
}  # fmt: skip


# ── the campaign ─────────────────────────────────────────────────────────────────────────────────


async def _campaign(plan: Plan, folder: Path, say: Callable[[dict[str, Any]], None]) -> None:
    rows: list[Row] = []

    def note(row: Row) -> None:
        rows.append(row)
        say(row.as_dict())

    async def work(call: Call) -> None:
        for number in range(plan.count):
            for kind in plan.kinds:
                if kind in WHOLE_HOUSE:
                    continue
                lengths = plan.outages_s if kind == "link" else (0,)
                for outage_s in lengths:
                    if outage_s >= 60 and number % 4:
                        continue  # two minutes each: a quarter as many tell enough
                    try:
                        await _settle(call)
                        note(await _FAULTS[kind](call, outage_s))
                    except Exception as error:  # a lane that broke is a result, not an accident
                        note(Row(kind, call.lane.number, outage_s, trouble=repr(error)[:300]))

    async with _stage(plan, folder) as stage:
        async with asyncio.TaskGroup() as tg:
            for call in stage.calls:
                tg.create_task(work(call), name=f"lane {call.lane.number}")
        for kind in (kind for kind in WHOLE_HOUSE if kind in plan.kinds):
            befall = _clock_moved if kind == "clock" else _server_killed
            for _ in range(plan.count):
                try:
                    await asyncio.gather(*(_settle(call) for call in stage.calls))
                    for row in await befall(stage.server, stage.calls):
                        note(row)
                except Exception as error:  # as above: the campaign goes on and counts it
                    note(Row(kind, 0, 0, trouble=repr(error)[:300]))
    verdicts = [verdict for call in stage.calls for verdict in _aftermath(folder, call, say)]
    say({"summary": True, **_summary(rows, verdicts), **circumstances(), **asdict(plan)})


def _aftermath(folder: Path, call: Call, say: Callable[[dict[str, Any]], None]) -> list[Verdict]:
    """What the call's recording says about every fault; the server has let go of it."""
    for recording in filter(Path.is_dir, (folder / "var" / "recordings").iterdir()):
        with open_journal(next(recording.glob("*.rrj"))) as reader:
            if reader.header.session_id != call.session_id:
                continue
        verdicts = aftermath.judge(recording, folder / f"files-{call.lane.number}", call.faults)
        for verdict in verdicts:
            say({"recorded": verdict.is_true, "lane": call.lane.number, **asdict(verdict)})
        return verdicts
    raise RuntimeError(f"lane {call.lane.number} has no recording")


def _summary(rows: list[Row], verdicts: list[Verdict]) -> dict[str, Any]:
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[f"{row.kind} {row.outage_s:g}" if row.kind == "link" else row.kind].append(row)
    failed = [row for row in rows if row.trouble or row.back_s is None]
    result: dict[str, Any] = {
        "outage": {
            name.removeprefix("link "): _quantiles([row.back_s for row in found])
            for name, found in by_kind.items()
            if name.startswith("link ")
        },
        "kill_noticed_s": _quantiles([row.noticed_s for row in by_kind.get("kill", [])]),
        "silence_noticed_s": _quantiles([r.noticed_s for r in rows if r.kind == "link"]),
    }
    for kind in KINDS[1:]:
        if kind in by_kind:
            result[kind] = {
                name.removesuffix("_s"): _quantiles([getattr(r, name) for r in by_kind[kind]])
                for name in (*STREAMS, "back_s")
            }
    if servers := by_kind.get("server"):
        result["server"]["ready"] = _quantiles([row.ready_s for row in servers])
        result["server"]["after_ready"] = _quantiles(
            [row.back_s and row.ready_s and round(row.back_s - row.ready_s, 3) for row in servers]
        )
    untrue = sum(not verdict.is_true for verdict in verdicts)
    marks = [
        mark
        for verdict in verdicts
        if verdict.gap_ms > 2_000
        # A server that was killed noted nothing of its end.
        for mark in (verdict.back_ms, None if verdict.kind == "server" else verdict.left_ms)
        if mark is not None
    ]
    result["recorded"] = {
        "faults": len(verdicts), "gaps": sum(v.gap_ms > aftermath.FILE_GAP_MS for v in verdicts),
        "untrue": untrue, "marks_off_ms_max": max(marks, default=None),
    }  # fmt: skip
    return {**result, "runs": len(rows), "failed": len(failed) + untrue}


def _quantiles(values: list[float | None]) -> dict[str, float | int | None]:
    known = sorted(value for value in values if value is not None)
    if not known:
        return {"n": 0, "p50_s": None, "p95_s": None, "max_s": None}
    p95 = known[min(len(known) - 1, -(-95 * len(known) // 100) - 1)]
    return {"n": len(known), "p50_s": statistics.median(known), "p95_s": p95, "max_s": known[-1]}


def main() -> None:
    """Inside the shelter: rows as JSON lines on standard output."""
    asked = json.loads(sys.argv[1])
    plan = Plan(asked["count"], asked["lanes"], tuple(asked["kinds"]), tuple(asked["outages_s"]))
    lanes.prepare()
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        asyncio.run(_campaign(plan, Path(folder), lambda row: print(json.dumps(row), flush=True)))


if __name__ == "__main__":
    main()
