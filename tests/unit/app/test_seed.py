"""At whatever hour somebody tries the demo, its first day has room for two visits."""

from datetime import date, datetime, time, timedelta

from app.seed import first_hours
from core.clock import LOCAL_ZONE

TODAY = date(2026, 11, 22)
SLOT = timedelta(minutes=15)


def test_at_every_minute_of_a_day_two_whole_slots_are_still_to_come() -> None:
    for minute in range(24 * 60):
        now = datetime.combine(TODAY, time(minute // 60, minute % 60), LOCAL_ZONE)
        day, starts, ends = first_hours(now)
        begins = datetime.combine(day, starts, LOCAL_ZONE)
        assert begins > now
        # A slot may not begin after what the day has left for it.
        assert begins + 2 * SLOT <= datetime.combine(day, ends, LOCAL_ZONE), now
        assert day == TODAY or now.time() >= time(23, 15)
