"""The stage of the outage drill: a founded prefecture, its real server, and one live call per lane.

The server loads bytecode, as an installed house does (Dockerfile): what its restart takes is the
house's own start and not the compiler's.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.async_api import BrowserContext, Page, Playwright, async_playwright

from app.rehearsal import Desk, ask, book
from app.seed import found
from app.seed_facts import PAST_VISITS
from bench.lanes import MEDIA_PORT, SERVER_ADDRESS, SERVER_PORT, Lane
from bench.outage_watch import PATIENCE_S, WATCH, Call, settle
from core.clock import LOCAL_ZONE
from core.settings import Settings
from tests.support.browser import CHROMIUM, person
from tests.support.server import ServerProcess

URL: Final = f"http://{SERVER_ADDRESS}:{SERVER_PORT}"
WALL_CLOCK: Final = Path(__file__).with_name("wall_clock.c")
VISIT: Final = PAST_VISITS[0]
EVENING: Final = 18
"""From this hour on a campaign might not end before the day does."""
FLAGS: Final = (
    f"--unsafely-treat-insecure-origin-as-secure={URL}",
    # Small pictures, seldom: the campaign measures lines, not this machine's encoders.
    "--use-fake-device-for-media-stream=fps=10",
)


class LabServer(ServerProcess):
    """The real server on the lab's own address, with a wall clock that can be moved."""

    @property
    def url(self) -> str:
        return URL

    @property
    def environment(self) -> dict[str, str]:
        bytecode = {"PYTHONPYCACHEPREFIX": str(self.var_dir.with_name("bytecode"))}
        given = {**super().environment, **bytecode}
        given.pop("PYTHONDONTWRITEBYTECODE", None)
        return given

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server has been started"
        return self.process.pid

    def lend_clock(self, folder: Path) -> None:
        """Have the server read its wall clock through us. RuntimeError without a C compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            words = "moving the wall clock needs a C compiler; leave out the kind: clock"
            raise RuntimeError(words)
        library, offset = folder / "wall_clock.so", folder / "wall_clock"
        offset.write_bytes(bytes(8))
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(WALL_CLOCK)], check=True
        )
        self.extra |= {"LD_PRELOAD": str(library), "WALL_CLOCK": str(offset)}

    def move_clock(self, offset_s: int) -> None:
        """Have its wall clock differ from ours by so much."""
        with Path(self.extra["WALL_CLOCK"]).open("r+b") as file:
            file.write(offset_s.to_bytes(8, "little", signed=True))

    def halt(self) -> str:
        """SIGSTOP; the kernel's word for the state that the process is in then (T: stopped)."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 1
        while (state := self._state()) != "T" and time.monotonic() < deadline:
            time.sleep(0.001)
        return state

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _state(self) -> str:
        # After the command's name, which stands in parentheses and may hold anything.
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]


@dataclass(frozen=True, slots=True)
class Stage:
    server: LabServer
    calls: list[Call]
    shift_s: int
    """How far the server's wall clock is from ours while nothing is done to it."""


@asynccontextmanager
async def staged(folder: Path, *, lanes: int, moves_clock: bool) -> AsyncIterator[Stage]:
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
        shift_s = _shift_s(datetime.now(LOCAL_ZONE))
        if moves_clock or shift_s:
            server.lend_clock(folder)
            server.move_clock(shift_s)
        await asyncio.to_thread(server.start)
        desk = await stack.enter_async_context(Desk(URL, founding.password))
        hall = await stack.enter_async_context(httpx.AsyncClient(base_url=URL, timeout=30))
        await ask(hall, "POST", "/api/kiosk/enrol", json={
            "code": founding.kiosk_codes[VISIT.county]})  # fmt: skip
        now = datetime.now(LOCAL_ZONE) + timedelta(seconds=shift_s)
        day_id = await desk.publish("lingdao", *_coming_hours(now), topics=["草场"])
        official = await desk.as_("lingdao")
        driver = await stack.enter_async_context(async_playwright())
        office = await stack.enter_async_context(
            person(driver, folder / "office", flags=FLAGS, size=(1280, 720))
        )
        await office.add_init_script(path=WATCH)
        await office.add_cookies(_cookies(official))
        calls = []
        for number in range(lanes):
            lane = Lane(number)
            lane.build()
            appointment = await book(hall, day_id, VISIT)
            await _arrive(hall, appointment)
            open_kiosk = _kiosk_opener(
                driver, stack, folder, lane,
                appointment_id=appointment["id"], cookies=_cookies(hall),
            )  # fmt: skip
            open_office = partial(_open_office, office, appointment["id"])
            call = Call(
                lane, appointment["id"], await open_office(), open_kiosk, open_office,
                ask_desk=partial(ask, await desk.as_(VISIT.desk), "GET"),
                ask_official=partial(ask, official, "GET"),
            )  # fmt: skip
            await _begin(call)
            seen = await call.ask_official(f"/api/appointments/{appointment['id']}")
            call.session_id = seen["session_id"]
            calls.append(call)
        yield Stage(server, calls, shift_s)


def _shift_s(now: datetime) -> int:
    """How far the house's clock is set back, so that its day does not end during the campaign."""
    return 0 if now.hour < EVENING else -EVENING * 3600 // 2


def _coming_hours(now: datetime) -> tuple[Any, Any, Any]:
    """From within minutes to the end of the local day, at most three hours."""
    soon = now + timedelta(minutes=4)
    start = (soon + timedelta(minutes=5 - soon.minute % 5)).replace(second=0, microsecond=0)
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


async def _open_office(office: BrowserContext, appointment_id: str) -> Page:
    """The official's page of this talk, in a tab of its own."""
    page = await office.new_page()
    await page.goto(f"{URL}/office/call/{appointment_id}")
    return page


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
    admit = call.office.get_by_role("button", name="接通", exact=True)
    deadline = time.monotonic() + PATIENCE_S
    while not await admit.is_enabled():
        if time.monotonic() > deadline:
            raise RuntimeError("the kiosk never became ready")
        await asyncio.sleep(0.2)
    await admit.click()
    await settle(call)
