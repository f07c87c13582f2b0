"""HTTP on the day: check-in, notice, device check, waiting, entering, and the day's boards."""

from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from typing import Annotated, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core import given_grants
from core.clock import local_date
from core.edge import Context, allow
from core.errors import Forbidden
from core.identity import KioskDevice, OrgUnit, Staff, org_unit
from core.ids import RoomId
from core.policy import Verb
from core.schemas import Language, Role
from core.store import limit
from scheduling import admission, booking, days
from scheduling.access import require_appointment
from scheduling.model import Appointment
from scheduling.notice import notice_in, notice_text, record_notice
from scheduling.schemas import (
    AppointmentView,
    DeskAlarms,
    DeskBoard,
    DeviceCheck,
    DeviceGrantCreate,
    DeviceGrantView,
    EnterView,
    GivenDeviceView,
    KioskCheckIn,
    KioskVisit,
    NoticeGiven,
    NoticeView,
    OfficeDay,
    WaitingView,
)
from scheduling.views import (
    appointment_view,
    find_appointment,
    find_by_number,
    kiosk_visit,
    list_appointments,
    notice_view,
    views,
)

T = TypeVar("T")

router = APIRouter(prefix="/api", tags=["attend"])

# Numbers are serial: whoever tries neighbours at a kiosk is slowed down, a person with one slip is
# not.
WRONG_NUMBERS_PER_MINUTE = 12


class NoticeShown(BaseModel):
    """The notice to show now, in the language that `text` is really in."""

    model_config = ConfigDict(frozen=True)

    version: str
    language: Language
    title: str
    text: str


@router.get("/notice")
async def notice(
    ctx: Annotated[Context, allow(Verb.READ_PUBLIC)], lang: Language = Language.CHINESE
) -> NoticeShown:
    """The recording notice."""
    found = notice_in(lang)
    async with ctx.database.reading() as tx:
        prefecture = await tx.scalar(
            select(OrgUnit).where(OrgUnit.code == ctx.settings.prefecture_code)
        )
    return NoticeShown(
        version=found.version, language=found.language, title=found.title,
        text=notice_text(found, prefecture, ctx.settings.desk_phone),
    )  # fmt: skip


@router.post("/kiosk/check-in")
async def kiosk_check_in(
    ctx: Annotated[Context, allow(Verb.BE_KIOSK)], form: KioskCheckIn
) -> KioskVisit:
    """Check in by number or QR code, or come back to a visit."""
    kiosk = ctx.principal
    assert isinstance(kiosk, KioskDevice)

    async def work(tx: AsyncSession) -> KioskVisit:
        number = admission.number_typed(form.number, ctx.settings.secret_bytes)
        found = await find_by_number(tx, number)
        if found is None:
            raise admission.no_such_appointment()
        await booking.appointment_for_change(tx, found.id)
        found = await find_appointment(tx, found.id)
        await admission.check_in(tx, found, by=kiosk, now=ctx.now)
        return kiosk_visit(found)

    try:
        return await ctx.database.run(work)
    except admission.NoSuchAppointment:
        await limit(
            ctx.services.store, f"wrong-number:{kiosk.kiosk_id}",
            most=WRONG_NUMBERS_PER_MINUTE, per=timedelta(minutes=1),
        )  # fmt: skip
        raise


@router.get("/kiosk/visit/{appointment_id}")
async def visit(ctx: Annotated[Context, allow(Verb.BE_KIOSK)], appointment_id: str) -> KioskVisit:
    """The visit this kiosk is serving."""
    async with ctx.database.reading() as tx:
        found = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, Verb.BE_KIOSK, found)
        return kiosk_visit(found)


@router.post("/appointments/{appointment_id}/check-in")
async def desk_check_in(
    ctx: Annotated[Context, allow(Verb.ATTEND)], appointment_id: str
) -> AppointmentView:
    """The desk checks a party in."""
    staff = _staff(ctx)

    async def work(tx: AsyncSession, found: Appointment) -> AppointmentView:
        await admission.check_in(tx, found, by=staff, now=ctx.now)
        return await appointment_view(tx, appointment_id, now=ctx.now)

    return await _change(ctx, Verb.ATTEND, appointment_id, work)


@router.post("/appointments/{appointment_id}/notice")
async def give_notice(
    ctx: Annotated[Context, allow(Verb.ATTEND)], appointment_id: str, form: NoticeGiven
) -> NoticeView:
    """The notice has been shown."""

    async def work(tx: AsyncSession, found: Appointment) -> NoticeView:
        record_notice(found, form, now=ctx.now)
        shown = notice_view(found)
        assert shown is not None
        return shown

    return await _change(ctx, Verb.ATTEND, appointment_id, work)


@router.post("/appointments/{appointment_id}/device-check", status_code=204)
async def device_check(
    ctx: Annotated[Context, allow(Verb.ATTEND)], appointment_id: str, form: DeviceCheck
) -> None:
    """The three answers of the device check."""

    async def work(tx: AsyncSession, found: Appointment) -> None:
        admission.record_device_check(found, form, now=ctx.now)

    await _change(ctx, Verb.ATTEND, appointment_id, work)


@router.get("/appointments/{appointment_id}/waiting")
async def waiting(ctx: Annotated[Context, allow(Verb.ATTEND)], appointment_id: str) -> WaitingView:
    """The place in the queue; asked every few seconds."""
    async with ctx.database.reading() as tx:
        found = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, Verb.ATTEND, found)
        return await admission.waiting(tx, ctx.services.store, found, now=ctx.now)


