"""The offline parsers of outside bytes: any bytes are answered, none are believed too far."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media import depayload
from media.depayload import H264Depayloader, Packet, Vp8Depayloader
from media.speech import Span, spans_of
from media.timing import Unwrapper, fit_least_delayed, fit_median, ntp_to_ns, spread
from tests.support.media_material import flash_and_beep, packetise_h264, packetise_vp8

SECOND = 1_000_000_000


@pytest.mark.parametrize("depayloader", [Vp8Depayloader, H264Depayloader])
@given(data=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.binary(max_size=40))))
def test_any_payloads_give_frames_or_nothing(
    depayloader: type[Vp8Depayloader | H264Depayloader], data: list[tuple[int, bool, bytes]]
) -> None:
    made = depayloader()
    seq = 0
    for step, marker, payload in data:
        seq += step
        made.push(Packet(seq, seq * 3000, marker, payload))


@given(st.binary(max_size=60))
def test_any_bytes_have_a_size_or_none(data: bytes) -> None:
    for size in (depayload.vp8_size(data), depayload.h264_size(data) if data else None):
        assert size is None or (size[0] > 0 and size[1] > 0)
    assert 0 <= depayload.opus_duration_us(data) <= 120_000


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_frames_come_out_as_they_went_in(codec: str) -> None:
    clip = flash_and_beep(4.0, codec)  # type: ignore[arg-type]
    made = Vp8Depayloader() if codec == "vp8" else H264Depayloader()
    seq, frames = 0, []
    for index, coded in enumerate(clip.video):
        payloads = (
            packetise_vp8(coded.data, index) if codec == "vp8" else packetise_h264(coded.data)
        )
        for number, payload in enumerate(payloads):
            frame = made.push(Packet(seq, coded.at_ms * 90, number == len(payloads) - 1, payload))
            seq += 1
            if frame is not None:
                frames.append(frame)
    assert [f.is_keyframe for f in frames] == [c.is_keyframe for c in clip.video]
    if codec == "vp8":
        assert [f.data for f in frames] == [c.data for c in clip.video]
    assert all(f.size == (320, 240) for f in frames if f.is_keyframe)


def test_after_a_lost_frame_nothing_is_shown_until_a_keyframe() -> None:
    clip = flash_and_beep(4.0)
    made = Vp8Depayloader()
    shown = []
    seq = 0
    for index, coded in enumerate(clip.video):
        for payload in packetise_vp8(coded.data, index):
            if index != 10 and made.push(Packet(seq, index * 3600, True, payload)) is not None:
                shown.append(index)
            seq += 1
    keyframes = [i for i, c in enumerate(clip.video) if c.is_keyframe and i > 10]
    assert shown == [*range(10), *range(keyframes[0], len(clip.video))]


def test_lost_padding_between_frames_costs_no_picture() -> None:
    clip = flash_and_beep(4.0)
    made = Vp8Depayloader()
    seq, shown = 0, 0
    for index, coded in enumerate(clip.video):
        for payload in packetise_vp8(coded.data, index):
            shown += made.push(Packet(seq, index * 3600, True, payload)) is not None
            seq += 1
        seq += 1  # a padding packet that never arrived
    assert shown == len(clip.video)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(-(2**30), 2**30), max_size=30))
def test_unwrapping_follows_every_step(start: int, steps: list[int]) -> None:
    unwrap = Unwrapper(32)
    truth = start + 2**32
    assert unwrap(start) == truth
    for step in steps:
        truth += step
        assert unwrap(truth % 2**32) == truth


def test_ntp_times_become_nanoseconds() -> None:
    assert ntp_to_ns(1 << 32) == SECOND
    assert ntp_to_ns((5 << 32) + (1 << 31)) == 5 * SECOND + SECOND // 2


def test_the_median_fit_ignores_a_third_of_lies_and_follows_drift() -> None:
    pairs = [(k * SECOND, 7 * SECOND + k * SECOND + k * 100_000) for k in range(120)]
    lies = [(x, y + (SECOND if index % 3 == 0 else 0)) for index, (x, y) in enumerate(pairs)]
    fitted = fit_median(lies)
    assert all(abs(fitted(x) - y) < 2_000_000 for x, y in pairs)
    assert spread(fitted, lies) < 2_000_000


def test_the_least_delayed_packets_rule_the_arrival_clock() -> None:
    pairs = [
        (k * SECOND // 10, 3 * SECOND + k * SECOND // 10 + (20 + (k * 37) % 300) * 1_000_000)
        for k in range(1200)
    ]
    fitted = fit_least_delayed(pairs)
    assert all(0 <= fitted(x) - x - 3 * SECOND - 20_000_000 < 8_000_000 for x, _ in pairs)


def test_an_impossible_drift_counts_as_none() -> None:
    pairs = [(k * SECOND, k * SECOND + k * SECOND // 100) for k in range(100)]
    assert fit_median(pairs).drift == 0.0


def test_speech_is_what_stands_out_of_the_rooms_own_noise() -> None:
    quiet, loud = [-62.0] * 100, [-20.0] * 50
    assert spans_of(quiet) == []
    assert spans_of([*quiet, *loud, *quiet]) == [Span(2000, 3000)]
    assert spans_of([*quiet, *loud, *quiet[:20], *loud, *quiet]) == [Span(2000, 4400)]
    assert spans_of([*quiet, *loud[:5], *quiet]) == []  # a click
    assert spans_of([-45.0] * 100 + loud) == [Span(2000, 3000)]  # a noisy hall
    assert spans_of([-100.0] * 50) == []


def test_opus_durations_follow_the_first_byte() -> None:
    assert depayload.opus_duration_us(depayload.SILENCE) == 20_000
    assert depayload.opus_duration_us(bytes([0x03, 3])) == 30_000
    assert depayload.opus_duration_us(b"") == 0
    assert depayload.opus_duration_us(struct.pack("BB", 0xFB, 63)) == 0  # 1.26 s is not allowed
