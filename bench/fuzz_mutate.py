"""Damaged inputs by the hundred thousand a second, each of which can be made again by its number.

Coverage feedback costs more than most of our parsers do. So the guided stage finds inputs that
reach every corner of a parser, they are kept (`bench/fuzz_corpus.py`), and this stage tries what
lies around them. Structure is damaged seldom and carefully (a *stem*: cut, repeated, spliced, edge
values, magic words), single bytes often and cheaply (its *shoots*), out of random bytes drawn once
for a whole stem.

    Mutator(corpus, seed, max_bytes).batch(n)  the inputs n * BATCH … (n + 1) * BATCH - 1
    Mutator(…).nth(number)                     one of them again
"""

import random
from collections.abc import Iterator, Sequence
from typing import Final

BATCH: Final = 1024
"""Inputs in a batch: what is made together, and between two of which a target begins anew."""
SHOOTS: Final = 16
"""Inputs around one stem, which is the first of them."""

_EDGES: Final = tuple(
    value.to_bytes(size, "big")
    for size in (1, 2, 4, 8)
    for value in (0, 1, 2, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1)
)
"""Lengths, counts and signs that parsers stumble over, big-endian."""
_WORDS: Final = (
    b"{}", b"[]", b"null", b"NaN", b"1e999", b"-1", b'"', b"\\ud800", b"\xff\xfe", b"\r\n", b"\0",
    b"[" * 1200, b"9" * 5000, b"../", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa9", b"=", b":", b" ",
    b"true", b"-0.0", b"1" + b"0" * 309, b'"":', b",", b"\x89RRJ", b"\xbe\xde", b"\x10\x00",
    b"\x21\x12\xa4\x42", b"\xfe\xfd", b"%s", b"a=", b"m=", b" 0", b"0x10", b"\xd9\xa1", b"\x7f",
)  # fmt: skip
"""Beginnings, ends and numbers that mean something to one of the formats we read."""

# What becomes of a byte, drawn with 12 bits: kept bits and flipped bits. Half flip one bit, a
# quarter become one of the edges of a byte or of text, the rest become anything.
_EDGE_BYTES: Final = b"\x00\x01\x02\x0f\x10\x7f\x80\x81\xc0\xfe\xff \"'\\/,:;=[]{}\r\n0129-+.eE"
_KEEP: Final = bytes(0xFF if n < 2048 else 0 for n in range(4096))
_FLIP: Final = bytes(
    1 << (n & 7) if n < 2048 else _EDGE_BYTES[n % len(_EDGE_BYTES)] if n < 3072 else n & 0xFF
    for n in range(4096)
)
_TOUCHES: Final = (0, 1, 1, 1, 1, 2, 2, 2, 3, 4, 1, 1, 2, 1, 8, 24)
"""Bytes changed in a shoot; drawn anew for each."""
_CUTS: Final = 24
"""Of 256 shoots so many are cut short as well."""
_DAMAGES: Final = (0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4, 16)
"""Damages to a stem."""


class Mutator:
    """Inputs around `corpus`, which may not be empty, none longer than `max_bytes`. The same for
    the same corpus, `seed` and `max_bytes`."""

    def __init__(self, corpus: Sequence[bytes], seed: int, max_bytes: int) -> None:
        self._corpus, self._seed, self._max_bytes = corpus, seed, max_bytes

    def batch(self, number: int) -> list[bytes]:
        """`BATCH` inputs."""
        rng = random.Random(f"{self._seed}/{number}")
        made: list[bytes] = []
        for _ in range(BATCH // SHOOTS):
            _shoots(self._stem(rng), rng, made)
        return made

    def nth(self, number: int) -> bytes:
        """The input of this number again."""
        return self.batch(number // BATCH)[number % BATCH]

    def _stem(self, rng: random.Random) -> bytes:
        corpus = self._corpus
        stem = corpus[int(rng.random() * len(corpus))]
        damages = _DAMAGES[int(rng.random() * len(_DAMAGES))]
        if damages:
            data = bytearray(stem)
            for _ in range(damages):
                damage(data, rng, corpus)
            stem = bytes(data)
        return stem[: self._max_bytes]


def _shoots(stem: bytes, rng: random.Random, made: list[bytes]) -> None:
    """Append the stem and what lies around it."""
    made.append(stem)
    size = len(stem)
    if not size:
        made += [rng.randbytes(n) for n in range(1, SHOOTS)]
        return
    draws = rng.randbytes(SHOOTS)[1:]
    counts = [_TOUCHES[draw & 15] for draw in draws]
    # Where and how, for each touch; and where to cut, for each shoot.
    words = memoryview(rng.randbytes(4 * sum(counts) + 2 * len(draws))).cast("H")
    at, keep, flip = len(draws), _KEEP, _FLIP
    for draw, count, cut in zip(draws, counts, words, strict=False):
        shoot = bytearray(stem)
        for place in range(at, at + 2 * count, 2):
            byte, how = words[place] % size, words[place + 1] & 0xFFF
            shoot[byte] = shoot[byte] & keep[how] ^ flip[how]
        at += 2 * count
        if draw < _CUTS:
            del shoot[cut % size :]
        made.append(bytes(shoot))


def mutants(seeds: Sequence[bytes], seed: int, max_bytes: int) -> Iterator[bytes]:
    """Damaged seeds without end, the same for the same `seed`: every one damaged in its structure,
    for who tries few."""
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            damage(data, rng, seeds)
        yield bytes(data[:max_bytes])


def damage(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """One change to `data`, mostly to its structure; `others` lend their ends."""
    at = rng.randrange(len(data) + 1)
    match rng.randrange(11):
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
            other = rng.choice(others)
            data[at:] = other[rng.randrange(len(other) + 1) :]
        case 8:  # a length or a count that is nearly right
            size = rng.choice((1, 2, 2, 4))
            value = int.from_bytes(data[at : at + size], "big") + rng.randrange(-8, 9)
            data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")
        case 9:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            data[at:at] = other[begin : begin + rng.randrange(1, 65)]
        case _:
            data[at:at] = rng.randbytes(rng.randrange(1, 17))
