"""An honest place in the queue, from plain values.

A room receives its parties in the order of their slots. The estimate knows only what is known: slot
times, who has checked in, how long the talk in the room has lasted and how long today's talks took.
Where that says nothing, it says nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from scheduling.schemas import AppointmentState

ENDED = frozenset(
    {
        AppointmentState.HELD,
        AppointmentState.NO_SHOW,
        AppointmentState.CANCELLED,
        AppointmentState.REDIRECTED,
    }
)
SOON_MINUTES = 10


@dataclass(frozen=True, slots=True)
class InQueue:
    """One appointment of a room on its day."""

    appointment_id: str
    state: AppointmentState
    starts_at: datetime
    slot_length: timedelta
    called_at: datetime | None
    ended_at: datetime | None


def before_me(me: InQueue, room: Sequence[InQueue]) -> tuple[InQueue, ...]:
    """Parties that will be through before me: in the talk now, or checked in with an earlier slot.

    Someone called out of turn is before me while the talk lasts.
    """
    return tuple(
        other
        for other in sorted(room, key=lambda one: one.starts_at)
        if other.appointment_id != me.appointment_id
        and (
            other.state is AppointmentState.CALLED
            or (other.state is AppointmentState.CHECKED_IN and other.starts_at < me.starts_at)
        )
    )


def estimate_minutes(
    me: InQueue, room: Sequence[InQueue], *, official_present: bool, now: datetime
) -> int | None:
    """Minutes until my talk may begin, or None when nothing honest can be said.

    Nobody is called before the own slot begins. Nothing honest can be said when the talk before
    mine has taken twice its time, or when talks should be under way and the official is not there.
    """
    if me.state is not AppointmentState.CHECKED_IN:
        return None
    ahead = before_me(me, room)
    talking = [one for one in ahead if one.state is AppointmentState.CALLED]
    waiting = [one for one in ahead if one.state is not AppointmentState.CALLED]
    if not talking and not official_present and _first_start(me, waiting) <= now:
        return None
    free_at = now
    for one in talking:
        usual_end = (one.called_at or now) + one.slot_length
        if now > usual_end + one.slot_length:
            return None
        free_at = max(free_at, usual_end)
    length = _usual_length(me.slot_length, room)
    for one in waiting:
        free_at = max(free_at, one.starts_at) + length
    return _rounded_up_minutes(max(free_at, me.starts_at) - now)


def next_step(
    state: AppointmentState,
    *,
    room_open: bool,
    people_before: int,
    estimate: int | None,
    starts_at: datetime,
    official_present: bool,
    now: datetime,
) -> str:
    """What the person should do now: an i18n key under `waiting.`."""
    if state in ENDED:
        return "ended"
    if room_open:
        return "enter_now"
    if people_before == 0 and starts_at <= now and not official_present:
        return "official_late"
    if estimate is not None and estimate <= SOON_MINUTES:
        return "come_soon"
    return "wait_here"


def _first_start(me: InQueue, waiting: Sequence[InQueue]) -> datetime:
    return min((one.starts_at for one in waiting), default=me.starts_at)


def _usual_length(slot_length: timedelta, room: Sequence[InQueue]) -> timedelta:
    """The slot's length, or longer if today's finished talks in this room took longer."""
    lengths_s = [
        (one.ended_at - one.called_at).total_seconds()
        for one in room
        if one.state is AppointmentState.HELD and one.called_at and one.ended_at
    ]
    return max(slot_length, timedelta(seconds=median(lengths_s))) if lengths_s else slot_length


def _rounded_up_minutes(wait: timedelta) -> int:
    """Whole minutes; beyond five, the next five, because the rest would be false precision."""
    minutes = max(0, math.ceil(wait / timedelta(minutes=1)))
    return minutes if minutes <= 5 else math.ceil(minutes / 5) * 5
