"""What may become of a recording: never deleted early, by one person, under hold, or too soon."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cases import retention
from cases.retention import (
    COOLING,
    ESTIMATED,
    LONGEST_STRETCH,
    Keeping,
    MatterClass,
    Proposal,
    Seen,
    State,
)
from core.errors import ReceptionError

DAY = date(2026, 1, 1)
"""On which the talk was held."""
UNTIL = date(2056, 12, 31)
AFTER = date(2057, 1, 1)
NOON = datetime(2057, 1, 1, 4, tzinfo=UTC)
DUE = Keeping(UNTIL, is_settled=True)


def seen(wall: timedelta = timedelta(), mono: timedelta | None = None, boot: str = "a") -> Seen:
    """Both clocks, that far after noon; the monotonic one with the wall unless said otherwise."""
    passed = wall if mono is None else mono
    return Seen(NOON + wall, int(passed.total_seconds() * 1e9), boot)


def confirmed(cooled: timedelta = timedelta()) -> Keeping:
    keeping = retention.confirm(retention.propose(DUE, "first", AFTER), "second", seen(), AFTER)
    assert keeping.proposal is not None
    return replace(keeping, proposal=replace(keeping.proposal, cooled=cooled))


# Periods.


def test_a_period_runs_to_the_end_of_its_last_year() -> None:
    assert retention.keep_until(ESTIMATED[MatterClass.RESULT], date(2026, 1, 2), DAY) == UNTIL
    assert retention.keep_until(ESTIMATED[MatterClass.RESULT], date(2026, 12, 31), DAY) == UNTIL
    assert not retention.is_due(DUE, UNTIL)
    assert retention.is_due(DUE, AFTER)


def test_an_open_matter_and_an_instructed_one_are_never_due() -> None:
    assert retention.keep_until(ESTIMATED[MatterClass.RESULT], None, DAY) is None
    assert retention.keep_until(ESTIMATED[MatterClass.INSTRUCTION], date(2026, 5, 25), DAY) is None
    assert not retention.is_due(Keeping(None, is_settled=True), date(9999, 12, 31))


@given(
    st.sampled_from(list(MatterClass)),
    st.dates(date(2000, 1, 1), date(2099, 12, 31)),
    st.dates(date(2000, 1, 1), date(2099, 12, 31)),
    st.dates(date(2001, 1, 1), date(2199, 12, 31)),
)
def test_asked_either_way_round_a_matter_is_due_on_the_same_days(
    kind: MatterClass, closed_on: date, ended_on: date, today: date
) -> None:
    rule_ = ESTIMATED[kind]
    before = retention.over_before(rule_, today)
    until = retention.keep_until(rule_, closed_on, ended_on)
    is_due = retention.is_due(Keeping(until, True), today)
    assert is_due == (before is not None and closed_on < before and ended_on < before)


def test_a_matter_that_was_closed_before_its_talk_had_ended_is_kept_from_the_talk_on() -> None:
    """Whatever the clock said when somebody pressed the button."""
    result = ESTIMATED[MatterClass.RESULT]
    assert retention.keep_until(result, date(1970, 1, 1), date(2026, 5, 25)) == UNTIL
    assert retention.keep_until(result, date(2026, 5, 25), date(1970, 1, 1)) == UNTIL


def test_an_approved_period_is_no_estimate_and_the_others_stay_one() -> None:
    table = retention.table([("no_result", 15), ("instruction", 0)], "州档〔2026〕3号")
    assert (table[MatterClass.NO_RESULT].years, table[MatterClass.NO_RESULT].is_estimated) == (
        15, False,
    )  # fmt: skip
    assert table[MatterClass.INSTRUCTION].years is None
    assert table[MatterClass.RESULT] == ESTIMATED[MatterClass.RESULT]


# Who and when.


def test_what_is_not_due_cannot_be_proposed() -> None:
    with pytest.raises(retention.NotDue):
        retention.propose(DUE, "first", UNTIL)


def test_one_person_cannot_give_both_signatures() -> None:
    with pytest.raises(retention.SamePerson):
        retention.confirm(retention.propose(DUE, "first", AFTER), "first", seen(), AFTER)


def test_a_hold_ends_a_confirmed_deletion_and_lifting_it_does_not_bring_it_back() -> None:
    held = retention.place_hold(confirmed(COOLING), "h")
    assert retention.state(held, AFTER) is State.HOLD
    with pytest.raises(retention.NothingProposed):
        retention.decide(held, AFTER)
    assert retention.state(retention.lift_hold(held, "h"), AFTER) is State.DUE


def test_of_several_holds_the_last_one_counts() -> None:
    held = retention.place_hold(retention.place_hold(DUE, "a"), "b")
    held = retention.lift_hold(held, "a")
    with pytest.raises(retention.UnderHold):
        retention.propose(held, "first", AFTER)
    with pytest.raises(retention.NoSuchHold):
        retention.lift_hold(held, "a")


def test_a_hold_is_refused_once_the_deletion_is_decided_rather_than_promised_in_vain() -> None:
    decided = retention.decide(confirmed(COOLING), AFTER)
    with pytest.raises(retention.TooLate):
        retention.place_hold(decided, "h")
    with pytest.raises(retention.TooLate):
        retention.cancel(decided)


def test_a_clock_that_was_set_back_to_before_the_end_of_the_period_stops_the_decision() -> None:
    with pytest.raises(retention.NotDue):
        retention.decide(confirmed(COOLING), UNTIL)


def test_a_recording_of_which_files_are_being_made_is_left_alone() -> None:
    with pytest.raises(retention.NotSettled):
        retention.decide(replace(confirmed(COOLING), is_settled=False), AFTER)


def test_the_class_stays_while_a_deletion_is_asked_for() -> None:
    with pytest.raises(retention.AlreadyProposed):
        retention.reclassify(confirmed(), None)


# Cooling.


def cooled(*looks: Seen) -> timedelta:
    proposal = Proposal("first", "second", seen=seen())
    for look in looks:
        proposal = retention.observe(proposal, look)
    return proposal.cooled


def test_cooling_counts_what_both_clocks_say() -> None:
    minute = timedelta(minutes=1)
    assert cooled(seen(minute), seen(2 * minute)) == 2 * minute


def test_a_wall_clock_set_forward_gains_nothing() -> None:
    assert cooled(seen(timedelta(days=30), mono=timedelta(seconds=60))) == timedelta(seconds=60)


def test_a_wall_clock_set_back_loses_and_never_gains() -> None:
    minute = timedelta(minutes=1)
    back = seen(timedelta(days=-1), mono=minute)
    assert cooled(back) == timedelta()
    assert cooled(back, seen(timedelta(days=-1) + minute, mono=2 * minute)) == minute


def test_time_in_which_the_house_was_closed_does_not_count() -> None:
    assert cooled(seen(timedelta(hours=80))) == LONGEST_STRETCH


def test_a_restart_of_the_machine_counts_from_anew_without_losing_what_was_counted() -> None:
    minute = timedelta(minutes=1)
    hour = timedelta(hours=1)
    other = seen(hour, mono=minute, boot="b")
    assert cooled(seen(minute), other) == minute
    assert cooled(seen(minute), other, seen(hour + minute, 2 * minute, "b")) == 2 * minute


def test_of_two_machines_only_one_counts() -> None:
    minute = timedelta(minutes=1)
    looks = [
        look
        for turn in range(1, 6)
        for look in (seen(turn * minute), seen(turn * minute, mono=900 * turn * minute, boot="b"))
    ]
    assert cooled(*looks) == 5 * minute


@given(
    st.lists(
        st.tuples(
            st.integers(-(10**7), 10**7),
            st.integers(0, 10**5),
            st.integers(0, 3).map(lambda n: n == 0),
        )
    )
)
def test_whatever_the_wall_does_cooling_is_never_more_than_what_really_passed(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Each step: the wall moves anyhow, real seconds pass, and the machine may restart."""
    proposal = Proposal("first", "second", seen=seen())
    wall, real, mono, boot = NOON, 0, 0, 0
    for by_wall, by_real, restarts in steps:
        wall += timedelta(seconds=by_wall)
        real += by_real
        mono, boot = (0, boot + 1) if restarts else (mono + by_real, boot)
        proposal = retention.observe(proposal, Seen(wall, mono * 10**9, str(boot)))
        assert proposal.cooled <= timedelta(seconds=real)


