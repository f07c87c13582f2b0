"""HTTP before the day: the notice board, reception days, slots, holds, appointments."""

from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import local_date
from core.edge import Context, allow
from core.errors import Forbidden, Refused
from core.identity import Anyone, KioskDevice, Official, Staff, org_unit
from core.policy import Verb, reach
from core.schemas import Language
from scheduling import booking, days
from scheduling.access import county_reach, require_appointment
from scheduling.calendar import day_note, is_working
from scheduling.model import ReceptionDay, Slot
from scheduling.schemas import (
    AppointmentCreate,
    AppointmentState,
    AppointmentView,
    CancelAppointment,
    CancelReason,
    DayNote,
    HoldView,
    OfficialView,
    PublicDay,
    ReceptionDayCreate,
    ReceptionDayState,
    ReceptionDayView,
    SlotView,
)
from scheduling.slip import slip_pdf
from scheduling.views import appointment_view, find_appointment, list_appointments, views

router = APIRouter(prefix="/api", tags=["before"])

LONGEST_RANGE_DAYS = 400
PUBLIC_RANGE_DAYS = 60

From = Annotated[date | None, Query(alias="from")]
To = Annotated[date | None, Query(alias="to")]


class RangeRefused(Refused):
    code = "bad_range"


class CalendarDay(BaseModel):
    """One date of the office calendar."""

    model_config = ConfigDict(frozen=True)

    day: date
    note: DayNote | None
    working: bool


@router.get("/public/days")
async def public_days(
    ctx: Annotated[Context, allow(Verb.READ_PUBLIC)], first: From = None, last: To = None
) -> list[PublicDay]:
    """The notice board: published days, from today unless asked otherwise."""
    first, last = _range(ctx, first, last, default_days=PUBLIC_RANGE_DAYS)
    async with ctx.database.reading() as tx:
        found = await days.list_days(
            tx, first=first, last=last, states=[ReceptionDayState.PUBLISHED]
        )
        return await days.public_days(tx, found, now=ctx.now)


@router.get("/officials")
async def officials(ctx: Annotated[Context, allow(Verb.SEE_DAYS)]) -> list[OfficialView]:
    """Every office that receives people."""
    async with ctx.database.reading() as tx:
        return await days.list_officials(tx)


@router.get("/calendar")
async def calendar(
    ctx: Annotated[Context, allow(Verb.SEE_DAYS)], first: From = None, last: To = None
) -> list[CalendarDay]:
    """Each date with its note and whether offices are open."""
    first, last = _range(ctx, first, last, default_days=PUBLIC_RANGE_DAYS)
    dates = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [
        CalendarDay(
            day=one,
            note=day_note(one, days.known_days(one.year)),
            working=is_working(one, days.known_days(one.year)),
        )
        for one in dates
    ]


@router.get("/reception-days")
async def reception_days(
    ctx: Annotated[Context, allow(Verb.SEE_DAYS)],
    first: From = None,
    last: To = None,
    official_id: str | None = None,
    county_id: str | None = None,
) -> list[ReceptionDayView]:
    """Days within reach; drafts only for those who publish."""
    first, last = _range(ctx, first, last, default_days=PUBLIC_RANGE_DAYS)
    async with ctx.database.reading() as tx:
        found = await days.list_days(
            tx, first=first, last=last, official_id=official_id, county_id=county_id,
            states=_visible_states(ctx), within=reach(ctx.principal, Verb.SEE_DAYS),
        )  # fmt: skip
        return await days.day_views(tx, found, now=ctx.now)


@router.post("/reception-days", status_code=201)
async def create_reception_day(
    ctx: Annotated[Context, allow(Verb.PUBLISH_DAYS)], form: ReceptionDayCreate
) -> ReceptionDayView:
    """Plan a day and, unless told not to, publish it."""

    async def work(tx: AsyncSession) -> ReceptionDayView:
        await _require_place(ctx, tx, form)
        day = await days.create_day(tx, form, actor=ctx.principal.actor, now=ctx.now)
        return await _day_view(ctx, tx, day.id)

    return await ctx.database.run(work)


@router.post("/reception-days/{day_id}/publish")
async def publish_reception_day(
    ctx: Annotated[Context, allow(Verb.PUBLISH_DAYS)], day_id: str
) -> ReceptionDayView:
    """Put a draft on the notice board."""

    async def work(tx: AsyncSession) -> ReceptionDayView:
        day = await days.get_day(tx, day_id, lock=True)
        ctx.require(Verb.PUBLISH_DAYS, day.official.org_unit.path)
        await days.publish_day(tx, day, actor=ctx.principal.actor, now=ctx.now)
        await tx.flush()
        return await _day_view(ctx, tx, day_id)

    return await ctx.database.run(work)


