"""Reception days: made with their slots, published, cancelled; and how they are shown.

An official cannot be in two places: making a day locks the official's row, looks for a clash and
inserts, so two clerks who plan the same morning cannot both succeed. (SQLite has one writer; on
PostgreSQL the row lock queues the two.)
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache

from sqlalchemy import Select, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from core import audit
from core.clock import local_date
from core.errors import Conflict, NotFound, Refused
from core.identity import Official, OrgUnit, org_units
from core.ids import ReceptionDayId, SlotId, new_id
from core.schemas import OrgLevel
from scheduling.calendar import DayTable, Hours, cut_slots, day_note, seed_table
from scheduling.model import (
    Appointment,
    Hold,
    ReceptionDay,
    ReceptionDayCounty,
    Slot,
)
from scheduling.schemas import (
    AppointmentState,
    OfficialView,
    PublicDay,
    ReceptionDayCreate,
    ReceptionDayState,
    ReceptionDayView,
    SlotState,
    SlotView,
)


class PastDay(Refused):
    code = "past_day"


class OfficialClash(Conflict):
    code = "official_clash"


class DayCancelled(Conflict):
    code = "day_cancelled"


class TalkInProgress(Conflict):
    code = "talk_in_progress"


class NotACounty(Refused):
    code = "not_a_county"


async def create_day(
    tx: AsyncSession, form: ReceptionDayCreate, *, actor: str, now: datetime
) -> ReceptionDay:
    """Make a day and cut its slots; publish it if the form says so.

    Raises `PastDay`, `HoursRefused`, `OfficialClash`, `NotACounty`, `NotFound`.
    """
    hours = Hours(form.day, form.starts, form.ends)
    times = cut_slots(hours, slot_minutes=form.slot_minutes, rooms=form.rooms)
    if hours.ends_at <= now:
        raise PastDay("This day has already passed. Please choose a later one.")
    await _check_counties(tx, form.county_ids)
    await _lock_official(tx, form.official_id)
    await _refuse_clash(tx, form.official_id, hours)
    day = ReceptionDay(
        id=ReceptionDayId(new_id()), official_id=form.official_id, day=form.day,
        starts=form.starts, ends=form.ends, slot_minutes=form.slot_minutes, rooms=form.rooms,
        place=form.place, topics=list(form.topics), state=ReceptionDayState.DRAFT,
        created_by=actor, created_at=now, published_at=None, cancel_reason=None,
    )  # fmt: skip
    tx.add(day)
    await tx.flush()
    tx.add_all(
        ReceptionDayCounty(reception_day_id=day.id, county_id=county_id)
        for county_id in dict.fromkeys(form.county_ids)
    )
    tx.add_all(
        Slot(
            id=SlotId(new_id()), reception_day_id=day.id, room_no=one.room_no,
            starts_at=one.starts_at, ends_at=one.ends_at,
        )
        for one in times
    )  # fmt: skip
    await tx.flush()
    if form.publish:
        await publish_day(tx, day, actor=actor, now=now)
    return day


async def publish_day(tx: AsyncSession, day: ReceptionDay, *, actor: str, now: datetime) -> None:
    """Put a draft on the notice board. Publishing twice changes nothing."""
    if day.state == ReceptionDayState.PUBLISHED:
        return
    if day.state == ReceptionDayState.CANCELLED:
        raise DayCancelled("This day has been cancelled. Please plan a new one.")
    if Hours(day.day, day.starts, day.ends).ends_at <= now:
        raise PastDay("This day has already passed and cannot be published.")
    day.state = ReceptionDayState.PUBLISHED
    day.published_at = now
    await audit.record(
        tx, now=now, actor=actor, action="reception_day_published",
        object_kind="reception_day", object_id=day.id,
    )  # fmt: skip


async def cancel_day(
    tx: AsyncSession, day: ReceptionDay, reason: str, *, actor: str, now: datetime
) -> None:
    """Take a day back, with every appointment that has not been called. Twice changes nothing.

    Raises `TalkInProgress` while a party is being received: end that talk first.
    """
    if day.state == ReceptionDayState.CANCELLED:
        return
    open_ones = list(
        await tx.scalars(
            select(Appointment)
            .where(
                Appointment.reception_day_id == day.id,
                Appointment.state.in_(
                    [
                        AppointmentState.CONFIRMED,
                        AppointmentState.CHECKED_IN,
                        AppointmentState.CALLED,
                    ]
                ),
            )
            .with_for_update()
        )
    )
    if any(one.state == AppointmentState.CALLED for one in open_ones):
        raise TalkInProgress("A party is being received now. End that talk, then cancel the day.")
    day.state = ReceptionDayState.CANCELLED
    day.cancel_reason = reason
    for one in open_ones:
        one.state = AppointmentState.CANCELLED
        one.cancel_reason = reason
        one.ended_at = now
    await tx.execute(
        delete(Hold).where(Hold.slot_id.in_(select(Slot.id).where(Slot.reception_day_id == day.id)))
    )
    await audit.record(
        tx, now=now, actor=actor, action="reception_day_cancelled",
        object_kind="reception_day", object_id=day.id, appointments=len(open_ones),
    )  # fmt: skip


async def get_day(tx: AsyncSession, day_id: str, *, lock: bool = False) -> ReceptionDay:
    """The day with its official and counties, or `NotFound`."""
    query = _with_details(select(ReceptionDay).where(ReceptionDay.id == day_id))
    if lock:
        query = query.with_for_update(of=ReceptionDay)
    day = await tx.scalar(query.execution_options(populate_existing=True))
    if day is None:
        raise NotFound("There is no such reception day. It may have been removed; reload the list.")
    return day


async def list_days(
    tx: AsyncSession,
    *,
    first: date,
    last: date,
    official_id: str | None = None,
    county_id: str | None = None,
    states: Sequence[ReceptionDayState] = tuple(ReceptionDayState),
    within: Sequence[str] | None = None,
) -> list[ReceptionDay]:
    """Days from `first` to `last`, both included, in order.

    `within` keeps days that admit a county, or are held by an official, below one of these paths of
    the org tree.
    """
    query = _with_details(select(ReceptionDay)).where(
        ReceptionDay.day >= first, ReceptionDay.day <= last, ReceptionDay.state.in_(states)
    )
    if official_id is not None:
        query = query.where(ReceptionDay.official_id == official_id)
    if county_id is not None:
        query = query.where(ReceptionDay.admitted.any(ReceptionDayCounty.county_id == county_id))
    if within is not None:
        below = or_(*[OrgUnit.path.startswith(path, autoescape=True) for path in within])
        query = query.where(
            or_(
                ReceptionDay.admitted.any(ReceptionDayCounty.county.has(below)),
                ReceptionDay.official.has(Official.org_unit.has(below)),
            )
        )
    rows = await tx.scalars(query.order_by(ReceptionDay.day, ReceptionDay.starts, ReceptionDay.id))
    return list(rows)


async def day_views(
    tx: AsyncSession, days: Sequence[ReceptionDay], *, now: datetime
) -> list[ReceptionDayView]:
    """How staff and kiosks see these days, loaded as `list_days` loads them."""
    slots = await _slots_by_day(tx, days, now=now)
    return [
        ReceptionDayView(
            id=day.id, official=official_view(day.official), day=day.day, starts=day.starts,
            ends=day.ends, slot_minutes=day.slot_minutes, rooms=day.rooms, place=day.place,
            topics=tuple(day.topics), counties=tuple(unit.view() for unit in counties_of(day)),
            state=ReceptionDayState(day.state), cancel_reason=day.cancel_reason,
            published_at=day.published_at, slots_total=len(slots[day.id]),
            slots_free=_free(slots[day.id]), slots_taken=_taken(slots[day.id]),
            note=day_note(day.day, known_days(day.day.year)),
        )
        for day in days
    ]  # fmt: skip


async def public_days(
    tx: AsyncSession, days: Sequence[ReceptionDay], *, now: datetime
) -> list[PublicDay]:
    """How the notice board shows these days."""
    slots = await _slots_by_day(tx, days, now=now)
    return [
        PublicDay(
            id=day.id, official_title_zh=day.official.title_zh,
            official_title_bo=day.official.title_bo, official_title_en=day.official.title_en,
            day=day.day, starts=day.starts, ends=day.ends, place=day.place,
            topics=tuple(day.topics), counties=tuple(unit.view() for unit in counties_of(day)),
            slots_total=len(slots[day.id]), slots_free=_free(slots[day.id]),
            next_free_at=min(
                (one.starts_at for one in slots[day.id] if one.state is SlotState.FREE),
                default=None,
            ),
        )
        for day in days
    ]  # fmt: skip


async def slot_views(
    tx: AsyncSession, query: Select[Slot, Hold], *, now: datetime
) -> list[SlotView]:
    """The slots that `query` (made from `slots_with_claims`) finds, with their state at `now`."""
    rows = await tx.execute(query)
    return [slot_view(slot, hold, now=now) for slot, hold in rows]


def slots_with_claims() -> Select[Slot, Hold]:
    """Slots, each with the claim on it or None, by time and room."""
    return (
        select(Slot, Hold)
        .outerjoin(Hold, Hold.slot_id == Slot.id)
        .order_by(Slot.starts_at, Slot.room_no)
    )


def slot_view(slot: Slot, hold: Hold | None, *, now: datetime) -> SlotView:
    return SlotView(
        id=slot.id, reception_day_id=slot.reception_day_id, room_no=slot.room_no,
        starts_at=slot.starts_at, ends_at=slot.ends_at, state=slot_state(slot, hold, now=now),
    )  # fmt: skip


def slot_state(slot: Slot, hold: Hold | None, *, now: datetime) -> SlotState:
    if hold is not None and hold.confirmed_at is not None:
        return SlotState.TAKEN
    if slot.starts_at <= now:
        return SlotState.PAST
    if hold is None:
        return SlotState.FREE
    return SlotState.HELD if hold.expires_at > now else SlotState.FREE


async def next_free(
    tx: AsyncSession, wanted_slot_id: str, *, now: datetime, limit: int = 4
) -> list[SlotView]:
    """Free slots to offer instead of the wanted one: nearest first, then later days.

    Only days of the same official that admit a county which the wanted day admits.
    """
    wanted = await tx.get(Slot, wanted_slot_id)
    if wanted is None:
        return []
    day = await tx.get_one(ReceptionDay, wanted.reception_day_id)
    counties = select(ReceptionDayCounty.county_id).where(
        ReceptionDayCounty.reception_day_id == day.id
    )
    found = await slot_views(
        tx,
        slots_with_claims()
        .join(ReceptionDay, ReceptionDay.id == Slot.reception_day_id)
        .where(
            ReceptionDay.official_id == day.official_id,
            ReceptionDay.state == ReceptionDayState.PUBLISHED,
            ReceptionDay.day >= max(day.day, local_date(now)),
            ReceptionDay.admitted.any(ReceptionDayCounty.county_id.in_(counties)),
            Slot.starts_at > now,
            or_(Hold.slot_id.is_(None), (Hold.confirmed_at.is_(None)) & (Hold.expires_at <= now)),
        )
        .limit(200),
        now=now,
    )
    found.sort(key=lambda one: (one.reception_day_id != day.id, _apart(one, wanted), one.room_no))
    return found[:limit]


async def list_officials(tx: AsyncSession) -> list[OfficialView]:
    """Every office that receives people, in protocol order."""
    rows = await tx.scalars(
        select(Official)
        .options(joinedload(Official.org_unit))
        .order_by(Official.position, Official.title_zh)
    )
    return [official_view(one) for one in rows]


async def get_official(tx: AsyncSession, official_id: str | None) -> Official:
    """The office of an account's official, or `NotFound` for accounts that have none."""
    official = await tx.scalar(
        select(Official)
        .options(joinedload(Official.org_unit, innerjoin=True))
        .where(Official.id == official_id)
    )
    if official is None:
        raise NotFound("This account does not belong to an office that receives people.")
    return official


