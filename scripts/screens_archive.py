"""The archive's pages, for screens.py: a case is closed today, and thirty-one years go by.

The recordings are the seed's; the later day is a server whose clocks are set there. Only the 72
hours are not waited for: the house is looked at as often as its keeper would have looked.
"""

import contextlib
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from playwright.async_api import Page, Playwright, expect

from app.rehearsal import Desk, ask, serving
from cases import keeping_job
from cases.retention import COOLING, LONGEST_STRETCH, Seen
from core.clock import Clock, ShiftedClock, SystemClock
from core.db import Database
from core.settings import Settings
from media import erasure
from media.manifest import boot_id
from tests.support.browser import person

LATER = ShiftedClock(timedelta(days=31 * 366))
LANGUAGES = ("zh-CN", "bo", "en")
KEEPER_MS = 120_000
WHY = "案卷已结三十年，当事各方无未了事项，经鉴定没有继续保存价值。"


class Pictures(Protocol):
    """screens.Album."""

    async def take(self, page: Page, name: str) -> None: ...
    async def take_in(self, page: Page, name: str, languages: tuple[str, ...]) -> None: ...
    async def take_small(self, page: Page, name: str, languages: tuple[str, ...]) -> None: ...


async def archive(
    album: Pictures, driver: Playwright, seeded: Settings, password: str, folder: Path
) -> None:
    """From due to deleted, as an archivist and a reviewer see it. No server may be running."""
    settings = _apart(seeded)
    async with serving(settings, clock=SystemClock()) as url, Desk(url, password) as desk:
        case_id = await _close_one_and_hold_the_other(desk)
    async with (
        serving(settings, clock=LATER) as url,
        person(driver, folder / "archivist") as first,
        person(driver, folder / "second") as second,
    ):
        archivist, reviewer = first.pages[0], second.pages[0]
        again = archivist.get_by_role("button", name="再试一次")
        await _sign_in(archivist, url, "dangan", password)
        await _sign_in(reviewer, url, "fuhe", password)
        await _believe_the_clock(album, archivist, f"{url}/archive")
        await _both_sign(album, archivist, reviewer, f"{url}/archive", case_id)
        with _broken_erasing():
            await _cool(settings, LATER)
            await expect(again).to_be_visible(timeout=2 * KEEPER_MS)
            await album.take_in(archivist, "archivist.keeping.halted", LANGUAGES)
        await again.click()
        await expect(archivist.get_by_text("打印销毁证明")).to_be_visible(timeout=KEEPER_MS)
        await album.take_in(archivist, "archivist.keeping.deleted", LANGUAGES)
        await reviewer.goto(f"{url}/cases/{case_id}")
        await expect(reviewer.get_by_text("打印销毁证明")).to_be_visible()
        await album.take_in(reviewer, "archivist.case.deleted", LANGUAGES)
        paper = await reviewer.request.get(f"{url}/api/cases/{case_id}/deletion/certificate.pdf")
        (folder / "certificate.pdf").write_bytes(await paper.body())
        await archivist.goto(f"{url}/archive?shelf=all")
        await expect(archivist.get_by_role("table").first).to_be_visible()
        await album.take_in(archivist, "archivist.list.all", LANGUAGES)


async def _believe_the_clock(album: Pictures, archivist: Page, place: str) -> None:
    """A server that is thirty-one years ahead of its audit log: a person says that it is right."""
    await archivist.clock.set_system_time(LATER.now())
    await archivist.goto(place)
    await expect(archivist.get_by_role("button", name="时钟是对的")).to_be_visible()
    await album.take_in(archivist, "archivist.clock.doubted", LANGUAGES)
    await archivist.get_by_role("button", name="时钟是对的").click()
    await expect(archivist.get_by_role("button", name="时钟是对的")).to_have_count(0)


