"""What is written of a party's sound plays the same by its times and run together."""

from collections.abc import Iterable
from itertools import pairwise

from media import depayload
from media.container import Sample
from media.soundtrack import FAR_US, NEAR_US, Sound, run_together

PACKET_US = 20_000
LOUD = bytes(80)
QUIET = bytes(10)


def talk(count: int, *, card_ppm: float = 0, quiet_every: int = 0, from_us: int = 0) -> list[Sound]:
    """A party whose sound card runs that much too fast, as it lies on the timeline."""
    spacing_us = PACKET_US / (1 + card_ppm * 1e-6)
    return [
        Sound(
            from_us + round(n * spacing_us),
            PACKET_US,
            QUIET if quiet_every and n % quiet_every == 0 else LOUD,
        )
        for n in range(count)
    ]


def written(sounds: Iterable[Sound]) -> list[Sample]:
    samples = list(run_together(sounds))
    for before, after in pairwise(samples):
        assert after.at_us == before.at_us + before.duration_us
    return samples


def furthest_us(sounds: list[Sound], samples: list[Sample]) -> int:
    """The end of the file's sound against the end of the talk."""
    end = samples[-1]
    return abs(end.at_us + end.duration_us - sounds[-1].at_us - PACKET_US)


def test_a_steady_talk_is_written_as_it_is() -> None:
    sounds = talk(500, from_us=1234)
    samples = written(sounds)
    assert [(s.at_us, s.data) for s in samples] == [(s.at_us, s.payload) for s in sounds]
    assert not any(s.is_filler for s in samples)


def test_a_hole_is_filled_and_what_follows_keeps_its_place() -> None:
    sounds = [s for s in talk(100) if not 200_000 <= s.at_us < 300_000]
    samples = written(sounds)
    fillers = [s for s in samples if s.is_filler]
    assert [s.at_us for s in fillers] == [200_000, 220_000, 240_000, 260_000, 280_000]
    assert {s.data for s in fillers} == {depayload.SILENCE}
    assert samples[-1].at_us == sounds[-1].at_us


def test_a_slow_sound_card_is_mended_all_hour_long() -> None:
    sounds = talk(180_000, card_ppm=-100)
    samples = written(sounds)
    assert furthest_us(sounds, samples) <= FAR_US
    # 0.36 s are missing after an hour: 18 packets, and no sound that came is left out.
    assert sum(s.is_filler for s in samples) in range(17, 20)
    assert sum(not s.is_filler for s in samples) == len(sounds)


def test_a_fast_sound_card_costs_a_packet_in_minutes() -> None:
    sounds = talk(180_000, card_ppm=100)
    samples = written(sounds)
    assert furthest_us(sounds, samples) <= FAR_US
    assert len(sounds) - len(samples) in range(17, 20)


def test_the_mending_waits_for_a_pause_of_the_talk() -> None:
    for card_ppm in (-100, 100):
        sounds = talk(60_000, card_ppm=card_ppm, quiet_every=250)
        samples = written(sounds)
        assert furthest_us(sounds, samples) <= NEAR_US + PACKET_US // 2
        assert sum(s.data == LOUD for s in samples) == sum(s.payload == LOUD for s in sounds)


def test_legs_that_overlap_lose_little_and_come_right_again() -> None:
    first = talk(500)
    second = talk(500, from_us=first[-1].at_us - 100_000)
    samples = written([*first, *second])
    assert furthest_us(second, samples) <= FAR_US
    lost = len(first) + len(second) - len(samples)
    assert 4 <= lost <= 6
