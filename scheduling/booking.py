"""Hold a slot, confirm it, give it back: two parties never get the same slot.

The claim on a slot is one row (`holds`, key `slot_id`), taken by one statement that inserts it or
takes over an expired one; whoever's statement changed the row has the slot. Confirming is a
compare-and-set on the same row by its token. Both engines decide, this code only translates.
"""

import secrets
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core import audit
from core.clock import local_date
from core.db import violates
from core.errors import Conflict, Gone, NotFound, Refused
from core.events import EventKind, publish
from core.identity import Account, Kiosk, KioskDevice, OrgUnit, Staff, digest
from core.ids import AppointmentId, new_id
from core.schemas import OrgLevel
from scheduling.days import DayCancelled, PastDay
from scheduling.model import (
    OVER,
    Appointment,
    Hold,
    NumberSeries,
    PartyMember,
    ReceptionDay,
    ReceptionDayCounty,
    Slot,
)
from scheduling.numbering import appointment_number
from scheduling.party import check_party, normal_id_number
from scheduling.schemas import AppointmentCreate, AppointmentState, ReceptionDayState

HOLDS_PER_DESK = 6
"""A desk serves a few people at once; more open holds than this is hoarding."""


class SlotTaken(Conflict):
    code = "slot_taken"


class HoldLimit(Conflict):
    code = "hold_limit"


class HoldExpired(Gone):
    code = "hold_expired"


class PastSlot(Refused):
    code = "past_slot"


class DayNotPublished(Conflict):
    code = "day_not_published"


class CountyNotAdmitted(Refused):
    code = "county_not_admitted"


class UnknownKiosk(Refused):
    code = "unknown_kiosk"


class AppointmentOver(Conflict):
    code = "appointment_over"


class TooEarly(Conflict):
    code = "too_early"


@dataclass(frozen=True, slots=True)
class HeldSlot:
    """A hold just taken. `token` is shown once; the database keeps its digest."""

    token: str
    slot: Slot
    expires_at: datetime


async def hold_slot(
    tx: AsyncSession, slot_id: str, *, holder: Staff | KioskDevice, now: datetime, ttl: timedelta
) -> HeldSlot:
    """Claim a slot until `now + ttl`.

    A kiosk serves one person, so choosing another slot gives its earlier hold back. Taking a slot
    that the holder already holds renews it under a new token; the old token is void. Raises
    `SlotTaken`, `HoldLimit`, `PastDay`, `PastSlot`, `DayCancelled`, `DayNotPublished`, `NotFound`.
    """
    slot, day = await _slot_and_day(tx, slot_id)
    _refuse_unbookable(slot, day, last=slot.starts_at, now=now)
    token = secrets.token_urlsafe(24)
    if not await _claim(
        tx, slot_id, token=token, holder=holder.actor, now=now, expires_at=now + ttl
    ):
        raise SlotTaken("This time has just been taken. Please choose another.", slot_id=slot_id)
    await _keep_within_limit(tx, slot_id, holder=holder, now=now)
    return HeldSlot(token, slot, now + ttl)


async def release_hold(tx: AsyncSession, token: str, *, actor: str) -> None:
    """Give an unconfirmed hold back. Unknown, expired or confirmed ones are left as they are."""
    await tx.execute(
        delete(Hold).where(
            Hold.token_digest == digest(token), Hold.holder == actor, Hold.confirmed_at.is_(None)
        )
    )


async def slot_of_hold(tx: AsyncSession, token: str) -> str | None:
    """The slot under a hold's token, whether or not the hold is still good."""
    slot_id: str | None = await tx.scalar(
        select(Hold.slot_id).where(Hold.token_digest == digest(token))
    )
    return slot_id


