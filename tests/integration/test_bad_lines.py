"""Calls over lines that lose and starve, through the real relay and recorder: sound stays whole.

Small counts of what `reception drill network` measures at length (docs/recording.md, "Bad lines").
"""

from pathlib import Path
from typing import Any

import pytest

from bench.callers import CHROMIUM
from bench.netlab import why_not
from bench.network import run

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.slow,
]


async def call(condition: str, seconds: float, client: str) -> dict[str, Any]:
    """One call on that line: the drill's row."""
    rows = [row async for row in run(seconds, [condition], client)]
    return rows[0]


async def test_at_five_percent_loss_the_recording_keeps_the_sound() -> None:
    row = await call("loss-5", 8, "aiortc")
    assert row["fault"]["up"]["lost"] > 0
    assert row["fault"]["down"]["lost"] > 0
    assert row["hall_recorded"] >= 0.94
    assert row["repairs"]["sound_recovered"] > 0


async def test_at_twenty_percent_loss_and_a_long_way_too() -> None:
    row = await call("loss-20-far", 8, "aiortc")
    assert row["fault"]["up"]["lost"] > 0
    assert row["hall_recorded"] >= 0.79


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's chromium")
async def test_on_a_thin_line_the_picture_gives_way_and_the_sound_is_whole() -> None:
    row = await call("thin-up", 30, "chromium")  # what adapting costs is soon over
    assert row["fault"]["up"]["delayed"] + row["fault"]["up"]["overflowed"] > 0
    assert row["hall_recorded_settled"] >= 0.99
    assert row["picture_kbps"]["hall_settled"] < 300
    assert row["line_wait_p95_ms"]["up"] < 300  # a queue is heard as delay
    assert row["office_recorded"] >= 0.99


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's chromium")
async def test_a_receivers_line_too_thin_for_pictures_still_carries_the_sound() -> None:
    row = await call("thread-down", 14, "chromium")
    assert row["fault"]["down"]["overflowed"] > 0
    assert row["heard_in_hall"]["arrived"] > 0.93  # what stands in the queue at the end is late
    assert row["picture_kbps"]["in_hall_settled"] < 60
    assert row["hall_recorded"] >= 0.99  # what it sends is nobody's business
