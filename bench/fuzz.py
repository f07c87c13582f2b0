"""Does any parser of outside bytes raise what it does not promise? Campaigns, one target at a time.

With atheris each target runs in a process of its own, guided by coverage, from seeds that our own
encoders make; without it, in this process, by damaging the same seeds. An input that breaks a
promise is written to a file beside the corpus and named in its target's row; the campaign goes on.
What was found once stays in tests/fuzz/regressions/<target>/ and runs first, always.

    run(only, seconds, inputs, …) -> rows {"target", "inputs", "seconds", "per_s", "edges",
                                           "features", "crashes", …}, and last the sums
"""

import hashlib
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.circumstances import circumstances
from bench.fuzz_mutate import mutants
from bench.fuzz_target import Target, end
from bench.fuzz_targets import TARGETS

HOUSE: Final = Path(__file__).resolve().parent.parent
REGRESSIONS: Final = HOUSE / "tests" / "fuzz" / "regressions"
# One input that takes longer counts as a fault: nobody may stop the loop for as long.
TIMEOUT_S: Final = 10
MAX_CRASHES: Final = 5
"""Of one target; then the next one has its turn."""
_MARK: Final = re.compile(rb"#(\d+)\s.*?cov: (\d+) ft: (\d+)")
_DONE: Final = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")
_LASTED: Final = re.compile(rb"Done \d+ runs in (\d+) second")
_WROTE: Final = re.compile(rb"Test unit written to (\S+)")
_PEAK: Final = re.compile(rb"stat::peak_rss_mb:\s*(\d+)")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much each target gets: whichever ends first. 0 is without end."""

    seconds: float = 0.0
    inputs: int = 0


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def regressions(target: Target) -> list[bytes]:
    """What was found once, oldest name first."""
    folder = REGRESSIONS / target.name
    return [path.read_bytes() for path in sorted(folder.glob("*.bin"))]


def run(
    only: Sequence[str],
    budget: Budget,
    *,
    seed: int = 1,
    keep: Path | None = None,
    guided: bool | None = None,
) -> Iterator[Row]:
    """A row for each target as it is through, then the result.

    `keep`: where corpora and crashing inputs stay; else crashing inputs alone do, in the machine's
    folder for such things. `guided`: by coverage; None: if it can be. Raises ValueError for a
    target that there is not.
    """
    unknown = [name for name in only if name not in TARGETS]
    if unknown:
        raise ValueError(f"There is no target {unknown[0]}. There are: {', '.join(TARGETS)}.")
    guided = has_atheris() if guided is None else guided
    rows = []
    with tempfile.TemporaryDirectory(prefix="reception-fuzz-") as scratch:
        for name in only or TARGETS:
            target = TARGETS[name]
            crashes = keep or Path(tempfile.gettempdir()) / "reception-fuzz-crashes"
            corpus = (keep or Path(scratch)) / "corpus" / name
            begun = time.monotonic()
            try:
                if guided:
                    row = _guided(target, budget, seed, corpus, crashes / name)
                else:
                    row = _plain(target, budget, seed, crashes / name)
            finally:
                end()
            seconds = row.pop("tasting_s", time.monotonic() - begun)
            rows.append(
                {
                    "target": name,
                    "guided": guided,
                    "seconds": round(seconds, 1),
                    "per_s": round(row["inputs"] / max(seconds, 0.001)),
                    **row,
                }
            )
            yield rows[-1]
    yield {
        "inputs": sum(row["inputs"] for row in rows),
        "targets": len(rows),
        "fewest_inputs": min(row["inputs"] for row in rows),
        "crashes": sum(len(row["crashes"]) for row in rows),
        "ok": not any(row["crashes"] for row in rows),
        **circumstances(),
    }


def in_words(row: Row) -> str:
    """A row in a line, for people."""
    if "target" not in row:
        return f"{row['inputs']} inputs to {row['targets']} targets, {row['crashes']} faults"
    edges = f", {row['edges']} edges" if row.get("edges") else ""
    return (
        f"{row['target']}: {row['inputs']} inputs, {row['per_s']}/s{edges}, "
        f"{len(row['crashes'])} faults"
    )


# -- Without coverage ----------------------------------------------------------------------------


def _plain(target: Target, budget: Budget, seed: int, crashes: Path) -> Row:
    """Regressions, seeds, then damaged seeds, in this process."""
    taste, seeds = target.prepare(), list(target.seeds())
    first = [*regressions(target), *seeds]
    until = time.monotonic() + budget.seconds if budget.seconds else float("inf")
    found: dict[str, Row] = {}
    count = 0
    for data in itertools.chain(first, mutants(seeds, seed, target.max_bytes)):
        count += 1
        try:
            taste(data)
        except Exception as fault:  # any at all is what we are looking for
            where = place_of(fault)
            if where not in found:
                found[where] = {"fault": where, "input": write_input(crashes, data)}
        is_through = count >= budget.inputs if budget.inputs else False
        if is_through or len(found) >= MAX_CRASHES or time.monotonic() >= until:
            break
    return {"inputs": count, "edges": None, "features": None, "crashes": list(found.values())}


def place_of(fault: Exception) -> str:
    """Where it was raised: two inputs of one place tell of one fault."""
    frame = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{type(fault).__name__} in {Path(frame.filename).name}:{frame.lineno}"


def write_input(folder: Path, data: bytes) -> str:
    """Keep what broke something; where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return str(path)


