"""When a finished file flashes and beeps: decoded, and compared with when it should have.

A file's time is read as players read it. Sound has two readings: by the packets' own times, and run
together, one decoded sample after the other from the first one on, as Chromium plays a file. The
first cannot show a hole that was not filled, the second cannot hide one.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from bench.link import percentile

BRIGHT: Final = 128
BLOCK_SAMPLES: Final = 48
LOUD: Final = 0.15
QUIET_BLOCKS: Final = 100
"""A beep begins after 100 ms without one."""
TOLERANCE_MS: Final = 380.0
"""Instants lie at least 800 ms apart: what is further away belongs to another one, or to none."""


@dataclass(frozen=True, slots=True)
class Onset:
    """Something begins, in file time. `run_ms`: with all sound before it run together.

    `is_sure` is false for a flash whose picture before is missing: it may have begun earlier.
    """

    at_ms: float
    run_ms: float
    is_sure: bool = True


def flashes(path: Path, fps: float) -> list[Onset]:
    """When the picture turns white."""
    found: list[Onset] = []
    was_bright, before_ms = False, float("-inf")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for frame in container.decode(stream):
            assert frame.time is not None
            at_ms = frame.time * 1000
            luma = np.frombuffer(memoryview(frame.planes[0]), np.uint8)
            is_bright = float(luma[::7].mean()) > BRIGHT
            if is_bright and not was_bright:
                found.append(Onset(at_ms, at_ms, at_ms - before_ms < 1600 / fps))
            was_bright, before_ms = is_bright, at_ms
    return found


def beeps(path: Path) -> list[Onset]:
    """When a tone begins, to a millisecond."""
    found: list[Onset] = []
    first_ms, samples, since_loud = None, 0, QUIET_BLOCKS
    resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            assert frame.time is not None
            at_ms = frame.time * 1000
            first_ms = at_ms if first_ms is None else first_ms
            for mono in resampler.resample(frame):
                data = mono.to_ndarray()[0]
                data = data[: len(data) // BLOCK_SAMPLES * BLOCK_SAMPLES]
                blocks = np.sqrt((data.reshape(-1, BLOCK_SAMPLES) ** 2).mean(axis=1))
                for number, is_loud in enumerate(blocks > LOUD):
                    if is_loud and since_loud >= QUIET_BLOCKS:
                        run_ms = first_ms + samples / 48 + number
                        found.append(Onset(at_ms + number, run_ms))
                    since_loud = 0 if is_loud else since_loud + 1
            samples += frame.samples
    return found


Found = dict[int, Onset]
"""By the number of the instant."""


def match(onsets: Sequence[Onset], expected_ms: Sequence[float]) -> tuple[Found, int]:
    """Each onset given to the instant next to it, and how many belong to none."""
    found: Found = {}
    stray = 0
    for onset in onsets:
        after = bisect_left(expected_ms, onset.at_ms)
        near = [n for n in (after - 1, after) if 0 <= n < len(expected_ms)]
        best = min(near, key=lambda n: abs(expected_ms[n] - onset.at_ms))
        if abs(expected_ms[best] - onset.at_ms) <= TOLERANCE_MS and best not in found:
            found[best] = onset
        else:
            stray += 1
    return found, stray


def spread(values: Sequence[float]) -> dict[str, Any]:
    """How far from 0: |v| at p50, p95 and at most; and how many there were."""
    sizes = [abs(value) for value in values]
    return {
        "count": len(sizes),
        "p50": _rounded(percentile(sizes, 0.5)),
        "p95": _rounded(percentile(sizes, 0.95)),
        "max": _rounded(max(sizes, default=None)),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
