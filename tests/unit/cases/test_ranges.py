"""Byte ranges, exhaustively for small files, against the plain reading of RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases.ranges import Answer, ByteRange, byte_range, range_applies

SIZES = range(6)
POSITIONS = range(8)


@pytest.mark.parametrize("size", SIZES)
def test_every_closed_range_of_a_small_file(size: int) -> None:
    content = bytes(range(size))
    for first in POSITIONS:
        for last in POSITIONS:
            asked = byte_range(f"bytes={first}-{last}", size)
            if last < first:
                assert asked is Answer.WHOLE
            elif first >= size:
                assert asked is Answer.UNSATISFIABLE
            else:
                assert isinstance(asked, ByteRange)
                assert content[asked.start : asked.end] == content[first : last + 1]
                assert asked.start < asked.end <= size


@pytest.mark.parametrize("size", SIZES)
def test_every_open_and_suffix_range_of_a_small_file(size: int) -> None:
    content = bytes(range(size))
    for n in POSITIONS:
        opened, suffix = byte_range(f"bytes={n}-", size), byte_range(f"bytes=-{n}", size)
        if n < size:
            assert isinstance(opened, ByteRange)
            assert content[opened.start : opened.end] == content[n:]
        else:
            assert opened is Answer.UNSATISFIABLE
        if n and size:
            assert isinstance(suffix, ByteRange)
            assert content[suffix.start : suffix.end] == content[-n:]
        else:
            assert suffix is Answer.UNSATISFIABLE


@pytest.mark.parametrize(
    "header",
    [
        None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "items=0-1", "bytes=0-1,3-4",
        "bytes=0--1", "bytes=--1", "0-1", "bytes=1.0-2", "bytes=+1-2", "bytes=٠-١",
        f"bytes=-{'9' * 5000}",
    ],
)  # fmt: skip
def test_what_is_no_single_range_gets_the_whole_file(header: str | None) -> None:
    assert byte_range(header, 10) is Answer.WHOLE


def test_a_number_longer_than_any_file_is_beyond_the_end() -> None:
    assert byte_range(f"bytes={'9' * 5000}-", 10) is Answer.UNSATISFIABLE


@given(st.text(max_size=40), st.integers(0, 10))
def test_no_header_is_too_strange(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        asked = byte_range(text, size)
        assert not isinstance(asked, ByteRange) or 0 <= asked.start < asked.end <= size


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (None, True),
        ('"abc"', True),
        (' "abc" ', True),
        ('W/"abc"', False),
        ('"other"', False),
        ("Mon, 25 May 2026 01:00:00 GMT", False),
        ("", False),
    ],
)
def test_if_range_stands_only_for_our_own_strong_tag(if_range: str | None, applies: bool) -> None:
    assert range_applies(if_range, '"abc"') is applies
