"""A small prefecture for tests: two counties, an official, a desk, a scheduler, a kiosk."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import local_date
from core.db import Database
from core.identity import (
    Account,
    Kiosk,
    KioskDevice,
    Official,
    OrgUnit,
    RoleAt,
    RoleBinding,
    Staff,
)
from core.ids import AccountId, KioskId, OfficialId, OrgUnitId, new_id
from core.schemas import OrgLevel, Role
from scheduling import booking, days
from scheduling.model import Appointment, Slot
from scheduling.schemas import AppointmentCreate, ReceptionDayCreate


@dataclass(frozen=True, slots=True)
class Prefecture:
    """Ids and principals of what `build_prefecture` made."""

    county: OrgUnit
    other_county: OrgUnit
    official_id: str
    official: Staff
    scheduler: Staff
    desk: Staff
    kiosk: KioskDevice


async def build_prefecture(tx: AsyncSession) -> Prefecture:
    """Write the prefecture down. The people cannot sign in with a password."""
    root = _unit("510000", OrgLevel.PROVINCE, None, "四川省", "Sichuan")
    prefecture = _unit("513300", OrgLevel.PREFECTURE, root, "甘孜藏族自治州", "Garzê Prefecture")
    county = _unit("513328", OrgLevel.COUNTY, prefecture, "甘孜县", "Garzê County")
    other = _unit("513330", OrgLevel.COUNTY, prefecture, "德格县", "Dêgê County")
    for unit in (root, prefecture, county, other):
        tx.add(unit)
        await tx.flush()
    official = Official(
        id=new_id(), org_unit_id=prefecture.id, title_zh="州委副书记", title_bo=None,
        title_en="Deputy Party Secretary", position=1,
    )  # fmt: skip
    tx.add(official)
    await tx.flush()
    kiosk = Kiosk(
        id=new_id(), name="一号机", county_id=county.id, enrolment_digest=None,
        enrolment_expires_at=None, token_digest=None, enrolled_at=None, revoked_at=None,
        last_seen_at=None, help_asked_at=None,
    )  # fmt: skip
    tx.add(kiosk)
    return Prefecture(
        county=county, other_county=other, official_id=official.id,
        official=await _person(tx, Role.OFFICIAL, prefecture, official.id),
        scheduler=await _person(tx, Role.SCHEDULER, prefecture, None),
        desk=await _person(tx, Role.DESK, county, None),
        kiosk=KioskDevice(KioskId(kiosk.id), kiosk.name, OrgUnitId(county.id), county.path),
    )  # fmt: skip


def day_form(at: Prefecture, day: date, **changes: object) -> ReceptionDayCreate:
    """A morning of four slots in one room, for the first county."""
    fields: dict[str, object] = {
        "official_id": at.official_id, "day": day, "starts": time(9), "ends": time(10),
        "slot_minutes": 15, "rooms": 1, "place": "州信访局视频接访室", "topics": [],
        "county_ids": [at.county.id],
    }  # fmt: skip
    return ReceptionDayCreate.model_validate(fields | changes)


def appointment_form(at: Prefecture, hold_token: str, **changes: object) -> AppointmentCreate:
    """One petitioner about a meadow."""
    fields: dict[str, object] = {
        "hold_token": hold_token, "matter": "草场边界", "county_id": at.county.id,
        "party": [{"name": "测试", "relation": "petitioner"}],
    }  # fmt: skip
    return AppointmentCreate.model_validate(fields | changes)


async def publish_tomorrow(
    database: Database, at: Prefecture, *, now: datetime, **changes: object
) -> list[Slot]:
    """Publish a day after `now` and give its slots by time and room."""

    async def work(tx: AsyncSession) -> list[Slot]:
        form = day_form(at, local_date(now) + timedelta(days=1), **changes)
        day = await days.create_day(tx, form, actor=at.scheduler.actor, now=now)
        rows = await tx.scalars(
            select(Slot)
            .where(Slot.reception_day_id == day.id)
            .order_by(Slot.starts_at, Slot.room_no)
        )
        return list(rows)

    return await database.run(work)


async def book(
    database: Database,
    at: Prefecture,
    slot_id: str,
    *,
    now: datetime,
    by: Staff | KioskDevice | None = None,
    **changes: object,
) -> Appointment:
    """Hold and confirm a slot, at the desk unless `by` says otherwise."""
    holder = by or at.desk

    async def hold(tx: AsyncSession) -> str:
        held = await booking.hold_slot(
            tx, slot_id, holder=holder, now=now, ttl=timedelta(minutes=5)
        )
        return held.token

    token = await database.run(hold)

    async def confirm(tx: AsyncSession) -> Appointment:
        return await booking.confirm(
            tx, appointment_form(at, token, **changes), county=at.county, actor=holder.actor,
            max_representatives=5, now=now,
        )  # fmt: skip

    return await database.run(confirm)


async def _person(tx: AsyncSession, role: Role, unit: OrgUnit, official_id: str | None) -> Staff:
    account = Account(
        id=new_id(), username=f"{role}-{new_id()[:8]}", display_name=role, password_hash="!",
        official_id=official_id, disabled_at=None,
    )  # fmt: skip
    tx.add(account)
    await tx.flush()
    tx.add(RoleBinding(account_id=account.id, role=role, org_unit_id=unit.id))
    await tx.flush()
    return Staff(
        account_id=AccountId(account.id), display_name=role,
        official_id=OfficialId(official_id) if official_id else None,
        roles=(RoleAt(role, OrgUnitId(unit.id), unit.path),),
    )  # fmt: skip


def _unit(code: str, level: OrgLevel, parent: OrgUnit | None, zh: str, en: str) -> OrgUnit:
    return OrgUnit(
        id=new_id(), code=code, level=level, parent_id=parent.id if parent else None,
        path=f"{parent.path if parent else '/'}{code}/", name_zh=zh, name_bo=None, name_en=en,
        distance_km=None,
    )  # fmt: skip
