"""What people do on the pages, in their words. Each step waits for what its person would see."""

import base64
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from playwright.async_api import Locator, Page, expect

from core.clock import LOCAL_ZONE
from tests.support.prefecture_process import Living

CALL_MS = 30_000
CASE_MS = 60_000
# On a busy machine the villager's browser may be silent just when the official presses.
PRESSES = 4

Watch = Callable[[str], Awaitable[None]]
"""Called at each page of a step with its name, before the person acts: for pictures of the way."""


async def unwatched(_name: str) -> None:
    """Nobody takes pictures."""


async def sign_in(page: Page, living: Living, username: str) -> None:
    await page.goto(f"{living.server.url}/sign-in")
    await page.get_by_label("用户名").fill(username)
    await page.get_by_label("密码").fill(living.founding.password)
    await page.get_by_role("button", name="登录").click()
    await page.wait_for_url(lambda url: "/sign-in" not in url)


async def publish_day(page: Page, living: Living, official: str) -> None:
    """A reception day that begins within ten minutes and lasts an hour."""
    await page.goto(f"{living.server.url}/schedule/new")
    starts, ends = coming_hour()
    offices = page.get_by_label("接访领导")
    option = offices.locator("option", has_text=official).last
    await option.wait_for(state="attached")
    await offices.select_option(value=await option.get_attribute("value"))
    await page.get_by_label("日期").fill(starts.strftime("%Y-%m-%d"))
    await page.get_by_label("开始").fill(starts.strftime("%H:%M"))
    await page.get_by_label("结束").fill(ends.strftime("%H:%M"))
    await page.get_by_label("地点").fill("各县群众工作局视频接待室")
    await page.get_by_role("button", name="全选", exact=True).click()
    await page.get_by_role("button", name="公布", exact=True).click()
    await page.wait_for_url(re.compile("/schedule(?!/new)"))


def coming_hour() -> tuple[datetime, datetime]:
    now = datetime.now(LOCAL_ZONE) + timedelta(minutes=4)  # time to book before it begins
    starts = (now + timedelta(minutes=5 - now.minute % 5)).replace(second=0, microsecond=0)
    last = starts.replace(hour=23, minute=59)
    return starts, min(starts + timedelta(hours=1), last)


async def enrol(page: Page, living: Living, county: str) -> None:
    await page.goto(f"{living.server.url}/kiosk")
    await page.get_by_label("登记码").fill(living.founding.kiosk_codes[county])
    await page.get_by_role("button", name="登记这台机器").click()
    await expect(page.get_by_text("我想约个时间")).to_be_visible()


async def book(page: Page, name: str, watch: Watch = unwatched) -> str:
    """Book the first free time; the number on the slip."""
    await page.get_by_role("button", name="我想约个时间").click()
    await page.get_by_role("button", name=re.compile("个名额")).first.wait_for()
    await watch("day")
    await page.get_by_role("button", name=re.compile("个名额")).first.click()
    await page.get_by_role("button", name="可以约").first.wait_for()
    await watch("slot")
    await page.get_by_role("button", name="可以约").first.click()
    await page.get_by_role("button", name="草场").click()
    await page.get_by_label("一句话说说").fill("补偿款没有到户")
    await watch("matter")
    await page.get_by_role("button", name="下一步").click()
    await page.get_by_label("姓名").fill(name)
    await page.get_by_label("哪个乡、哪个村").fill("城北二村")
    await watch("who")
    await page.get_by_role("button", name="下一步").click()
    await watch("people")
    await page.get_by_role("button", name="下一步").click()  # one person comes
    await watch("language")
    await page.get_by_role("button", name="下一步").click()  # speaks Chinese
    await watch("confirm")
    await page.get_by_role("button", name="都对，约好").click()
    number = page.locator(".number").first
    await expect(number).to_be_visible()
    printed = (await number.inner_text()).strip()
    await watch("booked")
    await page.get_by_role("button", name="完成").click()
    return printed


async def arrive(page: Page, number: str, watch: Watch = unwatched) -> None:
    await page.get_by_role("button", name="我约好了，现在到了").click()
    for digit in re.sub(r"\D", "", number):
        await page.get_by_role("button", name=digit, exact=True).click()
    await page.get_by_role("button", name="我到了").click()
    await expect(page.get_by_text("开始前，请您知道")).to_be_visible()
    await watch("notice")
    await page.get_by_role("button", name="我知道了，继续").click()


