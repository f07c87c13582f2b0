"""Slots cut from hours, clashes, the office calendar, levels."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.schemas import OrgLevel
from scheduling.calendar import (
    Hours,
    HoursRefused,
    cut_slots,
    day_note,
    is_working,
    level_distance,
    seed_table,
)
from scheduling.schemas import DayNote

DAY = date(2026, 5, 25)
times = st.times(max_value=time(23, 59)).map(lambda one: one.replace(second=0, microsecond=0))


def hours(starts: str, ends: str, day: date = DAY) -> Hours:
    return Hours(day, time.fromisoformat(starts), time.fromisoformat(ends))


def test_an_hour_in_two_rooms_gives_four_quarters_in_each():
    slots = cut_slots(hours("09:00", "10:00"), slot_minutes=15, rooms=2)
    assert [one.room_no for one in slots] == [1, 2] * 4
    assert slots[0].starts_at == datetime(2026, 5, 25, 1, 0, tzinfo=UTC)
    assert slots[-1].ends_at == datetime(2026, 5, 25, 2, 0, tzinfo=UTC)


def test_a_rest_shorter_than_a_slot_stays_free():
    slots = cut_slots(hours("09:00", "09:40"), slot_minutes=15, rooms=1)
    assert [f"{one.starts_at:%H:%M}" for one in slots] == ["01:00", "01:15"]


@pytest.mark.parametrize(("starts", "ends"), [("10:00", "09:00"), ("09:00", "09:10")])
def test_hours_into_which_no_slot_fits_are_refused(starts, ends):
    with pytest.raises(HoursRefused):
        cut_slots(hours(starts, ends), slot_minutes=15, rooms=1)


def test_hours_with_a_zone_are_refused():
    zoned = Hours(DAY, time(9, tzinfo=UTC), time(10, tzinfo=UTC))
    with pytest.raises(HoursRefused):
        cut_slots(zoned, slot_minutes=15, rooms=1)


@given(times, times, st.integers(5, 60), st.integers(1, 8))
def test_slots_fill_the_hours_without_gap_or_overlap(starts, ends, slot_minutes, rooms):
    day = Hours(DAY, starts, ends)
    length = timedelta(minutes=slot_minutes)
    try:
        slots = cut_slots(day, slot_minutes=slot_minutes, rooms=rooms)
    except HoursRefused:
        assert day.ends_at - day.starts_at < length
        return
    for room_no in range(1, rooms + 1):
        room = [one for one in slots if one.room_no == room_no]
        assert room[0].starts_at == day.starts_at
        assert all(one.ends_at - one.starts_at == length for one in room)
        assert all(a.ends_at == b.starts_at for a, b in pairwise(room))
        assert timedelta(0) <= day.ends_at - room[-1].ends_at < length


@given(times, times, times, times)
def test_overlap_is_symmetric_and_means_a_common_moment(a, b, c, d):
    one, two = Hours(DAY, min(a, b), max(a, b)), Hours(DAY, min(c, d), max(c, d))
    assert one.overlaps(two) == two.overlaps(one)
    common = min(one.ends_at, two.ends_at) - max(one.starts_at, two.starts_at)
    if one.starts < one.ends and two.starts < two.ends:
        assert one.overlaps(two) == (common > timedelta(0))


def test_days_that_only_touch_do_not_clash():
    assert not hours("09:00", "10:00").overlaps(hours("10:00", "11:00"))
    assert hours("09:00", "10:01").overlaps(hours("10:00", "11:00"))
    assert not hours("09:00", "10:00").overlaps(hours("09:00", "10:00", date(2026, 5, 26)))


def test_a_table_entry_comes_before_the_week():
    sunday = date(2026, 5, 24)
    table = {sunday: DayNote(kind="adjusted_workday", name="调休上班", announced=True)}
    assert is_working(sunday, table)
    assert not is_working(sunday, {})
    note = day_note(sunday, {})
    assert note is not None and note.kind == "weekend"
    assert day_note(DAY, {}) is None


def test_the_seed_knows_the_announced_year_and_guesses_the_next_openly():
    table = seed_table([2026, 2031])
    spring = table[date(2026, 2, 17)]
    assert (spring.kind, spring.announced) == ("holiday", True)
    assert not is_working(date(2026, 2, 17), table)
    # 2026-02-14 is a Saturday that was worked for the long Spring Festival.
    assert table[date(2026, 2, 14)].kind == "adjusted_workday"
    assert is_working(date(2026, 2, 14), table)
    assert table[date(2031, 10, 1)].announced is False


def test_the_level_above_the_competent_one_is_at_distance_one():
    assert level_distance(OrgLevel.COUNTY, OrgLevel.PREFECTURE) == 1
    assert level_distance(OrgLevel.COUNTY, OrgLevel.COUNTY) == 0
    assert level_distance(OrgLevel.TOWNSHIP, OrgLevel.PROVINCE) == 3
    assert level_distance(OrgLevel.PREFECTURE, OrgLevel.COUNTY) == -1


def test_a_department_has_no_rank_of_its_own():
    with pytest.raises(ValueError, match="department"):
        level_distance(OrgLevel.DEPARTMENT, OrgLevel.COUNTY)
