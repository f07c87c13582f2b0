"""Minutes that are written while people talk (接访纪要): demands with their second, and a summary.

Whoever noted a demand saved it; whoever edits the summary names the revision it was made on, so two
screens never overwrite each other unseen. When a case exists already, a change also appends a line
to its ledger: minutes may be corrected, not quietly.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from cases import ledger
from cases.ledger import EventWord
from cases.model import Case, Demand, MinutesRow
from cases.promises import promise_state
from cases.schemas import DemandChange, DemandView, MinutesView, Outcome
from core.clock import local_date
from core.errors import Conflict, NotFound, Refused
from core.identity import org_unit
from core.ids import CaseId, DemandId, new_id
from signaling.model import Session, SessionState

MARK_SLACK = timedelta(seconds=5)
"""A mark may lie this far past the end: clocks of pages and of the server differ a little."""


class NoSuchDemand(NotFound):
    code = "no_such_demand"


class MinutesChanged(Conflict):
    code = "minutes_changed"


class PromiseAlreadyKept(Conflict):
    code = "promise_already_kept"


class SessionOver(Conflict):
    code = "session_over"


class OutsideSession(Refused):
    code = "outside_session"


class DueInThePast(Refused):
    code = "due_in_the_past"


class EmptyDemand(Refused):
    code = "empty_demand"


async def add_demand(
    tx: AsyncSession,
    session: Session,
    text: str,
    marked_at_ms: int | None,
    *,
    now: datetime,
    actor: str,
) -> Demand:
    """Note a demand at `marked_at_ms` of the session's timeline; None means this moment.

    Raises `OutsideSession` for a second that the session does not have.
    """
    # Held to the end of the transaction: two people who note at once get two positions.
    await tx.execute(select(Session.id).where(Session.id == session.id).with_for_update())
    last = await tx.scalar(select(func.max(Demand.position)).where(Demand.session_id == session.id))
    demand = Demand(
        id=DemandId(new_id()), session_id=session.id, position=(last or 0) + 1, text=text,
        marked_at_ms=_mark(session, marked_at_ms, now), outcome=None, answer=None,
        answered_at_ms=None, owner_id=None, due_on=None, kept_at=None, noted_at=now,
        noted_by=actor, owner=None,
    )  # fmt: skip
    tx.add(demand)
    await tx.flush()
    await _tell_ledger(tx, demand, now=now, actor=actor)
    return demand


async def demand(tx: AsyncSession, demand_id: str) -> Demand:
    """The demand with its owner, or `NoSuchDemand`."""
    row = await tx.scalar(
        select(Demand).where(Demand.id == demand_id).options(joinedload(Demand.owner))
    )
    if row is None:
        raise NoSuchDemand("There is no such demand. Reload the minutes.")
    return row


async def change_demand(
    tx: AsyncSession,
    session: Session,
    row: Demand,
    change: DemandChange,
    *,
    now: datetime,
    actor: str,
) -> None:
    """Change the fields that were sent. A promise that was kept stays as it was promised."""
    sent = change.model_dump(exclude_unset=True)
    if row.kept_at is not None and sent.keys() & {"owner_org_id", "due_on", "text"}:
        raise PromiseAlreadyKept("This promise was kept already and cannot be changed any more.")
    if "text" in sent and sent["text"] is None:
        raise EmptyDemand("A demand needs words. Delete it if it was noted by mistake.")
    if sent.get("due_on") is not None and sent["due_on"] < local_date(now):
        raise DueInThePast("A promise needs a day that is still to come.")
    if sent.get("answered_at_ms") is not None:
        check_mark(session, sent["answered_at_ms"], now=now)
    await _apply(tx, row, sent)
    await tx.flush()
    await _tell_ledger(tx, row, now=now, actor=actor)


async def _apply(tx: AsyncSession, row: Demand, sent: dict[str, Any]) -> None:
    # `sent` holds values of DemandChange's own types, under its field names.
    if "owner_org_id" in sent:
        owner_id = sent.pop("owner_org_id")
        row.owner = await org_unit(tx, owner_id) if owner_id is not None else None
    for field, value in sent.items():
        setattr(row, field, value)


async def delete_demand(tx: AsyncSession, session: Session, row: Demand) -> None:
    """Take back a demand noted by mistake. Raises `SessionOver` once the talk has ended."""
    if session.state != SessionState.LIVE:
        raise SessionOver("The talk is over; what was noted stays. Correct its words instead.")
    await tx.delete(row)
    await tx.flush()


async def demands(tx: AsyncSession, session_id: str) -> list[Demand]:
    """The session's demands with their owners, in the order in which they were noted."""
    rows = await tx.scalars(
        select(Demand)
        .where(Demand.session_id == session_id)
        .order_by(Demand.position)
        .options(joinedload(Demand.owner))
    )
    return list(rows)


