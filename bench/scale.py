"""Does a packet cost more when there are more calls, or more parties in a room?

    run(seconds, tell) -> {"us_cpu_per_packet": by calls, "us_cpu_per_copy": by parties, "idle": …}

A packet is one that the server received; a copy is one that it sent on. In a room of n everybody
hears the n-1 others, so there the price of a copy is what compares. The numbers of rooms are such
that the copies per second are about the same for each size of room.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.circumstances import circumstances
from bench.media_load import Reception, clip_file, cpu_s, measure

CALLS: Final = (1, 5, 10, 20, 40)
ROOMS: Final = ((28, 2), (5, 4), (1, 8))
"""How many rooms of how many parties."""

Row = dict[str, Any]


def run(
    seconds: int,
    tell: Callable[[Row], None],
    *,
    calls: Sequence[int] = CALLS,
    rooms: Sequence[tuple[int, int]] = ROOMS,
) -> Row:
    """Measure every size for `seconds`; `tell` gets each row as soon as it is there."""
    idle = _idle(seconds)
    tell(idle)
    by_calls: dict[str, float] = {}
    by_parties: dict[str, float] = {}
    lost = 0
    with clip_file() as clip:
        for count, parties in [*((number, 2) for number in calls), *rooms]:
            with Reception(count, parties) as gateway:
                row = measure(gateway, clip, rooms=count, parties=parties, seconds=seconds)
            tell(row)
            lost += row["lost"]
            if (count, parties) in rooms:
                by_parties[str(parties)] = row["us_cpu_per_copy"]
            else:
                by_calls[str(count)] = row["us_cpu_per_packet"]
    return {
        "us_cpu_per_packet": by_calls,
        "us_cpu_per_copy": by_parties,
        "idle_core_percent": idle["core_percent"],
        "lost": lost,
    }


def in_words(row: Row) -> str:
    """A row in a line, for people."""
    if not row["calls"]:
        return f"idle: {row['core_percent']} % of a core"
    return (
        f"{row['calls']} rooms of {row['parties']}: {row['us_cpu_per_packet']} µs a packet, "
        f"{row['us_cpu_per_copy']} µs a copy, {row['lost']} lost"
    )


def _idle(seconds: int) -> Row:
    with Reception(rooms=0) as gateway:
        before_s = cpu_s(gateway.pid)
        time.sleep(seconds)
        used_s = cpu_s(gateway.pid) - before_s
    percent = round(100 * used_s / seconds, 2)
    return {"server": gateway.name, "calls": 0, "core_percent": percent, **circumstances()}
