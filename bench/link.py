"""A bad line, on purpose and repeatable: what a `Lane` does to each packet follows from its seed.

Kernels without netem cannot lose one packet in twenty. This link can: two TUN devices (one in each
of two network namespaces, made by bench/netlab.py) and between them a process that decides for
every packet whether and when it comes out at the other end.

`Lane` is the decision, pure: time is an argument, the same seed and the same packets at the same
times have the same fate. `main` is the edge: it moves packets between file descriptors and obeys
one JSON line at a time on standard input. Everything done to a packet is counted, so that a test
can assert that its fault happened.
"""

import heapq
import json
import math
import os
import random
import select
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

SECOND_NS: Final = 1_000_000_000
MS_NS: Final = 1_000_000
MAX_PACKET_BYTES: Final = 2048
# In flight in one direction. 30,000 VGA packets are minutes; beyond it the link drops, and says so.
MAX_IN_FLIGHT: Final = 30_000
# Waiting times kept for the percentiles; the newest replace the oldest.
MAX_WAITS: Final = 20_000
LEVEL_CHANGE: Final = 1 / 16


@dataclass(frozen=True, slots=True)
class Burst:
    """Gilbert's and Elliott's channel: good and bad stretches, changed between packet by packet.

    The mean bad stretch is 1 / `leave` packets; the share of bad ones is
    enter / (enter + leave), and `loss` of them are lost.
    """

    enter: float
    leave: float
    loss: float = 1.0


@dataclass(frozen=True, slots=True)
class Impairment:
    """What one direction of a link does. The default does nothing.

    `jitter_ms`: up to that much more delay, in stretches, never out of order. `reorder`: the share
    of packets held back by `reorder_ms`, so that their successors overtake them. `rate_bps`: a
    bottleneck (IP bytes count) with a queue of `queue_bytes` that drops from its tail. 0 = none.
    `is_cut`: nothing passes.
    """

    loss: float = 0.0
    burst: Burst | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    reorder: float = 0.0
    reorder_ms: float = 15.0
    rate_bps: int = 0
    queue_bytes: int = 20_000
    is_cut: bool = False

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Impairment":
        """From JSON. Raises TypeError for a word it does not know."""
        burst = values.get("burst")
        return cls(**{**values, "burst": Burst(**burst) if burst else None})


@dataclass(slots=True)
class LaneCounts:
    """What has happened since the counters were last read."""

    packets: int = 0
    lost: int = 0  # at random or in a burst
    overflowed: int = 0  # the bottleneck's queue was full
    cut: int = 0
    reordered: int = 0
    delayed: int = 0  # came out later than they came in, by more than a millisecond
    passed: int = 0
    passed_bytes: int = 0


class Lane:
    """One direction. `fate` must be asked in order of arrival."""

    def __init__(self, impairment: Impairment, seed: int) -> None:
        self._random = random.Random(seed)
        self._is_bad = False
        self._level = 0.0  # of jitter, 0..1
        self._busy_until_ns = 0
        self._last_leaves_ns = 0
        self.impairment = impairment
        self.counts = LaneCounts()

    def fate(self, now_ns: int, size_bytes: int) -> int | None:
        """When a packet that arrives now leaves, in the same clock; None if it never does.

        Draws the same number of random numbers for every packet, so that what happens to packet n
        does not depend on which impairments are set.
        """
        worse, lost, level, change, late = (self._random.random() for _ in range(5))
        counts, set_to = self.counts, self.impairment
        counts.packets += 1
        if set_to.is_cut:
            counts.cut += 1
            return None
        if change < LEVEL_CHANGE:
            self._level = level
        if lost < set_to.loss or self._lost_in_burst(worse, lost):
            counts.lost += 1
            return None
        ready_ns = self._through_bottleneck(now_ns, size_bytes)
        if ready_ns is None:
            counts.overflowed += 1
            return None
        leaves_ns = ready_ns + int((set_to.delay_ms + self._level * set_to.jitter_ms) * MS_NS)
        if late < set_to.reorder:
            # Does not move the edge of the stream: the next ones overtake it.
            counts.reordered += 1
            leaves_ns = max(leaves_ns, self._last_leaves_ns) + int(set_to.reorder_ms * MS_NS)
        else:
            leaves_ns = self._last_leaves_ns = max(leaves_ns, self._last_leaves_ns)
        counts.delayed += leaves_ns - now_ns > MS_NS
        return leaves_ns

    def _lost_in_burst(self, worse: float, lost: float) -> bool:
        burst = self.impairment.burst
        if burst is None:
            return False
        if worse < (burst.leave if self._is_bad else burst.enter):
            self._is_bad = not self._is_bad
        return self._is_bad and lost < burst.loss

    def _through_bottleneck(self, now_ns: int, size_bytes: int) -> int | None:
        rate_bps = self.impairment.rate_bps
        if not rate_bps:
            return now_ns
        waiting_bytes = max(0, self._busy_until_ns - now_ns) * rate_bps // (8 * SECOND_NS)
        if waiting_bytes + size_bytes > self.impairment.queue_bytes:
            return None
        begins_ns = max(now_ns, self._busy_until_ns)
        self._busy_until_ns = begins_ns + size_bytes * 8 * SECOND_NS // rate_bps
        return self._busy_until_ns


