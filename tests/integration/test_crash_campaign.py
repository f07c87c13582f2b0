"""A small crash campaign: real nodes, real callers, real kills, real files, a real house."""

import os
import shutil
from typing import Any

import pytest

from bench.crash import Plan, run, summary

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        shutil.which("strace") is None or os.geteuid() != 0, reason="needs root and strace"
    ),
]
LOST_AT_MOST_MS = 1_000
"""On a quiet machine below 100; this one may be busy with other tests."""


def campaign(kills: int, *kinds: str) -> dict[str, Any]:
    return summary(list(run(Plan(kills, seed=1, kinds=kinds))))


def faults(found: dict[str, Any]) -> dict[str, int]:
    names = ("unplayable", "finalised_lost", "cases_missing", "cases_doubled", "trouble")
    return {name: found[name] for name in names if found[name]}


def test_a_node_that_is_killed_at_any_moment_loses_next_to_nothing() -> None:
    found = campaign(6, "live")
    assert found["kills"] == 6, "the faults did not happen"
    assert found["lost_ms"]["samples"] > 0
    assert found["lost_ms"]["max"] < LOST_AT_MOST_MS
    assert faults(found) == {}


def test_kills_at_exact_system_calls_leave_everything_playable_and_closed() -> None:
    found = campaign(8, "syscall")
    assert found["kills"] >= 8, "the faults did not happen"
    assert found["recordings"] > 0
    assert faults(found) == {}


def test_a_house_that_is_killed_as_its_talks_end_has_one_case_of_each() -> None:
    found = campaign(2, "house")
    assert found["kills"] == 2, "the faults did not happen"
    assert found["sessions_with_one_case"] == 4
    assert faults(found) == {}
