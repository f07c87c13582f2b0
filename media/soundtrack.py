"""One party's sound as a track that every player plays alike. Pure.

Some players place every packet by its time; others, Chromium among them, run all packets of a file
together and let the picture follow. So the packets of a file are run together here: each begins
where the one before ended, holes are filled, and a sound card that runs slow or fast against the
session's timeline is mended by a packet once in a while, in a pause of the talk if there is one
soon. What is written is never further from the timeline than `FAR_US`, unless legs overlap.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from media import depayload
from media.container import Sample

# Mending moves the track by a packet, 20 ms as a rule: more than half of that, or one mend would
# call for the opposite one.
NEAR_US: Final = 12_000
"""From here on a quiet packet is used for mending."""
FAR_US: Final = 25_000
"""From here on any packet is. Sound 45 ms ahead of its picture is noticed (ITU-R BT.1359)."""
HOLE_US: Final = 10_000
"""A packet this much later than the end of the one before: something is missing between them."""
QUIET_SHARE: Final = 0.6
"""Of the usual size of a packet. Opus spends little on silence, unless it was told not to."""
LEFT_OUT_AT_MOST: Final = 10
"""One packet in so many may be left out. A clock never needs that; legs that overlap may."""


class Sound(NamedTuple):
    """One Opus packet and when it was spoken."""

    at_us: int
    duration_us: int
    payload: bytes


def run_together(sounds: Iterable[Sound]) -> Iterator[Sample]:
    """The samples to write for `sounds`, which come in the order in which they were spoken."""
    end_us: int | None = None  # of what has been written
    spoken_us = 0  # the end of the last sound on the timeline
    usual_bytes = 0.0
    since_left_out = LEFT_OUT_AT_MOST
    for at_us, duration_us, payload in sounds:
        if end_us is None:
            end_us = spoken_us = at_us
            usual_bytes = len(payload)
        if at_us - spoken_us >= HOLE_US:
            while at_us - end_us > NEAR_US:
                yield _silence(end_us)
                end_us += depayload.SILENCE_MS * 1000
        usual_bytes += (len(payload) - usual_bytes) / 64
        spoken_us = at_us + duration_us
        late_us = end_us - at_us
        since_left_out += 1
        if abs(late_us) > NEAR_US:
            is_due = abs(late_us) > FAR_US or len(payload) < QUIET_SHARE * usual_bytes
            if is_due and late_us > 0 and since_left_out > LEFT_OUT_AT_MOST:
                since_left_out = 0
                continue
            if is_due and late_us < 0:
                # Twice the same is heard less than a silence between two syllables.
                yield Sample(end_us, duration_us, payload, True, is_audio=True, is_filler=True)
                end_us += duration_us
        yield Sample(end_us, duration_us, payload, True, is_audio=True)
        end_us += duration_us


def _silence(at_us: int) -> Sample:
    duration_us = depayload.SILENCE_MS * 1000
    return Sample(at_us, duration_us, depayload.SILENCE, True, is_audio=True, is_filler=True)
