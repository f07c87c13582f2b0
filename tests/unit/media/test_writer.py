"""The one writer: everybody is written, in turns, and nobody waits for a round to begin."""

import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from media.writer import TURNS, WRITE_EVERY_S, Writer

PATIENCE_S = 20.0


class _Recording:
    """Counts its passes in a list that all share."""

    def __init__(self, name: int, passes: list[int]) -> None:
        self.name = name
        self.directory = Path(str(name))
        self._passes = passes
        self.first = threading.Event()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def write_through(self) -> None:
        self._passes.append(self.name)
        self.first.set()
        if self.name < 0:
            raise RuntimeError("this one fails each time")

    def sync_due(self) -> list[object]:
        return []


def _until(enough: int, passes: list[int]) -> None:
    given_up_s = time.monotonic() + PATIENCE_S
    while len(passes) < enough:
        assert time.monotonic() < given_up_s, "the writer stands still"
        time.sleep(WRITE_EVERY_S / 4)


def _ended(writer: Writer) -> None:
    """A writer without recordings ends its thread; tests leave none behind."""
    thread = writer._thread
    if thread is not None:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_between_two_passes_of_one_everybody_else_has_one() -> None:
    passes: list[int] = []
    writer, count = Writer(), 2 * TURNS + 5
    everybody = [_Recording(number, passes) for number in range(count)]
    for one in everybody:
        writer.add(one)
    _until(6 * count, passes)
    for one in everybody:
        writer.remove(one)
    _ended(writer)
    # The first round also has everybody's first pass, which waits for no turn.
    rounds = passes[2 * count :]
    mine = [at for at, name in enumerate(rounds) if name == 0]
    assert len(mine) >= 2
    for begin, end in pairwise(mine):
        assert sorted(rounds[begin:end]) == list(range(count))


def test_a_newcomers_first_pass_waits_for_nobodys_turn() -> None:
    passes: list[int] = []
    writer = Writer()
    resident = _Recording(0, passes)
    writer.add(resident)
    assert resident.first.wait(PATIENCE_S)
    newcomer = _Recording(1, passes)
    already = len(passes)
    writer.add(newcomer)
    assert newcomer.first.wait(PATIENCE_S)
    assert Counter(passes[already:])[0] <= 1, "the very next time the writer woke"
    writer.remove(resident)
    writer.remove(newcomer)
    _ended(writer)


def test_one_that_fails_stops_nobody() -> None:
    passes: list[int] = []
    writer = Writer()
    for one in (failing := _Recording(-1, passes)), (healthy := _Recording(2, passes)):
        writer.add(one)
    _until(6, passes)
    writer.remove(failing)
    writer.remove(healthy)
    _ended(writer)
    assert Counter(passes)[2] >= 2
