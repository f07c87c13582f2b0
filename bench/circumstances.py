"""On what machine, on which day, and with how much else going on: what every row says of itself."""

import os
import platform
from datetime import UTC, datetime
from typing import Any

from media.fastlane import built_as


def circumstances() -> dict[str, Any]:
    """`load_1min` is the kernel's; above the number of cores, times are others' too. `fast_lane`:
    the relay's common case was built in C."""
    return {
        "machine": f"{platform.machine()} {platform.system()} {platform.python_version()}",
        "cores": os.cpu_count(),
        "fast_lane": built_as() is not None,
        "load_1min": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).date().isoformat(),
    }
