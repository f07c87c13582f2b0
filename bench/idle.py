"""What does a house cost in which nothing happens?

The real server, once with both roles and once as a room process apart, left alone: CPU of all its
threads as a share of one core. Each has settled before it is measured.

    run(seconds) -> {"rows": [{"roles", "cpu_percent", "rss_mib", …}], "worst_cpu_percent"}
"""

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.circumstances import circumstances
from bench.house import running_house

SETTLE_S: Final = 8.0
ROLES: Final = ('["web","room"]', '["room"]', '["web"]')


def run(seconds: int) -> dict[str, Any]:
    """Measure each kind of process for `seconds`. Raises RuntimeError if one does not start."""
    rows = [_measure(roles, seconds) for roles in ROLES]
    worst = max(row["cpu_percent"] for row in rows if "room" in row["roles"])
    return {"rows": rows, "worst_cpu_percent": worst, "target_cpu_percent": 1.0}


def in_words(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    return f"{row['roles']}: {row['cpu_percent']:.2f} % of a core, {row['rss_mib']:.0f} MiB"


def _measure(roles: str, seconds: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="reception-idle-") as var_dir,
        running_house(Path(var_dir), RECEPTION_ROLES=roles) as house,
    ):
        time.sleep(SETTLE_S)
        before_s, began = house.cpu_s(), time.monotonic()
        time.sleep(seconds)
        used_s, passed_s = house.cpu_s() - before_s, time.monotonic() - began
        return {
            "roles": roles,
            "seconds": seconds,
            "cpu_percent": round(100 * used_s / passed_s, 3),
            "rss_mib": round(house.rss_mib(), 1),
            "threads": house.threads(),
            **circumstances(),
        }
