"""Which day it is: a wall clock that contradicts what is known is not believed."""

from datetime import UTC, datetime, timedelta

import pytest

from cases import keeping_clock
from cases.keeping_clock import Against, Anchor, Doubt
from cases.retention import Seen

NOON = datetime(2057, 1, 1, 4, tzinfo=UTC)
MS = timedelta(milliseconds=1)


def seen(wall_ms: int = 0, mono_ms: int = 0) -> Seen:
    return Seen(NOON + wall_ms * MS, 5_000_000_000 + mono_ms * 1_000_000, "a")


def doubt_ms(wall_ms: int, mono_ms: int) -> int | None:
    """How far off the wall is found when both clocks have gone on by so much; None: not at all."""
    found = keeping_clock.doubt(Anchor(seen(), None), seen(wall_ms, mono_ms))
    assert found is None or found.against is Against.MONOTONIC
    return None if found is None else keeping_clock.off_ms(found)


YEAR_MS = 366 * 86_400_000


@pytest.mark.parametrize(
    ("wall_ms", "mono_ms", "off_ms"),
    [
        (0, 0, None),
        (YEAR_MS, YEAR_MS, None),
        (60_000, 0, None),
        (60_001, 0, 60_001),
        (-60_000, 0, None),
        (-60_001, 0, -60_001),
        (YEAR_MS, 1_000, YEAR_MS - 1_000),
        (1_000, YEAR_MS, 1_000 - YEAR_MS),
        # Set by half a minute, and by half a minute again, and once more.
        (3_600_000 + 90_000, 3_600_000, 90_000),
    ],
)
def test_within_a_boot_the_wall_must_say_what_the_other_clock_says(
    wall_ms: int, mono_ms: int, off_ms: int | None
) -> None:
    assert doubt_ms(wall_ms, mono_ms) == off_ms


@pytest.mark.parametrize(
    ("since_ms", "off_ms"),
    [
        (0, None),
        (-60_000, None),
        (-60_001, -60_001),
        (3 * 86_400_000, None),
        (3 * 86_400_000 + 1, 3 * 86_400_000 + 1),
        (31 * YEAR_MS, 31 * YEAR_MS),
    ],
)
def test_a_new_boot_must_follow_the_newest_line_of_the_audit_log_and_soon(
    since_ms: int, off_ms: int | None
) -> None:
    found = keeping_clock.doubt(Anchor(seen(), NOON - since_ms * MS), seen(1_000, 1_000))
    assert found == (None if off_ms is None else Doubt(Against.AUDIT, off_ms * MS))


@pytest.mark.parametrize(
    ("theirs_ms", "agree"), [(300_000, True), (-300_000, True), (300_001, False), (-300_001, False)]
)
def test_the_computer_of_whoever_confirms_a_clock_is_a_witness(theirs_ms: int, agree: bool) -> None:
    assert keeping_clock.agrees(seen(), NOON + theirs_ms * MS) is agree
