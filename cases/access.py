"""Who may touch which session and case: core/policy.py's roles, made exact for what follows a call.

The policy says which roles a verb takes; this module says of which matters. The desk, the petition
office and reviewers go by the county. An official has only the talks they presided over. A
department has what it holds, or owes a promise on. A kiosk has the visit that stands before it, and
only until shortly after it ended: the next person at the same kiosk must find nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, false, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from cases.model import Case, Demand
from core.errors import Forbidden, NotFound
from core.identity import Anyone, KioskDevice, OrgUnit, Principal, RoleAt, Staff
from core.policy import TABLE, Verb, Who
from core.schemas import Role
from scheduling.model import Appointment
from signaling.model import Session

KIOSK_WINDOW = timedelta(hours=2)
"""How long after its end a visit stays open to its kiosk: reading, printing, three faces."""


class NoSession(NotFound):
    code = "no_session"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a matter lies, for deciding who may touch it."""

    county_path: str
    official_id: str
    kiosk_id: str | None
    booked_by: str
    """The actor who made the appointment; a kiosk also serves what was booked at it."""
    ended_at: datetime | None
    holder_path: str | None
    """Path of the unit that holds the case; None while there is no case."""
    owner_paths: tuple[str, ...]
    """Paths of the units that owe a promise."""


def may(principal: Principal, verb: Verb, place: Place, *, now: datetime) -> bool:
    """Whether `principal` may do `verb` on the matter at `place`."""
    match principal:
        case Anyone():
            return False
        case KioskDevice():
            return Who.KIOSK in TABLE[verb] and _before_this_kiosk(principal, place, now)
        case Staff():
            return any(
                role.role in TABLE[verb] and _reaches(role, principal, verb, place)
                for role in principal.roles
            )


def require(principal: Principal, verb: Verb, place: Place, *, now: datetime) -> None:
    """Raise `Forbidden` unless `may`."""
    if not may(principal, verb, place, now=now):
        raise Forbidden("Your role does not include this matter. Ask who is in charge of it.")


def _reaches(role: RoleAt, principal: Staff, verb: Verb, place: Place) -> bool:
    if verb is Verb.HANDLE_CASE:
        # Only who holds the matter moves it on, or who stands above them in the org tree.
        return place.holder_path is not None and place.holder_path.startswith(role.path)
    if role.role is Role.OFFICIAL:
        return principal.official_id == place.official_id
    if role.role is Role.DEPARTMENT:
        own = (place.holder_path, *place.owner_paths)
        return any(path is not None and path.startswith(role.path) for path in own)
    return place.county_path.startswith(role.path)


def _before_this_kiosk(kiosk: KioskDevice, place: Place, now: datetime) -> bool:
    is_its_visit = kiosk.kiosk_id == place.kiosk_id or kiosk.actor == place.booked_by
    is_recent = place.ended_at is None or now - place.ended_at <= KIOSK_WINDOW
    return place.county_path.startswith(kiosk.county_path) and is_its_visit and is_recent


async def session_place(tx: AsyncSession, session_id: str) -> tuple[Session, Place]:
    """The session and where it lies. Raises `NoSession`."""
    return await _placed(tx, Session.id == session_id)


async def appointment_session(tx: AsyncSession, appointment_id: str) -> tuple[Session, Place]:
    """The session of an appointment. Raises `NoSession` until it was called."""
    return await _placed(tx, Session.appointment_id == appointment_id)


async def _placed(tx: AsyncSession, which: ColumnElement[bool]) -> tuple[Session, Place]:
    holder = aliased(OrgUnit)
    row = (
        await tx.execute(
            select(Session, OrgUnit.path, Appointment.kiosk_id, Appointment.booked_by, holder.path)
            .join(OrgUnit, OrgUnit.id == Session.county_id)
            .join(Appointment, Appointment.id == Session.appointment_id)
            .outerjoin(Case, Case.session_id == Session.id)
            .outerjoin(holder, holder.id == Case.holder_id)
            .where(which)
        )
    ).one_or_none()
    if row is None:
        raise NoSession("The talk has not begun yet.")
    session, county_path, kiosk_id, booked_by, holder_path = row
    owners = await tx.scalars(
        select(OrgUnit.path)
        .join(Demand, Demand.owner_id == OrgUnit.id)
        .where(Demand.session_id == session.id)
        .distinct()
    )
    place = Place(
        county_path, session.official_id, kiosk_id, booked_by, session.ended_at, holder_path,
        tuple(owners),
    )  # fmt: skip
    return session, place


def visible(principal: Principal, verb: Verb) -> ColumnElement[bool]:
    """`may`, as a condition on `Case`, for lists. Kiosks and the public have no lists."""
    if not isinstance(principal, Staff):
        return false()
    return or_(
        false(),
        *(_reached(role, principal) for role in principal.roles if role.role in TABLE[verb]),
    )


def _reached(role: RoleAt, principal: Staff) -> ColumnElement[bool]:
    # Paths are made of digits, letters and slashes; autoescape keeps that from becoming a duty.
    under = OrgUnit.path.startswith(role.path, autoescape=True)
    if role.role is Role.OFFICIAL:
        return Case.official_id == principal.official_id if principal.official_id else false()
    if role.role is Role.DEPARTMENT:
        holds = exists().where(OrgUnit.id == Case.holder_id, under)
        owes = exists().where(
            Demand.session_id == Case.session_id, Demand.owner_id == OrgUnit.id, under
        )
        return or_(holds, owes)
    return exists().where(OrgUnit.id == Case.county_id, under)
