"""One portion in a process of its own: `python -m bench.fuzz_portion_child TARGET SEED BATCH …`.

What follows the first batch's number is for how many seconds, which input is timed once more, and
the inputs that broke something before: whether they still do.
Says before each batch which one it is, so that whoever started it knows where it died; at the end
what it found. The slowest input is told with its number: a single one that takes long is how an
attack on the loop would look. The clock on the wall finds who may be slow; what is told is the best
of a few times of the processor alone, because others use the machine too.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench.fuzz import MAX_CRASHES, place_of, regressions
from bench.fuzz_corpus import corpus_of
from bench.fuzz_mutate import BATCH, Mutator
from bench.fuzz_target import Taste, begin, end
from bench.fuzz_targets import TARGETS
from core.log import configure_logging

SLOW_MS: Final = 250.0
"""An input that takes longer is a fault: for so long nobody else would be heard."""
STUCK_S: Final = 30
"""A batch that takes longer of the processor is ended wherever it is, which is a fault too."""
GROWN_MIB: Final = 64.0
"""A process that has grown by more since its first batches keeps what it should not."""
TIMES_AGAIN: Final = 4
SETTLED: Final = 8
"""Batches until what is made once has been made."""


class Stuck(Exception):
    """One input takes without end."""


def main(argv: list[str]) -> None:
    name, seed, first, seconds = argv[1], int(argv[2]), int(argv[3]), float(argv[4])
    slowest, broke = int(argv[5]), [int(number) for number in argv[6:]]
    configure_logging(level="CRITICAL")
    target = TARGETS[name]
    mutator = Mutator(corpus_of(target), seed, target.max_bytes)
    taste = target.prepare()
    signal.signal(signal.SIGPROF, _stop)
    portion = Portion(taste)
    portion.known(regressions(target))
    still = [number for number in broke if portion.breaks(mutator.nth(number))]
    if slowest >= 0:
        portion.time_again(mutator.nth(slowest), slowest)
    begun, cpu, batch = time.monotonic(), time.process_time(), first
    while time.monotonic() - begun < seconds and len(portion.crashes) < MAX_CRASHES:
        print(json.dumps({"batch": batch}), flush=True)
        portion.batch(batch, mutator.batch(batch))
        batch += 1
    portion.judge_memory()
    found = {
        "batches": batch - first,
        "taken": portion.taken,
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "grown_mib": portion.grown_mib,
        "slowest_ms": round(portion.slowest_s * 1e3, 3),
        "slowest": portion.slowest,
        "crashes": list(portion.crashes.values()),
        "still": still,
    }
    end()
    print(json.dumps(found), flush=True)


def _stop(*_: object) -> None:
    raise Stuck


class Portion:
    """What one run of batches has shown so far."""

    def __init__(self, taste: Taste) -> None:
        self._taste = taste
        self.taken = 0
        self.slowest_s = 0.0
        self.slowest: int | None = None  # its number
        self.crashes: dict[str, dict[str, Any]] = {}  # by where it was raised
        self.grown_mib = 0.0
        self._batches = 0
        self._resident_mib = 0.0

    def known(self, inputs: list[bytes]) -> None:
        """What broke something once; not counted."""
        begin()
        for data in inputs:
            try:
                self._taste(data)
            except Exception as fault:  # any at all is what we are looking for
                self._note(place_of(fault), None)

    def breaks(self, data: bytes) -> bool:
        begin()
        try:
            self._taste(data)
        except Exception:  # any at all
            return True
        return False

    def batch(self, number: int, inputs: list[bytes]) -> None:
        """Taste `inputs`, the batch of this number."""
        taste, clock = self._taste, time.perf_counter
        taken, longest, which = 0, 0.0, 0
        begin()
        signal.setitimer(signal.ITIMER_PROF, STUCK_S)
        last = clock()
        for at, data in enumerate(inputs):
            try:
                taken += taste(data) is True
            except Exception as fault:  # any at all is what we are looking for
                self._note(place_of(fault), number * BATCH + at)
            now = clock()
            if now - last > longest:
                longest, which = now - last, at
            last = now
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.taken += taken
        if longest > self.slowest_s:
            self.time_again(inputs[which], number * BATCH + which)
        self._batches += 1
        if self._batches == SETTLED:
            self._resident_mib = _resident_mib()

    def time_again(self, data: bytes, number: int) -> None:
        """By the processor alone; a fault if it is slow even then."""
        best = float("inf")
        for _ in range(TIMES_AGAIN):
            begin()
            begun = time.thread_time()
            try:
                self._taste(data)
            except Exception:  # noted when it was tasted first
                return
            best = min(best, time.thread_time() - begun)
        if best > self.slowest_s:
            self.slowest_s, self.slowest = best, number
        if best * 1e3 > SLOW_MS:
            self._note(f"takes {best * 1e3:.0f} ms", number)

    def judge_memory(self) -> None:
        if self._resident_mib:
            self.grown_mib = round(_resident_mib() - self._resident_mib, 1)
        if self.grown_mib > GROWN_MIB:
            self._note(f"grew by {self.grown_mib} MiB", None)

    def _note(self, fault: str, number: int | None) -> None:
        self.crashes.setdefault(fault, {"fault": fault, "number": number})


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    main(sys.argv)