async def _both_sign(
    album: Pictures, archivist: Page, reviewer: Page, place: str, case_id: str
) -> None:
    await archivist.goto(place)
    await expect(archivist.get_by_role("table").first).to_be_visible()
    await album.take_in(archivist, "archivist.list.due", LANGUAGES)
    await album.take_small(archivist, "archivist.list.due", LANGUAGES)
    await archivist.set_viewport_size({"width": 1280, "height": 720})
    await album.take(archivist, "archivist.list.due.1280.zh-CN")
    await archivist.set_viewport_size({"width": 1440, "height": 900})
    await archivist.goto(f"{place}/{case_id}")
    await expect(archivist.get_by_role("button", name="提出销毁")).to_be_visible()
    await album.take_in(archivist, "archivist.keeping.due", LANGUAGES)
    await album.take_small(archivist, "archivist.keeping.due", LANGUAGES)
    await archivist.get_by_role("button", name="提出销毁").click()
    dialog = archivist.get_by_role("dialog")
    await dialog.get_by_label("鉴定意见").fill(WHY)
    await album.take(archivist, "archivist.keeping.propose.zh-CN")
    await dialog.get_by_role("button", name="提出销毁").click()
    await reviewer.goto(f"{place}/{case_id}")
    await reviewer.get_by_role("button", name="核准销毁").click()
    await album.take(reviewer, "archivist.keeping.confirm.zh-CN")
    await reviewer.get_by_role("dialog").get_by_role("button", name="核准销毁").click()
    await expect(reviewer.get_by_text("还有 72 小时")).to_be_visible()
    await album.take_in(reviewer, "archivist.keeping.cooling", LANGUAGES)
    await archivist.reload()


@contextlib.contextmanager
def _broken_erasing() -> Iterator[None]:
    """Meanwhile the job, which runs in this process, breaks off in an unforeseen way."""
    erase = erasure.erase

    def break_off(*_: object, **__: object) -> erasure.Erasure:
        raise RuntimeError("not foreseen")

    erasure.erase = break_off
    try:
        yield
    finally:
        erasure.erase = erase


async def _cool(settings: Settings, clock: Clock) -> None:
    database = Database(settings.database)
    wall, mono_ns = clock.now(), clock.monotonic_ns()
    step_ns = int(LONGEST_STRETCH.total_seconds() * 1e9)
    try:
        for look in range(1, COOLING // LONGEST_STRETCH + 2):
            seen = Seen(wall + look * LONGEST_STRETCH, mono_ns + look * step_ns, boot_id())
            async with database.transaction() as tx:
                await keeping_job.count_cooling(tx, seen)
    finally:
        await database.close()


async def _close_one_and_hold_the_other(desk: Desk) -> str:
    """The id of the case that is closed."""
    office = await desk.as_("xinfang")
    cases: list[Any] = (await ask(office, "GET", "/api/cases"))["items"]
    recorded = [case["id"] for case in cases if case["recording_state"] == "ready"]
    for state, words in (("redirected", "已告知当事人走法定途径。"), ("closed", "办结归档。")):
        await ask(
            office, "POST", f"/api/cases/{recorded[0]}/transitions",
            json={"to": state, "words": words},
        )  # fmt: skip
    await ask(
        office, "POST", f"/api/cases/{recorded[1]}/legal-holds",
        json={"words": "复核程序需要调阅，州信访局函〔2026〕11号。"},
    )  # fmt: skip
    return str(recorded[0])


async def _sign_in(page: Page, url: str, username: str, password: str) -> None:
    await page.goto(f"{url}/sign-in")
    await page.get_by_label("用户名").fill(username)
    await page.get_by_label("密码").fill(password)
    await page.get_by_role("button", name="登录").click()
    await page.wait_for_url(lambda address: "/sign-in" not in address)


def _apart(seeded: Settings) -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return seeded.model_copy(
        update={"host": "127.0.0.1", "port": port, "public_url": "", "roles": ("web",)}
    )
