"""Debian's Chromium as separate people: each its own process, profile, camera and microphone."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import BrowserContext, Page, Playwright, ViewportSize

CHROMIUM = "/usr/bin/chromium"

QUIET = (
    "--no-sandbox",  # tests run as root here
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
)
FAKE_DEVICES = (
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    # Chromium leaves 127.0.0.1 out of ICE; the tests' server listens there and nowhere else.
    "--allow-loopback-in-peer-connection",
)


@dataclass(frozen=True, slots=True)
class Devices:
    """What the fake camera and microphone play, in a loop."""

    camera: Path
    microphone: Path

    @property
    def flags(self) -> tuple[str, ...]:
        return (
            *FAKE_DEVICES,
            f"--use-file-for-fake-video-capture={self.camera}",
            f"--use-file-for-fake-audio-capture={self.microphone}",
        )


@asynccontextmanager
async def person(
    playwright: Playwright,
    profile: Path,
    *,
    devices: Devices | None = None,
    flags: Sequence[str] = (),
    size: tuple[int, int] = (1440, 900),
    language: str = "zh-CN",
    executable: str = CHROMIUM,
) -> AsyncIterator[BrowserContext]:
    """A browser process of its own, with its own profile."""
    context = await playwright.chromium.launch_persistent_context(
        profile,
        executable_path=executable,
        headless=True,
        args=[*QUIET, *(devices.flags if devices else FAKE_DEVICES), *flags],
        viewport=ViewportSize(width=size[0], height=size[1]),
        locale=language,
        timezone_id="Asia/Shanghai",
        permissions=["camera", "microphone"],
    )
    try:
        yield context
    finally:
        await context.close()


def complaints_of(page: Page) -> list[str]:
    """A list that fills with what the page's console and network complain about."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(f"pageerror: {error}"))
    page.on(
        "console",
        lambda message: (
            found.append(f"console: {message.text}") if message.type == "error" else None
        ),
    )
    return found
