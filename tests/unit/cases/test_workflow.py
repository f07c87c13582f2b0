"""Steps are those of the regulations, and deadlines are counted as a clerk counts on a calendar."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases.schemas import CaseState
from cases.workflow import (
    RULES,
    STEPS,
    ClockKind,
    ClockUnit,
    StepNotPermitted,
    article_zh,
    counted_days,
    explain,
    last_day,
    roll_forward,
    start_clock,
    step,
)
from core.schemas import Language
from scheduling.calendar import DayTable, is_working
from scheduling.schemas import DayNote


def holiday(name: str) -> DayNote:
    return DayNote(kind="holiday", name=name, announced=True)


WORKED = DayNote(kind="adjusted_workday", name="调休上班", announced=True)
# National Day 2025 as announced: 1 to 8 October off, Sunday 28 September and Saturday 11 October
# worked instead.
OCTOBER_2025: DayTable = {
    **{date(2025, 10, day): holiday("国庆节") for day in range(1, 9)},
    date(2025, 9, 28): WORKED,
    date(2025, 10, 11): WORKED,
}
NO_HOLIDAYS: DayTable = {}

days = st.dates(min_value=date(2000, 1, 1), max_value=date(2100, 1, 1))
notes = st.sampled_from([holiday("假日"), WORKED])
tables = st.dictionaries(
    st.dates(min_value=date(2025, 1, 1), max_value=date(2025, 6, 30)), notes, max_size=60
)
days_2025 = st.dates(min_value=date(2025, 1, 1), max_value=date(2025, 5, 1))


def test_fifteen_days_count_rest_days_and_not_the_first() -> None:
    clock = start_clock(ClockKind.ROUTE, date(2026, 5, 25), NO_HOLIDAYS)
    assert (clock.due_on, clock.article) == (date(2026, 6, 9), "22(1)")


@pytest.mark.parametrize(
    ("kind", "due_on"),
    [
        (ClockKind.ROUTE, date(2026, 3, 16)),
        (ClockKind.NOTICE, date(2026, 3, 16)),
        (ClockKind.HANDLE, date(2026, 4, 30)),
        (ClockKind.EXTENSION, date(2026, 3, 31)),
        (ClockKind.ASK_REVIEW, date(2026, 3, 31)),
    ],
)
def test_lengths_are_those_of_the_articles(kind: ClockKind, due_on: date) -> None:
    assert start_clock(kind, date(2026, 3, 1), NO_HOLIDAYS).due_on == due_on


def test_five_working_days_skip_a_weekend() -> None:
    # From a Monday: Tuesday to Friday are four, the next Monday is the fifth.
    clock = start_clock(ClockKind.OBJECTION, date(2026, 5, 25), NO_HOLIDAYS)
    assert clock.due_on == date(2026, 6, 1)


def test_five_working_days_across_national_day_use_the_worked_saturday() -> None:
    # Tuesday 30 September starts; 9, 10, 11 (worked Saturday), 13, 14 October count.
    clock = start_clock(ClockKind.OBJECTION, date(2025, 9, 30), OCTOBER_2025)
    assert clock.due_on == date(2025, 10, 14)


def test_a_worked_sunday_counts_as_a_working_day() -> None:
    clock = start_clock(ClockKind.OBJECTION, date(2025, 9, 26), OCTOBER_2025)
    assert counted_days(clock, OCTOBER_2025)[1].ordinal == 1  # Sunday the 28th; Saturday is passed


def test_a_period_that_ends_on_a_holiday_rolls_to_the_next_working_day() -> None:
    clock = start_clock(ClockKind.ROUTE, date(2025, 9, 18), OCTOBER_2025)
    assert (clock.due_on, clock.due_on_rolled) == (date(2025, 10, 3), date(2025, 10, 9))


def test_a_period_that_ends_on_a_worked_saturday_does_not_roll() -> None:
    clock = start_clock(ClockKind.ROUTE, date(2025, 9, 26), OCTOBER_2025)
    assert clock.due_on == clock.due_on_rolled == date(2025, 10, 11)


@given(days_2025, st.integers(1, 60), tables)
def test_working_days_end_on_the_nth_working_day_after_the_start(
    start: date, length: int, table: dict[date, DayNote]
) -> None:
    end = last_day(start, length, ClockUnit.WORKING_DAYS, table)
    between = [start + timedelta(days=n) for n in range(1, (end - start).days + 1)]
    assert sum(is_working(day, table) for day in between) == length
    assert is_working(end, table)


@given(days_2025, tables)
def test_rolling_passes_over_rest_days_only(day: date, table: dict[date, DayNote]) -> None:
    rolled = roll_forward(day, table)
    assert is_working(rolled, table)
    passed = [day + timedelta(days=n) for n in range((rolled - day).days)]
    assert not any(is_working(one, table) for one in passed)


@given(days, st.sampled_from(list(ClockKind)))
def test_counting_days_out_reaches_exactly_the_length(start: date, kind: ClockKind) -> None:
    clock = start_clock(kind, start, NO_HOLIDAYS)
    counted = counted_days(clock, NO_HOLIDAYS)
    assert counted[-1].day == clock.due_on
    assert [day.ordinal for day in counted if day.ordinal] == list(range(1, clock.length + 1))


def test_working_days_are_explained_day_by_day_with_the_reason_for_a_gap() -> None:
    clock = start_clock(ClockKind.OBJECTION, date(2025, 9, 30), OCTOBER_2025)
    lines = explain(clock, OCTOBER_2025)
    assert lines[0].startswith("《信访工作条例》第二十三条第三款：5个工作日内")
    assert "2025-10-01 周三 不计（国庆节）。" in lines
    assert "2025-10-11 周六 第3个工作日（调休上班）。" in lines
    assert lines[-1] == "2025-10-14 周二 第5个工作日。"


def test_a_rolled_deadline_is_explained_and_the_strict_day_is_the_one_that_warns() -> None:
    clock = start_clock(ClockKind.ROUTE, date(2025, 9, 18), OCTOBER_2025)
    chinese = explain(clock, OCTOBER_2025)
    english = explain(clock, OCTOBER_2025, Language.ENGLISH)
    assert "2025-10-03 为休息日（国庆节），顺延至 2025-10-09" in chinese[-1]
    assert "ends on 2025-10-09; warnings go by 2025-10-03" in english[-1]


def test_every_state_says_what_may_follow_and_every_step_has_an_article() -> None:
    assert set(STEPS) == set(CaseState)
    for permitted in STEPS.values():
        for taken in permitted.values():
            assert taken.article
            assert set(taken.starts) <= set(RULES)


def test_every_state_can_be_reached_from_registration_and_only_closed_is_final() -> None:
    reached, frontier = {CaseState.REGISTERED}, [CaseState.REGISTERED]
    while frontier:
        for state in STEPS[frontier.pop()]:
            if state not in reached:
                reached.add(state)
                frontier.append(state)
    assert reached == set(CaseState)
    assert [state for state in CaseState if not STEPS[state]] == [CaseState.CLOSED]


def test_a_duty_that_starts_is_met_on_every_way_to_the_end() -> None:
    def walk(state: CaseState, running: frozenset[ClockKind], depth: int) -> None:
        if not STEPS[state]:
            assert not [kind for kind in running if kind.is_duty]
        for to, taken in STEPS[state].items() if depth else ():
            walk(to, (running - set(taken.meets)) | set(taken.starts), depth - 1)

    walk(CaseState.REGISTERED, frozenset({ClockKind.ROUTE}), 8)


def test_a_step_out_of_order_is_refused_with_what_is_permitted() -> None:
    with pytest.raises(StepNotPermitted) as refused:
        step(CaseState.REGISTERED, CaseState.CLOSED)
    assert "transferred" in refused.value.details["permitted"]


@pytest.mark.parametrize(
    ("article", "words"),
    [
        ("34", "第三十四条"),
        ("22(1)", "第二十二条第一款"),
        ("20", "第二十条"),
        ("10(2)", "第十条第二款"),
        ("19(3)", "第十九条第三款"),
    ],
)
def test_articles_are_cited_in_chinese_numerals(article: str, words: str) -> None:
    assert article_zh(article) == words
