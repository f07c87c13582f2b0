"""The one page a leader reads before a talk (接访阅笺): who comes, what came before, which level.

Earlier cases are those of the same people, by identity number or telephone. What was promised to
them before stands first. Nothing about anyone's conduct is gathered, because nothing is kept.
"""

from datetime import date, datetime

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from cases import promises
from cases.model import Case
from cases.promises import NO_PROMISES
from core.clock import local_date
from core.identity import OrgUnit
from core.schemas import Language, OrgLevel
from scheduling.calendar import level_distance
from scheduling.model import Appointment, PartyMember
from scheduling.schemas import BriefView, EarlierCase
from scheduling.views import views

MOST_EARLIER = 20
COMPETENT = OrgLevel.COUNTY
"""Where a matter that a county registers belongs, until someone finds otherwise (art. 20)."""


async def brief(
    tx: AsyncSession, appointment: Appointment, *, now: datetime, language: Language
) -> BriefView:
    """The brief for `appointment` (from scheduling.views.find_appointment)."""
    level = await _level(tx, appointment.reception_day.official.org_unit)
    distance = level_distance(COMPETENT, level)
    return BriefView(
        appointment=(await views(tx, [appointment], now=now))[0],
        earlier_cases=await earlier_cases(tx, appointment, today=local_date(now)),
        competent_level=COMPETENT.value,
        level_distance=distance,
        level_note=_note(distance, language),
    )


async def earlier_cases(
    tx: AsyncSession, appointment: Appointment, *, today: date
) -> tuple[EarlierCase, ...]:
    """Cases of the same people, those with waiting promises first, then the newest."""
    id_numbers = {one.id_number for one in appointment.party if one.id_number}
    phones = {one.phone for one in appointment.party if one.phone}
    if not id_numbers and not phones:
        return ()
    same_people = (
        select(PartyMember.appointment_id)
        .where(
            PartyMember.appointment_id != appointment.id,
            or_(PartyMember.id_number.in_(id_numbers), PartyMember.phone.in_(phones)),
        )
        .distinct()
    )
    cases = list(
        await tx.scalars(
            select(Case)
            .where(Case.appointment_id.in_(same_people))
            .order_by(Case.opened_at.desc(), Case.id)
            .limit(MOST_EARLIER)
        )
    )
    waiting = await promises.counts(tx, [case.session_id for case in cases], today=today)
    lines = [
        EarlierCase(
            number=case.number, opened_at=case.opened_at, title=case.title, state=case.state,
            open_promises=_waiting(waiting.get(case.session_id, NO_PROMISES)),
        )
        for case in cases
    ]  # fmt: skip
    return tuple(sorted(lines, key=lambda line: line.open_promises == 0))


def _waiting(count: promises.PromiseCount) -> int:
    return count.open + count.overdue


async def _level(tx: AsyncSession, unit: OrgUnit) -> OrgLevel:
    """The rung of the ladder on which `unit` stands: a department stands where its parent does."""
    above = unit
    while above.level == OrgLevel.DEPARTMENT and above.parent_id is not None:
        parent = await tx.get(OrgUnit, above.parent_id)
        assert parent is not None, "org_units.parent_id is a foreign key"
        above = parent
    return OrgLevel(above.level) if above.level != OrgLevel.DEPARTMENT else OrgLevel.PREFECTURE


def _note(distance: int, language: Language) -> str:
    chinese, english = _NOTES.get(distance, _FAR)
    return chinese if language is Language.CHINESE else english


_NOTES = {
    0: (
        "有权处理机关同级接访。（《信访工作条例》第二十条）",
        "Held at the level that is competent (Petition Regulations art. 20).",
    ),
    1: (
        "有权处理机关的上一级接访。（《信访工作条例》第二十条）",
        "Held one level above the competent body (Petition Regulations art. 20).",
    ),
}
_FAR = (
    "接访层级与有权处理机关相差一级以上，请当面说明办理机关；不得据此拒绝登记。",
    "Held away from the competent level: say which body is competent; never refuse to register.",
)
