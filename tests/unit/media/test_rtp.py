"""RTP and RTCP as bytes: arithmetic, headers that lie, repairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.rtp import (
    build_nack,
    build_remb,
    find_extension,
    parse_rtcp,
    payload_length,
    payload_offset,
    read_remb,
    restore_rtx,
    seq_distance,
    seq_newer,
    wrap_rtx,
)
from tests.support.relay import rtp


def test_sequence_numbers_are_compared_around_the_wrap() -> None:
    assert seq_newer(0, 65_535)
    assert not seq_newer(65_535, 0)
    assert not seq_newer(7, 7)
    assert not seq_newer(0x8000, 0)  # exactly half: older
    assert seq_distance(2, 65_534) == 4
    assert seq_distance(65_534, 2) == -4


@given(a=st.integers(0, 65_535), step=st.integers(1, 0x7FFF))
def test_a_number_ahead_is_newer_and_the_other_is_not(a: int, step: int) -> None:
    b = (a + step) & 0xFFFF
    assert seq_newer(b, a)
    assert not seq_newer(a, b)
    assert seq_distance(b, a) == step


def test_payload_begins_behind_the_extension() -> None:
    packet = rtp(1, payload=b"abc", extension=b"\x10a")
    assert packet[payload_offset(packet) :] == b"abc"
    assert payload_length(packet) == 3


def test_padding_is_no_payload() -> None:
    packet = bytearray(rtp(1, payload=b"abc" + b"\0\0\0\x04"))
    packet[0] |= 0x20
    assert payload_length(bytes(packet)) == 3


@pytest.mark.parametrize(
    "packet",
    [
        b"\x80",
        rtp(1)[:11],
        b"\x8f" + rtp(1)[1:],  # fifteen CSRCs that are not there
        b"\x90" + rtp(1, payload=b"")[1:],  # an extension that is not there
        b"\x90" + rtp(1, payload=b"\xbe\xde\xff\xff")[1:],  # one of 256 KiB
        b"\xa0" + rtp(1, payload=b"ab\xff")[1:],  # more padding than packet
        b"\xa0" + rtp(1, payload=b"ab\x00")[1:],  # padding of no length
    ],
)
def test_a_header_that_lies_is_a_value_error(packet: bytes) -> None:
    with pytest.raises(ValueError, match="RTP"):
        payload_length(packet)


def test_extensions_are_found_in_both_forms() -> None:
    one = rtp(1, extension=b"\x10m" + b"\x32\x01\x02\x03")
    assert find_extension(one, 1) == (17, 1)
    offset, length = find_extension(one, 3) or (0, 0)
    assert one[offset : offset + length] == b"\x01\x02\x03"
    assert find_extension(one, 2) is None
    elements = b"\x01\x01m\x00\x03\x03\x01\x02\x03\x00\x00\x00"
    two = b"\x90" + rtp(1, payload=b"\x10\x00\x00\x03" + elements + b"data")[1:]
    offset, length = find_extension(two, 3) or (0, 0)
    assert two[offset : offset + length] == b"\x01\x02\x03"


@given(st.binary(max_size=64))
def test_reading_extensions_of_anything_never_fails(tail: bytes) -> None:
    packet = b"\x90" + rtp(1, payload=tail)[1:]
    for number in (1, 2, 3):
        found = find_extension(packet, number)
        assert found is None or sum(found) <= len(packet)


def test_a_repair_gives_back_the_packet_it_repairs() -> None:
    original = rtp(4711, timestamp=90_000, payload=b"frame", extension=b"\x32\x01\x02\x03")
    wrapped = wrap_rtx(
        original, payload_type=97, ssrc=2, sequence=9, original=4711, timestamp=90_000
    )
    assert restore_rtx(wrapped, 96, 1111) == original


def test_a_repair_of_pure_padding_restores_nothing() -> None:
    probe = bytearray(rtp(1, payload_type=97, payload=b"\0\0\0\x04"))
    probe[0] |= 0x20
    assert restore_rtx(bytes(probe), 96, 1111) is None


@given(st.binary(max_size=200))
def test_rtcp_is_understood_or_a_value_error(data: bytes) -> None:
    try:
        parse_rtcp(data)
    except ValueError:
        return


@given(st.sets(st.integers(0, 65_535), min_size=1, max_size=100))
def test_a_nack_names_exactly_what_is_lost(lost: set[int]) -> None:
    (packet,) = parse_rtcp(build_nack(1, 2, sorted(lost)))
    assert {number & 0xFFFF for number in packet.lost} == lost  # type: ignore[union-attr]


def test_a_bitrate_survives_its_packing_within_its_precision() -> None:
    (packet,) = parse_rtcp(build_remb(1, 2_500_000, [7]))
    assert abs((read_remb(packet) or 0) - 2_500_000) < 16  # type: ignore[arg-type]