def percentile(values: list[float], fraction: float) -> float | None:
    """The smallest value that `fraction` of them do not exceed; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, math.ceil(fraction * len(ordered)) - 1))]


# -- The edge ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Way:
    """One direction at the edge: from `source` to `sink`, and what is on its way."""

    lane: Lane
    source: int
    sink: int
    on_its_way: list[tuple[int, int, bytes, int]] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)
    unwritable: int = 0
    _count: int = 0

    def take(self, now_ns: int) -> None:
        """Read what has arrived, decide, keep it until it is due."""
        while True:
            try:
                packet = os.read(self.source, MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the device is down: EIO until it comes up again
                return
            leaves_ns = self.lane.fate(now_ns, len(packet))
            if leaves_ns is None:
                continue
            if len(self.on_its_way) >= MAX_IN_FLIGHT:
                self.lane.counts.overflowed += 1
                continue
            self._count += 1
            heapq.heappush(self.on_its_way, (leaves_ns, self._count, packet, now_ns))

    def give(self, now_ns: int) -> None:
        """Write what is due."""
        while self.on_its_way and self.on_its_way[0][0] <= now_ns:
            _, count, packet, arrived_ns = heapq.heappop(self.on_its_way)
            try:
                os.write(self.sink, packet)
            except OSError:  # down, or its queue is full
                self.unwritable += 1
                continue
            counts = self.lane.counts
            counts.passed += 1
            counts.passed_bytes += len(packet)
            wait_ms = (now_ns - arrived_ns) / MS_NS
            if len(self.waits_ms) < MAX_WAITS:
                self.waits_ms.append(wait_ms)
            else:
                self.waits_ms[count % MAX_WAITS] = wait_ms

    def read_counts(self) -> dict[str, Any]:
        """What happened since the last reading, and how long packets took to pass."""
        values: dict[str, Any] = asdict(self.lane.counts)
        values["unwritable"] = self.unwritable
        for name, fraction in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            found = percentile(self.waits_ms, fraction)
            values[f"wait_{name}_ms"] = None if found is None else round(found, 2)
        self.lane.counts = LaneCounts()
        self.waits_ms = []
        self.unwritable = 0
        return values


class _Edge:
    """Moves packets until standard input closes."""

    def __init__(self, fd_a: int, fd_b: int, seed: int) -> None:
        self.ways = {
            "a_to_b": _Way(Lane(Impairment(), 2 * seed), fd_a, fd_b),
            "b_to_a": _Way(Lane(Impairment(), 2 * seed + 1), fd_b, fd_a),
        }

    def run(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        ways = list(self.ways.values())
        control = sys.stdin.fileno()
        text = b""
        while True:
            due = [way.on_its_way[0][0] for way in ways if way.on_its_way]
            wait_s = max(0, min(due) - now_ns()) / SECOND_NS if due else None
            readable, _, _ = select.select([control, *(w.source for w in ways)], [], [], wait_s)
            now = now_ns()
            for way in ways:
                if way.source in readable:
                    way.take(now)
                way.give(now_ns())
            if control in readable:
                data = os.read(control, 65_536)
                if not data:
                    return
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    answer = self.obey(json.loads(line))
                    sys.stdout.write(json.dumps(answer) + "\n")
                    sys.stdout.flush()

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """`{"set": {direction: impairment}}` or `{"count": true}`."""
        for direction, values in order.get("set", {}).items():
            self.ways[direction].lane.impairment = Impairment.of(values)
        if "count" in order:
            return {name: way.read_counts() for name, way in self.ways.items()}
        return {}


def main(arguments: list[str]) -> None:
    """`python -m bench.link <fd a> <fd b> <seed>`: two open TUN devices, non-blocking."""
    fd_a, fd_b, seed = map(int, arguments)
    _Edge(fd_a, fd_b, seed).run()


if __name__ == "__main__":
    main(sys.argv[1:])
