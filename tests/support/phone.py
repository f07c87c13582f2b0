"""A page on a phone, and in letters of twice the size: what reaches past the window's edge."""

from playwright.async_api import CDPSession, Page

PHONE = (360, 740)
TEXT_PX = 16
LETTERS = {"360": TEXT_PX, "360-large": 2 * TEXT_PX}
"""What a phone's picture is called → of which size its person has chosen letters."""

LOOK_MS, LOOKS = 100, 20

# What reaches past the right edge without a scroller of its own around it.
TOO_WIDE = """() => { const edge = document.documentElement.clientWidth + 1;
  const scrolls = (node) => node && node !== document.body &&
    (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(node).overflowX) ||
     scrolls(node.parentElement));
  return [...document.body.querySelectorAll('*')]
    .filter((node) => node.getBoundingClientRect().right > edge && !scrolls(node.parentElement))
    .slice(0, 5)
    .map((node) => `${node.tagName.toLowerCase()}.${node.getAttribute('class') ?? ''}`)
    .join(' '); }"""

# Two frames: the first is laid out for the new letters, the second tells observers of it.
LAID_OUT = """() => new Promise((good) =>
  requestAnimationFrame(() => requestAnimationFrame(() => good(null))))"""


async def letters(page: Page, browser: CDPSession, size: tuple[int, int], px: int) -> None:
    """A window of this size, whose person has chosen letters of this size in the browser.

    Chromium forgets the letters whenever the window changes, so this is the way to change it.
    """
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    fonts = {"standard": px, "fixed": px}
    await browser.send("Page.setFontSizes", {"fontSizes": fonts})


async def too_wide(page: Page) -> dict[str, str]:
    """What reaches past a phone's edge, by how large the letters are. Leaves the phone in place."""
    browser = await page.context.new_cdp_session(page)
    found = {}
    for label, px in LETTERS.items():
        await letters(page, browser, PHONE, px)
        if over := await _when_still(page):
            found[label] = over
    await browser.detach()
    return found


async def _when_still(page: Page) -> str:
    """Panes glide to their new places; only what stays outside is too wide."""
    await page.evaluate(LAID_OUT)
    over = ""
    for _ in range(LOOKS):
        over = str(await page.evaluate(TOO_WIDE))
        if not over:
            break
        await page.wait_for_timeout(LOOK_MS)
    return over
