"""A case's ledger notices every line that was changed, removed, swapped or slipped in."""

from datetime import UTC, datetime, timedelta

import pytest

from cases.ledger import first_break, line_digest
from cases.model import CaseEvent
from core.audit import GENESIS

NOW = datetime(2026, 5, 25, 1, 0, tzinfo=UTC)


def make_ledger(length: int, case_id: str = "c" * 32) -> list[CaseEvent]:
    lines: list[CaseEvent] = []
    for position in range(1, length + 1):
        line = CaseEvent(
            case_id=case_id, position=position, at=NOW + timedelta(days=position),
            kind="registered", actor="system", words=f"第{position}行", article="22(1)",
            is_public=True, previous_digest=lines[-1].digest if lines else GENESIS, digest="",
        )  # fmt: skip
        line.digest = line_digest(line)
        lines.append(line)
    return lines


@pytest.mark.parametrize("length", [0, 1, 7])
def test_an_untouched_ledger_fits(length: int) -> None:
    assert first_break(make_ledger(length)) is None


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("words", "别的话"),
        ("actor", "account:1"),
        ("kind", "closed"),
        ("article", None),
        ("is_public", False),
        ("at", NOW),
        ("case_id", "d" * 32),
    ],
)
def test_a_changed_line_is_found(place: int, column: str, value: object) -> None:
    ledger = make_ledger(6)
    setattr(ledger[place], column, value)
    assert first_break(ledger) == place + 1


@pytest.mark.parametrize("place", range(5))
def test_a_removed_line_is_found_unless_nothing_follows(place: int) -> None:
    ledger = make_ledger(6)
    del ledger[place]
    assert first_break(ledger) == place + 1


@pytest.mark.parametrize("place", range(5))
def test_two_swapped_lines_are_found(place: int) -> None:
    ledger = make_ledger(6)
    ledger[place], ledger[place + 1] = ledger[place + 1], ledger[place]
    assert first_break(ledger) == place + 1


def test_a_forged_line_with_a_right_digest_of_its_own_breaks_the_next() -> None:
    ledger = make_ledger(6)
    ledger[2].words = "别的话"
    ledger[2].digest = line_digest(ledger[2])
    assert first_break(ledger) == 4


def test_a_line_of_another_case_does_not_fit() -> None:
    ledger, other = make_ledger(3), make_ledger(3, "d" * 32)
    assert first_break([ledger[0], other[1], ledger[2]]) == 2