async def confirm(
    tx: AsyncSession,
    form: AppointmentCreate,
    *,
    county: OrgUnit,
    actor: str,
    max_representatives: int,
    now: datetime,
) -> Appointment:
    """Turn a hold into an appointment and say so in the outbox, all in this transaction.

    Sending the same form twice gives the same appointment: an answer that was lost on the way is
    not a lost booking. Raises `HoldExpired`, `SlotTaken`, the refusals of `hold_slot` and of
    `party.check_party`, `CountyNotAdmitted`, `UnknownKiosk`.
    """
    hold = await tx.scalar(select(Hold).where(Hold.token_digest == digest(form.hold_token)))
    if hold is None:
        raise _expired()
    if hold.confirmed_at is not None:
        return await _confirmed_before(tx, hold.slot_id, actor=actor)
    slot, day = await _slot_and_day(tx, hold.slot_id)
    # The hold promised this time for its minutes: one that began meanwhile is still its holder's.
    _refuse_unbookable(slot, day, last=slot.ends_at, now=now)
    check_party(form.party, people_total=form.people_total, max_representatives=max_representatives)
    await _refuse_stranger(tx, day, county, form.kiosk_id)
    if not await _make_permanent(tx, form.hold_token, now=now):
        # Expired, or the same form sent twice at once and the other one was a moment faster.
        return await _confirmed_before(tx, slot.id, actor=actor)
    number = await _next_number(tx, county, day.day)
    appointment = Appointment(
        id=AppointmentId(new_id()), number=number, state=AppointmentState.CONFIRMED,
        reception_day_id=day.id, slot_id=slot.id, county_id=county.id, kiosk_id=form.kiosk_id,
        village=form.village, matter=form.matter, language=form.language,
        needs_interpreter=form.needs_interpreter, people_total=form.people_total,
        booked_by=actor, confirmed_at=now, checked_in_at=None, notice_version=None,
        notice_language=None, notice_shown_at=None, notice_read_aloud=None, device_check=None,
        device_checked_at=None, called_at=None, session_id=None, ended_at=None, cancel_reason=None,
    )  # fmt: skip
    tx.add(appointment)
    slot_id = slot.id  # a refusal rolls back, and `slot` can no longer be asked
    try:
        await tx.flush()
    except IntegrityError as error:
        if violates(error, "uq_appointments_slot_in_use", "appointments.slot_id"):
            raise SlotTaken(
                "This time has just been taken. Please choose another.", slot_id=slot_id
            ) from error
        raise
    tx.add_all(
        PartyMember(
            id=new_id(), appointment_id=appointment.id, position=position, name=one.name,
            relation=one.relation, phone=one.phone or None,
            id_number=normal_id_number(one.id_number) if one.id_number else None,
        )
        for position, one in enumerate(form.party)
    )  # fmt: skip
    publish(tx, EventKind.APPOINTMENT_BOOKED, appointment.id, now=now)
    await tx.flush()
    await _note(tx, appointment, "appointment_confirmed", actor=actor, now=now)
    return appointment


async def cancel(
    tx: AsyncSession, appointment: Appointment, reason: str, *, actor: str, now: datetime
) -> None:
    """Give the appointment up and free its slot. Cancelling twice changes nothing."""
    if appointment.state == AppointmentState.CANCELLED:
        return
    await _leave(tx, appointment, AppointmentState.CANCELLED, reason=reason, actor=actor, now=now)


async def redirect(
    tx: AsyncSession, appointment: Appointment, reason: str, *, actor: str, now: datetime
) -> None:
    """Point the party to another legal route (《信访工作条例》 art. 31) and free the slot.

    `reason` says where to, in words that the party is given. Doing it twice changes nothing.
    """
    if appointment.state == AppointmentState.REDIRECTED:
        return
    await _leave(tx, appointment, AppointmentState.REDIRECTED, reason=reason, actor=actor, now=now)


async def mark_no_show(
    tx: AsyncSession, appointment: Appointment, *, starts_at: datetime, actor: str, now: datetime
) -> None:
    """Write down that nobody came. The slot is spent, so it stays claimed.

    Raises `TooEarly` before the slot begins. Marking twice changes nothing.
    """
    if appointment.state == AppointmentState.NO_SHOW:
        return
    _refuse_if_over(appointment)
    if now < starts_at:
        raise TooEarly("The time of this appointment has not come yet.")
    appointment.state = AppointmentState.NO_SHOW
    appointment.ended_at = now
    await _note(tx, appointment, "appointment_no_show", actor=actor, now=now)