@router.post("/reception-days/{day_id}/cancel")
async def cancel_reception_day(
    ctx: Annotated[Context, allow(Verb.PUBLISH_DAYS)], day_id: str, form: CancelReason
) -> ReceptionDayView:
    """Take a day back, with its appointments."""

    async def work(tx: AsyncSession) -> ReceptionDayView:
        day = await days.get_day(tx, day_id, lock=True)
        ctx.require(Verb.PUBLISH_DAYS, day.official.org_unit.path)
        await days.cancel_day(tx, day, form.reason, actor=ctx.principal.actor, now=ctx.now)
        await tx.flush()
        return await _day_view(ctx, tx, day_id)

    return await ctx.database.run(work)


@router.get("/reception-days/{day_id}/slots")
async def slots(ctx: Annotated[Context, allow(Verb.SEE_DAYS)], day_id: str) -> list[SlotView]:
    """The day's slots by time and room."""
    async with ctx.database.reading() as tx:
        day = await days.get_day(tx, day_id)
        ctx.require(Verb.SEE_DAYS, *_places(day))
        query = days.slots_with_claims().where(Slot.reception_day_id == day.id)
        return await days.slot_views(tx, query, now=ctx.now)


@router.post("/slots/{slot_id}/hold", status_code=201)
async def hold(ctx: Annotated[Context, allow(Verb.BOOK)], slot_id: str) -> HoldView:
    """Claim a slot for a few minutes. A taken one answers with the next free ones."""
    principal = ctx.principal
    assert not isinstance(principal, Anyone)
    ttl = timedelta(seconds=ctx.settings.hold_s)

    async def work(tx: AsyncSession) -> HoldView:
        await _require_slot(ctx, tx, slot_id)
        held = await booking.hold_slot(tx, slot_id, holder=principal, now=ctx.now, ttl=ttl)
        view = await days.slot_views(
            tx, days.slots_with_claims().where(Slot.id == slot_id), now=ctx.now
        )
        return HoldView(token=held.token, slot=view[0], expires_at=held.expires_at)

    try:
        return await ctx.database.run(work)
    except booking.SlotTaken as taken:
        raise await _with_alternatives(ctx, taken, slot_id) from None


@router.delete("/holds/{token}", status_code=204)
async def release(ctx: Annotated[Context, allow(Verb.BOOK)], token: str) -> None:
    """Give a hold back."""

    async def work(tx: AsyncSession) -> None:
        await booking.release_hold(tx, token, actor=ctx.principal.actor)

    await ctx.database.run(work)


@router.post("/appointments", status_code=201)
async def create_appointment(
    ctx: Annotated[Context, allow(Verb.BOOK)], form: AppointmentCreate
) -> AppointmentView:
    """Confirm a held slot. Sending it again gives the same appointment."""
    if isinstance(ctx.principal, KioskDevice):
        form = form.model_copy(update={"kiosk_id": ctx.principal.kiosk_id})

    async def work(tx: AsyncSession) -> AppointmentView:
        county = await org_unit(tx, form.county_id)
        ctx.require(Verb.BOOK, county.path)
        made = await booking.confirm(
            tx, form, county=county, actor=ctx.principal.actor,
            max_representatives=ctx.settings.max_representatives, now=ctx.now,
        )  # fmt: skip
        return await appointment_view(tx, made.id, now=ctx.now)

    try:
        return await ctx.database.run(work)
    except booking.SlotTaken as taken:
        raise await _with_alternatives(ctx, taken, taken.details["slot_id"]) from None


@router.get("/appointments")
async def appointments(
    ctx: Annotated[Context, allow(Verb.SEE_APPOINTMENTS)],
    day: date | None = None,
    county_id: str | None = None,
    state: AppointmentState | None = None,
) -> list[AppointmentView]:
    """A day's appointments within reach; an official sees those of his own days."""
    principal = ctx.principal
    if not isinstance(principal, Staff):
        return []  # a kiosk knows the visits it serves, not the day
    async with ctx.database.reading() as tx:
        found = await list_appointments(
            tx, day=day or local_date(ctx.now), county_id=county_id,
            states=[state] if state else [],
            within=county_reach(principal, Verb.SEE_APPOINTMENTS),
            or_official_id=principal.official_id,
        )  # fmt: skip
        return await views(tx, found, now=ctx.now)


@router.get("/appointments/{appointment_id}")
async def appointment(
    ctx: Annotated[Context, allow(Verb.SEE_APPOINTMENTS)], appointment_id: str
) -> AppointmentView:
    """One appointment."""
    async with ctx.database.reading() as tx:
        found = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, Verb.SEE_APPOINTMENTS, found)
        return (await views(tx, [found], now=ctx.now))[0]