async def save_minutes(
    tx: AsyncSession, session_id: str, summary: str, revision: int, *, now: datetime, actor: str
) -> MinutesRow:
    """Save `summary` as the edit of `revision` (0: nothing was saved before).

    Raises `MinutesChanged` with the current text if another revision was saved meanwhile.
    """
    saved = await _replace(tx, session_id, summary, revision, now=now, actor=actor)
    current = await tx.get(MinutesRow, session_id, populate_existing=True)
    if not saved or current is None:
        raise MinutesChanged(
            "Someone else saved the minutes meanwhile. Compare with the current text.",
            summary=current.summary if current else "",
            revision=current.revision if current else 0,
            saved_at=current.saved_at.isoformat() if current else None,
        )
    case_id = await tx.scalar(select(Case.id).where(Case.session_id == session_id))
    if case_id is not None:
        await ledger.append(
            tx, CaseId(case_id), now=now, kind=EventWord.MINUTES_CHANGED, actor=actor,
            words=f"r{current.revision}", is_public=False,
        )  # fmt: skip
    return current


async def _replace(
    tx: AsyncSession, session_id: str, summary: str, revision: int, *, now: datetime, actor: str
) -> bool:
    if revision == 0:
        try:
            async with tx.begin_nested():
                tx.add(
                    MinutesRow(
                        session_id=session_id,
                        summary=summary,
                        revision=1,
                        saved_at=now,
                        saved_by=actor,
                    )
                )
        except IntegrityError:  # the primary key: someone else saved the first revision
            return False
        return True
    done = await tx.execute(
        update(MinutesRow)
        .where(MinutesRow.session_id == session_id, MinutesRow.revision == revision)
        .values(summary=summary, revision=revision + 1, saved_at=now, saved_by=actor)
        .returning(MinutesRow.revision)
        .execution_options(synchronize_session=False)
    )
    return done.scalar_one_or_none() is not None


def demand_view(row: Demand, *, today: date) -> DemandView:
    """`row` as pages see it on `today`; its owner must be loaded."""
    return DemandView(
        id=row.id, position=row.position, text=row.text, marked_at_ms=row.marked_at_ms,
        outcome=Outcome(row.outcome) if row.outcome else None, answer=row.answer,
        answered_at_ms=row.answered_at_ms, owner=row.owner.view() if row.owner else None,
        due_on=row.due_on,
        promise_state=promise_state(
            has_owner=row.owner is not None, due_on=row.due_on, kept_at=row.kept_at, today=today
        ),
    )  # fmt: skip


def demand_views(rows: Iterable[Demand], *, today: date) -> tuple[DemandView, ...]:
    return tuple(demand_view(row, today=today) for row in rows)


async def minutes_view(tx: AsyncSession, session_id: str, *, now: datetime) -> MinutesView:
    """Minutes and demands as they stand; revision 0 while nothing was saved."""
    row = await tx.get(MinutesRow, session_id)
    return MinutesView(
        session_id=session_id,
        summary=row.summary if row else "",
        revision=row.revision if row else 0,
        saved_at=row.saved_at if row else None,
        demands=demand_views(await demands(tx, session_id), today=local_date(now)),
    )


def check_mark(session: Session, marked_at_ms: int | None, *, now: datetime) -> None:
    """Raise `OutsideSession` for a second that the session does not have."""
    _mark(session, marked_at_ms, now)


def _mark(session: Session, marked_at_ms: int | None, now: datetime) -> int:
    """A second of the session's timeline. Raises `OutsideSession`."""
    # The wall clock may step back a little under a running session; a mark is never negative.
    length = max((session.ended_at or now) - session.started_at, timedelta())
    if marked_at_ms is None:
        return length // timedelta(milliseconds=1)
    if timedelta(milliseconds=marked_at_ms) > length + MARK_SLACK:
        raise OutsideSession("The talk was shorter than that. Choose a second within it.")
    return marked_at_ms


async def _tell_ledger(tx: AsyncSession, row: Demand, *, now: datetime, actor: str) -> None:
    case_id = await tx.scalar(select(Case.id).where(Case.session_id == row.session_id))
    if case_id is None:
        return
    await ledger.append(
        tx, CaseId(case_id), now=now, kind=EventWord.DEMAND_CHANGED, actor=actor,
        words=demand_words(row),
    )  # fmt: skip


def demand_words(row: Demand) -> str:
    """A demand in one line of a ledger: what, who, by when."""
    owner = row.owner.name_zh if row.owner else None
    due = row.due_on.isoformat() if row.due_on else None
    return " · ".join(part for part in (row.text, owner, due) if part)
