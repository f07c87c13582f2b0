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


def test_two_processes_carry_twice_one_less_what_packets_become_dearer() -> None:
    def a_round(*costs_us: float) -> Any:
        return {"us_cpu_per_packet": list(costs_us)}

    assert mixed.scale_of([a_round(30), a_round(30, 30), a_round(30)]) == 2.0
    assert mixed.scale_of([a_round(29), a_round(39, 41), a_round(31)]) == 1.5
    disturbed = [a_round(40), a_round(30, 31), a_round(30), a_round(30, 45), a_round(30)]
    assert mixed.scale_of(disturbed) == pytest.approx(2.0, abs=0.04)
