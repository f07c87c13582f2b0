"""Does a relay that is called again and again keep what it used?

One server process; round after round new callers join new rooms, talk, and go, and after each round
the server is looked at while nobody is in it: memory, open files, threads. What grows without end
shows as a slope; the first rounds, in which caches and pools fill, are left out of it.

    run(minutes, calls) -> {"rounds", "calls_set_up", "rss_mib": …, "mib_per_hour": {…}, …}
"""

import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

from bench.circumstances import circumstances
from bench.media_load import Reception, clip_file, measure, resident_kib

TALK_S: Final = 5
SETTLING: Final = 0.25
"""Of the rounds, at the beginning."""
HOURS_72: Final = 72


def run(
    minutes: float, calls: int, *, tell: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Rounds of `calls` calls for `minutes`; each round's row goes to `tell`.

    Raises RuntimeError if a child fails.
    """
    until = time.monotonic() + minutes * 60
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    with clip_file() as clip, Reception(rooms=calls) as gateway:
        while time.monotonic() < until or len(rows) < 4:
            talk = measure(gateway, clip, rooms=calls, seconds=TALK_S)
            gateway.hang_up()
            rows.append(
                {
                    "round": len(rows) + 1,
                    "at_s": round(time.monotonic() - began, 1),
                    "rss_mib": round(resident_kib(gateway.pid) / 1024, 2),
                    "files": len(os.listdir(f"/proc/{gateway.pid}/fd")),
                    "threads": len(os.listdir(f"/proc/{gateway.pid}/task")),
                    "lost": talk["lost"],
                }
            )
            if tell is not None:
                tell(rows[-1])
            gateway.clear()
    return {**_summary(rows, calls), **circumstances()}


def in_words(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    return f"round {row['round']}: {row['rss_mib']} MiB, {row['lost']} lost"


def _summary(rows: list[dict[str, Any]], calls: int) -> dict[str, Any]:
    settled = rows[int(len(rows) * SETTLING) :]
    first, last = settled[0], settled[-1]
    slope, upper = slope_per_hour([(row["at_s"] / 3600, row["rss_mib"]) for row in settled])
    return {
        "rounds": len(rows),
        "calls_set_up": len(rows) * calls,
        "minutes": round(rows[-1]["at_s"] / 60, 1),
        "rss_mib": {"first": first["rss_mib"], "last": last["rss_mib"]},
        "mib_per_hour": {"slope": round(slope, 3), "upper_95": round(upper, 3)},
        # The slope's upper bound, kept up for three days, against what the process uses now.
        "growth_in_72_h_percent": round(100 * max(0.0, upper) * HOURS_72 / last["rss_mib"], 1),
        "files": {"first": first["files"], "last": last["files"]},
        "threads": {"first": first["threads"], "last": last["threads"]},
        "lost": sum(row["lost"] for row in rows),
    }


def slope_per_hour(points: list[tuple[float, float]]) -> tuple[float, float]:
    """The least-squares slope through (hours, MiB), and the upper end of its 95 % interval. Pure.

    The normal distribution stands in for Student's: with the tens of rounds of a real run they
    agree, and with fewer the answer is a hint anyway.
    """
    hours = [at for at, _ in points]
    slope, intercept = statistics.linear_regression(hours, [mib for _, mib in points])
    if len(points) < 3:
        return slope, math.inf
    residuals = [mib - (intercept + slope * at) for at, mib in points]
    variance = sum(r * r for r in residuals) / (len(points) - 2)
    spread = sum((at - statistics.fmean(hours)) ** 2 for at in hours)
    return slope, slope + 1.96 * math.sqrt(variance / spread)
