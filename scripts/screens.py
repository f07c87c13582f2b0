"""One PNG per page, role and language, from a living prefecture: `screens.py OUT [--only WORD]`.

Everything on the pictures really happened: days were published, talks were held and recorded by the
seed, and the call pages are photographed in a call between two browsers.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from playwright.async_api import (
    Error,
    Page,
    Playwright,
    WebSocketRoute,
    async_playwright,
)

from app.rehearsal import Desk
from app.seed import Founding, fresh_kiosk_code, seed
from app.seed_facts import KIOSKS
from core.settings import Settings
from scripts.screens_archive import archive
from tests.e2e import steps
from tests.e2e.clips import OFFICIAL, PETITIONER, make_clip
from tests.support.browser import person
from tests.support.phone import LETTERS, PHONE, TEXT_PX, TOO_WIDE, letters
from tests.support.prefecture_process import Living, living_prefecture
from tests.support.server import ServerProcess

KIOSK_SIZE, OFFICE_SIZE, LAPTOP = (1080, 1920), (1440, 900), (1280, 720)
SETTLE_MS = 700
ID_LENGTH = 32

# (role, account, pages, languages)
OFFICE_PAGES: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("scheduler", "xinfang", ("/schedule", "/schedule/new", "/cases")),
    ("desk", "ganzi", ("/desk", "/desk/register", "/desk/kiosks")),
    ("official", "lingdao", ("/office",)),
    ("department", "lincao", ("/cases",)),
    ("reviewer", "fuhe", ("/review",)),
    (
        "admin", "guanli",
        ("/admin", "/admin/kiosks", "/admin/people", "/admin/units", "/admin/audit"),
    ),
)  # fmt: skip
LANGUAGES = {"zh-CN": "汉语", "en": "English", "bo": "བོད་ཡིག"}


AXE = Path("web/node_modules/axe-core/axe.min.js")
SERIOUS = """async () => (await axe.run()).violations
  .filter((each) => ['serious', 'critical'].includes(each.impact))
  .map((each) => `${each.id}: ${each.nodes.map((node) => node.target.join(' ')).join(', ')}`)"""


class Album:
    """Where the pictures go, and what one is called."""

    def __init__(self, out: Path, only: str, axe: str = "") -> None:
        self.out = out
        self.only = only
        self.axe = axe  # its source; empty: nobody looks whether everybody can use the page
        out.mkdir(parents=True, exist_ok=True)

    async def take(self, page: Page, name: str) -> None:
        if self.only and self.only not in name:
            return
        await page.wait_for_timeout(SETTLE_MS)
        await page.screenshot(path=self.out / f"{name}.png")
        if self.axe:
            for words in await page.evaluate(f"{self.axe}; ({SERIOUS})()"):
                print(f"axe: {name}: {words}", flush=True)  # noqa: T201
        print(name, flush=True)  # noqa: T201

    async def take_in(self, page: Page, name: str, languages: Sequence[str]) -> None:
        """The page as it stands in each language, and back in the first one."""
        wanted = [each for each in languages if self.only in f"{name}.{each}"]
        for language in wanted:
            await speak(page, language)
            await self.take(page, f"{name}.{language}")
        if wanted:
            await speak(page, languages[0])

    async def take_small(
        self, page: Page, name: str, languages: Sequence[str], *, whole: bool = True
    ) -> None:
        """The page on a phone, then with letters of twice the size; tells what is cut.

        `whole`: to the page's end. A page that is as high as its window would grow with it.
        """
        shown = page.viewport_size
        assert shown is not None
        size = (shown["width"], shown["height"])
        browser = await page.context.new_cdp_session(page)
        for language in languages:
            wanted = [label for label in LETTERS if self.only in f"{name}.{label}.{language}"]
            if not wanted:
                continue
            await speak(page, language)
            for label in wanted:
                await letters(page, browser, PHONE, LETTERS[label])
                await page.wait_for_timeout(SETTLE_MS)
                if over := await page.evaluate(TOO_WIDE):
                    print(f"too wide: {name}.{label}.{language}: {over}", flush=True)  # noqa: T201
                if whole:
                    height: int = await page.evaluate("document.documentElement.scrollHeight")
                    await letters(page, browser, (PHONE[0], height), LETTERS[label])
                await self.take(page, f"{name}.{label}.{language}")
            await letters(page, browser, size, TEXT_PX)
        await speak(page, languages[0])
        await browser.detach()


async def speak(page: Page, language: str) -> None:
    """Press the language's own name. A picture is never named after a language it is not in."""
    name = LANGUAGES[language]
    button = page.get_by_role("button", name=name, exact=True)
    choice = page.get_by_role("radio", name=name, exact=True)
    await button.or_(choice).first.wait_for(state="attached")
    if await button.count():
        await button.first.click()
    else:
        await choice.first.check(force=True)


