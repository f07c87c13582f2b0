"""A talk that has ended becomes a case: registered, numbered, with everything that was noted.

Registration is compulsory (《信访工作条例》 art. 21, 22): also for a dropped call, a duplicate or a
matter for someone else. `open_case` may be called any number of times, at once, after any crash:
one Session has one Case, and every caller gets it.
"""

from collections.abc import Iterable
from datetime import date, datetime

import structlog
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased, joinedload, selectinload

from cases import clocks, ledger, minutes
from cases.access import NoSession
from cases.ledger import SYSTEM, EventWord
from cases.model import Case, CaseForm, CaseParty, CaseSerial, Demand, Material, MinutesRow
from cases.numbering import CaseNumber, new_query_code
from cases.schemas import CaseState
from cases.workflow import OPENING_CLOCKS
from core import audit
from core.clock import LOCAL_ZONE, local_date
from core.errors import Conflict
from core.events import EventKind, publish
from core.identity import Official, OrgUnit
from core.ids import CaseId, SessionId, new_id
from core.schemas import OrgLevel
from scheduling.model import Appointment, PartyMember, ReceptionDay
from signaling.model import Session, SessionState

log = structlog.get_logger()

PETITION_OFFICE = "信访"
"""What the name of a petition office (信访局, 群众和信访局 …) contains."""


class SessionStillLive(Conflict):
    code = "session_still_live"


async def open_case(tx: AsyncSession, session_id: SessionId, *, now: datetime) -> Case:
    """The session's case, made now if there is none yet.

    Raises `NoSession` for an unknown session, `SessionStillLive` before its end. The row of the
    session is locked to the end of the transaction, so racing callers wait and then find the case;
    the UNIQUE session of the case holds even against a caller that forgets to.
    """
    session = await tx.scalar(select(Session).where(Session.id == session_id).with_for_update())
    if session is None:
        raise NoSession("There is no such talk.")
    if session.state != SessionState.ENDED:
        raise SessionStillLive("The talk is still going on; its case opens when it has ended.")
    if (existing := await case_of_session(tx, session_id)) is not None:
        return existing
    appointment = await _appointment(tx, session.appointment_id)
    case = await _register(tx, session, appointment, now=now)
    _take_over_party(tx, case, appointment.party)
    await _draft_minutes(tx, session, appointment, now=now)
    await _write_opening(tx, case, now=now)
    await clocks.start(tx, CaseId(case.id), OPENING_CLOCKS, now=now, actor=SYSTEM)
    await audit.record(
        tx, now=now, actor=SYSTEM, action="case_opened", object_kind="case", object_id=case.id,
        session_id=session_id,
    )  # fmt: skip
    publish(tx, EventKind.CASE_OPENED, case.id, now=now, session_id=session_id)
    await tx.flush()
    log.info("case_opened", case_id=case.id, session_id=session_id)
    return case


async def case_of_session(tx: AsyncSession, session_id: str) -> Case | None:
    case: Case | None = await tx.scalar(select(Case).where(Case.session_id == session_id))
    return case


async def _appointment(tx: AsyncSession, appointment_id: str) -> Appointment:
    return (
        await tx.scalars(
            select(Appointment)
            .where(Appointment.id == appointment_id)
            .options(
                selectinload(Appointment.party),
                joinedload(Appointment.county),
                joinedload(Appointment.reception_day)
                .joinedload(ReceptionDay.official)
                .joinedload(Official.org_unit),
            )
        )
    ).one()


async def _register(
    tx: AsyncSession, session: Session, appointment: Appointment, *, now: datetime
) -> Case:
    day = local_date(now)
    serial = await next_serial(tx, appointment.county.code, day)
    office = await petition_office(tx, appointment.reception_day.official.org_unit)
    case = Case(
        id=CaseId(new_id()), number=str(CaseNumber(appointment.county.code, day, serial)),
        query_code=new_query_code(), session_id=session.id, appointment_id=appointment.id,
        title=appointment.matter, state=CaseState.REGISTERED, form=CaseForm.VIDEO,
        language=appointment.language, county_id=appointment.county_id,
        village=appointment.village, official_id=session.official_id,
        people_total=appointment.people_total, holder_id=office.id, first_holder_id=office.id,
        held_since=now, opened_at=now,
    )  # fmt: skip
    tx.add(case)
    await tx.flush()
    return case


