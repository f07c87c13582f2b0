"""Clocks of a case, as rows: started with an article, met once, never moved.

The counting is cases/workflow.py's; this module writes down what it says, beside the ledger line
that started each clock.
"""

from collections.abc import Iterable
from datetime import date, datetime
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cases import ledger
from cases.ledger import EventWord
from cases.model import ClockRow
from cases.schemas import ClockView
from cases.workflow import (
    Clock,
    ClockKind,
    ClockUnit,
    article_zh,
    explain,
    purpose,
    start_clock,
)
from core.clock import local_date
from core.ids import CaseId, new_id
from core.schemas import Language
from scheduling.calendar import DayTable, seed_table


@lru_cache(maxsize=8)
def days_from(year: int) -> DayTable:
    """Rest days of `year` and the next: no clock here runs longer than that."""
    return seed_table((year, year + 1))


async def start(
    tx: AsyncSession, case_id: CaseId, kinds: Iterable[ClockKind], *, now: datetime, actor: str
) -> None:
    """Start a clock of each kind today, with a ledger line each.

    An extension counts on from the last day of the period it extends.
    """
    for kind in kinds:
        started_on = local_date(now)
        if kind is ClockKind.EXTENSION:
            started_on = await _last_due(tx, case_id, ClockKind.HANDLE) or started_on
        clock = start_clock(kind, started_on, days_from(started_on.year))
        line = await ledger.append(
            tx, case_id, now=now, kind=EventWord.CLOCK_STARTED, actor=actor,
            words=f"{purpose(kind)} · {clock.due_on.isoformat()}", article=clock.article,
        )  # fmt: skip
        tx.add(
            ClockRow(
                id=new_id(), case_id=case_id, kind=kind, article=clock.article,
                started_on=clock.started_on, started_by=line.position, length=clock.length,
                unit=clock.unit, due_on=clock.due_on, due_on_rolled=clock.due_on_rolled,
                met_at=None,
            )
        )  # fmt: skip
    await tx.flush()


async def meet(
    tx: AsyncSession, case_id: CaseId, kinds: Iterable[ClockKind], *, now: datetime
) -> None:
    """Stop the running clocks of these kinds: what they counted has happened."""
    rows = await tx.scalars(
        select(ClockRow).where(
            ClockRow.case_id == case_id,
            ClockRow.kind.in_([kind.value for kind in kinds]),
            ClockRow.met_at.is_(None),
        )
    )
    for row in rows:
        row.met_at = now
    await tx.flush()


async def clocks(tx: AsyncSession, case_id: CaseId) -> list[ClockRow]:
    """Every clock the case ever had, in the order in which they started."""
    rows = await tx.scalars(
        select(ClockRow).where(ClockRow.case_id == case_id).order_by(ClockRow.started_by)
    )
    return list(rows)


async def next_dues(tx: AsyncSession, case_ids: list[str]) -> dict[str, ClockRow]:
    """The duty that runs out next, by case; cases where none runs are absent."""
    rows = await tx.scalars(
        select(ClockRow)
        .where(ClockRow.case_id.in_(case_ids), ClockRow.met_at.is_(None))
        .order_by(ClockRow.due_on.desc())
    )
    return {row.case_id: row for row in rows if ClockKind(row.kind).is_duty}


async def _last_due(tx: AsyncSession, case_id: CaseId, kind: ClockKind) -> date | None:
    due_on: date | None = await tx.scalar(
        select(ClockRow.due_on)
        .where(ClockRow.case_id == case_id, ClockRow.kind == kind.value)
        .order_by(ClockRow.started_by.desc())
        .limit(1)
    )
    return due_on


def as_clock(row: ClockRow) -> Clock:
    return Clock(
        ClockKind(row.kind), row.article, row.started_on, row.length, ClockUnit(row.unit),
        row.due_on, row.due_on_rolled,
    )  # fmt: skip


def clock_view(row: ClockRow, *, today: date, language: Language) -> ClockView:
    """`row` for a page; `days_left` is None once it was met, negative once it has run out."""
    clock = as_clock(row)
    return ClockView(
        kind=clock.kind.value, article=clock.article, started_on=clock.started_on,
        length=clock.length, unit=clock.unit.value, due_on=clock.due_on,
        due_on_rolled=clock.due_on_rolled, met_at=row.met_at,
        days_left=None if row.met_at else (clock.due_on - today).days,
        explanation=explain(clock, days_from(clock.started_on.year), language),
    )  # fmt: skip


def why_due(row: ClockRow, language: Language) -> str:
    """In plain words, what must happen by the clock's day, and on which basis."""
    kind = ClockKind(row.kind)
    if language is Language.CHINESE:
        return f"{purpose(kind)}（《信访工作条例》{article_zh(row.article)}）"
    return f"{purpose(kind, Language.ENGLISH)} (Petition Regulations art. {row.article})"
