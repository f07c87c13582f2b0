"""When somebody speaks: levels of a finished file's sound against its own noise floor.

One track is one person, so this needs no model: turns, talk share and silence to skip follow from
energy alone. Nothing is guessed about who or what; a wrong span costs a reviewer a second.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Final

import av

RATE_HZ: Final = 8000
FRAME_MS: Final = 20
_FRAME_SAMPLES: Final = RATE_HZ * FRAME_MS // 1000
QUIETEST_DB: Final = -50.0
"""Below this nobody is speaking, however silent the room."""
ABOVE_FLOOR_DB: Final = 12.0
MERGE_MS: Final = 600  # a breath inside a sentence
SHORTEST_MS: Final = 200  # a click is no word
_SILENT_DB: Final = -100.0


@dataclass(frozen=True, slots=True)
class Span:
    """Someone speaks from `start_ms` to `end_ms` of the session's timeline."""

    start_ms: int
    end_ms: int


class Listener:
    """Takes decoded sound as it comes and keeps the level of every 20 ms: 4 bytes each."""

    def __init__(self) -> None:
        self.levels = array("f")  # dB below full scale
        self.start_ms: int | None = None  # file time of the first
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        self._samples: array[int] = array("h")

    def hear(self, frame: av.AudioFrame) -> None:
        """The next frame of the file's sound."""
        if self.start_ms is None and frame.time is not None:
            self.start_ms = round(frame.time * 1000)
        samples = self._samples
        for resampled in self._resampler.resample(frame):
            samples.frombytes(bytes(resampled.planes[0])[: resampled.samples * 2])
        whole = len(samples) // _FRAME_SAMPLES * _FRAME_SAMPLES
        for begin in range(0, whole, _FRAME_SAMPLES):
            self.levels.append(_level_db(samples[begin : begin + _FRAME_SAMPLES]))
        del samples[:whole]

    def spans(self, offset_ms: int) -> tuple[Span, ...]:
        """The speech heard so far, for a file whose time 0 lies at `offset_ms`."""
        shift_ms = offset_ms + (self.start_ms or 0)
        return tuple(
            Span(span.start_ms + shift_ms, span.end_ms + shift_ms) for span in spans_of(self.levels)
        )


def find_speech(path: Path, offset_ms: int) -> list[Span]:
    """The speech in a file whose time 0 lies at `offset_ms`. Streams.

    Raises `av.FFmpegError` if the sound cannot be decoded at all.
    """
    listener = Listener()
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio[0]):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # one bad packet is 20 ms, not the file
            for frame in frames:
                listener.hear(frame)
    return list(listener.spans(offset_ms))


def _level_db(samples: Sequence[int]) -> float:
    energy = sum(map(mul, samples, samples)) / len(samples)
    return 10 * math.log10(energy / 32768**2) if energy >= 1 else _SILENT_DB


def spans_of(levels: Sequence[float]) -> list[Span]:
    """Where the level stands out of its own noise floor, short pauses bridged. Pure."""
    heard = sorted(level for level in levels if level > _SILENT_DB)
    if not heard:
        return []
    threshold = max(heard[len(heard) // 5] + ABOVE_FLOOR_DB, QUIETEST_DB)
    # A track that is speech from end to end has no floor to stand out of.
    threshold = min(threshold, -35.0)
    spans: list[Span] = []
    for index, level in enumerate(levels):
        if level < threshold:
            continue
        start, end = index * FRAME_MS, (index + 1) * FRAME_MS
        if spans and start - spans[-1].end_ms <= MERGE_MS:
            spans[-1] = Span(spans[-1].start_ms, end)
        else:
            spans.append(Span(start, end))
    return [span for span in spans if span.end_ms - span.start_ms >= SHORTEST_MS]
