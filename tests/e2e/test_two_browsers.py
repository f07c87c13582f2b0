"""The call itself between unlike browsers and in both codecs: seen, heard, recorded, played again.

Firefox stands where Chromium stood and the other way round. Firefox's own camera shows one colour
at a time and goes on to the next; its microphone is a steady tone.
"""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Page, Playwright

from tests.e2e import firefox_steps, steps
from tests.e2e.clips import Clip, likeness
from tests.e2e.records import case_with_recording, check_files, file_of, loudness, of_kind
from tests.support.browser import complaints_of, person
from tests.support.firefox import firefox, reachable_media
from tests.support.prefecture_process import Living, living_prefecture

COUNTY = "513328"
KIOSK_SIZE = (1080, 1920)
TALK_S = 8
# On a busy machine Firefox's sound thread may fall behind by most of a second when the talk ends.
WITHIN_MS = 1_000
THEIRS = "video:not(.mirrored)"
OURS = "video.mirrored"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def stack(playwright: Playwright) -> AsyncIterator[AsyncExitStack]:
    """What a test opens; closed while the driver of the browsers still runs."""
    async with AsyncExitStack() as opened:
        yield opened


async def founded(stack: AsyncExitStack, var_dir: Path, **settings: str) -> Living:
    """A living prefecture where a reception day of the leader is about to begin."""
    living = await stack.enter_async_context(
        living_prefecture(var_dir, **reachable_media(), **settings)
    )
    starts, ends = steps.coming_hour()
    await living.desk.publish(
        "lingdao", starts.date(), starts.time(), ends.time(), topics=["草场"]
    )  # fmt: skip
    return living


@pytest.mark.parametrize(
    ("codecs", "mime"), [("vp8,h264", "video/webm"), ("h264,vp8", "video/mp4")]
)
async def test_a_villager_in_firefox_talks_with_an_official_in_chromium(
    *,
    stack: AsyncExitStack,
    playwright: Playwright,
    tmp_path: Path,
    official_clip: Clip,
    codecs: str,
    mime: str,
) -> None:
    living = await founded(stack, tmp_path / "var", RECEPTION_VIDEO_CODECS=codecs)
    kiosk = await stack.enter_async_context(
        firefox(tmp_path / "kiosk", size=KIOSK_SIZE, with_h264=mime == "video/mp4")
    )
    browser = await stack.enter_async_context(
        person(playwright, tmp_path / "office", devices=official_clip.devices)
    )
    office = browser.pages[0]
    complaints = complaints_of(office)

    await firefox_steps.enrol(kiosk, living, COUNTY)
    number = await firefox_steps.book(kiosk, "泽仁")
    await firefox_steps.arrive(kiosk, number)
    await firefox_steps.check_devices(kiosk)
    await steps.sign_in(office, living, "lingdao")
    await steps.open_call(office, living)
    await steps.admit(office)
    began = asyncio.get_running_loop().time()

    assert likeness(await kiosk.video(THEIRS), official_clip) > 0.9
    assert await loudness(kiosk) > 0.01
    await steps.moving(office.locator(THEIRS))
    assert is_one_colour(await steps.grab(office.locator(THEIRS)))
    assert await loudness(office) > 0.01

    await asyncio.sleep(max(0.0, began + TALK_S - asyncio.get_running_loop().time()))
    await steps.end(office)
    case_number = await kiosk.until(
        "() => document.querySelector('[data-testid=case-number]')?.innerText.trim()"
    )
    case = await case_with_recording(living, case_number)
    await check_files(living, case, talk_s=TALK_S, within_ms=WITHIN_MS)
    assert mimes(case) == {"petitioner": mime, "official": mime}
    assert [words for words in complaints + kiosk.complaints if "401" not in words] == []


async def test_a_house_of_h264_speaks_vp8_with_a_firefox_that_has_no_h264(
    stack: AsyncExitStack, playwright: Playwright, tmp_path: Path, petitioner_clip: Clip
) -> None:
    """The villager's Chromium begins in H.264, alone; when the official's Firefox comes and cannot
    show it, Chromium is asked for VP8. (Firefox's H.264 is a plugin that this one never fetched.)
    """
    living = await founded(stack, tmp_path / "var", RECEPTION_VIDEO_CODECS="h264,vp8")
    browser = await stack.enter_async_context(
        person(playwright, tmp_path / "kiosk", devices=petitioner_clip.devices, size=KIOSK_SIZE)
    )
    kiosk = browser.pages[0]
    office = await stack.enter_async_context(firefox(tmp_path / "office"))

    await until_waiting(kiosk, living)
    await firefox_steps.sign_in(office, living, "lingdao")
    await firefox_steps.open_call(office, living)
    await firefox_steps.admit(office)
    began = asyncio.get_running_loop().time()

    assert likeness(await office.video(THEIRS), petitioner_clip) > 0.9
    assert await loudness(office) > 0.01
    await steps.moving(kiosk.locator(THEIRS))
    assert is_one_colour(await steps.grab(kiosk.locator(THEIRS)))
    assert await loudness(kiosk) > 0.01
    await firefox_steps.note_demand(office, "2016年征用草场320亩，补偿款未到户。")

    await asyncio.sleep(max(0.0, began + TALK_S - asyncio.get_running_loop().time()))
    await firefox_steps.end(office)
    case = await case_with_recording(living, await number_on(kiosk))
    await check_files(living, case, talk_s=TALK_S, within_ms=WITHIN_MS)
    assert mimes(case) == {"petitioner": "video/webm", "official": "video/webm"}
    assert [words for words in office.complaints if "401" not in words] == []


