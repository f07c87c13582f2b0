"""From RTP timestamps to the session's timeline: robust clock fits over sender reports. Pure.

A sender report says which RTP time its sender's wall clock called which NTP time; when reports
arrive here tells how that wall clock runs against ours. Single reports are late, early or wrong, so
both maps are fitted over all of them: the first by the median, the second along the least delayed.
All values are integer nanoseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

MAX_DRIFT: Final = 500e-6
"""No quartz is this wrong; a steeper fit is noise or a lie and counts as no drift."""
MIN_DRIFT_SPAN_NS: Final = 60_000_000_000
WINDOW_NS: Final = 20_000_000_000
MAX_FIT_POINTS: Final = 120
NTP_FRACTION_BITS: Final = 32
MAX_LEAP_S: Final = 60
"""No line holds a packet back for longer, and no honest clock is this wrong within a leg."""


@dataclass(frozen=True, slots=True)
class ClockMap:
    """`y = x + offset_ns + drift * (x - origin_ns)`: one clock read on another."""

    origin_ns: int
    offset_ns: int
    drift: float

    def __call__(self, x_ns: int) -> int:
        return x_ns + self.offset_ns + round(self.drift * (x_ns - self.origin_ns))


def ntp_to_ns(ntp_time: int) -> int:
    """A 64-bit NTP time (RFC 5905, 6) in nanoseconds of its own epoch."""
    return (ntp_time * 1_000_000_000) >> NTP_FRACTION_BITS


def fit_median(pairs: Sequence[tuple[int, int]]) -> ClockMap:
    """The map through the middle of `(x_ns, y_ns)` pairs. Needs at least one pair."""
    return _fit([(x, y - x) for x, y in pairs])


def fit_least_delayed(pairs: Sequence[tuple[int, int]]) -> ClockMap:
    """The map along the smallest `y - x`: for pairs whose `y` is an arrival, late by the network.

    The least delayed pair of every 20 s stands for it, so a slow drift is followed and a burst of
    queueing is not. Needs at least one pair.
    """
    least: dict[int, tuple[int, int]] = {}
    first = min(x for x, _ in pairs)
    for x, y in pairs:
        window = (x - first) // WINDOW_NS
        if window not in least or y - x < least[window][1]:
            least[window] = (x, y - x)
    return _fit(list(least.values()))


def spread(fitted: ClockMap, pairs: Sequence[tuple[int, int]]) -> int:
    """The median distance in ns of the pairs from the map: how far to believe it."""
    return round(median(abs(fitted(x) - y) for x, y in pairs))


def _fit(points: list[tuple[int, int]]) -> ClockMap:
    """Median offset around a Theil-Sen slope over `(x, offset)` points."""
    points.sort()
    if len(points) > MAX_FIT_POINTS:  # pairs of points grow with the square
        step = len(points) / MAX_FIT_POINTS
        points = [points[int(i * step)] for i in range(MAX_FIT_POINTS)]
    origin = points[0][0]
    drift = 0.0
    if len(points) >= 3 and points[-1][0] - origin >= MIN_DRIFT_SPAN_NS:
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0]]
        drift = median(slopes)
        if abs(drift) > MAX_DRIFT:
            drift = 0.0
    offset = round(median(d - drift * (x - origin) for x, d in points))
    return ClockMap(origin, offset, drift)


class Unwrapper:
    """Extends a counter of `bits` bits that wraps, following the nearest way round.

    The first value is lifted by one round, so that what arrives late just after the start still
    comes out positive.
    """

    def __init__(self, bits: int) -> None:
        self._modulus = 1 << bits
        self.last: int | None = None

    def __call__(self, value: int) -> int:
        """The extended value; it becomes the reference for the next call."""
        self.last = self.near(value)
        return self.last

    def near(self, value: int) -> int:
        """The extended value nearest to the last one, which stays the reference."""
        if self.last is None:
            return value + self._modulus
        half = self._modulus >> 1
        return self.last + ((value - self.last + half) % self._modulus) - half


class SteadyClock:
    """A track's RTP time, extended, and never further than `MAX_LEAP_S` from when it arrived.

    A sender's clock may leap: by a fault, or because somebody wants a file of years. It is set
    right then, so that the packet stands where it arrived and what follows goes on from there.
    """

    def __init__(self, clock_rate: int, first: tuple[int, int] | None = None) -> None:
        """`first`: an extended RTP time and its arrival to go by; else the first call's."""
        self._rate = clock_rate
        self._unwrap = Unwrapper(32)
        self._leapt = 0
        self._first = first
        if first is not None:
            self._unwrap.last = first[0]

    def __call__(self, rtp_time: int, at_ns: int) -> int:
        """The extended RTP time of a packet that arrived at `at_ns`."""
        extended = self._unwrap(rtp_time) + self._leapt
        if self._first is None:
            self._first = (extended, at_ns)
        played = (at_ns - self._first[1]) * self._rate // 1_000_000_000
        expected = self._first[0] + played
        if abs(extended - expected) > MAX_LEAP_S * self._rate:
            self._leapt += expected - extended
            return expected
        return extended
