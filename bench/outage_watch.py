"""A talk of the outage drill, as its two pages see it (watch.js).

What a person would notice is the last of four streams to arrive again: sound and picture, up (from
the kiosk to the official) and down. Times are seconds after a moment of ours, on the wall clock
that all processes of this machine share.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

from bench.aftermath import Disturbance
from bench.lanes import Lane

WATCH: Final = Path(__file__).with_name("watch.js")
STREAMS: Final = ("sound_up_s", "picture_up_s", "sound_down_s", "picture_down_s")
PATIENCE_S: Final = 30.0
REST_WITHIN_S: Final = 90.0
SETTLED_S: Final = 4.0
"""All four streams flow this long before the next fault: congestion control has found its rate."""


@dataclass(slots=True)
class Call:
    """One talk: a kiosk on its lane and the official's page beside the server."""

    lane: Lane
    appointment_id: str
    office: Page
    open_kiosk: Callable[[], Awaitable[Page]]
    open_office: Callable[[], Awaitable[Page]]
    ask_desk: Callable[[str], Awaitable[Any]]
    """GET a path as the county's desk; the answer's JSON."""
    ask_official: Callable[[str], Awaitable[Any]]
    kiosk: Page | None = None
    session_id: str = ""
    faults: list[Disturbance] = field(default_factory=list)

    @property
    def kiosk_page(self) -> Page:
        assert self.kiosk is not None, "the call has begun"
        return self.kiosk


@dataclass(slots=True)
class Row:
    """One fault and what became of it."""

    kind: str
    lane: int
    outage_s: float
    proof: str = ""
    noticed_s: float | None = None
    ready_s: float | None = None
    """Of a server that was killed: when the next one answered."""
    words_s: float | None = None
    """Of an official who is gone: when the kiosk said so in words, and when the desk was told."""
    desk_told_s: float | None = None
    sound_up_s: float | None = None
    picture_up_s: float | None = None
    sound_down_s: float | None = None
    picture_down_s: float | None = None
    legs: tuple[int, int] = (0, 0)
    trouble: str = ""

    @property
    def back_s(self) -> float | None:
        """When the last of the four streams was there again."""
        times = [getattr(self, name) for name in STREAMS]
        return None if None in times else max(times)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "back_s": self.back_s}


async def first_after(page: Page, stream: str, since_s: float) -> float | None:
    """How long after `since_s` (Unix time) this page got something of `stream`; None if not yet."""
    at_ms: float | None = await page.evaluate(
        "([stream, since]) => window.drill?.[stream].find((at) => at > since) ?? null",
        [stream, since_s * 1000],
    )
    return None if at_ms is None else round(at_ms / 1000 - since_s, 3)


async def longest_gap(page: Page, stream: str, since_s: float) -> float:
    """The longest time without `stream` since then, an unfinished one included."""
    gap_ms: float = await page.evaluate(
        """([stream, since]) => {
          const times = [since, ...window.drill[stream].filter((at) => at > since), Date.now()];
          return Math.max(...times.slice(1).map((at, i) => at - times[i])); }""",
        [stream, since_s * 1000],
    )
    return round(gap_ms / 1000, 3)


async def told(page: Page, role: str, states: Sequence[str], since_s: float) -> float | None:
    """When this page was told that the one of this `role` is in one of these `states`."""
    at_ms: float | None = await page.evaluate(
        """([role, states, since]) => window.drill.told
             .find(([at, who, state]) => at > since && who === role && states.includes(state))
             ?.[0] ?? null""",
        [role, list(states), since_s * 1000],
    )
    return None if at_ms is None else round(at_ms / 1000 - since_s, 3)


async def leg(page: Page) -> int:
    """The newest leg that this page was offered."""
    newest: int = await page.evaluate("() => window.drill?.legs.at(-1) ?? 0")
    return newest


async def sockets_opened(page: Page) -> int:
    """How many signaling sockets this page has opened so far."""
    opened: int = await page.evaluate("() => window.drill.sockets.length")
    return opened


async def fill_gaps(call: Call, row: Row, since_s: float) -> None:
    """The longest time that each stream was away since then: for faults that last an instant."""
    row.sound_up_s = await longest_gap(call.office, "audio", since_s)
    row.picture_up_s = await longest_gap(call.office, "video", since_s)
    row.sound_down_s = await longest_gap(call.kiosk_page, "audio", since_s)
    row.picture_down_s = await longest_gap(call.kiosk_page, "video", since_s)


async def settle(call: Call) -> None:
    """Until nothing has been missing on any stream for a while."""
    deadline = time.monotonic() + REST_WITHIN_S
    while time.monotonic() < deadline:
        since_s = time.time()
        await asyncio.sleep(SETTLED_S)
        gaps = [
            await longest_gap(page, stream, since_s)
            for page in (call.kiosk_page, call.office)
            for stream in ("audio", "video")
        ]
        if max(gaps) < 1.0:
            return
    raise RuntimeError(f"lane {call.lane.number} does not come to rest")


async def measure(call: Call, row: Row, since_s: float) -> None:
    """Fill in when each stream was back, patiently."""
    deadline = time.monotonic() + PATIENCE_S
    ways = (
        ("sound_up_s", call.office, "audio"), ("picture_up_s", call.office, "video"),
        ("sound_down_s", call.kiosk_page, "audio"), ("picture_down_s", call.kiosk_page, "video"),
    )  # fmt: skip
    while row.back_s is None and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        for name, page, stream in ways:
            if getattr(row, name) is None:
                setattr(row, name, await first_after(page, stream, since_s))


async def back_for_good(call: Call, row: Row, since_s: float) -> None:
    """Fill in from when on each stream has stayed. What only flickers is not back."""
    row.sound_up_s = await _steady_from(call.office, "audio", since_s)
    row.picture_up_s = await _steady_from(call.office, "video", since_s)
    row.sound_down_s = await _steady_from(call.kiosk_page, "audio", since_s)
    row.picture_down_s = await _steady_from(call.kiosk_page, "video", since_s)


async def _steady_from(page: Page, stream: str, since_s: float) -> float | None:
    at_ms: float | None = await page.evaluate(
        """([stream, since]) => {
          let from = null;
          let last = since;
          for (const at of window.drill[stream].filter((at) => at > since)) {
            if (from === null || at - last > 1000) from = at;
            last = at;
          }
          return Date.now() - last > 1000 ? null : from; }""",
        [stream, since_s * 1000],
    )
    return None if at_ms is None else round(at_ms / 1000 - since_s, 3)
