"""What a fuzz target is, and the mutator that needs nothing installed.

A target takes bytes as they may come from outside and gives them to one parser, behind whatever
stands in front of that parser in the house. It swallows the refusals that the parser documents;
whatever else it raises is a fault. Where a parser keeps tables, the target asserts their bounds.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

Taste = Callable[[bytes], None]
"""Gives one input to a parser. Raises only for a fault."""

# Lengths, counts and signs that parsers stumble over, one to eight bytes, big-endian.
_EDGES: Final = tuple(
    value.to_bytes(size, "big")
    for size in (1, 2, 4, 8)
    for value in (0, 1, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1)
)
_WORDS: Final = (
    b"{}", b"[]", b"null", b"NaN", b"1e999", b"-1", b'"', b"\\ud800", b"\xff\xfe", b"\r\n", b"\0",
    b"[" * 1200, b"9" * 5000, b"../", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa9", b"=", b":", b" ",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """`prepare` makes what the inputs meet, once; `seeds` are well-formed inputs that we made
    ourselves, the same each time. `max_bytes`: longer inputs meet a check that is tested elsewhere.
    """

    name: str
    prepare: Callable[[], Taste]
    seeds: Callable[[], Sequence[bytes]]
    max_bytes: int = 2048


_endings: list[Callable[[], object]] = []


def at_the_end(call: Callable[[], object]) -> None:
    """For `prepare`: what is to be closed or removed when the target is through."""
    _endings.append(call)


def end() -> None:
    """The target is through. The last thing opened is closed first."""
    while _endings:
        _endings.pop()()


def mutants(seeds: Sequence[bytes], seed: int, max_bytes: int) -> Iterator[bytes]:
    """Damaged seeds without end, the same for the same `seed`."""
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            _damage(data, rng, seeds)
        yield bytes(data[:max_bytes])


def _damage(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(9):
        case 0 if data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        case 1 if data:
            data[at % len(data)] = rng.randrange(256)
        case 2:
            edge = rng.choice(_EDGES)
            data[at : at + len(edge)] = edge
        case 3:
            del data[at:]
        case 4:
            del data[at : at + rng.randrange(1, 33)]
        case 5:
            data[at:at] = data[at : at + rng.randrange(1, 65)] * rng.randrange(1, 9)
        case 6:
            data[at:at] = rng.choice(_WORDS)
        case 7:
            other = rng.choice(seeds)
            begin = rng.randrange(len(other) + 1)
            data[at:] = other[begin:]
        case _:
            data[at:at] = rng.randbytes(rng.randrange(1, 17))


def pieces(data: bytes, most: int) -> Iterator[tuple[int, bytes]]:
    """A run of inputs in one: a byte for the kind, two for the length, and so many bytes, as often
    as there are any. A length beyond the end takes what is left, so no damage wastes a run."""
    at = 0
    for _ in range(most):
        if at + 3 > len(data):
            return
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        yield data[at], data[at + 3 : at + 3 + size]
        at += 3 + size


def run_of(*items: tuple[int, bytes]) -> bytes:
    """What `pieces` takes apart."""
    return b"".join(bytes([kind]) + len(body).to_bytes(2, "big") + body for kind, body in items)
