"""Anyone may ask how a matter stands, with its number and query code (办理情况查询), art. 21(2).

The answer never says whose matter it is. A wrong code and a number that does not exist get the same
words after the same work, and attempts are counted per address and per number, so that eight digits
are enough.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from cases import clocks, ledger, minutes
from cases.handling import NoSuchCase
from cases.model import Case, Demand
from cases.numbering import NotACaseNumber, parse_case_number, plain_query_code
from cases.promises import promise_state
from cases.schemas import CaseState, CaseStatus, PromiseState
from cases.views import event_view
from core.clock import local_date
from core.ids import CaseId
from core.schemas import Language
from core.store import Store, limit

MOST_PER_ADDRESS = 10
PER_ADDRESS = timedelta(minutes=1)
"""A hall's kiosks share an address; ten a minute is a queue of people, not a machine."""
MOST_PER_NUMBER = 60
PER_NUMBER = timedelta(hours=1)
"""Against many addresses guessing at one number: 10^8 codes would take two centuries."""

_DECOY = ("000000-SP-00000000-00000-0", "--------")


async def count_attempt(store: Store, address: str, number: str) -> None:
    """Count one attempt. Raises `TooMany`."""
    await limit(store, f"case-query:{address}", most=MOST_PER_ADDRESS, per=PER_ADDRESS)
    # Hashed: what strangers type does not become a key.
    asked = hashlib.sha256(_canonical(number).encode()).hexdigest()
    await limit(store, f"case-query-number:{asked}", most=MOST_PER_NUMBER, per=PER_NUMBER)


async def case_status(
    tx: AsyncSession, number: str, code: str, *, now: datetime, language: Language
) -> CaseStatus:
    """How the matter stands. Raises `NoSuchCase` for a wrong number or a wrong code alike."""
    case = await tx.scalar(
        select(Case).where(Case.number == _canonical(number)).options(joinedload(Case.holder))
    )
    right_code = case.query_code if case is not None else _DECOY[1]
    fits = hmac.compare_digest(plain_query_code(code).encode(), right_code.encode())
    if case is None or not fits:
        raise NoSuchCase("No case has this number and query code. Copy both from the slip again.")
    return await _status(tx, case, now=now, language=language)


def _canonical(number: str) -> str:
    try:
        return str(parse_case_number(number))
    except NotACaseNumber:
        return _DECOY[0]


async def _status(tx: AsyncSession, case: Case, *, now: datetime, language: Language) -> CaseStatus:
    today = local_date(now)
    demands = await minutes.demands(tx, case.session_id)
    deadline = await next_deadline(tx, case, demands, today=today, language=language)
    lines = await ledger.lines(tx, CaseId(case.id))
    return CaseStatus(
        number=case.number, state=CaseState(case.state), opened_at=case.opened_at,
        holder_zh=case.holder.name_zh, holder_en=case.holder.name_en, held_since=case.held_since,
        next_due_on=deadline.due_on if deadline else None,
        next_due_why=deadline.why if deadline else None,
        demands=minutes.demand_views(demands, today=today),
        events=tuple(
            # Who of the staff wrote a line is not the public's business; that someone did is.
            event_view(line, line.actor.partition(":")[0])
            for line in lines
            if line.is_public
        ),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deadline:
    """The next day on which the person may expect something, and what."""

    due_on: date
    why: str


async def next_deadline(
    tx: AsyncSession, case: Case, demands: list[Demand], *, today: date, language: Language
) -> Deadline | None:
    """The earliest of the authority's running duties and its waiting promises."""
    waiting: list[Deadline] = []
    if (duty := (await clocks.next_dues(tx, [case.id])).get(case.id)) is not None:
        waiting.append(Deadline(duty.due_on, clocks.why_due(duty, language)))
    for demand in demands:
        state = promise_state(
            has_owner=demand.owner is not None, due_on=demand.due_on, kept_at=demand.kept_at,
            today=today,
        )  # fmt: skip
        if state in (PromiseState.OPEN, PromiseState.OVERDUE) and demand.due_on and demand.owner:
            waiting.append(Deadline(demand.due_on, _promised(demand, language)))
    return min(waiting, key=lambda deadline: deadline.due_on, default=None)


def _promised(demand: Demand, language: Language) -> str:
    owner = demand.owner
    assert owner is not None, "a promise has an owner"
    if language is Language.CHINESE:
        return f"{owner.name_zh}承诺：{demand.text}"
    return f"{owner.name_en} promised: {demand.text}"
