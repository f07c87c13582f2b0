"""10^8 damaged inputs for each parser, in portions that add up over days.

A portion gives one target, in a process of its own, the inputs that come next by number, and what
is known of the target is written to a file before the next one begins. So a campaign may be ended
at any moment, and goes on where it stopped. Every input can be made again from the target, the
seed, its number and the corpus, whose digest each portion names.

    run(only, seconds, resume, …) -> a row for each target, then one for each parser, then the sums
"""

import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.circumstances import circumstances
from bench.fuzz import HOUSE
from bench.fuzz_corpus import corpus_of, digest_of
from bench.fuzz_mutate import BATCH, Mutator
from bench.fuzz_target import Target
from bench.fuzz_targets import TARGETS

WANTED: Final = 100_000_000
"""Inputs for each parser."""
SILENCE_S: Final = 60.0
"""A child that says nothing for as long, and had the processor for as long or waits for something
that is not the processor, is stuck where no signal reaches it."""
PARSERS: Final = tuple(dict.fromkeys(t.parser for t in TARGETS.values() if t.parser))
Row = dict[str, Any]


def run(
    only: Sequence[str],
    seconds: float,
    resume: Path,
    *,
    seed: int = 1,
    wanted: int = WANTED,
    keep: Path | None = None,
) -> Iterator[Row]:
    """Go on for `seconds` with each target whose parser has not had `wanted` inputs.

    `only`: these targets alone, else all that count for a parser. `resume`: what is known, read if
    it is there and written after each target. `keep`: where inputs that break something stay, else
    beside `resume`. Raises ValueError for a target that there is not, and for a file of another
    seed.
    """
    unknown = [name for name in only if name not in TARGETS]
    if unknown:
        raise ValueError(f"There is no target {unknown[0]}. There are: {', '.join(TARGETS)}.")
    known = _read(resume, seed)
    for name in only or [t.name for t in TARGETS.values() if t.parser]:
        target = TARGETS[name]
        if target.parser and _inputs_of(target.parser, known) >= wanted:
            continue
        row = known.setdefault(name, _new(target))
        _portion(target, row, seconds, seed, keep or resume.parent / "faults")
        _write(resume, list(_all_rows(known, seed, wanted)))
        yield row
    sums = _all_rows(known, seed, wanted)
    yield from (row for row in sums if "target" not in row)


def in_words(row: Row) -> str:
    """A row in a line, for people."""
    if "target" in row:
        last = row["portions"][-1]
        return (
            f"{row['target']}: {row['inputs']} inputs, {row['taken']} taken, now "
            f"{last['per_s']}/s, slowest {row['slowest_ms']} ms, {len(row['crashes'])} faults, "
            f"{len(row.get('mended', []))} mended"
        )
    if "parser" not in row:
        return f"{row['parsers_done']} of {row['parsers']} parsers done, {row['crashes']} faults"
    left = "done" if row["is_done"] else f"{row['hours_left']} hours left at this rate"
    return f"{row['parser']}: {row['inputs']} inputs, {left}"


def again(name: str, seed: int, number: int) -> bytes:
    """The input of this number, from the corpus as it is now."""
    target = TARGETS[name]
    return Mutator(corpus_of(target), seed, target.max_bytes).nth(number)


# -- What is known -------------------------------------------------------------------------------


def _new(target: Target) -> Row:
    return {
        "target": target.name,
        "parser": target.parser,
        "inputs": 0,
        "taken": 0,
        "next_batch": 0,
        "slowest_ms": 0.0,
        "slowest": None,
        "crashes": [],
        "mended": [],
        "portions": [],
    }


def _read(resume: Path, seed: int) -> dict[str, Row]:
    if not resume.exists():
        return {}
    rows = json.loads(resume.read_text(encoding="utf-8"))
    if rows[-1]["seed"] != seed:
        raise ValueError(f"{resume} is about seed {rows[-1]['seed']}.")
    return {row["target"]: row for row in rows if "target" in row}


def _write(resume: Path, rows: list[Row]) -> None:
    """Whole or not at all: a campaign is ended by whoever needs the machine."""
    part = resume.with_name(resume.name + ".part")
    part.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(resume)


def _inputs_of(parser: str, known: dict[str, Row]) -> int:
    return sum(row["inputs"] for row in known.values() if row["parser"] == parser)


def _all_rows(known: dict[str, Row], seed: int, wanted: int) -> Iterator[Row]:
    yield from known.values()
    sums = [_sum(parser, known, wanted) for parser in PARSERS]
    yield from sums
    crashes = sum(len(row["crashes"]) for row in known.values())
    yield {
        "seed": seed,
        "inputs": sum(row["inputs"] for row in known.values()),
        "parsers_done": sum(row["is_done"] for row in sums),
        "parsers": len(sums),
        "crashes": crashes,
        "ok": not crashes,
        **circumstances(),
    }


def _sum(parser: str, known: dict[str, Row], wanted: int) -> Row:
    """How far a parser is. `hours_left` at the rate of its targets' last portions."""
    rows = [row for row in known.values() if row["parser"] == parser]
    inputs = _inputs_of(parser, known)
    last = [row["portions"][-1] for row in rows if row["portions"]]
    per_s = round(sum(p["per_s"] for p in last) / len(last)) if last else 0
    left = max(0, wanted - inputs)
    return {
        "parser": parser,
        "inputs": inputs,
        "taken": sum(row["taken"] for row in rows),
        "per_s": per_s,
        "hours_left": round(left / per_s / 3600, 2) if per_s else None,
        "is_done": not left,
        "slowest_ms": max((row["slowest_ms"] for row in rows), default=0.0),
        "crashes": sum(len(row["crashes"]) for row in rows),
        "mended": sum(len(row.get("mended", [])) for row in rows),
    }


