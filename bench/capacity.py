"""How many recorded calls does one core hold?

Held means: no packet lost and p99 of the forwarding delay below 5 ms, with the server on one core
and all callers on another. The number is doubled until it is not held, then the gap is halved. A
number counts as not held when it fails twice. If it is the callers' core that gives way, or someone
else has it, the result says so: the server holds at least what was held before.

    run(tell) -> {"reception": {"calls_held", "limit"}, "janus": …, "ratio"}
"""

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from bench.circumstances import circumstances
from bench.janus import Janus, require
from bench.media_load import Gateway, Reception, clip_file, measure

SERVER_CORE: Final = 0
CALLERS_CORE: Final = 1
MAX_DELAY_MS: Final = 5.0
STEP_S: Final = 5
ATTEMPTS: Final = 2
FIRST_CALLS: Final = 10
MAX_CALLS: Final = 320
PRECISION: Final = 0.1
"""The gap between held and not held, as a share of what is held, at which the search ends."""
# One process sends for all: several on one core would wait for each other.
CALLERS_PER_PROCESS: Final = 2 * MAX_CALLS
GENERATOR_FULL_PERCENT: Final = 85.0
GENERATOR_LATE_MS: Final = 3.0
NOT_REACHED: Final = "not reached"

Row = dict[str, Any]
Make = Callable[[int], Gateway]
"""A gateway for so many calls, on the server's core."""


class Limit(StrEnum):
    """Why a number of calls was not held."""

    LOSS = "loss"
    DELAY = "delay"
    JOINING = "joining"
    GENERATOR = "generator"
    """The callers' core was full."""
    MACHINE = "machine"
    """Others were using the callers' core; the run says nothing about the server."""


class TooFewCores(Exception):
    """Server and callers need a core each; the words say what there is."""


def run(tell: Callable[[Row], None], *, with_janus: bool = False) -> Row:
    """Search our limit, and Janus's if asked; `tell` gets every step.

    Raises TooFewCores or JanusMissing before anything is started.
    """
    if not {SERVER_CORE, CALLERS_CORE} <= os.sched_getaffinity(0):
        raise TooFewCores("Server and callers need core 0 and core 1 to themselves.")
    makers: dict[str, Make] = {"reception": lambda calls: Reception(calls, core=SERVER_CORE)}
    if with_janus:
        require()
        makers["janus"] = lambda calls: Janus(calls, core=SERVER_CORE)
    result: Row = {}
    with clip_file() as clip:
        for name, make in makers.items():

            def step(calls: int, make: Make = make) -> Row:
                for _ in range(ATTEMPTS):
                    row = _step(make, clip, calls)
                    tell(row)
                    if row["held"]:
                        break
                return row

            result[name] = search(step)
    return result | _compared(result) | circumstances()


def in_words(row: Row) -> str:
    """A row in a line, for people."""
    verdict = "held" if row["held"] else f"not held: {row['why']}"
    return f"{row['server']}, {row['calls']} calls: {verdict}"


def search(step: Callable[[int], Row], *, first: int = FIRST_CALLS) -> Row:
    """The most calls for which `step` says `held`, by doubling and then halving the gap."""
    held, failed, calls = 0, MAX_CALLS + 1, first
    limit = NOT_REACHED
    while calls < failed:
        row = step(calls)
        if row["held"]:
            held = calls
        else:
            failed, limit = calls, row["why"]
        is_open = failed > MAX_CALLS
        calls = min(2 * held, MAX_CALLS) if is_open else (held + failed) // 2
        if calls <= held or (not is_open and failed - held <= max(1, PRECISION * held)):
            break
    return {"calls_held": held, "limit": limit}


def _step(make: Make, clip: Path, calls: int) -> Row:
    gateway = make(calls)
    try:
        row = measure(
            gateway,
            clip,
            rooms=calls,
            seconds=STEP_S,
            core=CALLERS_CORE,
            callers_per_process=CALLERS_PER_PROCESS,
        )
    except RuntimeError:  # not even joined within the callers' patience
        row = {"server": gateway.name, "calls": calls}
        return row | {"held": False, "why": Limit.JOINING} | circumstances()
    finally:
        gateway.close()
    why = judge(row)
    return row | {"held": why is None, "why": why}


def judge(row: Row) -> Limit | None:
    """What gave way, or None if nothing did.

    Callers who are late themselves cannot accuse the server of delay; of loss neither, as they may
    have been too late to read.
    """
    delay_ms = row["delay_ms"]["p99"]
    if row["lost"] == 0 and delay_ms is not None and delay_ms < MAX_DELAY_MS:
        return None
    generator = row["generator"]
    if sum(generator["core_percent"]) >= GENERATOR_FULL_PERCENT or row["unsent"]:
        return Limit.GENERATOR
    if generator["late_ms_p99"] >= GENERATOR_LATE_MS:
        return Limit.MACHINE
    return Limit.LOSS if row["lost"] else Limit.DELAY


def _compared(result: Row) -> Row:
    """Ours to Janus's, if both were searched."""
    if "janus" not in result or not result["janus"]["calls_held"]:
        return {}
    ours, theirs = result["reception"], result["janus"]
    return {
        "ratio": round(ours["calls_held"] / theirs["calls_held"], 2),
        "ratio_is": _certainty(ours["limit"], theirs["limit"]),
    }


def _certainty(ours: str, theirs: str) -> str:
    """A ratio is a lower bound if only ours may be higher, and nothing if Janus's may be."""
    unproved = (Limit.GENERATOR, Limit.MACHINE, NOT_REACHED)
    if theirs in unproved:
        return "unknown"
    return "at least" if ours in unproved else "measured"
