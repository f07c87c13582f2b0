"""Reading files from a disk that no longer gives everything back.

One sector that is gone must cost what stood in it, and nothing more. So a file is read through once
and the stretches that the disk refuses are noted; before anyone maps the file, zeros are put in
their place, because a mapping answers a touch of such a page with SIGBUS. A digest over a file with
known stretches has zeros for them too: it vouches for all the rest, and stays the same when the
stretch can be read again. Nothing here writes to a file.
"""

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Final

Stretch = tuple[int, int]
"""From which byte to before which one."""
_PIECE_BYTES: Final = 256 * 1024
_PAGE_BYTES: Final = mmap.PAGESIZE
MOST_REFUSALS: Final = 64
"""A dying disk may think for half a minute about each. After so many the rest is left alone."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What the disk does not give of a file: whole pages in their order, and in whose words."""

    stretches: tuple[Stretch, ...]
    why: str


def refused(fd: int) -> Refused:
    """Have the disk give all of a file, once (0.14 s for a GiB that is in memory).

    A stretch is left in steps that double, so a file that is gone altogether costs some twenty
    refusals, and at most as much again is left out as is really gone.
    """
    size = os.fstat(fd).st_size
    piece = memoryview(bytearray(_PIECE_BYTES))
    found: list[Stretch] = []
    why, offset, careful_until, step, refusals = "", 0, 0, _PAGE_BYTES, 0
    while offset < size:
        is_careful = offset < careful_until
        try:
            got = os.preadv(fd, [piece[:_PAGE_BYTES] if is_careful else piece], offset)
        except OSError as problem:
            why = why or os.strerror(problem.errno or 0)
            refusals += 1
            if not is_careful:
                careful_until = offset + _PIECE_BYTES  # some page of this piece: which?
                continue
            start = offset // _PAGE_BYTES * _PAGE_BYTES
            offset = size if refusals >= MOST_REFUSALS else min(start + step, size)
            step *= 2
            if found and found[-1][1] >= start:
                start = found.pop()[0]
            found.append((start, offset))
            continue
        if not got:
            break  # it was cut while we read
        offset += got
        step = _PAGE_BYTES
    return Refused(tuple(found), why)


def pieces(file: FileIO, blanks: Iterable[Stretch], chunk: memoryview) -> Iterator[memoryview]:
    """All bytes of a file in order, with zeros in place of `blanks`, which are not read. `blanks`
    are in order and apart; each piece is good until the next one is asked for. Raises `OSError`.
    """
    offset = 0
    for start, end in blanks:
        yield from _given(file, start - offset, chunk)
        yield from _zeros(end - start, chunk)
        file.seek(offset := end)
    yield from _given(file, None, chunk)


def _given(file: FileIO, size: int | None, chunk: memoryview) -> Iterator[memoryview]:
    """The next `size` bytes, or those there are."""
    while size is None or size > 0:
        count = file.readinto(chunk if size is None else chunk[:size])
        if not count:
            return
        yield chunk[:count]
        size = None if size is None else size - count


def _zeros(size: int, chunk: memoryview) -> Iterator[memoryview]:
    chunk[:size] = bytes(len(chunk[:size]))
    while size > 0:
        yield chunk[:size]
        size -= len(chunk)


# --- zeros in a mapping --------------------------------------------------------------------------


class _Buffer(ctypes.Structure):
    """`Py_buffer` (PEP 3118): for the address of a mapping that may only be read."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_MAP_FIXED: Final = 0x10
"""mmap(2): replaces what is mapped at that address. The same number on every Linux that we run on
(x86-64, arm64)."""


def blank(data: mmap.mmap, stretches: Sequence[Stretch]) -> None:
    """Put zeros in place of whole pages of a mapping that may only be read. They go with it.

    Raises `OSError`.
    """
    if not stretches:
        return
    view = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(view), 0)
    address = int(view.buf)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    flags = _MAP_FIXED | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    for start, end in stretches:
        place = libc.mmap(address + start, end - start, mmap.PROT_READ, flags, -1, 0)
        if place != address + start:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
