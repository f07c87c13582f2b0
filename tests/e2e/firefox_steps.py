"""The steps of a talk's two people when their browser is Firefox; the twins of steps.py."""

import re

from tests.e2e.steps import CALL_MS, CASE_MS, PRESSES, Watch, unwatched
from tests.support.firefox import FirefoxPage
from tests.support.prefecture_process import Living

CALL_S = CALL_MS / 1000
CASE_S = CASE_MS / 1000


async def sign_in(page: FirefoxPage, living: Living, username: str) -> None:
    await page.goto(f"{living.server.url}/sign-in")
    await page.fill("用户名", username)
    await page.fill("密码", living.founding.password)
    await page.click("登录")
    await page.until("() => !location.pathname.includes('/sign-in')")


async def enrol(page: FirefoxPage, living: Living, county: str) -> None:
    await page.goto(f"{living.server.url}/kiosk")
    await page.fill("登记码", living.founding.kiosk_codes[county])
    await page.click("登记这台机器")
    await page.see("我想约个时间")


async def book(page: FirefoxPage, name: str, watch: Watch = unwatched) -> str:
    """Book the first free time; the number on the slip."""
    await page.click("我想约个时间")
    await page.click("个名额")
    await page.see("可以约")
    await watch("slot")
    await page.click("可以约")
    await page.click("草场")
    await page.fill("一句话说说", "补偿款没有到户")
    await watch("matter")
    await page.click("下一步")
    await page.fill("姓名", name)
    await page.fill("哪个乡、哪个村", "城北二村")
    await watch("who")
    for _ in ("who", "people", "language"):
        before = await page.evaluate("() => document.querySelector('h1')?.innerText")
        await page.click("下一步")
        await page.until("(before) => document.querySelector('h1')?.innerText !== before", before)
    await watch("confirm")
    await page.click("都对，约好")
    number: str = await page.until("() => document.querySelector('.number')?.innerText.trim()")
    await watch("booked")
    await page.click("完成")
    return number


async def arrive(page: FirefoxPage, number: str, watch: Watch = unwatched) -> None:
    await page.click("我约好了，现在到了")
    for digit in re.sub(r"\D", "", number):
        await page.click(digit, exact=True)
    await watch("number")
    await page.click("我到了")
    await page.see("开始前，请您知道")
    await watch("notice")
    await page.click("我知道了，继续")


async def check_devices(page: FirefoxPage, watch: Watch = unwatched) -> None:
    await page.video()
    await watch("picture")
    await page.click("看得见")
    await page.until(
        "() => Number(document.querySelector('[role=meter]')?.getAttribute('aria-valuenow')) > 0"
    )
    await watch("bar")
    await page.click("会动")
    await watch("heard")
    await page.click("开始说")
    await page.see("再试一次")
    await page.click("听得见", last=True)
    await page.see("我的号码")
    await watch("waiting")


async def open_call(page: FirefoxPage, living: Living, watch: Watch = unwatched) -> None:
    await page.goto(f"{living.server.url}/office")
    await page.see("开始接谈")
    await watch("day")
    await page.click("开始接谈", role="link")


async def admit(page: FirefoxPage) -> None:
    for _ in range(PRESSES):
        await page.click("接通", exact=True, wait_s=CALL_S)
        seen = await page.until(
            "() => /正在录制|请再按一次/.exec(document.body.innerText)?.[0]", wait_s=CALL_S
        )
        if seen == "正在录制":
            return
    await page.see("正在录制", wait_s=CALL_S)


async def note_demand(page: FirefoxPage, text: str) -> None:
    await page.evaluate("() => document.querySelector('#new-demand').focus()")
    await page.type(text + "\ue007")
    await page.until("() => document.querySelector('article.demand')?.innerText.includes('诉求')")


async def end(page: FirefoxPage) -> None:
    await page.click("结束并生成信访件")
    await page.until("() => document.querySelector('[role=dialog], dialog[open]')")
    await page.click("结束并生成信访件", last=True)
    await page.see("信访件编号", wait_s=CASE_S)
