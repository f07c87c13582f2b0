"""When the benchmark of a working house believes its callers, and what two processes carry."""

from pathlib import Path
from typing import Any

import pytest

from bench import mixed


def a_row(how: str = "apart", *, p99_ms: float = 1.0, late_ms: float = 1.0, lost: int = 0) -> Any:
    return {
        "how": how,
        "lost": lost,
        "delay_ms": {"p99": p99_ms},
        "generator": {"late_ms_p99": late_ms},
    }


def told(row: Any) -> Any:
    return {**row, "callers_late": mixed.are_late(row)}


def measured(monkeypatch: pytest.MonkeyPatch, *rows: Any) -> list[Any]:
    coming = iter(rows)
    monkeypatch.setattr(mixed, "_beside", lambda *_: next(coming))
    return mixed._judged("apart", Path("clip"), 10, 10)


def test_callers_in_time_are_believed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = measured(monkeypatch, a_row(p99_ms=56.0), a_row())
    assert [row["callers_late"] for row in rows] == [False]
    assert not mixed.is_met(rows), "the delay was the server's"


def test_late_callers_are_asked_again_and_both_answers_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = measured(monkeypatch, a_row(p99_ms=56.0, late_ms=30.0), a_row(p99_ms=2.0))
    assert [row["delay_ms"]["p99"] for row in rows] == [56.0, 2.0]
    assert [row["callers_late"] for row in rows] == [True, False]
    assert mixed.is_met(rows)


def test_callers_who_are_always_late_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = measured(monkeypatch, *[a_row(late_ms=30.0)] * 9)
    assert len(rows) == mixed.TRIALS
    assert not mixed.is_met(rows), "though what they saw was in time"


def test_each_way_has_its_own_bound() -> None:
    together = a_row("together", late_ms=7.0, p99_ms=7.0)
    assert not mixed.are_late(together)
    assert mixed.are_late(a_row("apart", late_ms=7.0))
    assert mixed.is_met([told(together), told(a_row("apart"))])
    assert not mixed.is_met([told(a_row("together", p99_ms=21.0)), told(a_row("apart"))])


def test_a_lost_packet_is_not_excused_by_late_callers() -> None:
    assert not mixed.is_met([told(a_row(late_ms=30.0, lost=1)), told(a_row())])


def cycle(one_us: float, together_us: tuple[float, float], other_us: float) -> list[Any]:
    return [
        {"on": [0], "us_cpu_per_packet": [one_us]},
        {"on": [0, 1], "us_cpu_per_packet": list(together_us)},
        {"on": [1], "us_cpu_per_packet": [other_us]},
    ]


def test_two_processes_carry_twice_one_less_what_packets_become_dearer() -> None:
    assert mixed.scale_of(cycle(30, (30, 30), 30)) == 2.0
    assert mixed.scale_of(cycle(29, (39, 41), 31)) == 1.5
    assert mixed.scale_of(cycle(50, (50, 30), 30)) == 2.0, "cores need not be alike"


def test_a_disturbed_round_decides_nothing() -> None:
    calm = cycle(30, (30, 30), 30)
    for disturbed in (cycle(45, (30, 30), 30), cycle(30, (30, 45), 30)):
        assert mixed.scale_of(calm + disturbed + calm) == 2.0


def test_of_cores_that_are_not_alike_neither_decides_alone() -> None:
    rounds = cycle(45, (47, 38), 40) + cycle(46, (46, 39), 39) + cycle(44, (48, 40), 41)
    assert mixed.scale_of(rounds) == 1.98


def test_rounds_as_they_are_told_are_rounds_that_can_be_judged() -> None:
    def driven(cost_us: float) -> Any:
        seen = {"calls": 10, "packets_in": 9, "packets_out": 9, "lost": 0, "delay_ms": {"p99": 1.0}}
        return seen | {
            "us_cpu_per_packet": cost_us, "waited_percent": 1.0, "stolen_percent": 0.0,
        }  # fmt: skip

    rounds = [mixed._together(who, [driven(30.0 + core) for core in who]) for who in mixed.ROUNDS]
    assert mixed.scale_of(rounds) == 2.0
    assert [row["calls"] for row in rounds] == [10, 20, 10]
