"""One PNG per page, role and language, from a living prefecture: `screens.py OUT [--only WORD]`.

Everything on the pictures really happened: days were published, talks were held and recorded by the
seed, and the call pages are photographed in a call between two browsers.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import Error, Page, Playwright, async_playwright

from app.rehearsal import Desk
from app.seed import Founding, fresh_kiosk_code, seed
from app.seed_facts import KIOSKS
from core.settings import Settings
from tests.e2e import steps
from tests.e2e.clips import OFFICIAL, PETITIONER, make_clip
from tests.support.browser import person
from tests.support.prefecture_process import Living
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


class Album:
    """Where the pictures go, and what one is called."""

    def __init__(self, out: Path, only: str) -> None:
        self.out = out
        self.only = only
        out.mkdir(parents=True, exist_ok=True)

    async def take(self, page: Page, name: str) -> None:
        if self.only and self.only not in name:
            return
        await page.wait_for_timeout(SETTLE_MS)
        await page.screenshot(path=self.out / f"{name}.png")
        print(name, flush=True)  # noqa: T201

    async def take_in(self, page: Page, name: str, languages: Sequence[str]) -> None:
        """The page as it stands in each language, and back in the first one."""
        for language in languages:
            await speak(page, language)
            await self.take(page, f"{name}.{language}")
        await speak(page, languages[0])


async def speak(page: Page, language: str) -> None:
    """Press the language's own name, where the page offers it."""
    button = page.get_by_role("button", name=LANGUAGES[language], exact=True)
    if await button.count():
        await button.first.click()
        return
    choice = page.get_by_role("radio", name=LANGUAGES[language], exact=True)
    if await choice.count():
        await choice.first.check(force=True)


def slug(path: str) -> str:
    """A file's name for a page: ids of cases are left out."""
    parts = [part if len(part) < ID_LENGTH else "one" for part in path.strip("/").split("/")]
    return "-".join(parts) or "board"


async def office_pages(
    album: Album, page: Page, living: Living, role: str, pages: tuple[str, ...]
) -> None:
    for path in pages:
        await page.goto(f"{living.server.url}{path}")
        await page.wait_for_load_state("networkidle")
        for size, label in ((OFFICE_SIZE, ""), (LAPTOP, ".1280")):
            await page.set_viewport_size({"width": size[0], "height": size[1]})
            await album.take_in(page, f"{role}.{slug(path)}{label}", ("zh-CN", "en"))
        await page.set_viewport_size({"width": OFFICE_SIZE[0], "height": OFFICE_SIZE[1]})


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
        await steps.open_call(leader, living)
        await steps.admit(leader)
        await steps.note_demand(leader, "2016年征用草场320亩，补偿款未到户。")
        await steps.promise(leader, "州林业和草原局", "由州林草局核对面积，到期前书面答复并付款。")
        await steps.note_demand(leader, "要求查看征地公告和测量记录。")
        await album.take_in(leader, "official.call", ("zh-CN", "en"))
        await album.take_in(villager, "kiosk.call", languages)
        await steps.end(leader)
        await album.take_in(leader, "official.after", ("zh-CN", "en"))
        await villager.get_by_test_id("case-number").wait_for()
        await album.take_in(villager, "kiosk.result", languages)


async def main(out: Path, only: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(var_dir=folder / "var", media_port=0)
        await seed(settings)
        password = (folder / "var/demo-password").read_text().strip()
        codes = {county: await fresh_kiosk_code(settings, name) for name, county in KIOSKS}
        server = ServerProcess(folder / "var")
        await asyncio.to_thread(server.start)
        try:
            living = Living(server, Founding(password, codes), Desk(server.url, password))
            album = Album(out, only)
            async with async_playwright() as driver:
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
    chosen = parser.parse_args()
    asyncio.run(main(chosen.out, chosen.only))
