"""A day in the life: a villager books, arrives and speaks; an official listens and promises; the
case opens by itself; a reviewer replays it. Two separate browsers, a real server, a real relay."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Playwright, expect

from app.rehearsal import ask
from media.ffmpeg import decode_fully
from tests.e2e import steps
from tests.e2e.clips import Clip, likeness
from tests.e2e.records import case_with_recording, check_files, file_of, loudness, of_kind
from tests.support.browser import complaints_of, person
from tests.support.media_material import beep_times_ms, flash_times_ms
from tests.support.phone import too_wide
from tests.support.prefecture_process import Living

COUNTY = "513328"
TALK_S = 12
FLASH_SCRIPT = Path(__file__).parent / "flash.js"

pytestmark = pytest.mark.timeout(600)


@dataclass
class Two:
    """The two people of a talk, each in a browser of their own."""

    kiosk: Page
    office: Page
    complaints: list[str]


@pytest.fixture
async def two(
    playwright: Playwright,
    living: Living,
    tmp_path: Path,
    petitioner_clip: Clip,
    official_clip: Clip,
) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        kiosk = await stack.enter_async_context(
            person(
                playwright, tmp_path / "kiosk", devices=petitioner_clip.devices, size=(1080, 1920)
            )
        )
        office = await stack.enter_async_context(
            person(playwright, tmp_path / "office", devices=official_clip.devices)
        )
        pages = Two(kiosk.pages[0], office.pages[0], [])
        pages.complaints += [*complaints_of(pages.kiosk), *complaints_of(pages.office)]
        yield pages


async def until_waiting(two: Two, living: Living) -> None:
    """From an empty notice board to a villager who waits and an official in the room."""
    await steps.sign_in(two.office, living, "xinfang")
    await steps.publish_day(two.office, living, "州委副书记")
    await two.office.goto(living.server.url)
    await expect(two.office.get_by_text("州委副书记").first).to_be_visible()
    await steps.enrol(two.kiosk, living, COUNTY)
    number = await steps.book(two.kiosk, "泽仁")
    await steps.arrive(two.kiosk, number)
    await steps.check_devices(two.kiosk)
    await two.office.context.clear_cookies()
    await steps.sign_in(two.office, living, "lingdao")
    await steps.open_call(two.office, living)
    await steps.admit(two.office)


async def test_a_reception_day(
    living: Living, two: Two, petitioner_clip: Clip, official_clip: Clip
) -> None:
    await until_waiting(two, living)
    began = asyncio.get_running_loop().time()

    # Each side sees the other's clip, and hears speech.
    for page, other, own in (
        (two.office, petitioner_clip, official_clip),
        (two.kiosk, official_clip, petitioner_clip),
    ):
        video = page.locator("video").first
        await steps.moving(video)
        picture = await steps.grab(video)
        assert likeness(picture, other) > 0.9
        assert likeness(picture, own) < 0.5
        assert await loudness(page) > 0.01

    await steps.note_demand(two.office, "2016年征用草场320亩，补偿款未到户。")
    await steps.promise(two.office, "州林业和草原局", "由州林草局核对面积，到期前书面答复并付款。")
    await expect(two.kiosk.get_by_text("正在录制")).to_be_visible()
    await asyncio.sleep(max(0.0, TALK_S - (asyncio.get_running_loop().time() - began)))
    await steps.end(two.office)

    # The number is on the kiosk; asking with it works for anyone.
    number = (await two.kiosk.get_by_test_id("case-number").inner_text()).strip()
    code = (await two.kiosk.get_by_test_id("query-code").inner_text()).strip()
    answer = await two.kiosk.request.post(
        f"{living.server.url}/api/public/case-query", data={"number": number, "code": code}
    )
    assert answer.ok
    [demand] = (await answer.json())["demands"]
    assert demand["owner"]["name_zh"] == "州林业和草原局"
    assert demand["due_on"] is not None

    case = await case_with_recording(living, number)
    await check_files(living, case, talk_s=TALK_S)
    await check_replay(living, two, case)
    assert [words for words in two.complaints if "401" not in words] == []


async def check_replay(living: Living, two: Two, case: dict[str, Any]) -> None:
    """The reviewer's page plays both pictures in step; the composed file plays and seeks."""
    page = two.office
    await page.context.clear_cookies()
    await steps.sign_in(page, living, "fuhe")
    await page.goto(f"{living.server.url}/review/{case['id']}")
    videos = page.locator("video")
    await expect(videos).to_have_count(2)
    await page.get_by_role("button", name="播放", exact=True).click()
    for at in range(2):
        await steps.moving(videos.nth(at))
    assert max(await drifts_ms(page, case)) < 100

    [composed] = of_kind(case, "composed")
    position, width = await page.evaluate(
        """async (url) => {
          const v = document.createElement('video'); v.muted = true; v.src = url;
          await new Promise((good, bad) => { v.onloadedmetadata = good; v.onerror = bad; });
          v.currentTime = v.duration * 0.7;
          await new Promise((good, bad) => { v.onseeked = good; v.onerror = bad; });
          const from = v.currentTime; await v.play();
          await new Promise((r) => setTimeout(r, 1000));
          return [v.currentTime - from, v.videoWidth]; }""",
        composed["url"],
    )
    assert position > 0.2
    assert width >= 640
    assert await too_wide(page) == {}

    admin = await living.desk.as_("guanli")
    lines = await ask(admin, "GET", "/api/admin/audit")
    opened = [line for line in lines if line["action"].startswith("replay")]
    assert opened, "whoever sees a recording leaves an audit line"
    assert opened[0]["actor"].startswith("account:")


