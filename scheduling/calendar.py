"""Days and hours, as plain values: slots cut from a day's hours, clashes, holidays, levels.

Pure: no database, no clock. What a date is called comes from a table of notes; `seed_table` fills
one from the `holidays` package, which knows the State Council's published years and estimates the
rest. The table says which is which, because a guess must not look like an announcement.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import holidays

from core.clock import LOCAL_ZONE
from core.errors import Refused
from core.schemas import OrgLevel
from scheduling.schemas import DayNote

DayTable = Mapping[date, DayNote]
"""Why a date is unusual; dates that are missing follow the week."""

_WEEKEND = {5: "星期六", 6: "星期日"}
# One step up is one number less. Departments stand beside a level, not on the ladder.
_RANK = {OrgLevel.PROVINCE: 0, OrgLevel.PREFECTURE: 1, OrgLevel.COUNTY: 2, OrgLevel.TOWNSHIP: 3}


class HoursRefused(Refused):
    code = "bad_hours"


@dataclass(frozen=True, slots=True)
class SlotTime:
    """One talk's time in one room; instants in UTC."""

    room_no: int
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Hours:
    """Local hours of one day, from `starts` up to but not including `ends`."""

    day: date
    starts: time
    ends: time

    @property
    def starts_at(self) -> datetime:
        return datetime.combine(self.day, self.starts, LOCAL_ZONE).astimezone(UTC)

    @property
    def ends_at(self) -> datetime:
        return datetime.combine(self.day, self.ends, LOCAL_ZONE).astimezone(UTC)

    def overlaps(self, other: "Hours") -> bool:
        """Whether some moment lies in both. Days that only touch do not overlap."""
        return self.starts_at < other.ends_at and other.starts_at < self.ends_at


def cut_slots(hours: Hours, *, slot_minutes: int, rooms: int) -> tuple[SlotTime, ...]:
    """Every whole slot that fits into `hours`, in each room, by time and then room.

    A rest shorter than a slot stays free. Raises `HoursRefused` if the hours end before they start
    or no slot fits.
    """
    if hours.starts.tzinfo or hours.ends.tzinfo:
        raise HoursRefused("Hours are local times; leave the zone out.")
    length = timedelta(minutes=slot_minutes)
    count = (hours.ends_at - hours.starts_at) // length
    if count < 1:
        raise HoursRefused("No slot fits into these hours. Choose a later end or a shorter slot.")
    return tuple(
        SlotTime(room_no, hours.starts_at + n * length, hours.starts_at + (n + 1) * length)
        for n in range(count)
        for room_no in range(1, rooms + 1)
    )


def day_note(day: date, table: DayTable) -> DayNote | None:
    """Why `day` is unusual, or None for an ordinary working day."""
    if (note := table.get(day)) is not None:
        return note
    if (name := _WEEKEND.get(day.weekday())) is not None:
        return DayNote(kind="weekend", name=name, announced=True)
    return None


def is_working(day: date, table: DayTable) -> bool:
    """Whether offices are open on `day`: a working weekday, or a weekend worked instead (调休)."""
    note = day_note(day, table)
    return note is None or note.kind == "adjusted_workday"


def seed_table(years: Iterable[int]) -> dict[date, DayNote]:
    """Holidays and 调休 working days of `years`, from the `holidays` package.

    Years that the State Council has not announced yet are estimates and say so. Use it to fill an
    editable table, not as the last word.
    """
    table: dict[date, DayNote] = {}
    for year in years:
        known = holidays.country_holidays("CN", years=year, language="zh_CN")
        announced = year in known.special_public_holidays
        for day, name in known.items():
            table[day] = DayNote(kind="holiday", name=name, announced=announced)
        for day in known.weekend_workdays:
            if day.year == year:
                table[day] = DayNote(kind="adjusted_workday", name="调休上班", announced=announced)
    return table


def level_distance(competent: OrgLevel, session_level: OrgLevel) -> int:
    """How many levels above the competent one a session is held; negative if below.

    《信访工作条例》 art. 20: people turn to the competent level or the one above, so 0 and 1 are as
    they should be. Shown to people, never used to refuse. Raises ValueError for a department: ask
    with the level it belongs to.
    """
    if competent not in _RANK or session_level not in _RANK:
        raise ValueError("a department has no rank of its own; use the level it belongs to")
    return _RANK[competent] - _RANK[session_level]
