"""Cases as a list: newest first, page by page, only what this reader may see."""

import base64
import binascii
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from cases import clocks, promises, recordings
from cases.model import Case, ClockRow
from cases.promises import NO_PROMISES, PromiseCount
from cases.schemas import CaseLine, CasePage, CaseState
from core.errors import Refused

PAGE_SIZE = 50


class BadCursor(Refused):
    code = "bad_cursor"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the reader asked for; None means any."""

    state: CaseState | None
    county_id: str | None
    words: str | None
    cursor: str | None


async def case_page(
    tx: AsyncSession, wanted: Wanted, visible: ColumnElement[bool], *, today: date
) -> CasePage:
    """One page of the cases that are `visible` and `wanted`."""
    rows = list(
        await tx.scalars(
            select(Case)
            .where(visible, *_conditions(wanted))
            .order_by(Case.opened_at.desc(), Case.id.desc())
            .limit(PAGE_SIZE + 1)
            .options(joinedload(Case.county), joinedload(Case.holder))
        )
    )
    page = rows[:PAGE_SIZE]
    sessions = [case.session_id for case in page]
    dues = await clocks.next_dues(tx, [case.id for case in page])
    waiting = await promises.counts(tx, sessions, today=today)
    states = await recordings.states(tx, sessions)
    return CasePage(
        items=tuple(
            _line(
                case, dues.get(case.id), waiting.get(case.session_id, NO_PROMISES),
                states.get(case.session_id),
            )
            for case in page
        ),
        next_cursor=_cursor(page[-1]) if len(rows) > PAGE_SIZE else None,
    )  # fmt: skip


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.state is not None:
        conditions.append(Case.state == wanted.state)
    if wanted.county_id is not None:
        conditions.append(Case.county_id == wanted.county_id)
    if wanted.words:
        conditions.append(
            or_(
                Case.number.startswith(wanted.words.upper(), autoescape=True),
                Case.title.contains(wanted.words, autoescape=True),
            )
        )
    if wanted.cursor is not None:
        opened_at, case_id = _after(wanted.cursor)
        conditions.append(
            or_(
                Case.opened_at < opened_at,
                and_(Case.opened_at == opened_at, Case.id < case_id),
            )
        )
    return conditions


def _line(
    case: Case, due: ClockRow | None, waiting: PromiseCount, recording_state: str | None
) -> CaseLine:
    dates = [day for day in (due.due_on if due else None, waiting.next_due_on) if day is not None]
    return CaseLine(
        id=case.id, number=case.number, title=case.title, state=CaseState(case.state),
        county=case.county.view(), opened_at=case.opened_at, holder=case.holder.view(),
        held_since=case.held_since, recording_state=recording_state,
        promises_open=waiting.open, promises_overdue=waiting.overdue,
        next_due_on=min(dates, default=None),
    )  # fmt: skip


def _cursor(case: Case) -> str:
    """Where a page ended: opaque to whoever carries it, so that its shape may change."""
    return base64.urlsafe_b64encode(f"{case.opened_at.isoformat()} {case.id}".encode()).decode()


def _after(cursor: str) -> tuple[datetime, str]:
    try:
        opened_at, case_id = base64.urlsafe_b64decode(cursor).decode().split(" ")
        instant = datetime.fromisoformat(opened_at)
    except (ValueError, binascii.Error) as error:
        raise BadCursor("This page of the list is not known. Begin at the first.") from error
    if instant.tzinfo is None:
        raise BadCursor("This page of the list is not known. Begin at the first.")
    return instant, case_id