async def drifts_ms(page: Page, case: dict[str, Any]) -> list[float]:
    """How far the two pictures are from each other on the session's timeline, ten times."""
    offsets = {file["url"]: file["offset_ms"] for file in of_kind(case, "party")}
    found: list[float] = await page.evaluate(
        """async (offsets) => {
          const videos = [...document.querySelectorAll('video')];
          const of = (v) => Object.keys(offsets).find((u) => v.currentSrc.includes(u));
          const at = (v) => v.currentTime * 1000 + offsets[of(v)];
          const drifts = [];
          for (let i = 0; i < 10; i++) {
            await new Promise((r) => setTimeout(r, 200));
            drifts.push(Math.abs(at(videos[0]) - at(videos[1])));
          }
          return drifts; }""",
        offsets,
    )
    return found


async def test_flash_and_beep_stay_together_beside_a_paper(living: Living, two: Two) -> None:
    """Both browsers flash and beep at the same instants; the files must say so too. The kiosk's
    second camera is a track of its own, and a page of it is kept in the case."""
    for page in (two.kiosk, two.office):
        await page.add_init_script(path=FLASH_SCRIPT)
    await until_waiting(two, living)
    await steps.show_paper(two.kiosk, two.office)
    await asyncio.sleep(TALK_S)
    await steps.end(two.office)
    number = (await two.kiosk.get_by_test_id("case-number").inner_text()).strip()
    case = await case_with_recording(living, number)
    flashes: list[list[float]] = []
    for file in of_kind(case, "party"):
        path = file_of(living, file)
        lights = [at + file["offset_ms"] for at in flash_times_ms(path)]
        beeps = [at + file["offset_ms"] for at in beep_times_ms(path)]
        assert len(lights) >= TALK_S - 3
        assert len(beeps) >= TALK_S - 3
        assert abs(statistics.median(apart_ms(lights, beeps))) < 60
        flashes.append(lights)
    assert abs(statistics.median(apart_ms(*flashes))) < 100
    [document] = of_kind(case, "document")
    checked = await asyncio.to_thread(decode_fully, file_of(living, document))
    assert checked.video_frames > TALK_S * 5
    [material] = case["materials"]
    assert 0 < material["marked_at_ms"] < case["recording"]["duration_ms"]
    assert (material["width"], material["height"]) == (document["width"], document["height"])


def apart_ms(these: list[float], those: list[float]) -> list[float]:
    """For each of these, how much later the nearest of those comes."""
    return [min((other - one for other in those), key=abs) for one in these]