async def mark_called(
    tx: AsyncSession, appointment_id: str, session_id: str, *, now: datetime
) -> None:
    """The talk has begun. Idempotent; an appointment that is over stays over."""
    await tx.execute(
        update(Appointment)
        .where(
            Appointment.id == appointment_id,
            Appointment.state.in_([AppointmentState.CONFIRMED, AppointmentState.CHECKED_IN]),
        )
        .values(state=AppointmentState.CALLED, called_at=now, session_id=session_id)
    )


async def mark_held(tx: AsyncSession, appointment_id: str, *, now: datetime) -> None:
    """The talk is over. Idempotent."""
    await tx.execute(
        update(Appointment)
        .where(Appointment.id == appointment_id, Appointment.state == AppointmentState.CALLED)
        .values(state=AppointmentState.HELD, ended_at=now)
    )


async def appointment_for_change(tx: AsyncSession, appointment_id: str) -> Appointment:
    """The appointment, locked until this transaction ends, or `NotFound`."""
    appointment = await tx.scalar(
        select(Appointment)
        .where(Appointment.id == appointment_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if appointment is None:
        raise NotFound("There is no such appointment. Check the number on the slip.")
    return appointment


# ── the claim ────────────────────────────────────────────────────────────────────────────────────


async def _claim(
    tx: AsyncSession,
    slot_id: str,
    *,
    token: str,
    holder: str,
    now: datetime,
    expires_at: datetime,
) -> bool:
    """Insert the claim, or take over an unconfirmed one that has expired or is our own.

    One statement, decided by the primary key: of any number of contenders one changes the row.
    """
    insert = _insert(tx)(Hold).values(
        slot_id=slot_id, token_digest=digest(token), holder=holder, held_at=now,
        expires_at=expires_at, confirmed_at=None,
    )  # fmt: skip
    taken = await tx.execute(
        insert.on_conflict_do_update(
            index_elements=[Hold.slot_id],
            set_={
                "token_digest": insert.excluded.token_digest,
                "holder": insert.excluded.holder,
                "held_at": insert.excluded.held_at,
                "expires_at": insert.excluded.expires_at,
            },
            where=Hold.confirmed_at.is_(None) & or_(Hold.expires_at <= now, Hold.holder == holder),
        )
    )
    return _changed_one(taken)


async def _make_permanent(tx: AsyncSession, token: str, *, now: datetime) -> bool:
    """Compare-and-set: the hold is still this token's, still good, and not confirmed yet."""
    confirmed = await tx.execute(
        update(Hold)
        .where(
            Hold.token_digest == digest(token),
            Hold.confirmed_at.is_(None),
            Hold.expires_at > now,
        )
        .values(confirmed_at=now)
        .execution_options(synchronize_session=False)
    )
    return _changed_one(confirmed)


async def _keep_within_limit(
    tx: AsyncSession, slot_id: str, *, holder: Staff | KioskDevice, now: datetime
) -> None:
    """Hold a new claim against what the holder has already; a refusal takes the claim back.

    The holder's row is locked, so that two requests of one holder cannot slip by each other.
    """
    mine = (Hold.holder == holder.actor) & Hold.confirmed_at.is_(None) & (Hold.slot_id != slot_id)
    if isinstance(holder, KioskDevice):
        await tx.execute(
            select(Kiosk.id).where(Kiosk.id == holder.kiosk_id).with_for_update(key_share=True)
        )
        await tx.execute(delete(Hold).where(mine))
        return
    await tx.execute(
        select(Account.id).where(Account.id == holder.account_id).with_for_update(key_share=True)
    )
    open_holds = await tx.scalar(
        select(func.count()).select_from(Hold).where(mine, Hold.expires_at > now)
    )
    if (open_holds or 0) >= HOLDS_PER_DESK:
        raise HoldLimit(
            f"You already hold {HOLDS_PER_DESK} times. Confirm or release one of them first.",
            limit=HOLDS_PER_DESK,
        )


async def _next_number(tx: AsyncSession, county: OrgUnit, day: date) -> str:
    """The next number of a county on a day. The counter's row decides between two who ask."""
    insert = _insert(tx)(NumberSeries).values(county_id=county.id, day=day, last=1)
    serial: int = (
        await tx.execute(
            insert.on_conflict_do_update(
                index_elements=[NumberSeries.county_id, NumberSeries.day],
                set_={"last": NumberSeries.last + 1},
            ).returning(NumberSeries.last)
        )
    ).scalar_one()
    return appointment_number(county.code, day, serial)


def _insert(tx: AsyncSession) -> Any:  # the two dialects' insert have no common type
    return postgresql.insert if tx.get_bind().dialect.name == "postgresql" else sqlite.insert


def _changed_one(result: Any) -> bool:  # execute() is typed as Result, DML gives a CursorResult
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


async def _slot_and_day(tx: AsyncSession, slot_id: str) -> tuple[Slot, ReceptionDay]:
    # The day is read under a shared lock, so that it cannot be cancelled between look and claim.
    row = (
        await tx.execute(
            select(Slot, ReceptionDay)
            .join(ReceptionDay, ReceptionDay.id == Slot.reception_day_id)
            .where(Slot.id == slot_id)
            .with_for_update(read=True, of=ReceptionDay)
        )
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such time. Reload the list and choose another.")
    return row[0], row[1]


def _refuse_unbookable(slot: Slot, day: ReceptionDay, *, last: datetime, now: datetime) -> None:
    """Raise unless the day is open; `last` is the instant from which the slot is past."""
    if day.state == ReceptionDayState.CANCELLED:
        raise DayCancelled("This reception day has been cancelled. Please choose another day.")
    if day.state != ReceptionDayState.PUBLISHED:
        raise DayNotPublished("This reception day has not been published yet.")
    if day.day < local_date(now):
        raise PastDay("This day has already passed. Please choose a later one.")
    if last <= now:
        raise PastSlot("This time has already begun. Please choose a later one.")


async def _refuse_stranger(
    tx: AsyncSession, day: ReceptionDay, county: OrgUnit, kiosk_id: str | None
) -> None:
    admitted = await tx.get(ReceptionDayCounty, (day.id, county.id))
    if admitted is None or county.level != OrgLevel.COUNTY:
        raise CountyNotAdmitted(
            "This reception day does not receive people from that county. Choose another day."
        )
    if kiosk_id is not None:
        kiosk = await tx.get(Kiosk, kiosk_id)
        if kiosk is None or kiosk.revoked_at is not None or kiosk.county_id != county.id:
            raise UnknownKiosk("This county has no such kiosk. Choose one from the list.")


async def _confirmed_before(tx: AsyncSession, slot_id: str, *, actor: str) -> Appointment:
    appointment = await tx.scalar(
        select(Appointment).where(
            Appointment.slot_id == slot_id,
            Appointment.booked_by == actor,
            Appointment.state.not_in(OVER),
        )
    )
    if appointment is None:
        raise _expired()
    return appointment


def _expired() -> HoldExpired:
    return HoldExpired("This time is no longer held for you. Please choose a time again.")


def _refuse_if_over(appointment: Appointment) -> None:
    if appointment.state not in (AppointmentState.CONFIRMED, AppointmentState.CHECKED_IN):
        raise AppointmentOver(
            "This appointment has moved on and can no longer be changed that way.",
            state=appointment.state,
        )


async def _leave(
    tx: AsyncSession,
    appointment: Appointment,
    state: AppointmentState,
    *,
    reason: str,
    actor: str,
    now: datetime,
) -> None:
    _refuse_if_over(appointment)
    appointment.state = state
    appointment.cancel_reason = reason
    appointment.ended_at = now
    await tx.flush()
    await tx.execute(delete(Hold).where(Hold.slot_id == appointment.slot_id))
    await _note(tx, appointment, f"appointment_{state}", actor=actor, now=now)


async def _note(
    tx: AsyncSession, appointment: Appointment, action: str, *, actor: str, now: datetime
) -> None:
    await audit.record(
        tx, now=now, actor=actor, action=action,
        object_kind="appointment", object_id=appointment.id,
    )  # fmt: skip
