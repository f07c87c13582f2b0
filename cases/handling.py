"""One step of a case: permitted by the workflow, written in the ledger, its clocks met and started.

The pure rules are cases/workflow.py's. Here they meet the database, in one transaction: a case
never shows a state without the line that says who brought it there, on which basis, in what words.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cases import clocks, ledger
from cases.model import Case
from cases.schemas import CaseState
from cases.workflow import Step, step
from core import audit
from core.errors import NotFound, Refused
from core.identity import org_unit
from core.ids import CaseId


class NoSuchCase(NotFound):
    code = "no_such_case"


class HolderMissing(Refused):
    code = "holder_missing"


class HolderNotExpected(Refused):
    code = "holder_not_expected"


@dataclass(frozen=True, slots=True)
class Move:
    """What someone asks for: the next state, in their words, and who takes the matter over."""

    to: CaseState
    words: str
    holder_org_id: str | None


async def locked(tx: AsyncSession, case_id: str) -> Case:
    """The case, held against other writers to the end of the transaction, or `NoSuchCase`."""
    case = await tx.scalar(
        select(Case)
        .where(Case.id == case_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if case is None:
        raise NoSuchCase("There is no such case. Reload the list.")
    return case


async def take_step(tx: AsyncSession, case: Case, move: Move, *, now: datetime, actor: str) -> None:
    """Bring a `locked` case to `move.to`. Raises what `step` raises, or about the holder."""
    permitted = step(CaseState(case.state), move.to)
    holder_id = await _next_holder(tx, case, permitted, move.holder_org_id)
    case_id = CaseId(case.id)
    case.state = move.to
    if holder_id != case.holder_id:
        case.holder_id = holder_id
        case.held_since = now
    words = move.words
    if permitted.needs_holder:
        words = f"{(await org_unit(tx, holder_id)).name_zh}：{words}"
    await ledger.append(
        tx, case_id, now=now, kind=move.to.value, actor=actor, words=words,
        article=permitted.article,
    )  # fmt: skip
    await clocks.meet(tx, case_id, permitted.meets, now=now)
    await clocks.start(tx, case_id, permitted.starts, now=now, actor=actor)
    await audit.record(
        tx, now=now, actor=actor, action="case_step", object_kind="case", object_id=case.id,
        to=move.to.value, holder_id=holder_id,
    )  # fmt: skip


async def _next_holder(
    tx: AsyncSession, case: Case, permitted: Step, holder_org_id: str | None
) -> str:
    if permitted.needs_holder:
        if holder_org_id is None:
            raise HolderMissing("Say which unit takes this matter over.")
        return (await org_unit(tx, holder_org_id)).id
    if holder_org_id is not None:
        raise HolderNotExpected("This step does not hand the matter over. Leave the unit out.")
    return case.first_holder_id if permitted.returns_to_first else case.holder_id