def official_view(official: Official) -> OfficialView:
    return OfficialView(
        id=official.id, org_unit=official.org_unit.view(), title_zh=official.title_zh,
        title_bo=official.title_bo, title_en=official.title_en,
    )  # fmt: skip


def counties_of(day: ReceptionDay) -> list[OrgUnit]:
    """The counties admitted, in the order of their codes."""
    return sorted((one.county for one in day.admitted), key=lambda unit: unit.code)


@lru_cache(maxsize=16)
def known_days(year: int) -> DayTable:
    """What the packaged calendar knows of a year."""
    return seed_table([year])


async def _check_counties(tx: AsyncSession, county_ids: Iterable[str]) -> None:
    wanted = set(county_ids)
    units: Mapping[str, OrgUnit] = await org_units(tx, wanted)
    if len(units) < len(wanted) or any(u.level != OrgLevel.COUNTY for u in units.values()):
        raise NotACounty("Only counties can be admitted. Choose them from the list.")


async def _lock_official(tx: AsyncSession, official_id: str) -> None:
    row = await tx.scalar(
        select(Official.id).where(Official.id == official_id).with_for_update(key_share=True)
    )
    if row is None:
        raise NotFound("There is no such official. Choose one from the list.")


async def _refuse_clash(tx: AsyncSession, official_id: str, hours: Hours) -> None:
    others = await tx.scalars(
        select(ReceptionDay).where(
            ReceptionDay.official_id == official_id,
            ReceptionDay.day == hours.day,
            ReceptionDay.state != ReceptionDayState.CANCELLED,
        )
    )
    for other in others:
        if hours.overlaps(Hours(other.day, other.starts, other.ends)):
            raise OfficialClash(
                "This official already receives people at that time. "
                "Choose other hours or cancel the other day first.",
                reception_day_id=other.id, day=other.day.isoformat(),
                starts=f"{other.starts:%H:%M}", ends=f"{other.ends:%H:%M}",
            )  # fmt: skip


async def _slots_by_day(
    tx: AsyncSession, days: Sequence[ReceptionDay], *, now: datetime
) -> dict[str, list[SlotView]]:
    found: dict[str, list[SlotView]] = {day.id: [] for day in days}
    query = slots_with_claims().where(Slot.reception_day_id.in_(found))
    for view in await slot_views(tx, query, now=now):
        found[view.reception_day_id].append(view)
    return found


def _with_details(query: Select[ReceptionDay]) -> Select[ReceptionDay]:
    return query.options(
        joinedload(ReceptionDay.official, innerjoin=True).joinedload(
            Official.org_unit, innerjoin=True
        ),
        selectinload(ReceptionDay.admitted).joinedload(ReceptionDayCounty.county, innerjoin=True),
    )


def _taken(slots: Iterable[SlotView]) -> int:
    return sum(slot.state is SlotState.TAKEN for slot in slots)


def _free(slots: Iterable[SlotView]) -> int:
    return sum(one.state is SlotState.FREE for one in slots)


def _apart(one: SlotView, wanted: Slot) -> float:
    return abs((one.starts_at - wanted.starts_at).total_seconds())
