"""Byte ranges of a finished file: RFC 9110 section 14, as far as players use it. Pure.

One range is answered with it; several at once are answered with the whole file, which section 14.2
allows and no player asks for. What is not a range is no range.
"""

import re
from dataclasses import dataclass
from enum import Enum

_ONE = re.compile(r"bytes=\s*(\d*)-(\d*)\s*", re.ASCII | re.IGNORECASE)
# Longer numbers are no position in any file, and Python refuses to read very long ones.
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` up to but not including `end`; never empty."""

    start: int
    end: int


class Answer(Enum):
    WHOLE = "whole"  # 200
    UNSATISFIABLE = "unsatisfiable"  # 416


def byte_range(header: str | None, size_bytes: int) -> ByteRange | Answer:
    """What a `Range` header asks of a file of `size_bytes`."""
    match = _ONE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return Answer.WHOLE
    first, last = match.groups()
    if max(len(first), len(last)) > _MOST_DIGITS:
        return Answer.UNSATISFIABLE if first else Answer.WHOLE
    if not first:
        return _suffix(int(last), size_bytes)
    start, end = int(first), int(last) + 1 if last else size_bytes
    if last and int(last) < start:
        return Answer.WHOLE  # not valid, so it is ignored (section 14.1.1)
    if start >= size_bytes:
        return Answer.UNSATISFIABLE
    return ByteRange(start, min(end, size_bytes))


def _suffix(length: int, size_bytes: int) -> ByteRange | Answer:
    """The last `length` bytes."""
    if length == 0 or size_bytes == 0:
        return Answer.UNSATISFIABLE
    return ByteRange(max(0, size_bytes - length), size_bytes)


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether `If-Range` lets the range stand: only our own strong tag does (section 13.1.5).

    A date never does: files are addressed by content here and carry no Last-Modified.
    """
    return if_range is None or if_range.strip() == etag
