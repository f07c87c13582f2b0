"""The inputs that the guided stage has found, cut down to those that reach something of their own.

They are committed, one small file for each target, because an input of the second stage is known
by its number only together with the corpus that it was made from.
"""

import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from bench.fuzz import HOUSE
from bench.fuzz_target import Target, Taste, begin, end, pieces, run_of
from bench.fuzz_targets import TARGETS

CORPUS: Final = HOUSE / "tests" / "fuzz" / "corpus"
MOST_BYTES: Final = 65_536
"""Of one target's file. What would go beyond is left out, the longest inputs first."""
COUNTED: Final = ("/media/", "/signaling/", "/core/", "/cases/", "/aioice/", "/aiortc/")
"""Code whose paths count: ours, and the libraries that parse for us."""
_MANY: Final = 3
"""How often a path was taken is told as: once, twice, up to 2^n times, more."""
Path_ = tuple[CodeType, int, int, int]
"""Code, the line before, the line, how often."""


def corpus_of(target: Target) -> list[bytes]:
    """What was kept of it; its seeds as long as nothing was."""
    file = CORPUS / f"{target.name}.bin"
    if not file.exists():
        return list(target.seeds())
    data = file.read_bytes()
    return [body for _, body in pieces(data, len(data))]


def digest_of(corpus: Sequence[bytes]) -> str:
    """Names a corpus."""
    return hashlib.sha256(run_of(*((0, data) for data in corpus))).hexdigest()[:16]


def reap(target: Target, found: Iterable[bytes]) -> list[bytes]:
    """Of `found` and the seeds, those that reach what no shorter one reaches; written down too."""
    taste = target.prepare()
    reached: set[Path_] = set()
    kept: list[bytes] = []
    total = 0
    try:
        seeds = [seed[: target.max_bytes] for seed in target.seeds()]
        for data in [*seeds, *sorted(set(found) - set(seeds), key=lambda data: (len(data), data))]:
            new = _paths(taste, data) - reached
            if (new or data in seeds) and total + len(data) + 3 <= MOST_BYTES:
                reached |= new
                kept.append(data)
                total += len(data) + 3
    finally:
        end()
    CORPUS.mkdir(parents=True, exist_ok=True)
    (CORPUS / f"{target.name}.bin").write_bytes(run_of(*((0, data) for data in kept)))
    return kept


def reap_all(names: Iterable[str], keep: Path) -> None:
    """`reap` from the corpora that `bench.fuzz` left below `keep`."""
    for name in names:
        reap(TARGETS[name], [path.read_bytes() for path in (keep / "corpus" / name).iterdir()])


def _paths(taste: Taste, data: bytes) -> set[Path_]:
    """The steps from line to line that one input takes, and roughly how often each."""
    steps: dict[tuple[CodeType, int, int], int] = {}

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        if not any(place in frame.f_code.co_filename for place in COUNTED):
            return None
        last = 0

        def step(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal last
            if event == "line":
                key = (frame.f_code, last, frame.f_lineno)
                steps[key] = steps.get(key, 0) + 1
                last = frame.f_lineno
            return step

        return step

    begin()
    sys.settrace(enter)
    try:
        taste(data)
    finally:
        sys.settrace(None)
    return {(*key, min(count.bit_length(), _MANY)) for key, count in steps.items()}