def slug(path: str) -> str:
    """A file's name for a page: ids of cases are left out."""
    parts = [part if len(part) < ID_LENGTH else "one" for part in path.strip("/").split("/")]
    return "-".join(parts) or "board"


async def office_pages(
    album: Album, page: Page, living: Living, role: str, pages: Sequence[str]
) -> None:
    for path in pages:
        await page.goto(f"{living.server.url}{path}")
        await page.wait_for_load_state("networkidle")
        await album.take_in(page, f"{role}.{slug(path)}", tuple(LANGUAGES))
        await page.set_viewport_size({"width": LAPTOP[0], "height": LAPTOP[1]})
        await album.take_in(page, f"{role}.{slug(path)}.1280", ("zh-CN", "en"))
        await page.set_viewport_size({"width": OFFICE_SIZE[0], "height": OFFICE_SIZE[1]})
        await album.take_small(page, f"{role}.{slug(path)}", ("zh-CN", "en"))


async def a_case(page: Page, living: Living) -> str:
    """The id of a case with a finished recording."""
    response = await page.request.get(f"{living.server.url}/api/cases")
    items = (await response.json())["items"]
    return str(next(item["id"] for item in items if item["recording_state"] == "ready"))


async def staff(album: Album, driver: Playwright, living: Living, folder: Path) -> None:
    for role, username, pages in OFFICE_PAGES:
        async with person(driver, folder / role) as context:
            page = context.pages[0]
            await steps.sign_in(page, living, username)
            shown = list(pages)
            if role in ("scheduler", "reviewer"):
                case_id = await a_case(page, living)
                shown.append(f"/cases/{case_id}")
                shown += [f"/review/{case_id}"] * (role == "reviewer")
            await office_pages(album, page, living, role, shown)


async def public(album: Album, driver: Playwright, living: Living, folder: Path) -> None:
    async with person(driver, folder / "public") as context:
        page = context.pages[0]
        for path in ("/", "/sign-in"):
            await page.goto(f"{living.server.url}{path}")
            await page.wait_for_load_state("networkidle")
            await album.take_in(page, f"public.{slug(path)}", tuple(LANGUAGES))
            await album.take_small(page, f"public.{slug(path)}", tuple(LANGUAGES))


async def kiosk_and_call(album: Album, driver: Playwright, living: Living, folder: Path) -> None:
    """The villager's way through, and the office's side of the same call."""
    petitioner = make_clip(folder, "petitioner", PETITIONER)
    official = make_clip(folder, "official", OFFICIAL)
    languages = tuple(LANGUAGES)
    async with (
        person(driver, folder / "kiosk", devices=petitioner.devices, size=KIOSK_SIZE) as kiosk,
        person(driver, folder / "office", devices=official.devices) as office,
    ):
        villager, leader = kiosk.pages[0], office.pages[0]
        await villager.goto(f"{living.server.url}/kiosk")
        await album.take_in(villager, "kiosk.enrol", languages)
        await steps.enrol(villager, living, KIOSKS[0][1])
        for path in ("/kiosk", "/kiosk/ask", "/kiosk/guide", "/kiosk/arrive", "/kiosk/book"):
            await villager.goto(f"{living.server.url}{path}")
            await villager.wait_for_load_state("networkidle")
            await album.take_in(villager, slug(path).replace("-", ".", 1), languages)
            await villager.set_viewport_size({"width": 1920, "height": 1080})
            await album.take(villager, f"{slug(path).replace('-', '.', 1)}.landscape.zh-CN")
            await villager.set_viewport_size({"width": KIOSK_SIZE[0], "height": KIOSK_SIZE[1]})
        await villager.goto(f"{living.server.url}/kiosk")

        async def watch(name: str) -> None:
            await album.take_in(villager, f"kiosk.{name}", languages)

        number = await steps.book(villager, "泽仁", watch)
        await steps.arrive(villager, number, watch)
        await steps.check_devices(villager, watch)
        await album.take_in(villager, "kiosk.waiting", languages)
        await steps.sign_in(leader, living, "lingdao")
        await leader.goto(f"{living.server.url}/office")
        await leader.wait_for_load_state("networkidle")
        await album.take_in(leader, "official.office.ready", ("zh-CN", "en"))
        await album.take_small(leader, "official.office.ready", ("zh-CN", "en"))
        await steps.open_call(leader, living)
        await steps.admit(leader)
        await steps.note_demand(leader, "2016年征用草场320亩，补偿款未到户。")
        await steps.promise(leader, "州林业和草原局", "由州林草局核对面积，到期前书面答复并付款。")
        await steps.note_demand(leader, "要求查看征地公告和测量记录。")
        await album.take_in(leader, "official.call", languages)
        await leader.set_viewport_size({"width": LAPTOP[0], "height": LAPTOP[1]})
        await album.take_in(leader, "official.call.1280", languages)
        await leader.set_viewport_size({"width": OFFICE_SIZE[0], "height": OFFICE_SIZE[1]})
        await album.take_small(leader, "official.call", ("zh-CN", "en"), whole=False)
        await album.take_in(villager, "kiosk.call", languages)
        await steps.end(leader)
        await album.take_in(leader, "official.after", ("zh-CN", "en"))
        await album.take_small(leader, "official.after", ("zh-CN", "en"))
        await villager.get_by_test_id("case-number").wait_for()
        await album.take_in(villager, "kiosk.result", languages)


