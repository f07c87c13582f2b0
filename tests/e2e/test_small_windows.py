"""Staff pages on a phone and in doubled letters: whatever is on them is inside of the window."""

from pathlib import Path

import pytest
from playwright.async_api import Playwright

from tests.e2e import steps
from tests.support.browser import person
from tests.support.phone import too_wide
from tests.support.prefecture_process import Living

PAGES = {
    "ganzi": ("/desk", "/desk/register"),
    "xinfang": ("/schedule", "/schedule/new", "/cases"),
    "guanli": ("/admin", "/admin/kiosks", "/admin/audit"),
}

pytestmark = pytest.mark.timeout(300)


async def test_no_page_is_wider_than_a_phone(
    living: Living, playwright: Playwright, tmp_path: Path
) -> None:
    found = {}
    async with person(playwright, tmp_path / "staff") as context:
        page = context.pages[0]
        for username, paths in PAGES.items():
            await context.clear_cookies()
            await steps.sign_in(page, living, username)
            for path in paths:
                await page.goto(f"{living.server.url}{path}")
                await page.get_by_role("heading", level=1).first.wait_for()
                for language in ("English", "汉语"):
                    await page.get_by_role("button", name=language, exact=True).first.click()
                    if over := await too_wide(page):
                        found[f"{path} {language}"] = over
    assert found == {}