@router.post("/appointments/{appointment_id}/enter")
async def enter(ctx: Annotated[Context, allow(Verb.ENTER)], appointment_id: str) -> EnterView:
    """Permission to join the room."""

    async def work(tx: AsyncSession, found: Appointment) -> EnterView:
        grant = await admission.enter(
            tx, found, ctx.principal, now=ctx.now, ttl=timedelta(seconds=ctx.settings.grant_s)
        )
        return EnterView(
            grant=ctx.services.grant_key.sign(grant),
            ws_url=admission.signal_url(ctx.settings.base_url), room_id=grant.room_id,
            participant_id=grant.participant_id, expires_at=grant.expires_at,
        )  # fmt: skip

    return await _change(ctx, Verb.ENTER, appointment_id, work)


@router.post("/appointments/{appointment_id}/device-grants", status_code=201)
async def grant_device(
    ctx: Annotated[Context, allow(Verb.GRANT_DEVICE)],
    appointment_id: str,
    body: DeviceGrantCreate,
) -> DeviceGrantView:
    """Permission for a hall camera, a document camera or a hall screen."""

    async def work(tx: AsyncSession, found: Appointment) -> DeviceGrantView:
        grant = await admission.admit_device(
            tx, found, body.kind, by=_staff(ctx).actor, now=ctx.now, first=body.first
        )
        return admission.device_grant_view(
            grant, body.kind, key=ctx.services.grant_key, base_url=ctx.settings.base_url
        )

    return await _change(ctx, Verb.GRANT_DEVICE, appointment_id, work)


@router.get("/appointments/{appointment_id}/device-grants")
async def devices_given(
    ctx: Annotated[Context, allow(Verb.GRANT_DEVICE)], appointment_id: str
) -> tuple[GivenDeviceView, ...]:
    """What was let in, or may come in, besides people."""
    async with ctx.database.reading() as tx:
        found = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, Verb.GRANT_DEVICE, found)
        return await admission.devices_given(tx, found)


@router.delete("/appointments/{appointment_id}/device-grants/{grant_id}", status_code=204)
async def take_device_back(
    ctx: Annotated[Context, allow(Verb.GRANT_DEVICE)], appointment_id: str, grant_id: str
) -> None:
    """Take a device's permission back. One that is in the talk is let go of within two seconds."""

    async def work(tx: AsyncSession, found: Appointment) -> None:
        await admission.take_device_back(tx, found, grant_id, by=_staff(ctx).actor, now=ctx.now)

    await _change(ctx, Verb.GRANT_DEVICE, appointment_id, work)
    await given_grants.hint_taken_back(ctx.services.store, RoomId(appointment_id), grant_id)


@router.post("/appointments/{appointment_id}/no-show")
async def no_show(
    ctx: Annotated[Context, allow(Verb.ATTEND)], appointment_id: str
) -> AppointmentView:
    """Nobody came."""
    staff = _staff(ctx)

    async def work(tx: AsyncSession, found: Appointment) -> AppointmentView:
        await booking.mark_no_show(
            tx, found, starts_at=found.slot.starts_at, actor=staff.actor, now=ctx.now
        )
        await tx.flush()
        return await appointment_view(tx, appointment_id, now=ctx.now)

    return await _change(ctx, Verb.ATTEND, appointment_id, work)


@router.get("/office/day")
async def office_day(
    ctx: Annotated[Context, allow(Verb.SEE_OFFICE)], day: date | None = None
) -> OfficeDay:
    """The signed-in official's own day."""
    staff = _staff(ctx)
    wanted = day or local_date(ctx.now)
    async with ctx.database.reading() as tx:
        official = await days.get_official(tx, staff.official_id)
        own = await days.list_days(tx, first=wanted, last=wanted, official_id=official.id)
        found = await list_appointments(tx, day=wanted, official_id=official.id)
        return OfficeDay(
            day=wanted, official=days.official_view(official),
            reception_days=tuple(await days.day_views(tx, own, now=ctx.now)),
            appointments=tuple(await views(tx, found, now=ctx.now)),
        )  # fmt: skip


@router.get("/desk/board")
async def desk_board(
    ctx: Annotated[Context, allow(Verb.SEE_DESK)], day: date | None = None
) -> DeskBoard:
    """The county desk's day."""
    wanted = day or local_date(ctx.now)
    staff = _staff(ctx)
    county_id = next(at.org_unit_id for at in staff.roles if at.role is Role.DESK)
    async with ctx.database.reading() as tx:
        county = await org_unit(tx, county_id)
        found = await list_appointments(tx, day=wanted, within=[county.path])
        return DeskBoard(
            county=county.view(), day=wanted,
            appointments=tuple(await views(tx, found, now=ctx.now)),
        )  # fmt: skip


@router.get("/desk/alarms")
async def desk_alarms(ctx: Annotated[Context, allow(Verb.SEE_DESK)]) -> DeskAlarms:
    """What needs somebody of the county desk now, wherever on its pages they are."""
    staff = _staff(ctx)
    county_id = next(at.org_unit_id for at in staff.roles if at.role is Role.DESK)
    async with ctx.database.reading() as tx:
        county = await org_unit(tx, county_id)
        admitted = await list_appointments(
            tx, day=local_date(ctx.now), within=[county.path], states=admission.ADMITTED
        )
    return await admission.desk_alarms(ctx.services.store, admitted)


async def _change(
    ctx: Context,
    verb: Verb,
    appointment_id: str,
    work: Callable[[AsyncSession, Appointment], Awaitable[T]],
) -> T:
    """Do `work` with the appointment, locked, if this principal may do `verb` with it."""

    async def locked(tx: AsyncSession) -> T:
        await booking.appointment_for_change(tx, appointment_id)
        found = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, verb, found)
        return await work(tx, found)

    return await ctx.database.run(locked)


def _staff(ctx: Context) -> Staff:
    if not isinstance(ctx.principal, Staff):
        raise Forbidden("Please ask the desk to do this.")
    return ctx.principal
