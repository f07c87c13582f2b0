"""A case as pages see it: its parts gathered from where they lie, and what this reader may do.

Only reading. Accounts appear by the name they sign with, never by id; petitioners only by the name
registered with the case.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from cases import access, clocks, ledger, materials, minutes, recordings
from cases.access import Place
from cases.handling import NoSuchCase
from cases.model import Case, CaseEvent, CaseParty, Demand
from cases.schemas import (
    CaseEventView,
    CasePartyView,
    CaseState,
    CaseView,
    RecordingView,
    SessionOutcome,
)
from cases.workflow import STEPS
from core.clock import local_date
from core.identity import Account, Kiosk, OrgUnit, Principal
from core.ids import CaseId
from core.policy import Verb
from core.schemas import Language
from scheduling.model import Appointment
from signaling.model import Session, SessionState

_ABILITIES = {
    Verb.PRINT_SLIP: "print_slip",
    Verb.WRITE_MINUTES: "write_minutes",
    Verb.NOTE_DEMANDS: "note_demands",
    Verb.ADD_MATERIAL: "add_material",
    Verb.SEE_KEEPING: "see_keeping",
}


async def case_with_units(tx: AsyncSession, case_id: str) -> Case:
    """The case with county, holder and official loaded, or `NoSuchCase`."""
    case = await tx.scalar(
        select(Case)
        .where(Case.id == case_id)
        .options(joinedload(Case.county), joinedload(Case.holder), joinedload(Case.official))
    )
    if case is None:
        raise NoSuchCase("There is no such case. Reload the list.")
    return case


async def case_view(
    tx: AsyncSession,
    case: Case,
    session: Session,
    place: Place,
    principal: Principal,
    *,
    now: datetime,
    language: Language,
) -> CaseView:
    """Everything of `case` (from `case_with_units`) for a reader who may see it."""
    today, case_id = local_date(now), CaseId(case.id)
    demands = await minutes.demands(tx, case.session_id)
    recording = await recordings.recording_view(tx, case.session_id)
    number = await tx.scalar(
        select(Appointment.number).where(Appointment.id == case.appointment_id)
    )
    return CaseView(
        id=case.id, number=case.number, title=case.title, state=CaseState(case.state),
        form=case.form, language=Language(case.language), county=case.county.view(),
        village=case.village, official_title_zh=case.official.title_zh,
        official_title_en=case.official.title_en, opened_at=case.opened_at,
        holder=case.holder.view(), held_since=case.held_since, session_id=case.session_id,
        appointment_id=case.appointment_id, appointment_number=number or "",
        people_total=case.people_total, session_started_at=session.started_at,
        session_ended_at=session.ended_at or session.started_at,
        end_reason=session.end_reason or "",
        parties=await _parties(tx, case_id),
        demands=minutes.demand_views(demands, today=today),
        materials=tuple(
            materials.material_view(row) for row in await materials.materials(tx, case.session_id)
        ),
        minutes=await minutes.minutes_view(tx, case.session_id, now=now),
        events=await event_views(tx, await ledger.lines(tx, case_id)),
        clocks=tuple(
            clocks.clock_view(row, today=today, language=language)
            for row in await clocks.clocks(tx, case_id)
        ),
        recording=recording,
        slip_url=slip_url(case.id),
        may=await _abilities(
            tx, case, place, principal, demands=demands, recording=recording, now=now
        ),
    )  # fmt: skip


def slip_url(case_id: str) -> str:
    return f"/api/cases/{case_id}/slip.pdf"


async def session_outcome(tx: AsyncSession, session: Session, *, today: date) -> SessionOutcome:
    """What a talk came to; number and query code as soon as its case exists."""
    case = await tx.scalar(select(Case).where(Case.session_id == session.id))
    demands = await minutes.demands(tx, session.id)
    return SessionOutcome(
        session_id=session.id,
        state="live" if session.state == SessionState.LIVE else "ended",
        started_at=session.started_at, ended_at=session.ended_at, end_reason=session.end_reason,
        case_id=case.id if case else None,
        case_number=case.number if case else None,
        query_code=case.query_code if case else None,
        demands=minutes.demand_views(demands, today=today),
        slip_url=slip_url(case.id) if case else None,
    )  # fmt: skip


async def event_views(tx: AsyncSession, lines: Iterable[CaseEvent]) -> tuple[CaseEventView, ...]:
    """Ledger lines for staff: each writer by the name they sign with."""
    lines = list(lines)
    names = await _names(tx, {line.actor for line in lines})
    return tuple(event_view(line, names.get(line.actor, line.actor)) for line in lines)


def event_view(line: CaseEvent, actor: str) -> CaseEventView:
    return CaseEventView(
        position=line.position, at=line.at, kind=line.kind, actor=actor, words=line.words,
        article=line.article,
    )  # fmt: skip


async def _names(tx: AsyncSession, actors: set[str]) -> dict[str, str]:
    """Names by actor, e.g. `account:<id>`; "system" and the unknown stay as they are."""
    names: dict[str, str] = {}
    for prefix, column, name in (
        ("account:", Account.id, Account.display_name),
        ("kiosk:", Kiosk.id, Kiosk.name),
    ):
        ids = [actor.removeprefix(prefix) for actor in actors if actor.startswith(prefix)]
        if ids:
            rows = await tx.execute(select(column, name).where(column.in_(ids)))
            names |= {prefix + row[0]: row[1] for row in rows}
    return names


async def _parties(tx: AsyncSession, case_id: CaseId) -> tuple[CasePartyView, ...]:
    rows = await tx.scalars(
        select(CaseParty).where(CaseParty.case_id == case_id).order_by(CaseParty.position)
    )
    return tuple(CasePartyView(name=row.name, relation=row.relation) for row in rows)


async def _abilities(
    tx: AsyncSession,
    case: Case,
    place: Place,
    principal: Principal,
    *,
    demands: Iterable[Demand],
    recording: RecordingView | None,
    now: datetime,
) -> tuple[str, ...]:
    def may(verb: Verb) -> bool:
        return access.may(principal, verb, place, now=now)

    words = [word for verb, word in _ABILITIES.items() if may(verb)]
    if may(Verb.HANDLE_CASE):
        words += [f"transition:{state.value}" for state in STEPS[CaseState(case.state)]]
    if recording is not None:
        words += ["replay"] * may(Verb.REPLAY) + ["review"] * may(Verb.REVIEW)
        words += ["retry_recording"] * (may(Verb.RETRY_RECORDING) and recording.state == "failed")
    for demand in demands:
        is_open = demand.due_on is not None and demand.kept_at is None
        if is_open and access.may(
            principal, Verb.KEEP_PROMISE, await demand_place(tx, place, demand), now=now
        ):
            words.append(f"keep:{demand.id}")
    return tuple(words)


async def demand_place(tx: AsyncSession, place: Place, demand: Demand) -> Place:
    """Where one demand lies: of departments, only its owner has it."""
    owner = await tx.get(OrgUnit, demand.owner_id) if demand.owner_id else None
    return replace(place, holder_path=None, owner_paths=(owner.path,) if owner else ())
