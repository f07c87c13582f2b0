"""The callers of a storm: as `bench.media_caller`, and they notice when a stream stands still.

`python -m bench.storm_caller CLIP HEARERS`; what `drive` answers has `gaps_us` besides: for sound
and picture of each receiver the longest time between two packets, once it had warmed up.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench.media_caller import Counts, Line, Load, replying, serve
from media.sdp import OPUS

LONG_US: Final = 100_000


class WatchfulLine(Line):
    """Notes when each stream was last heard."""

    def __init__(self, ufrag: str, host: str) -> None:
        super().__init__(ufrag, host)
        self.since_ns = 0
        self.longest_us: dict[str, int] = {}
        self.long_gaps = 0
        self._last_ns: dict[str, int] = {}

    def heard(self, second: int, now_ns: int) -> None:
        kind = "sound" if second & 0x7F == OPUS.payload_type else "picture"
        last_ns, self._last_ns[kind] = self._last_ns.get(kind, 0), now_ns
        if last_ns < self.since_ns:
            return
        gap_us = (now_ns - last_ns) // 1000
        self.longest_us[kind] = max(gap_us, self.longest_us.get(kind, 0))
        self.long_gaps += gap_us > LONG_US


class WatchfulLoad(Load):
    """A share of such callers. Each `drive` tells of itself alone."""

    line = WatchfulLine

    async def drive(self, warm_up_s: float, seconds: float, drain_s: float) -> dict[str, Any]:
        lines = [caller.into for caller in self._callers]
        watchful = [line for line in lines if isinstance(line, WatchfulLine)]
        before = Counts(**{**vars(self._counts), "delays_us": [], "late_us": []})
        for line in watchful:
            line.since_ns = time.monotonic_ns() + int(warm_up_s * 1e9)
            line.longest_us, line.long_gaps = {}, 0
        answer = await super().drive(warm_up_s, seconds, drain_s)
        for name in ("sent", "expected", "received", "unsent"):
            answer[name] -= getattr(before, name)
        return {
            **answer,
            "gaps_us": [line.longest_us for line in watchful],
            "long_gaps": sum(line.long_gaps for line in watchful),
        }


if __name__ == "__main__":
    asyncio.run(serve(WatchfulLoad(Path(sys.argv[1]), int(sys.argv[2])), replying()))
