"""A promise is what its dates say, and nobody can tidy away that it is late."""

from datetime import UTC, date, datetime

import pytest

from cases.promises import promise_state
from cases.schemas import PromiseState

TODAY = date(2026, 5, 25)
KEPT = datetime(2026, 5, 24, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("has_owner", "due_on", "kept_at", "state"),
    [
        (False, None, None, None),
        (True, None, None, None),
        (False, TODAY, None, None),
        (True, date(2026, 5, 26), None, PromiseState.OPEN),
        (True, TODAY, None, PromiseState.OPEN),
        (True, date(2026, 5, 24), None, PromiseState.OVERDUE),
        (True, date(2026, 5, 1), KEPT, PromiseState.KEPT),
    ],
)
def test_how_a_promise_stands(
    has_owner: bool, due_on: date | None, kept_at: datetime | None, state: PromiseState | None
) -> None:
    stands = promise_state(has_owner=has_owner, due_on=due_on, kept_at=kept_at, today=TODAY)
    assert stands is state
