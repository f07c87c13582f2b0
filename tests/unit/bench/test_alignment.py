"""The alignment drill measures what it says: its script, its clocks and its reading of files."""

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from bench.alignment_files import Onset, beeps, match, spread
from bench.alignment_script import (
    CAMERA_FPS,
    DOCUMENT_EVERY,
    SAMPLE_RATE,
    SECOND_NS,
    Script,
    clocks_of,
    flash_ticks,
)
from media.container import Sample, write_container

HOUR_NS = 3600 * SECOND_NS


def test_instants_are_irregular_far_apart_and_seen_by_both_cameras() -> None:
    ticks = flash_ticks(600)
    steps = {later - sooner for sooner, later in pairwise(ticks)}
    assert len(steps) > 3
    assert min(steps) >= 0.8 * CAMERA_FPS
    assert all(tick % DOCUMENT_EVERY == 0 for tick in ticks)
    assert flash_ticks(600) == ticks


@pytest.mark.parametrize("party", ["hall", "office"])
def test_clocks_are_wrong_by_what_they_say(party: str) -> None:
    clocks = clocks_of(party, 100)
    wall_ns = (clocks.ntp_time(HOUR_NS, 0) - clocks.ntp_time(0, 0)) * SECOND_NS >> 32
    assert (wall_ns - HOUR_NS) / HOUR_NS * 1e6 == pytest.approx(clocks.wall_ppm, abs=0.1)
    assert abs(clocks.wall_ppm) == abs(clocks.sound_ppm) == 100
    samples = clocks.ticks(HOUR_NS, SAMPLE_RATE)
    assert clocks.sampled_s(samples) == pytest.approx(3600, abs=1e-4)
    assert samples != 3600 * SAMPLE_RATE


@pytest.mark.parametrize("seconds", [20, 60, 600])
def test_the_story_has_room_for_all_its_parts(seconds: float) -> None:
    script = Script.of(seconds)
    assert 0 < script.office_joins_s < script.mute_s[0] < script.mute_s[1] < script.pauses_s[0]
    assert script.pauses_s[1] < script.resize_s < script.away_s[0]
    assert script.away_s[1] + 1 < script.recode_s < seconds


def test_each_onset_belongs_to_the_instant_next_to_it_or_to_none() -> None:
    onsets = [Onset(at, at) for at in (1010.0, 2600.0, 2990.0, 4100.0)]
    found, stray = match(onsets, [1000.0, 3000.0, 4000.0, 5000.0])
    assert {number: onset.at_ms for number, onset in found.items()} == {
        0: 1010.0, 1: 2990.0, 2: 4100.0,
    }  # fmt: skip
    assert stray == 1


def test_a_spread_counts_both_directions() -> None:
    assert spread([-30.0, 10.0, 20.0]) == {"count": 3, "p50": 20.0, "p95": 30.0, "max": 30.0}
    assert spread([])["max"] is None


def test_a_hole_in_the_sound_shows_when_it_is_run_together(tmp_path: Path) -> None:
    """A second tone after a hole of 200 ms that nothing fills."""
    samples = [
        Sample(n * 20_000 + (200_000 if n >= 50 else 0), 20_000, data, True, is_audio=True)
        for n, data in enumerate(_tones())
    ]
    path = tmp_path / "tones.webm"
    write_container(path, "webm", iter(samples), zero_us=0, size=None, has_audio=True)
    first, second = beeps(path)
    assert first.at_ms == first.run_ms == pytest.approx(400, abs=12)
    assert second.at_ms == pytest.approx(1600, abs=12)
    assert second.run_ms == pytest.approx(1400, abs=12)


def _tones() -> list[bytes]:
    """Two seconds of Opus: tones of 200 ms at 0.4 s and at 1.4 s."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "s16"
    encoder.time_base = Fraction(1, 48_000)
    coded = []
    for index in range(100):
        t = (np.arange(960) + index * 960) / 48_000
        is_on = (t % 1 >= 0.4) & (t % 1 < 0.6)
        tone = np.where(is_on, 0.6 * np.sin(2 * math.pi * 1000 * t), 0.0)
        pcm = (tone * 32_000).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, index * 960
        coded += [bytes(packet) for packet in encoder.encode(frame)]
    return coded
