"""What a fuzz target is.

A target takes bytes as they may come from outside and gives them to one parser, behind whatever
stands in front of that parser in the house. It swallows the refusals that the parser documents;
whatever else it raises is a fault. Where a parser keeps tables, the target asserts their bounds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Taste = Callable[[bytes], object]
"""Gives one input to a parser. Raises only for a fault. True: the parser took what it was given;
whatever else is returned says nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """`prepare` makes what the inputs meet, once; `seeds` are well-formed inputs that we made
    ourselves, the same each time. `max_bytes`: longer inputs meet a check that is tested elsewhere.
    `parser`: what an input is counted for, if one input is one datagram, text or record for one
    parser.
    """

    name: str
    prepare: Callable[[], Taste]
    seeds: Callable[[], Sequence[bytes]]
    max_bytes: int = 2048
    parser: str = ""


_endings: list[Callable[[], object]] = []
_beginnings: list[Callable[[], object]] = []


def at_the_end(call: Callable[[], object]) -> None:
    """For `prepare`: what is to be closed or removed when the target is through."""
    _endings.append(call)


def end() -> None:
    """The target is through. The last thing opened is closed first."""
    _beginnings.clear()
    while _endings:
        _endings.pop()()


def at_each_beginning(call: Callable[[], object]) -> None:
    """For `prepare` of a target that keeps something between inputs: what makes it as it was at
    first, so that an input can be tried again without all that came before it."""
    _beginnings.append(call)


def begin() -> None:
    """Inputs follow that shall not depend on those before."""
    for call in _beginnings:
        call()


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
