"""Appointments as people get to see them, loaded in one go and masked.

`find_appointment` and `appointment_view` are also what the rooms above use.
"""

from collections.abc import Sequence
from datetime import date, datetime

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from core.errors import NotFound
from core.identity import Official, OrgUnit
from core.schemas import Language
from scheduling.days import official_view, slot_state
from scheduling.model import OVER, Appointment, Hold, PartyMember, ReceptionDay, Slot
from scheduling.notice import NOTICE_VERSION
from scheduling.party import masked_id_number, masked_phone
from scheduling.schemas import (
    AppointmentState,
    AppointmentView,
    DeviceCheck,
    KioskVisit,
    NoticeView,
    PartyMemberView,
    Relation,
    SlotState,
    SlotView,
)


async def find_appointment(tx: AsyncSession, appointment_id: str) -> Appointment:
    """The appointment with its day, official, slot, county and party, or `NotFound`."""
    return await _one(tx, Appointment.id == appointment_id)


async def find_by_number(tx: AsyncSession, number: str) -> Appointment | None:
    """The appointment with this number (as `numbering` prints it), loaded as above."""
    try:
        return await _one(tx, Appointment.number == number)
    except NotFound:
        return None


async def appointment_view(
    tx: AsyncSession, appointment_id: str, *, now: datetime
) -> AppointmentView:
    """The appointment as staff see it, or `NotFound`."""
    return (await views(tx, [await find_appointment(tx, appointment_id)], now=now))[0]


async def list_appointments(
    tx: AsyncSession,
    *,
    day: date,
    county_id: str | None = None,
    official_id: str | None = None,
    states: Sequence[AppointmentState] = (),
    within: Sequence[str] | None = None,
    or_official_id: str | None = None,
) -> list[Appointment]:
    """The appointments of a day by slot time.

    `within` keeps those of counties below one of these paths of the org tree; `or_official_id` adds
    those of that official, wherever they come from.
    """
    query = _loaded().where(ReceptionDay.day == day)
    if county_id is not None:
        query = query.where(Appointment.county_id == county_id)
    if official_id is not None:
        query = query.where(ReceptionDay.official_id == official_id)
    if states:
        query = query.where(Appointment.state.in_(states))
    if within is not None:
        below = [OrgUnit.path.startswith(path, autoescape=True) for path in within]
        query = query.where(or_(ReceptionDay.official_id == or_official_id, *below))
    rows = await tx.scalars(query.order_by(Slot.starts_at, Slot.room_no, Appointment.confirmed_at))
    return list(rows)


async def views(
    tx: AsyncSession, appointments: Sequence[Appointment], *, now: datetime
) -> list[AppointmentView]:
    """These appointments as staff see them."""
    claims = await tx.scalars(
        select(Hold).where(Hold.slot_id.in_([one.slot_id for one in appointments]))
    )
    by_slot = {claim.slot_id: claim for claim in claims}
    return [_view(one, by_slot.get(one.slot_id), now=now) for one in appointments]


def kiosk_visit(appointment: Appointment) -> KioskVisit:
    """The visit as the kiosk shows it: no names, no phone numbers."""
    official = appointment.reception_day.official
    return KioskVisit(
        appointment_id=appointment.id, number=appointment.number,
        state=AppointmentState(appointment.state), official_title_zh=official.title_zh,
        official_title_bo=official.title_bo, official_title_en=official.title_en,
        starts_at=appointment.slot.starts_at, matter=appointment.matter,
        language=Language(appointment.language), notice_version=NOTICE_VERSION,
        notice_given=appointment.notice_shown_at is not None,
        device_checked=appointment.device_checked_at is not None,
    )  # fmt: skip


def notice_view(appointment: Appointment) -> NoticeView | None:
    """Which notice was shown and when, or None if it has not been shown."""
    if appointment.notice_shown_at is None:
        return None
    assert appointment.notice_version is not None
    assert appointment.notice_language is not None
    return NoticeView(
        version=appointment.notice_version, language=Language(appointment.notice_language),
        shown_at=appointment.notice_shown_at, read_aloud=bool(appointment.notice_read_aloud),
    )  # fmt: skip


def _view(one: Appointment, claim: Hold | None, *, now: datetime) -> AppointmentView:
    return AppointmentView(
        id=one.id, number=one.number, state=AppointmentState(one.state),
        reception_day_id=one.reception_day_id, official=official_view(one.reception_day.official),
        place=one.reception_day.place, slot=_slot(one, claim, now=now), county=one.county.view(),
        village=one.village, kiosk_id=one.kiosk_id, matter=one.matter,
        language=Language(one.language), needs_interpreter=one.needs_interpreter,
        party=tuple(_member(member) for member in one.party), people_total=one.people_total,
        confirmed_at=one.confirmed_at, checked_in_at=one.checked_in_at, notice=notice_view(one),
        device_check=DeviceCheck.model_validate(one.device_check) if one.device_check else None,
        device_checked_at=one.device_checked_at, called_at=one.called_at,
        session_id=one.session_id, cancel_reason=one.cancel_reason,
    )  # fmt: skip


def _slot(one: Appointment, claim: Hold | None, *, now: datetime) -> SlotView:
    in_use = one.state not in OVER
    state = slot_state(one.slot, claim, now=now)
    return SlotView(
        id=one.slot.id, reception_day_id=one.slot.reception_day_id, room_no=one.slot.room_no,
        starts_at=one.slot.starts_at, ends_at=one.slot.ends_at,
        state=SlotState.TAKEN if in_use and state is not SlotState.PAST else state,
    )  # fmt: skip


def _member(member: PartyMember) -> PartyMemberView:
    return PartyMemberView(
        name=member.name, relation=Relation(member.relation),
        id_number_masked=masked_id_number(member.id_number),
        phone_masked=masked_phone(member.phone),
    )  # fmt: skip


async def _one(tx: AsyncSession, condition: ColumnElement[bool]) -> Appointment:
    found = await tx.scalar(_loaded().where(condition).execution_options(populate_existing=True))
    if found is None:
        raise NotFound("There is no such appointment. Check the number on the slip.")
    return found


def _loaded() -> Select[Appointment]:
    return (
        select(Appointment)
        .join(Appointment.reception_day)
        .join(Appointment.slot)
        .join(Appointment.county)
        .options(
            joinedload(Appointment.reception_day, innerjoin=True)
            .joinedload(ReceptionDay.official, innerjoin=True)
            .joinedload(Official.org_unit, innerjoin=True),
            joinedload(Appointment.slot, innerjoin=True),
            joinedload(Appointment.county, innerjoin=True),
            selectinload(Appointment.party),
        )
    )