async def trouble(album: Album, driver: Playwright, folder: Path) -> None:
    """A talk whose disk fills and is freed again, whose camera stops, whose line is lost. The
    recordings lie on a small disk of their own; without the right to mount one this is left out.
    """
    petitioner, official = (make_clip(folder, f"trouble-{name}", speaker) for name, speaker in
                            (("petitioner", PETITIONER), ("official", OFFICIAL)))  # fmt: skip
    disk = folder / "small" / "recordings"
    disk.mkdir(parents=True)
    made = await run("mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(disk))
    if made:
        print("no right to mount: nothing of trouble is photographed", file=sys.stderr)  # noqa: T201
        return
    try:
        async with (
            living_prefecture(disk.parent, RECEPTION_MIN_FREE_DISK_MIB="64") as living,
            person(driver, folder / "t1", devices=petitioner.devices, size=KIOSK_SIZE) as kiosk,
            person(driver, folder / "t2", devices=official.devices, size=OFFICE_SIZE) as office,
            person(driver, folder / "t3", size=OFFICE_SIZE) as hall,
        ):
            pages = Parties(kiosk.pages[0], office.pages[0], hall.pages[0])
            await begin_talk(pages, living)
            await plugged_in(album, pages)
            await full_disk(album, pages, disk)
            await stopped_camera(album, pages)
            await thin_line(album, pages)
            await official_gone(album, pages)
            await lost_line(album, pages)
            await watched_early(album, pages, living)
    finally:
        await run("umount", str(disk))


@dataclass(frozen=True, slots=True)
class Parties:
    villager: Page
    leader: Page
    desk: Page

    def __iter__(self) -> Iterator[Page]:
        return iter((self.villager, self.leader, self.desk))


async def run(*command: str) -> int:
    """The exit code of a system command."""
    process = await asyncio.create_subprocess_exec(*command)
    return await process.wait()


async def begin_talk(pages: Parties, living: Living) -> None:
    villager, leader, desk = pages
    await leader.route_web_socket("**/signal", a_thin_line)
    await steps.sign_in(leader, living, "xinfang")
    await steps.publish_day(leader, living, "州委副书记")
    await steps.enrol(villager, living, KIOSKS[0][1])
    number = await steps.book(villager, "泽仁")
    await steps.arrive(villager, number)
    await steps.check_devices(villager)
    await leader.context.clear_cookies()
    await steps.sign_in(leader, living, "lingdao")
    await steps.open_call(leader, living)
    await steps.admit(leader)
    await steps.sign_in(desk, living, "ganzi")
    await desk.goto(f"{living.server.url}/desk")


def a_thin_line(page_side: WebSocketRoute) -> None:
    """Passes everything on; once the file of `THIN` is there, lines are said to be thin."""
    server_side = page_side.connect_to_server()

    def pass_on(message: str | bytes) -> None:
        said = json.loads(message)
        if THIN and said["type"] == "quality":
            for line in said["lines"]:
                line |= {"quality": "poor", "is_picture_held": True, "freezes": 3}
        page_side.send(json.dumps(said))

    server_side.on_message(pass_on)
    page_side.on_message(server_side.send)


THIN: list[bool] = []
"""Anything in it: the official's page is told that the lines are thin."""


async def everywhere(pages: Sequence[Page], words: str, *, shown: bool) -> list[datetime]:
    """When these words came onto, or went from, each of the pages."""

    async def seen(page: Page) -> datetime:
        state: Literal["visible", "hidden"] = "visible" if shown else "hidden"
        await page.get_by_text(words).first.wait_for(state=state, timeout=60_000)
        return datetime.now(UTC)

    return list(await asyncio.gather(*(seen(page) for page in pages)))


def seconds_after(since: datetime, seen: Sequence[datetime]) -> str:
    return ", ".join(f"{(at - since).total_seconds():.1f}" for at in seen) + " s"


def first_refusal(log: Path) -> datetime:
    """When the server said that the disk had refused a write."""
    lines = (
        json.loads(line) for line in log.read_text().splitlines() if "recording_trouble" in line
    )
    return datetime.fromisoformat(next(lines)["timestamp"])


async def full_disk(album: Album, pages: Parties, disk: Path) -> None:
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
    seen = await everywhere(list(pages), "录制出错", shown=True)
    refused = first_refusal(disk.parent / "server.log")
    print(f"trouble: villager, leader, desk after {seconds_after(refused, seen)}")  # noqa: T201
    for name, page in zip(("kiosk", "official", "desk"), pages, strict=True):
        await album.take_in(page, f"trouble.{name}.disk", tuple(LANGUAGES))
    ballast.unlink()
    freed = datetime.now(UTC)
    seen = await everywhere(list(pages), "录制出错", shown=False)
    print(f"well again: villager, leader, desk after {seconds_after(freed, seen)}")  # noqa: T201
    await album.take(pages.leader, "trouble.official.disk-again.zh-CN")


async def stopped_camera(album: Album, pages: Parties) -> None:
    """The villager's camera stops without a word, as one that loses its power does."""
    stopped = datetime.now(UTC)
    await pages.villager.evaluate(
        "() => document.querySelector('.self video').srcObject.getVideoTracks()[0].stop()"
    )
    seen = await everywhere([pages.leader, pages.desk], "多秒没有录到", shown=True)
    print(f"stopped camera: leader, desk after {seconds_after(stopped, seen)}")  # noqa: T201
    for name, page in (("official", pages.leader), ("desk", pages.desk)):
        await album.take_in(page, f"trouble.{name}.unheard", tuple(LANGUAGES))
        await album.take_small(page, f"trouble.{name}.unheard", ("zh-CN",), whole=False)
    for language in LANGUAGES:
        await speak(pages.leader, language)
        await pages.leader.locator("button.proof").click()
        await album.take(pages.leader, f"trouble.official.proof.{language}")
        await pages.leader.keyboard.press("Escape")
    await speak(pages.leader, "zh-CN")


async def thin_line(album: Album, pages: Parties) -> None:
    THIN.append(True)
    await pages.leader.get_by_text("线路太窄").first.wait_for()
    await album.take_in(pages.leader, "trouble.official.thin", tuple(LANGUAGES))
    THIN.clear()


async def official_gone(album: Album, pages: Parties) -> None:
    """The official's browser is closed in mid-talk: what the villager and the desk are told."""
    villager, leader, desk = pages
    room = leader.url
    await leader.goto("about:blank")
    gone = datetime.now(UTC)
    seen = await everywhere([villager], "领导那边的线路断开", shown=True)
    print(f"official gone: villager after {seconds_after(gone, seen)}")  # noqa: T201
    await album.take_in(villager, "trouble.kiosk.official-gone", tuple(LANGUAGES))
    seen = await everywhere([desk], "领导那边断开", shown=True)
    print(f"official gone: desk after {seconds_after(gone, seen)}")  # noqa: T201
    await album.take_in(desk, "trouble.desk.official-gone", tuple(LANGUAGES))
    await album.take_small(desk, "trouble.desk.official-gone", ("zh-CN", "en"))
    await everywhere([villager], "领导还没有回来", shown=True)
    await album.take_in(villager, "trouble.kiosk.official-gone-long", tuple(LANGUAGES))
    await leader.goto(room)
    await everywhere([leader], "正在录制", shown=True)
    await everywhere([villager], "领导还没有回来", shown=False)


async def lost_line(album: Album, pages: Parties) -> None:
    await pages.villager.goto("about:blank")
    await pages.desk.get_by_text("谈话断线").first.wait_for(timeout=120_000)
    for name, page in (("official", pages.leader), ("desk", pages.desk)):
        await album.take_in(page, f"trouble.{name}.away", tuple(LANGUAGES))


async def plugged_in(album: Album, pages: Parties) -> None:
    """A permission for a hall camera is made, shown once, and taken back."""
    desk, languages = pages.desk, tuple(LANGUAGES)
    await desk.locator("button.line").first.click()
    await album.take_in(desk, "trouble.desk.visit", languages)
    for language in languages:
        await speak(desk, language)
        words = {"en": ("Plug in a device", "Make a permission")}.get(language)
        opens, makes = words or ("接入设备", "开许可")
        await desk.get_by_role("button", name=opens, exact=True).click()
        await album.take(desk, f"trouble.desk.plug.{language}")
        await desk.get_by_role("button", name=makes, exact=True).click()
        await desk.get_by_role("textbox").last.wait_for()
        await album.take(desk, f"trouble.desk.plug.made.{language}")
        await desk.keyboard.press("Escape")
    await speak(desk, "zh-CN")
    await desk.get_by_role("button", name="接入设备", exact=True).click()
    await desk.get_by_role("button", name="收回大厅摄像机的许可").first.click()
    await desk.get_by_text("收回").last.wait_for()
    await album.take(desk, "trouble.desk.plug.taken-back.zh-CN")
    await desk.keyboard.press("Escape")
    await desk.locator("button.line").first.click()


async def watched_early(album: Album, pages: Parties, living: Living) -> None:
    """The talk ends, and a reviewer is there before its recording is finished."""
    reviewer = pages.desk
    await reviewer.context.clear_cookies()
    await steps.sign_in(reviewer, living, "fuhe")
    await steps.end(pages.leader)
    response = await reviewer.request.get(f"{living.server.url}/api/cases")
    case_id = (await response.json())["items"][0]["id"]
    await reviewer.goto(f"{living.server.url}/cases/{case_id}")
    await reviewer.get_by_role("link", name="看回放").first.wait_for()
    await album.take(reviewer, "trouble.case.early.zh-CN")
    await reviewer.goto(f"{living.server.url}/review/{case_id}")
    await album.take(reviewer, "trouble.review.early.zh-CN")
    await reviewer.get_by_role("button", name="合成画面").wait_for(timeout=400_000)
    await album.take(reviewer, "trouble.review.early-whole.zh-CN")


async def main(out: Path, only: str, axe: str) -> None:
    album = Album(out, only, axe)
    with tempfile.TemporaryDirectory() as name:
        async with async_playwright() as driver:
            # Trouble is named after itself alone.
            if not only.startswith("trouble"):
                await well(album, driver, Path(name))
            if not only or only.startswith("trouble"):
                await trouble(album, driver, Path(name))


async def well(album: Album, driver: Playwright, folder: Path) -> None:
    """Every page of a seeded prefecture where all is well."""
    settings = Settings(var_dir=folder / "var", media_port=0)
    await seed(settings)
    password = (folder / "var/demo-password").read_text().strip()
    codes = {county: await fresh_kiosk_code(settings, name) for name, county in KIOSKS}
    # Thirty-one years go by in the archive: it has the prefecture to itself, in a copy.
    if not album.only or album.only.startswith("archivist"):
        shutil.copytree(folder / "var", folder / "archive")
        later = settings.model_copy(update={"var_dir": folder / "archive"})
        await archive(album, driver, later, password, folder)
    if album.only.startswith("archivist"):
        return
    server = ServerProcess(folder / "var")
    await asyncio.to_thread(server.start)
    try:
        living = Living(server, Founding(password, codes), Desk(server.url, password))
        for scene in (public, staff, kiosk_and_call):
            await scene(album, driver, living, folder)
    except Error:
        print(server.log_tail(20), file=sys.stderr)  # noqa: T201
        raise
    finally:
        await asyncio.to_thread(server.stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="only pictures whose name contains this")
    parser.add_argument("--axe", action="store_true", help="also tell what axe-core finds serious")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.out, chosen.only, AXE.read_text() if chosen.axe else ""))
