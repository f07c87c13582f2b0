"""What the rows of an outage drill come to: of one campaign, or of several parts together."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bench.aftermath import FILE_GAP_MS
from bench.outage_watch import STREAMS

MARKED_MS: Final = 2_000
"""Gaps that are longer have marks at both ends, whatever made them."""

Json = dict[str, Any]


def summary(rows: Iterable[Json]) -> Json:
    """Quantiles by kind; how many runs and what failed. `failed` is 0 if every promise was kept."""
    told = list(rows)
    faults = [row for row in told if "proof" in row]
    verdicts = [row for row in told if "recorded" in row]
    by_kind: dict[str, list[Json]] = defaultdict(list)
    for row in faults:
        by_kind[row["kind"]].append(row)
    failed = [row for row in faults if row["trouble"] or row["back_s"] is None]
    untrue = sum(not verdict["recorded"] for verdict in verdicts)
    return {
        "summary": True,
        "parts": [row["part"] for row in told if "part" in row],
        "outage": _by_length(by_kind.pop("link", [])),
        **{kind: _of_kind(found) for kind, found in by_kind.items()},
        "recorded": _recorded(verdicts),
        "runs": len(faults),
        "failed": len(failed) + untrue,
    }


def _by_length(links: Sequence[Json]) -> Json:
    found: dict[str, list[Json]] = defaultdict(list)
    for row in sorted(links, key=lambda row: float(row["outage_s"])):
        found[f"{row['outage_s']:g}"].append(row)
    return {
        length: {name: quantiles(row[f"{name}_s"] for row in same) for name in ("back", "noticed")}
        for length, same in found.items()
    }


def _of_kind(rows: Sequence[Json]) -> Json:
    times = ("back_s", *STREAMS, "noticed_s", "words_s", "desk_told_s", "ready_s")
    result = {
        name.removesuffix("_s"): quantiles(row[name] for row in rows)
        for name in times
        if any(row[name] is not None for row in rows)
    }
    if "ready" in result:
        result["after_ready"] = quantiles(
            row["back_s"] and row["ready_s"] and round(row["back_s"] - row["ready_s"], 3)
            for row in rows
        )
    return result


def _recorded(verdicts: Sequence[Json]) -> Json:
    marks = [
        mark
        for verdict in verdicts
        if verdict["gap_ms"] > MARKED_MS
        for mark in (
            verdict["back_ms"],
            None if verdict["kind"] == "server" else verdict["left_ms"],
        )
        if mark is not None
    ]
    return {
        "faults": len(verdicts),
        "gaps": sum(verdict["gap_ms"] > FILE_GAP_MS for verdict in verdicts),
        "untrue": sum(not verdict["recorded"] for verdict in verdicts),
        "marks_off_ms_max": max(marks, default=None),
    }


def _marks(verdict: Json) -> tuple[int | None, ...]:
    # A server that was killed noted nothing of its end.
    is_dead = verdict["kind"] == "server"
    return (verdict["back_ms"],) if is_dead else (verdict["back_ms"], verdict["left_ms"])


def quantiles(values: Iterable[float | None]) -> Json:
    """How many are known, their median, 95th percentile (the nearest rank) and largest."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return {"n": 0, "p50_s": None, "p95_s": None, "max_s": None}
    p95 = known[-(-95 * len(known) // 100) - 1]
    p50 = round(statistics.median(known), 3)
    return {"n": len(known), "p50_s": p50, "p95_s": p95, "max_s": known[-1]}