# -- A portion -----------------------------------------------------------------------------------


def _portion(target: Target, row: Row, seconds: float, seed: int, faults: Path) -> None:
    """Let a child taste the next inputs, and add what it found to the target's row."""
    corpus = corpus_of(target)
    last = row["portions"][-1]["corpus"] if row["portions"] else ""
    is_same = row["slowest"] is not None and last == digest_of(corpus)
    broke = [c["number"] for c in row["crashes"] if is_same and c["number"] is not None]
    slowest = row["slowest"] if is_same else -1
    found = _child(target.name, seed, row["next_batch"], seconds, slowest=slowest, broke=broke)
    mutator = Mutator(corpus, seed, target.max_bytes)
    mended = [number for number in broke if number not in found["still"]]
    row["mended"] = row.get("mended", []) + [c for c in row["crashes"] if c["number"] in mended]
    row["crashes"] = [c for c in row["crashes"] if c["number"] not in mended]
    for crash in found["crashes"]:
        if crash["fault"] not in {old["fault"] for old in row["crashes"]}:
            data = mutator.nth(crash["number"]) if crash["number"] is not None else None
            kept = None if data is None else _keep(faults / target.name, data)
            row["crashes"].append({**crash, "input": kept})
    batches = found["batches"]
    row["inputs"] += batches * BATCH
    row["taken"] += found["taken"]
    row["next_batch"] += batches + found["is_dead"]
    # The slowest until now was timed again, by the parser as it is today.
    if found["slowest"] is not None and (is_same or found["slowest_ms"] > row["slowest_ms"]):
        row["slowest_ms"], row["slowest"] = found["slowest_ms"], found["slowest"]
    _add(
        row["portions"],
        {
            "date": datetime.now(UTC).date().isoformat(),
            "corpus": digest_of(corpus),
            "inputs": batches * BATCH,
            "seconds": found["seconds"],
            "cpu_s": found["cpu_s"],
            "grown_mib": found["grown_mib"],
        },
    )


def _add(portions: list[Row], new: Row) -> None:
    """To the last one, if that is of the same day and corpus."""
    last = portions[-1] if portions else None
    if last is not None and (last["date"], last["corpus"]) == (new["date"], new["corpus"]):
        for name in ("inputs", "seconds", "cpu_s"):
            last[name] = round(last[name] + new[name], 1)
        last["grown_mib"] = max(last["grown_mib"], new["grown_mib"])
    else:
        portions.append(new)
        last = new
    last["per_s"] = round(last["inputs"] / max(last["seconds"], 0.001))


def _keep(folder: Path, data: bytes) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return str(path)


def _child(
    name: str,
    seed: int,
    first: int,
    seconds: float,
    *,
    slowest: int = -1,
    broke: Sequence[int] = (),
) -> Row:
    """What `bench.fuzz_portion_child` says at its end. If it dies or falls silent: what it had
    done, and the batch it died in as a fault. `slowest`: this input is timed again; -1: none.
    `broke`: these inputs are tasted again, as they have broken something before."""
    child = subprocess.Popen(
        [
            sys.executable, "-m", "bench.fuzz_portion_child",
            name, str(seed), str(first), str(seconds), str(slowest), *map(str, broke),
        ],
        cwd=HOUSE,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    begun, said = time.monotonic(), Row()
    try:
        for line in _lines(child):
            said = json.loads(line)
            if "crashes" in said:
                return {**said, "is_dead": False}
    finally:
        child.kill()
        child.wait()
    batches = said.get("batch", first) - first
    fault = f"the process ended with {child.returncode} in batch {first + batches}"
    return {
        "batches": batches,
        "taken": 0,
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_s": 0.0,
        "grown_mib": 0.0,
        "slowest_ms": 0.0,
        "slowest": None,
        "crashes": [{"fault": fault, "number": None}],
        "still": broke,
        "is_dead": True,
    }


def _lines(child: subprocess.Popen[bytes], silence_s: float = SILENCE_S) -> Iterator[bytes]:
    """Lines until the end, or until the child is stuck. One that others keep from the processor,
    or that somebody stopped to measure something, is waited for."""
    assert child.stdout is not None
    waiting, spent_s = b"", _spent_s(child.pid)
    while True:
        if not select.select([child.stdout], [], [], silence_s)[0]:
            if _state(child.pid) not in "RT" or _spent_s(child.pid) - spent_s >= silence_s:
                return
            continue
        said = os.read(child.stdout.fileno(), 65_536)
        if not said:
            return
        *lines, waiting = (waiting + said).split(b"\n")
        spent_s = _spent_s(child.pid)
        yield from lines


def _state(pid: int) -> str:
    """proc(5): R wants or has the processor, T was stopped, everything else waits or is dead."""
    return _stat(pid)[0]


def _spent_s(pid: int) -> float:
    """Of the processor, by all of its threads."""
    return sum(map(int, _stat(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of proc(5) from the state on: a name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