async def check_devices(page: Page, watch: Watch = unwatched) -> None:
    await moving(page.locator("video").first)
    await watch("picture")
    await page.get_by_role("button", name="看得见").click()
    meter = page.get_by_role("meter")
    await expect(meter).to_be_visible()
    await expect(meter).not_to_have_attribute("aria-valuenow", "0", timeout=10_000)
    await watch("bar")
    await page.get_by_role("button", name="会动").click()
    await watch("heard")
    await page.get_by_role("button", name="开始说").click()
    await expect(page.get_by_role("button", name="再试一次")).to_be_visible(timeout=15_000)
    await page.get_by_role("button", name="听得见").last.click()
    await expect(page.get_by_text("我的号码")).to_be_visible()


async def open_call(page: Page, living: Living) -> None:
    """From the day's list through the brief into the call page."""
    await page.goto(f"{living.server.url}/office")
    await (
        page.get_by_role("button", name="开始接谈")
        .or_(page.get_by_role("link", name="开始接谈"))
        .click()
    )


async def admit(page: Page) -> None:
    button = page.get_by_role("button", name="接通", exact=True)
    recording, again = page.get_by_text("正在录制"), page.get_by_text("请再按一次")
    for _ in range(PRESSES):
        await expect(button).to_be_enabled(timeout=CALL_MS)
        await button.click()
        await expect(recording.or_(again).first).to_be_visible(timeout=CALL_MS)
        if await recording.is_visible():
            return
    await expect(recording).to_be_visible(timeout=CALL_MS)


async def show_paper(kiosk: Page, office: Page) -> None:
    """The villager puts a paper under the second camera; the official keeps the page."""
    await kiosk.get_by_role("button", name="给领导看材料").click()
    keep = office.get_by_role("button", name="留存这一页")
    await expect(keep).to_be_enabled(timeout=CALL_MS)
    await moving(office.locator("video").nth(1))
    await keep.click()
    await expect(office.get_by_text("已留存").first).to_be_visible(timeout=CALL_MS)


async def note_demand(page: Page, text: str) -> None:
    field = page.locator("#new-demand")
    await field.fill(text)
    await field.press("Enter")
    await expect(page.locator("article.demand").last).to_contain_text("诉求")


async def promise(page: Page, owner: str, answer: str) -> None:
    """Fill the open demand's card: by when, by whom, in which words."""
    card = page.locator("article.demand").last
    if not await card.get_by_role("button", name="限期解决").is_visible():
        await card.locator("button.head").click()
    await card.get_by_role("button", name="限期解决").click()
    await card.get_by_role("combobox", name="责任单位").fill(owner)
    await page.get_by_role("option", name=owner).first.click()
    await card.get_by_role("button", name="15 天").click()
    await card.get_by_label("答复原话").fill(answer)
    await card.get_by_role("button", name="收起").click()
    await expect(card).to_contain_text(owner)


async def end(page: Page) -> None:
    await page.get_by_role("button", name="结束并生成信访件").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="结束并生成信访件").click()
    await expect(page.get_by_text("信访件编号")).to_be_visible(timeout=CASE_MS)


async def grab(video: Locator) -> bytes:
    """What a video element shows now, as PNG bytes of its own resolution."""
    encoded: str = await video.evaluate(
        """v => { const c = document.createElement('canvas');
                  c.width = v.videoWidth; c.height = v.videoHeight;
                  c.getContext('2d').drawImage(v, 0, 0);
                  return c.toDataURL('image/png').split(',')[1]; }"""
    )
    return base64.b64decode(encoded)


async def moving(video: Locator) -> None:
    """Until the element has shown some frames."""
    await expect(video).to_be_visible()
    await video.evaluate(
        """v => new Promise((good, bad) => {
              const late = setTimeout(() => bad(new Error('no frames')), 10000);
              let n = 0;
              const seen = () => { if (++n >= 5) { clearTimeout(late); good(null); }
                                   else v.requestVideoFrameCallback(seen); };
              v.requestVideoFrameCallback(seen); })"""
    )
