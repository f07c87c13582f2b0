"""Days, holds, confirmations and what follows, on a SQLite file and on PostgreSQL."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core import audit
from core.audit import AuditLine
from core.clock import local_date
from core.db import Database
from core.events import Event, EventKind
from core.identity import KioskDevice, Staff
from core.ids import KioskId
from scheduling import booking, days
from scheduling.model import Appointment, Hold, ReceptionDay, Slot
from scheduling.party import TooManyRepresentatives
from scheduling.schemas import AppointmentState, ReceptionDayState, SlotState
from scheduling.views import appointment_view
from tests.support.prefecture import (
    Prefecture,
    appointment_form,
    book,
    build_prefecture,
    day_form,
    publish_tomorrow,
)

NOW = datetime(2026, 5, 25, 1, 0, tzinfo=UTC)
TOMORROW = local_date(NOW) + timedelta(days=1)
TTL = timedelta(minutes=5)


@pytest.fixture
async def at(database: Database) -> Prefecture:
    return await database.run(build_prefecture)


async def hold(
    database: Database, by: Staff | KioskDevice, slot_id: str, *, now: datetime = NOW
) -> str:
    async def work(tx: AsyncSession) -> str:
        return (await booking.hold_slot(tx, slot_id, holder=by, now=now, ttl=TTL)).token

    return await database.run(work)


async def confirm(
    database: Database, at: Prefecture, token: str, *, now: datetime = NOW, **changes: object
) -> Appointment:
    async def work(tx: AsyncSession) -> Appointment:
        return await booking.confirm(
            tx, appointment_form(at, token, **changes), county=at.county, actor=at.desk.actor,
            max_representatives=5, now=now,
        )  # fmt: skip

    return await database.run(work)


async def create(
    database: Database, at: Prefecture, day: date = TOMORROW, **changes: object
) -> ReceptionDay:
    async def work(tx: AsyncSession) -> ReceptionDay:
        form = day_form(at, day, **changes)
        return await days.create_day(tx, form, actor=at.scheduler.actor, now=NOW)

    return await database.run(work)


async def states(database: Database, *, now: datetime = NOW) -> list[SlotState]:
    async with database.reading() as tx:
        return [one.state for one in await days.slot_views(tx, days.slots_with_claims(), now=now)]


async def count(database: Database, table: type) -> int:
    async with database.reading() as tx:
        return await tx.scalar(select(func.count()).select_from(table)) or 0


# ── days ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_published_day_stands_on_the_board_with_its_free_slots(database, at):
    await publish_tomorrow(database, at, now=NOW)
    async with database.reading() as tx:
        found = await days.list_days(tx, first=TOMORROW, last=TOMORROW)
        board = (await days.public_days(tx, found, now=NOW))[0]
    assert (board.slots_total, board.slots_free) == (4, 4)
    assert board.next_free_at == datetime(2026, 5, 26, 1, 0, tzinfo=UTC)
    assert [unit.code for unit in board.counties] == ["513328"]


async def test_an_official_cannot_be_in_two_places(database, at):
    await create(database, at)
    with pytest.raises(days.OfficialClash) as clash:
        await create(database, at, starts=time(9, 30), ends=time(11))
    assert clash.value.details["starts"] == "09:00"
    await create(database, at, starts=time(10), ends=time(11))


async def test_of_two_clerks_who_plan_the_same_morning_one_is_refused(database, at):
    answers = await asyncio.gather(
        *[create(database, at) for _ in range(4)], return_exceptions=True
    )
    assert sum(isinstance(one, ReceptionDay) for one in answers) == 1
    assert sum(isinstance(one, days.OfficialClash) for one in answers) == 3
    assert await count(database, Slot) == 4


async def test_a_cancelled_day_makes_room_for_another(database, at):
    day = await create(database, at)
    await cancel_day(database, at, day.id)
    await create(database, at)


async def cancel_day(database: Database, at: Prefecture, day_id: str) -> None:
    async def work(tx: AsyncSession) -> None:
        day = await days.get_day(tx, day_id, lock=True)
        await days.cancel_day(tx, day, "会议", actor=at.scheduler.actor, now=NOW)

    await database.run(work)


async def test_a_past_day_is_refused(database, at):
    with pytest.raises(days.PastDay):
        await create(database, at, day=local_date(NOW) - timedelta(days=1))


async def test_only_counties_are_admitted(database, at):
    with pytest.raises(days.NotACounty):
        await create(database, at, county_ids=[at.county.parent_id])


async def test_cancelling_a_day_cancels_its_appointments_and_leaves_no_claim(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    made = await book(database, at, slots[0].id, now=NOW)
    await hold(database, at.kiosk, slots[1].id)
    await cancel_day(database, at, slots[0].reception_day_id)
    async with database.reading() as tx:
        view = await appointment_view(tx, made.id, now=NOW)
    assert (view.state, view.cancel_reason) == (AppointmentState.CANCELLED, "会议")
    assert await count(database, Hold) == 0
    with pytest.raises(days.DayCancelled):
        await hold(database, at.desk, slots[2].id)


async def test_a_day_is_not_cancelled_over_a_talk(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    made = await book(database, at, slots[0].id, now=NOW)
    await database.run(lambda tx: booking.mark_called(tx, made.id, "s" * 32, now=NOW))
    with pytest.raises(days.TalkInProgress):
        await cancel_day(database, at, slots[0].reception_day_id)


# ── holds ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_held_slot_is_held_and_the_second_who_wants_it_is_told_of_others(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    await hold(database, at.kiosk, slots[1].id)
    assert await states(database) == ["free", "held", "free", "free"]
    with pytest.raises(booking.SlotTaken):
        await hold(database, at.desk, slots[1].id)
    async with database.reading() as tx:
        free = await days.next_free(tx, slots[1].id, now=NOW)
    assert [one.id for one in free] == [slots[0].id, slots[2].id, slots[3].id]


async def test_an_expired_hold_is_taken_over_and_its_first_holder_comes_too_late(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    first = await hold(database, at.kiosk, slots[0].id)
    later = NOW + TTL
    second = await hold(database, at.desk, slots[0].id, now=later)
    with pytest.raises(booking.HoldExpired):
        await confirm(database, at, first, now=later)
    made = await confirm(database, at, second, now=later)
    assert made.slot_id == slots[0].id


async def test_an_expired_hold_is_not_confirmed_even_if_nobody_wanted_the_slot(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    token = await hold(database, at.desk, slots[0].id)
    with pytest.raises(booking.HoldExpired):
        await confirm(database, at, token, now=NOW + TTL)
    assert await count(database, Appointment) == 0


async def test_a_kiosk_that_chooses_again_gives_the_first_time_back(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    await hold(database, at.kiosk, slots[0].id)
    await hold(database, at.kiosk, slots[1].id)
    assert await states(database) == ["free", "held", "free", "free"]


async def test_a_kiosk_that_chooses_a_taken_time_keeps_the_one_it_has(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    await book(database, at, slots[1].id, now=NOW)
    token = await hold(database, at.kiosk, slots[0].id)
    with pytest.raises(booking.SlotTaken):
        await hold(database, at.kiosk, slots[1].id)
    assert (await confirm(database, at, token)).slot_id == slots[0].id


async def test_a_desk_holds_six_times_and_not_a_seventh(database, at):
    slots = await publish_tomorrow(database, at, now=NOW, ends=time(12))
    for slot in slots[: booking.HOLDS_PER_DESK]:
        await hold(database, at.desk, slot.id)
    with pytest.raises(booking.HoldLimit):
        await hold(database, at.desk, slots[booking.HOLDS_PER_DESK].id)
    assert (await states(database)).count(SlotState.HELD) == booking.HOLDS_PER_DESK
    # Expired ones no longer count.
    await hold(database, at.desk, slots[7].id, now=NOW + TTL)


async def test_two_requests_of_one_desk_cannot_slip_past_its_limit_together(database, at):
    slots = await publish_tomorrow(database, at, now=NOW, ends=time(12))
    answers = await asyncio.gather(
        *[hold(database, at.desk, slot.id) for slot in slots], return_exceptions=True
    )
    assert sum(isinstance(one, str) for one in answers) == booking.HOLDS_PER_DESK
    assert (await states(database)).count(SlotState.HELD) == booking.HOLDS_PER_DESK


async def test_a_released_hold_frees_the_slot_but_only_for_its_holder(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    token = await hold(database, at.desk, slots[0].id)
    await database.run(lambda tx: booking.release_hold(tx, token, actor=at.kiosk.actor))
    assert (await states(database))[0] is SlotState.HELD
    await database.run(lambda tx: booking.release_hold(tx, token, actor=at.desk.actor))
    assert (await states(database))[0] is SlotState.FREE


async def test_a_slot_that_begins_while_it_is_held_is_still_its_holders(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    before = slots[0].starts_at - timedelta(seconds=10)
    token = await hold(database, at.desk, slots[0].id, now=before)
    made = await confirm(database, at, token, now=before + timedelta(seconds=60))
    assert made.slot_id == slots[0].id


async def test_a_slot_that_has_begun_and_a_draft_are_not_bookable(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    with pytest.raises(booking.PastSlot):
        await hold(database, at.desk, slots[0].id, now=slots[0].starts_at)
    with pytest.raises(days.PastDay):
        await hold(database, at.desk, slots[0].id, now=NOW + timedelta(days=2))
    draft = await create(database, at, starts=time(14), ends=time(15), publish=False)
    async with database.reading() as tx:
        slot_id = await tx.scalar(select(Slot.id).where(Slot.reception_day_id == draft.id))
    with pytest.raises(booking.DayNotPublished):
        await hold(database, at.desk, slot_id)


# ── appointments ─────────────────────────────────────────────────────────────────────────────────


async def test_a_confirmation_leaves_an_appointment_an_event_and_an_audit_line(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    made = await book(
        database, at, slots[0].id, now=NOW,
        party=[{"name": "扎西", "relation": "petitioner", "id_number": "11010519491231002x",
                "phone": "13812345678"}],
    )  # fmt: skip
    async with database.reading() as tx:
        event = (await tx.scalars(select(Event))).one()
        lines = list(await tx.scalars(select(AuditLine).order_by(AuditLine.position)))
        view = await appointment_view(tx, made.id, now=NOW)
        assert await audit.verify(tx) is None
    assert (event.kind, event.subject_id) == (EventKind.APPOINTMENT_BOOKED, made.id)
    assert [one.action for one in lines] == ["reception_day_published", "appointment_confirmed"]
    assert "扎西" not in str([one.details for one in lines])
    assert view.party[0].id_number_masked == "**************002X"
    assert view.slot.state is SlotState.TAKEN


async def test_numbers_count_up_per_county_and_day(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    numbers = [(await book(database, at, slot.id, now=NOW)).number for slot in slots]
    assert [number[:15] for number in numbers] == [f"3328-260526-00{n}" for n in (1, 2, 3, 4)]


async def test_the_same_form_sent_again_gives_the_same_appointment(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    token = await hold(database, at.desk, slots[0].id)
    first = await confirm(database, at, token)
    again = await confirm(database, at, token, now=NOW + TTL * 2)
    assert again.id == first.id
    assert await count(database, Appointment) == await count(database, Event) == 1


async def test_a_double_click_makes_one_appointment(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    token = await hold(database, at.desk, slots[0].id)
    made = await asyncio.gather(*[confirm(database, at, token) for _ in range(5)])
    assert len({one.id for one in made}) == 1
    assert await count(database, Event) == 1


async def test_nothing_is_left_of_a_refused_party_and_the_hold_stays_good(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    token = await hold(database, at.desk, slots[0].id)
    six = [{"name": f"代表{n}", "relation": "representative"} for n in range(6)]
    with pytest.raises(TooManyRepresentatives):
        await confirm(database, at, token, party=six, people_total=6)
    assert await count(database, Appointment) == await count(database, Event) == 0
    assert (await confirm(database, at, token, party=six[:5], people_total=6)).people_total == 6


async def test_a_county_that_is_not_admitted_and_a_strange_kiosk_are_refused(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    token = await hold(database, at.desk, slots[0].id)
    with pytest.raises(booking.UnknownKiosk):
        await confirm(database, at, token, kiosk_id="0" * 32)

    async def elsewhere(tx: AsyncSession) -> None:
        await booking.confirm(
            tx, appointment_form(at, token), county=at.other_county, actor=at.desk.actor,
            max_representatives=5, now=NOW,
        )  # fmt: skip

    with pytest.raises(booking.CountyNotAdmitted):
        await database.run(elsewhere)


async def test_an_invented_token_confirms_nothing(database, at):
    with pytest.raises(booking.HoldExpired):
        await confirm(database, at, "no-such-token")


async def change(database: Database, appointment_id: str, name: str, *args: object, **fields):
    async def work(tx: AsyncSession) -> None:
        found = await booking.appointment_for_change(tx, appointment_id)
        await getattr(booking, name)(tx, found, *args, **fields)

    await database.run(work)


@pytest.mark.parametrize(
    ("way_out", "state"), [("cancel", "cancelled"), ("redirect", "redirected")]
)
async def test_whoever_steps_back_frees_the_slot_for_the_next(database, at, way_out, state):
    slots = await publish_tomorrow(database, at, now=NOW)
    made = await book(database, at, slots[0].id, now=NOW)
    for _ in range(2):  # twice changes nothing
        await change(database, made.id, way_out, "下次再来", actor=at.desk.actor, now=NOW)
    async with database.reading() as tx:
        view = await appointment_view(tx, made.id, now=NOW)
    assert (view.state, view.cancel_reason, view.slot.state) == (state, "下次再来", "free")
    other = await book(database, at, slots[0].id, now=NOW, by=at.kiosk)
    assert other.slot_id == made.slot_id and other.number != made.number


async def test_a_no_show_is_written_down_only_after_its_time_and_keeps_its_slot(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    made = await book(database, at, slots[0].id, now=NOW)
    starts = slots[0].starts_at
    with pytest.raises(booking.TooEarly):
        await change(
            database, made.id, "mark_no_show", starts_at=starts, actor=at.desk.actor, now=NOW
        )
    await change(
        database, made.id, "mark_no_show", starts_at=starts, actor=at.desk.actor, now=starts
    )
    assert await count(database, Hold) == 1
    with pytest.raises(booking.AppointmentOver):
        await change(database, made.id, "cancel", "x", actor=at.desk.actor, now=starts)


async def test_called_and_held_follow_the_session_and_may_be_told_twice(database, at):
    slots = await publish_tomorrow(database, at, now=NOW)
    made = await book(database, at, slots[0].id, now=NOW)
    later = NOW + TTL
    for _ in range(2):
        await database.run(lambda tx: booking.mark_called(tx, made.id, "s" * 32, now=NOW))
    await database.run(lambda tx: booking.mark_called(tx, made.id, "t" * 32, now=later))
    for moment in (later, later + TTL):
        await database.run(lambda tx, at=moment: booking.mark_held(tx, made.id, now=at))
    async with database.reading() as tx:
        found = await tx.get_one(Appointment, made.id)
    assert (found.state, found.session_id) == ("held", "s" * 32)
    assert (found.called_at, found.ended_at) == (NOW, later)


async def test_later_days_of_the_same_official_are_offered_when_a_day_is_full(database, at):
    slots = await publish_tomorrow(database, at, now=NOW, ends=time(9, 30))
    second = await publish_tomorrow(database, at, now=NOW, starts=time(14), ends=time(14, 15))
    for slot in slots:
        await book(database, at, slot.id, now=NOW)
    async with database.reading() as tx:
        free = await days.next_free(tx, slots[0].id, now=NOW)
        listed = await days.list_days(
            tx, first=TOMORROW, last=TOMORROW, states=[ReceptionDayState.PUBLISHED]
        )
        view = (await days.day_views(tx, listed, now=NOW))[0]
    assert [one.id for one in free] == [second[0].id]
    assert (view.slots_total, view.slots_free) == (2, 0)


async def test_days_are_listed_by_where_they_lie_in_the_tree(database, at):
    await publish_tomorrow(database, at, now=NOW)
    async with database.reading() as tx:
        for path, seen in [
            (at.county.path, 1), (at.other_county.path, 0), ("/510000/513300/", 1),
        ]:  # fmt: skip
            found = await days.list_days(tx, first=TOMORROW, last=TOMORROW, within=[path])
            assert len(found) == seen


async def test_the_database_itself_refuses_a_second_appointment_in_a_slot(database, at):
    """Should a claim ever be lost, the index on appointments still stands."""
    slots = await publish_tomorrow(database, at, now=NOW)
    await book(database, at, slots[0].id, now=NOW)

    async def lose_claim(tx: AsyncSession) -> None:
        await tx.delete(await tx.get_one(Hold, slots[0].id))

    await database.run(lose_claim)
    token = await hold(database, at.desk, slots[0].id)
    with pytest.raises(booking.SlotTaken):
        await confirm(database, at, token)
    assert await count(database, Appointment) == 1


async def test_a_kiosk_of_another_id_cannot_be_named(database, at):
    stranger = KioskDevice(KioskId("f" * 32), "x", at.kiosk.county_id, at.kiosk.county_path)
    slots = await publish_tomorrow(database, at, now=NOW)
    token = await hold(database, stranger, slots[0].id)
    with pytest.raises(booking.UnknownKiosk):
        await confirm(database, at, token, kiosk_id=stranger.kiosk_id)