@router.get("/appointments/{appointment_id}/slip.pdf", response_class=Response)
async def slip(
    ctx: Annotated[Context, allow(Verb.PRINT_SLIP)],
    appointment_id: str,
    lang: Language = Language.CHINESE,
) -> Response:
    """The slip as PDF."""
    async with ctx.database.reading() as tx:
        found = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, Verb.PRINT_SLIP, found)
    pdf = await slip_pdf(
        found, language=lang, desk_phone=ctx.settings.desk_phone, secret=ctx.settings.secret_bytes
    )
    return Response(
        pdf, media_type="application/pdf",
        headers={
            "Content-Disposition": f'inline; filename="{found.number}.pdf"',
            "Cache-Control": "private, no-store",
        },
    )  # fmt: skip


@router.post("/appointments/{appointment_id}/cancel")
async def cancel(
    ctx: Annotated[Context, allow(Verb.CANCEL_APPOINTMENT)],
    appointment_id: str,
    form: CancelAppointment,
) -> AppointmentView:
    """Give an appointment up; its slot is free at once."""

    async def work(tx: AsyncSession) -> AppointmentView:
        await booking.appointment_for_change(tx, appointment_id)
        found = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, Verb.CANCEL_APPOINTMENT, found)
        await booking.cancel(tx, found, form.reason, actor=ctx.principal.actor, now=ctx.now)
        return await appointment_view(tx, appointment_id, now=ctx.now)

    return await ctx.database.run(work)


@router.post("/appointments/{appointment_id}/redirect")
async def redirect(
    ctx: Annotated[Context, allow(Verb.CANCEL_APPOINTMENT)],
    appointment_id: str,
    form: CancelAppointment,
) -> AppointmentView:
    """Point the party to another legal route; `reason` says where to. For staff."""
    if not isinstance(ctx.principal, Staff):
        raise Forbidden("Please ask the desk to do this.")

    async def work(tx: AsyncSession) -> AppointmentView:
        await booking.appointment_for_change(tx, appointment_id)
        found = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, Verb.CANCEL_APPOINTMENT, found)
        await booking.redirect(tx, found, form.reason, actor=ctx.principal.actor, now=ctx.now)
        return await appointment_view(tx, appointment_id, now=ctx.now)

    return await ctx.database.run(work)


def _range(
    ctx: Context, first: date | None, last: date | None, *, default_days: int
) -> tuple[date, date]:
    first = first or local_date(ctx.now)
    last = last or first + timedelta(days=default_days)
    if not 0 <= (last - first).days <= LONGEST_RANGE_DAYS:
        raise RangeRefused(
            f"Choose dates in order, at most {LONGEST_RANGE_DAYS} days apart.",
            limit_days=LONGEST_RANGE_DAYS,
        )
    return first, last


def _visible_states(ctx: Context) -> list[ReceptionDayState]:
    match ctx.principal:
        case Staff() if reach(ctx.principal, Verb.PUBLISH_DAYS):
            return list(ReceptionDayState)
        case Staff():
            return [ReceptionDayState.PUBLISHED, ReceptionDayState.CANCELLED]
        case _:
            return [ReceptionDayState.PUBLISHED]


def _places(day: ReceptionDay) -> list[str]:
    """Where a day lies in the org tree: with its official, and with every county it admits."""
    return [day.official.org_unit.path, *(unit.path for unit in days.counties_of(day))]


async def _day_view(ctx: Context, tx: AsyncSession, day_id: str) -> ReceptionDayView:
    return (await days.day_views(tx, [await days.get_day(tx, day_id)], now=ctx.now))[0]


async def _require_place(ctx: Context, tx: AsyncSession, form: ReceptionDayCreate) -> None:
    official = await tx.get(Official, form.official_id)
    if official is not None:  # create_day says so if not
        ctx.require(Verb.PUBLISH_DAYS, (await org_unit(tx, official.org_unit_id)).path)
    for county_id in form.county_ids:
        ctx.require(Verb.PUBLISH_DAYS, (await org_unit(tx, county_id)).path)


async def _require_slot(ctx: Context, tx: AsyncSession, slot_id: str) -> None:
    slot = await tx.get(Slot, slot_id)
    if slot is not None:  # hold_slot says so if not
        day = await days.get_day(tx, slot.reception_day_id)
        ctx.require(Verb.BOOK, *(unit.path for unit in days.counties_of(day)))


async def _with_alternatives(
    ctx: Context, taken: booking.SlotTaken, slot_id: str
) -> booking.SlotTaken:
    async with ctx.database.reading() as tx:
        free = await days.next_free(tx, slot_id, now=ctx.now)
    return booking.SlotTaken(
        taken.message, slot_id=slot_id, next_free=[one.model_dump(mode="json") for one in free]
    )
