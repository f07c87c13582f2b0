"""Time is an argument. Two clocks, never mixed: the wall is a label, the monotonic one measures.

`now()` goes on papers, deadlines and logs and may jump when an operator sets the clock;
`monotonic_ns()` drives every timeout, interval and recording timeline and never goes back. Domain
rules take plain values; only edges hold a `Clock`.
"""

import time
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

LOCAL_ZONE = ZoneInfo("Asia/Shanghai")
"""The zone of every date that a person reads or writes here. Instants are stored in UTC."""


class Clock(Protocol):
    """Where the edges take time from."""

    def now(self) -> datetime:
        """The wall clock: an aware instant in UTC."""
        ...

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC in nanoseconds; comparable between processes of one boot."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that moves only when told to: for tests and rehearsals."""

    def __init__(self, now: datetime, monotonic_ns: int = 0) -> None:
        if now.tzinfo is None:
            raise ValueError("ManualClock needs an aware datetime")
        self._now = now.astimezone(UTC)
        self._monotonic_ns = monotonic_ns

    def now(self) -> datetime:
        return self._now

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, by: timedelta) -> None:
        """Both clocks go forward together."""
        self._now += by
        self._monotonic_ns += int(by.total_seconds() * 1_000_000_000)


class ShiftedClock(SystemClock):
    """The machine's clocks with the wall moved by a fixed amount: rehearsals of another day."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return super().now() + self._by


def local_date(instant: datetime) -> date:
    """The calendar day on which `instant` falls for the people who use this system."""
    return instant.astimezone(LOCAL_ZONE).date()