# -- Guided by coverage --------------------------------------------------------------------------


def _guided(target: Target, budget: Budget, seed: int, corpus: Path, crashes: Path) -> Row:
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for data in (*regressions(target), *target.seeds()):
        (corpus / f"seed-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
    begun = time.monotonic()
    inputs, edges, features, peak_mib, tasting_s = 0, 0, 0, 0, 0.0
    found: list[Row] = []
    while len(found) < MAX_CRASHES:
        left_s = budget.seconds - (time.monotonic() - begun)
        if (budget.seconds and left_s < 1) or (budget.inputs and inputs >= budget.inputs):
            break
        bounds = [f"-max_total_time={int(left_s)}"] if budget.seconds else []
        bounds += [f"-runs={budget.inputs - inputs}"] if budget.inputs else []
        started = time.monotonic()
        said, code = _child(target, [*bounds, f"-seed={seed + len(found)}"], corpus, crashes)
        done, marks = _DONE.search(said), _MARK.findall(said)
        inputs += int(done[1]) if done else max((int(n) for n, _, _ in marks), default=0)
        edges = max([edges, *(int(cov) for _, cov, _ in marks)])
        features = max([features, *(int(ft) for _, _, ft in marks)])
        peak_mib = max(peak_mib, int(peak[1]) if (peak := _PEAK.search(said)) else 0)
        # Without the time that the process takes to start.
        tasting_s += int(lasted[1]) if (lasted := _LASTED.search(said)) else 0.0
        if not lasted:
            tasting_s += time.monotonic() - started
        if code == 0:
            break
        found.append(_crash(said))
    return {
        "inputs": inputs,
        "edges": edges,
        "features": features,
        "peak_mib": peak_mib,
        "tasting_s": tasting_s,
        "crashes": found,
    }


def _child(target: Target, bounds: Sequence[str], corpus: Path, crashes: Path) -> tuple[bytes, int]:
    """One run of libFuzzer until its end or its first fault; what it said, and its exit code."""
    # In memory where there is such a place, because a campaign must not wear out a disk; and ours
    # to remove, because libFuzzer ends its process without a word.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="reception-fuzz-", dir=memory if memory.is_dir() else None
    ) as scratch:
        done = subprocess.run(
            [
                sys.executable, "-m", "bench.fuzz_child", target.name, str(corpus), *bounds,
                f"-max_len={target.max_bytes}", f"-timeout={TIMEOUT_S}", "-rss_limit_mb=2048",
                "-print_final_stats=1", "-close_fd_mask=1", f"-artifact_prefix={crashes}/",
            ],
            cwd=HOUSE,
            env={**os.environ, "TMPDIR": scratch},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )  # fmt: skip
    return done.stderr, done.returncode


def _crash(said: bytes) -> Row:
    """What libFuzzer tells of a fault: the last line of the traceback, and where the input is."""
    text = said.decode(errors="replace")
    wrote = _WROTE.search(said)
    lines = [line.strip() for line in text.splitlines()]
    faults = [line for line in lines if re.match(r"[A-Za-z.]+(Error|Exception|Exit)\b", line)]
    places = [line for line in lines if line.startswith("File ")]
    other = next((line for line in lines if "ERROR: libFuzzer" in line), "the process ended")
    fault = f"{faults[-1]} at {places[-1]}" if faults and places else other
    return {"fault": fault[:300], "input": wrote[1].decode() if wrote else None}
