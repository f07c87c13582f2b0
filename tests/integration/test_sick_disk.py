"""A live call over a disk that fills, and over one that refuses: told, and all of it counted."""

from pathlib import Path

import pytest

from bench.sick_disk import CannotInject, Plan, run

PLANS = (Plan(), Plan("write", "ENOSPC", 8))


def test_a_failing_disk_is_told_and_costs_only_what_is_counted() -> None:
    if not Path("/proc/self/ns/mnt").exists():
        pytest.skip("no mount namespaces here")
    try:
        rows = list(run(PLANS))
    except CannotInject as cannot:
        pytest.skip(str(cannot))
    for plan, row in zip(PLANS, rows, strict=False):
        # How much is heard meanwhile is for the drill on a quiet machine: here it must only go on.
        assert row["injected"] and row["is_felt"], row
        assert row["told_after_ms"] is not None, row
        assert row["recording_again"] and row["segments"] > 2, row
        assert row["missing"] == row["told_as_lost"] and not row["unexplained"], row
        assert row["intact"] and not row["unreadable"], row
        assert row["heard_meanwhile"] > 0.5, row
        assert plan.call or row["missing"], "the disk was not full for long enough"