@pytest.mark.parametrize(
    ("codecs", "mime"), [("h264,vp8", "video/mp4"), ("vp8,h264", "video/webm")]
)
async def test_a_picture_that_changes_its_size_is_recorded_to_the_end(
    *,
    stack: AsyncExitStack,
    playwright: Playwright,
    tmp_path: Path,
    petitioner_clip: Clip,
    official_clip: Clip,
    codecs: str,
    mime: str,
) -> None:
    living = await founded(stack, tmp_path / "var", RECEPTION_VIDEO_CODECS=codecs)
    pages: list[Page] = []
    for name, clip, size in (
        ("kiosk", petitioner_clip, KIOSK_SIZE),
        ("office", official_clip, (1440, 900)),
    ):
        browser = await stack.enter_async_context(
            person(playwright, tmp_path / name, devices=clip.devices, size=size)
        )
        pages.append(browser.pages[0])
    kiosk, office = pages
    await until_waiting(kiosk, living)
    await steps.sign_in(office, living, "lingdao")
    await steps.open_call(office, living)
    await steps.admit(office)
    began = asyncio.get_running_loop().time()

    await steps.moving(office.locator(THEIRS))
    assert likeness(await steps.grab(office.locator(THEIRS)), petitioner_clip) > 0.9
    full = await own_width(kiosk)
    await resize(kiosk, full // 2)
    await until_narrow(office, full // 2)
    await asyncio.sleep(2)
    await resize(kiosk, full)
    await asyncio.sleep(2)  # a sender short of processor may stay small
    assert likeness(await steps.grab(office.locator(THEIRS)), petitioner_clip) > 0.9

    await asyncio.sleep(max(0.0, began + TALK_S - asyncio.get_running_loop().time()))
    await steps.end(office)
    case = await case_with_recording(living, await number_on(kiosk))
    await check_files(living, case, talk_s=TALK_S)
    assert mimes(case) == {"petitioner": mime, "official": mime}
    [file] = [file for file in of_kind(case, "party") if file["role"] == "petitioner"]
    assert len(await asyncio.to_thread(sizes_of, file_of(living, file))) >= 2

    await office.context.clear_cookies()
    await steps.sign_in(office, living, "fuhe")
    shown = await play_through(office, file["url"])
    assert shown["widths"] >= 2
    assert shown["ended_s"] == pytest.approx(file["duration_ms"] / 1000, abs=0.5)
    assert shown["frames"] > TALK_S * 10


async def until_waiting(kiosk: Page, living: Living) -> None:
    """From a new kiosk to a villager who waits."""
    await steps.enrol(kiosk, living, COUNTY)
    number = await steps.book(kiosk, "泽仁")
    await steps.arrive(kiosk, number)
    await steps.check_devices(kiosk)


async def number_on(kiosk: Page) -> str:
    return (await kiosk.get_by_test_id("case-number").inner_text()).strip()


def mimes(case: dict[str, Any]) -> dict[str, str]:
    """One file a party; what it is."""
    files = of_kind(case, "party")
    assert len(files) == 2, [file["mime"] for file in files]
    return {file["role"]: file["mime"] for file in files}


def is_one_colour(png: bytes) -> bool:
    """Whether the middle of a picture is one strong colour, as Firefox's fake camera shows."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float)
    height, width, _ = picture.shape
    middle = picture[height // 4 : -height // 4, width // 4 : -width // 4]
    flat = middle.reshape(-1, 3)
    return bool(np.all(flat.std(axis=0) < 12) and np.ptp(flat.mean(axis=0)) > 60)


async def resize(page: Page, width: int) -> None:
    """The camera itself changes its size, as a phone's or a busy machine's does."""
    await page.locator(OURS).evaluate(
        """(video, width) => video.srcObject.getVideoTracks()[0].applyConstraints(
             { width: { exact: width }, height: { exact: width * 3 / 4 } })""",
        width,
    )


async def own_width(page: Page) -> int:
    width: int = await page.locator(OURS).evaluate("(video) => video.videoWidth")
    return width


async def until_narrow(page: Page, most: int) -> None:
    """Until their picture is no wider than this; on a busy machine the sender scales it too."""
    await page.wait_for_function(
        "([theirs, most]) => document.querySelector(theirs).videoWidth <= most",
        arg=[THEIRS, most],
        timeout=steps.CALL_MS,
    )


def sizes_of(path: Path) -> set[int]:
    """The widths of a file's pictures, as decoded."""
    with av.open(str(path)) as container:
        return {frame.width for frame in container.decode(video=0)}


async def play_through(page: Page, url: str) -> dict[str, float]:
    """Play a file to its end at double speed: how far it came, how many frames were shown."""
    shown: dict[str, float] = await page.evaluate(
        """async (url) => {
          const v = document.createElement('video'); v.muted = true; v.src = url;
          document.body.prepend(v);
          const widths = new Set(); const wide = () => { widths.add(v.videoWidth);
            v.requestVideoFrameCallback(wide); };
          v.requestVideoFrameCallback(wide);
          v.playbackRate = 2;
          await v.play();
          await new Promise((good, bad) => {
            v.onended = good; v.onerror = () => bad(new Error(v.error.message)); });
          return { ended_s: v.currentTime, widths: widths.size,
                   frames: v.getVideoPlaybackQuality().totalVideoFrames }; }""",
        url,
    )
    return shown