class AnyOrder(RuleBasedStateMachine):
    """People, holds and clocks in any order. What the rules promise is kept apart from them here:
    from a plain log of what really happened."""

    def __init__(self) -> None:
        super().__init__()
        self.keeping = Keeping(UNTIL, is_settled=True)
        self.today = UNTIL - timedelta(days=1)
        self.real_s = 0
        self.mono_s = 0
        self.boot = 0
        self.wall = NOON
        self.standing: set[str] = set()
        self.made = 0
        self.signed: list[tuple[str, str]] = []
        self.confirmed_at_s = 0

    def try_(self, act: object, *arguments: object) -> bool:
        try:
            self.keeping = act(self.keeping, *arguments)  # type: ignore[operator]
        except ReceptionError:
            return False
        return True

    def clocks(self) -> Seen:
        return Seen(self.wall, self.mono_s * 10**9, str(self.boot))

    @rule(person=st.sampled_from("abc"))
    def propose(self, person: str) -> None:
        if self.try_(retention.propose, person, self.today):
            self.signed = [("proposed", person)]

    @rule(person=st.sampled_from("abc"))
    def confirm(self, person: str) -> None:
        if self.try_(retention.confirm, person, self.clocks(), self.today):
            self.signed.append(("confirmed", person))
            self.confirmed_at_s = self.real_s

    @rule()
    def cancel(self) -> None:
        if self.try_(retention.cancel):
            self.signed = []

    @rule()
    def hold(self) -> None:
        self.made += 1
        if self.try_(retention.place_hold, str(self.made)):
            self.standing.add(str(self.made))
            self.signed = []

    @rule(data=st.data())
    def lift(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.standing) or ["none"]))
        if self.try_(retention.lift_hold, hold):
            self.standing.discard(hold)

    @rule(days=st.sampled_from([-1, 0, 1, 3, 400]))
    def set_the_wall(self, days: int) -> None:
        self.wall += timedelta(days=days)
        self.today += timedelta(days=days)

    @rule(minutes=st.sampled_from([1, 9, 60, 60 * 24]), looks=st.integers(1, 500))
    def time_passes(self, minutes: int, looks: int) -> None:
        for _ in range(looks):
            self.real_s += minutes * 60
            self.mono_s += minutes * 60
            self.wall += timedelta(minutes=minutes)
            if self.keeping.proposal is not None:
                proposal = retention.observe(self.keeping.proposal, self.clocks())
                self.keeping = replace(self.keeping, proposal=proposal)

    @rule()
    def restart(self) -> None:
        self.boot += 1
        self.mono_s = 0

    @rule(settled=st.booleans())
    def work_on_it(self, settled: bool) -> None:
        self.keeping = replace(self.keeping, is_settled=settled)

    @rule()
    def decide(self) -> None:
        was = retention.state(self.keeping, self.today)
        if not self.try_(retention.decide, self.today):
            return
        if was in (State.DELETING, State.DELETED):
            return
        # The moment that counts: everything that was promised must hold right now.
        assert [what for what, _ in self.signed] == ["proposed", "confirmed"]
        assert len({who for _, who in self.signed}) == 2
        assert not self.standing
        assert self.today > UNTIL
        assert self.real_s - self.confirmed_at_s >= COOLING.total_seconds()
        assert self.keeping.is_settled

    @rule()
    def complete(self) -> None:
        if retention.state(self.keeping, self.today) is State.DELETING:
            self.keeping = retention.complete(self.keeping)

    @invariant()
    def only_what_was_decided_is_gone(self) -> None:
        if retention.state(self.keeping, self.today) in (State.DELETING, State.DELETED):
            assert len({who for _, who in self.signed}) == 2
            assert not self.standing
        elif self.standing:
            assert retention.state(self.keeping, self.today) is State.HOLD


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_ways_to_a_deletion_are_found_at_all() -> None:
    """What the machine above asserts about decisions must not be empty: the straight way works."""
    keeping = confirmed()
    assert keeping.proposal is not None
    proposal = keeping.proposal
    for look in range(1, 6 * 72 + 1):
        proposal = retention.observe(proposal, seen(look * LONGEST_STRETCH))
    keeping = replace(keeping, proposal=proposal)
    assert retention.state(keeping, AFTER) is State.COOLING
    keeping = retention.decide(keeping, AFTER)
    assert retention.state(keeping, AFTER) is State.DELETING
    assert retention.state(retention.complete(keeping), AFTER) is State.DELETED