async def next_serial(tx: AsyncSession, county_code: str, day: date) -> int:
    """The next number of this county's day. Two transactions never get the same one."""
    on_postgres = tx.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert(CaseSerial) if on_postgres else sqlite.insert(CaseSerial)
    statement = (
        insert.values(county_code=county_code, day=day, last=1)
        .on_conflict_do_update(
            index_elements=[CaseSerial.county_code, CaseSerial.day],
            set_={"last": CaseSerial.last + 1},
        )
        .returning(CaseSerial.last)
    )
    serial: int = (await tx.execute(statement)).scalar_one()
    return serial


async def petition_office(tx: AsyncSession, unit: OrgUnit) -> OrgUnit:
    """The petition office (信访局) beside `unit` or beside the nearest unit above it.

    Where the org tree has none, `unit` itself: the matter is never without a holder.
    """
    codes = unit.path.strip("/").split("/")
    lineage = ["/" + "/".join(codes[:depth]) + "/" for depth in range(1, len(codes) + 1)]
    parent = aliased(OrgUnit)
    offices = await tx.execute(
        select(OrgUnit, parent.path)
        .join(parent, parent.id == OrgUnit.parent_id)
        .where(
            parent.path.in_(lineage),
            OrgUnit.level == OrgLevel.DEPARTMENT,
            OrgUnit.name_zh.contains(PETITION_OFFICE),
        )
        .order_by(OrgUnit.code)
    )
    nearest = max(offices, key=lambda row: len(row[1]), default=None)
    return nearest[0] if nearest is not None else unit


def _take_over_party(tx: AsyncSession, case: Case, party: Iterable[PartyMember]) -> None:
    for member in party:
        tx.add(
            CaseParty(
                id=new_id(), case_id=case.id, position=member.position, name=member.name,
                relation=member.relation, party_member_id=member.id,
            )
        )  # fmt: skip


async def _draft_minutes(
    tx: AsyncSession, session: Session, appointment: Appointment, *, now: datetime
) -> None:
    """What is known without anyone writing it, if the official wrote nothing (art. 19)."""
    if await tx.get(MinutesRow, session.id) is not None:
        return
    demands = await minutes.demands(tx, session.id)
    tx.add(
        MinutesRow(
            session_id=session.id, summary=draft_summary(session, appointment, demands),
            revision=1, saved_at=now, saved_by=SYSTEM,
        )
    )  # fmt: skip


def draft_summary(session: Session, appointment: Appointment, demands: Iterable[Demand]) -> str:
    """The skeleton of the minutes, in the office's language."""
    ended_at = session.ended_at or session.started_at
    starts, ends = (at.astimezone(LOCAL_ZONE) for at in (session.started_at, ended_at))
    lines = [
        f"时间：{starts:%Y年%m月%d日 %H:%M}—{ends:%H:%M}",
        f"接访：{appointment.reception_day.official.title_zh}（视频）",
        f"来访：{appointment.county.name_zh}{appointment.village}，{appointment.people_total}人",
        f"事由：{appointment.matter}",
        *(f"诉求{demand.position}：{minutes.demand_words(demand)}" for demand in demands),
    ]
    return "\n".join(lines)


async def _write_opening(tx: AsyncSession, case: Case, *, now: datetime) -> None:
    """The first lines of the ledger: registered, what came with it, what was promised."""
    case_id = CaseId(case.id)
    await ledger.append(
        tx, case_id, now=now, kind=EventWord.REGISTERED, actor=SYSTEM, words=case.title,
        article="22(1)",
    )  # fmt: skip
    demands = await minutes.demands(tx, case.session_id)
    pages = await tx.scalars(select(Material.sha256).where(Material.session_id == case.session_id))
    hashes = sorted(pages)
    await ledger.append(
        tx, case_id, now=now, kind=EventWord.PAPERS_JOINED, actor=SYSTEM,
        words=f"诉求 {len(demands)} 项，材料 {len(hashes)} 份"
        + "".join(f"\nsha256 {digest}" for digest in hashes),
        article="19(1)", is_public=False,
    )  # fmt: skip
    for demand in demands:
        if demand.owner is not None and demand.due_on is not None:
            await ledger.append(
                tx, case_id, now=now, kind=EventWord.PROMISE_MADE, actor=SYSTEM,
                words=minutes.demand_words(demand),
            )  # fmt: skip
