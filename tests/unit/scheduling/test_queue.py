"""An honest place in the queue."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduling.queue import InQueue, before_me, estimate_minutes, next_step
from scheduling.schemas import AppointmentState as State

NINE = datetime(2026, 5, 25, 1, 0, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def at(minutes: float) -> datetime:
    """So many minutes after nine."""
    return NINE + timedelta(minutes=minutes)


def party(
    name: str, slot: int, state: State = State.CHECKED_IN, *, called: float | None = None,
    ended: float | None = None,
) -> InQueue:  # fmt: skip
    return InQueue(
        name, state, at(slot * 15), QUARTER,
        None if called is None else at(called), None if ended is None else at(ended),
    )  # fmt: skip


def estimate(me: InQueue, *others: InQueue, now: float, present: bool = False) -> int | None:
    return estimate_minutes(me, [me, *others], official_present=present, now=at(now))


def test_only_those_who_are_here_and_earlier_are_before_me():
    me = party("me", 2)
    room = [
        party("talking", 0, State.CALLED, called=1), party("here", 1), me,
        party("later", 3), party("absent", 1, State.CONFIRMED), party("done", 0, State.HELD),
    ]  # fmt: skip
    assert [one.appointment_id for one in before_me(me, room)] == ["talking", "here"]


def test_someone_called_out_of_turn_is_before_me_while_the_talk_lasts():
    me = party("me", 0)
    assert before_me(me, [me, party("urgent", 3, State.CALLED, called=0)])


def test_with_nobody_before_me_the_wait_lasts_until_my_slot():
    assert estimate(party("me", 2), now=27) == 3
    assert estimate(party("me", 2), now=10) == 20


def test_beyond_five_minutes_the_estimate_is_rounded_up_to_the_next_five():
    assert estimate(party("me", 2), now=18.5) == 15
    assert estimate(party("me", 2), now=25.5) == 5


def test_a_talk_that_runs_over_pushes_everyone_back():
    me = party("me", 2)
    talking = party("a", 0, State.CALLED, called=10)  # usual end at 25
    here = party("b", 1)
    assert estimate(me, talking, here, now=20) == 20  # 25 + 15 = 40


def test_todays_longer_talks_lengthen_the_estimate():
    me = party("me", 3)
    done = party("a", 0, State.HELD, called=0, ended=25)
    assert estimate(me, done, party("b", 1), now=26, present=True) == 25  # 26 + 25 = 51


def test_shorter_talks_promise_nothing():
    me = party("me", 2)
    done = party("a", 0, State.HELD, called=0, ended=5)
    assert estimate(me, done, party("b", 1), now=15, present=True) == 15


def test_nothing_is_said_when_the_talk_has_taken_twice_its_time():
    me = party("me", 1)
    talking = party("a", 0, State.CALLED, called=0)
    assert estimate(me, talking, now=29) is not None
    assert estimate(me, talking, now=31) is None


def test_nothing_is_said_when_the_official_is_late():
    me, first = party("me", 1), party("a", 0)
    assert estimate(me, first, now=5) is None
    assert estimate(me, first, now=5, present=True) == 15
    assert estimate(me, now=15) is None


@pytest.mark.parametrize("state", [State.CONFIRMED, State.CALLED, State.HELD, State.CANCELLED])
def test_only_those_who_wait_get_an_estimate(state):
    assert estimate(party("me", 2, state), now=0) is None


def step(state: State = State.CHECKED_IN, **changes: object) -> str:
    facts: dict[str, object] = {
        "room_open": False, "people_before": 0, "estimate": None, "starts_at": at(15),
        "official_present": False, "now": at(0),
    }  # fmt: skip
    return next_step(state, **(facts | changes))


def test_the_next_step_follows_from_what_is_known():
    assert step(State.HELD, room_open=True) == "ended"
    assert step(room_open=True) == "enter_now"
    assert step(now=at(16)) == "official_late"
    assert step(estimate=10) == "come_soon"
    assert step(estimate=25) == "wait_here"
    assert step(people_before=2) == "wait_here"
