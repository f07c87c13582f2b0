"""What happens in an alignment drill, and when: the same for those who send and those who measure.

Both parties flash and beep at the same instants of the machine's monotonic clock, which stands for
the one true time. Instants are irregular, so that nothing can be right by a whole period. What each
party's own clocks say is a matter of `Clocks`. Pure: time is an argument.
"""

import random
from dataclasses import dataclass, field
from typing import Final

PARTIES: Final = ("hall", "office")
SECOND_NS: Final = 1_000_000_000
CAMERA_FPS: Final = 15
DOCUMENT_EVERY: Final = 3
"""The document camera takes every third of the camera's pictures."""
FLASH_TICKS: Final = 2
BEEP_S: Final = 0.12
SOUND_SAMPLES: Final = 960
SAMPLE_RATE: Final = 48_000
_SEED: Final = 8
_FIRST_TICK: Final = 15
_NTP_EPOCH_S: Final = 2_208_988_800


def flash_ticks(seconds: float) -> tuple[int, ...]:
    """At which of the camera's pictures, counted from the beginning, flash and beep begin.

    Both cameras take a picture at each of them; 0.8 to 1.6 s lie between two.
    """
    rng = random.Random(_SEED)
    ticks = [_FIRST_TICK]
    while ticks[-1] < seconds * CAMERA_FPS:
        ticks.append(ticks[-1] + DOCUMENT_EVERY * rng.randint(4, 8))
    return tuple(ticks[:-1])


def tick_ns(tick: int) -> int:
    """When the camera takes picture `tick`, after the beginning."""
    return tick * SECOND_NS // CAMERA_FPS


@dataclass(frozen=True, slots=True)
class Clocks:
    """How one party's clocks run against true time. `…_ppm`: how much too fast."""

    wall_offset_s: float
    wall_ppm: float
    camera_ppm: float
    sound_ppm: float

    def ntp_time(self, true_ns: int, began_unix_ns: int) -> int:
        """The party's wall clock, `true_ns` after a beginning at that Unix time: 64-bit NTP."""
        wall_ns = began_unix_ns + true_ns + round(true_ns * self.wall_ppm * 1e-6)
        wall_ns += round(self.wall_offset_s * SECOND_NS) + _NTP_EPOCH_S * SECOND_NS
        return (wall_ns << 32) // SECOND_NS

    def ticks(self, true_ns: int, clock_rate: int) -> int:
        """What a track's sampling clock has counted by then."""
        ppm = self.sound_ppm if clock_rate == SAMPLE_RATE else self.camera_ppm
        return round(true_ns * (1 + ppm * 1e-6) * clock_rate / SECOND_NS)

    def sampled_s(self, sample: int) -> float:
        """When the sound card took sample `sample`, in true seconds after the beginning."""
        return sample / SAMPLE_RATE / (1 + self.sound_ppm * 1e-6)


def clocks_of(party: str, skew_ppm: float) -> Clocks:
    """The two parties' clocks run apart, and each party's own clocks too."""
    if party == "hall":
        return Clocks(37.5, -skew_ppm, -skew_ppm / 2, skew_ppm)
    return Clocks(-12.25, skew_ppm, skew_ppm / 2, -skew_ppm)


@dataclass(frozen=True, slots=True)
class Script:
    """When what happens, in seconds after the beginning. `…_s` pairs are from, to."""

    seconds: float
    office_joins_s: float
    mute_s: tuple[float, float]
    pauses_s: tuple[float, float]
    resize_s: float
    away_s: tuple[float, float]
    recode_s: float

    @classmethod
    def of(cls, seconds: float) -> "Script":
        """The same story in any length from 20 s."""

        def at(share: float) -> float:
            return round(share * seconds, 1)

        mute_from, away_from = at(0.2), at(0.5)
        return cls(
            seconds=seconds,
            office_joins_s=min(20.0, at(0.08)),
            mute_s=(mute_from, mute_from + min(10.0, at(0.1))),
            pauses_s=(at(0.32), at(0.42)),
            resize_s=at(0.45),
            away_s=(away_from, away_from + 3.0),
            recode_s=at(0.75),
        )


Spans = dict[str, list[tuple[float, float]]]
"""By party: from, to, in true seconds after the beginning."""


def _nobody() -> Spans:
    return {party: [] for party in PARTIES}


@dataclass(frozen=True, slots=True)
class Course:
    """What really happened when. `t0_ns`: where the recording's timeline begins; it and `began_ns`
    are monotonic. Muted is the microphone."""

    seconds: float
    t0_ns: int
    began_ns: int
    began_unix_ns: int
    away: Spans = field(default_factory=_nobody)
    muted: Spans = field(default_factory=_nobody)
