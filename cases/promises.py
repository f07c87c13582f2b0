"""Promises (承诺): a demand with an owner and a date, tracked until it is kept.

Nobody marks a promise as broken. It is open until it is kept, and overdue once its day has passed:
the state is computed from dates, so it cannot be forgotten or tidied away.
"""

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import and_, case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from cases import ledger
from cases.model import Case, Demand
from cases.schemas import PromiseState
from core.errors import Conflict
from core.ids import CaseId


class NotAPromise(Conflict):
    code = "not_a_promise"


def promise_state(
    *, has_owner: bool, due_on: date | None, kept_at: datetime | None, today: date
) -> PromiseState | None:
    """How the promise stands on `today`, or None while it lacks an owner or a date."""
    if not has_owner or due_on is None:
        return None
    if kept_at is not None:
        return PromiseState.KEPT
    return PromiseState.OVERDUE if today > due_on else PromiseState.OPEN


async def keep(tx: AsyncSession, demand: Demand, *, now: datetime, actor: str) -> None:
    """Write down that the promise was kept. Saying it twice changes nothing."""
    if demand.owner_id is None or demand.due_on is None:
        raise NotAPromise("This demand has no owner and date yet, so nothing was promised.")
    if demand.kept_at is not None:
        return
    demand.kept_at = now
    case_id = await tx.scalar(select(Case.id).where(Case.session_id == demand.session_id))
    if case_id is not None:
        await ledger.append(
            tx, CaseId(case_id), now=now, kind=ledger.EventWord.PROMISE_KEPT, actor=actor,
            words=demand.text,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PromiseCount:
    """Promises of one session that wait: how many, how many too long, and the next date."""

    open: int
    overdue: int
    next_due_on: date | None


NO_PROMISES = PromiseCount(0, 0, None)


async def counts(
    tx: AsyncSession, session_ids: list[str], *, today: date
) -> dict[str, PromiseCount]:
    """Waiting promises by session; sessions without any are absent. `open` excludes overdue."""
    is_late = Demand.due_on < today
    rows = await tx.execute(
        select(
            Demand.session_id,
            func.sum(case((is_late, 0), else_=1)),
            func.sum(case((is_late, 1), else_=0)),
            func.min(Demand.due_on),
        )
        .where(
            and_(
                Demand.session_id.in_(session_ids),
                Demand.owner_id.is_not(None),
                Demand.due_on.is_not(None),
                Demand.kept_at.is_(None),
            )
        )
        .group_by(Demand.session_id)
    )
    return {row[0]: PromiseCount(int(row[1]), int(row[2]), row[3]) for row in rows}
