"""What may follow what in a case, and which deadlines run: 《信访工作条例》 (2022) art. 19-35.

Every step names its article, the clocks it starts and the clocks it meets. "日" are calendar days,
"工作日" working days; the first day is not counted. A strict due date is kept beside the one rolled
past rest days, and warnings go by the strict one. Rest days come from a yearly table that is an
argument here, because the State Council moves them. Pure: no database, no clock, no I/O.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import assert_never

from cases.schemas import CaseState
from core.errors import Conflict
from core.schemas import Language
from scheduling.calendar import DayTable, day_note, is_working


class StepNotPermitted(Conflict):
    code = "step_not_permitted"


class ClockKind(StrEnum):
    """Which duty or right a clock counts."""

    ROUTE = "route"
    NOTICE = "notice"
    OBJECTION = "objection"
    HANDLE = "handle"
    EXTENSION = "extension"
    ASK_REVIEW = "ask_review"

    @property
    def is_duty(self) -> bool:
        """Whether an authority is late when it runs out; else a right has merely lapsed."""
        return self not in (ClockKind.OBJECTION, ClockKind.ASK_REVIEW)


class ClockUnit(StrEnum):
    DAYS = "days"
    WORKING_DAYS = "working_days"


@dataclass(frozen=True, slots=True)
class ClockRule:
    """A length fixed by an article."""

    kind: ClockKind
    length: int
    unit: ClockUnit
    article: str


RULES: dict[ClockKind, ClockRule] = {
    rule.kind: rule
    for rule in (
        ClockRule(ClockKind.ROUTE, 15, ClockUnit.DAYS, "22(1)"),
        ClockRule(ClockKind.NOTICE, 15, ClockUnit.DAYS, "23(3)"),
        ClockRule(ClockKind.OBJECTION, 5, ClockUnit.WORKING_DAYS, "23(3)"),
        ClockRule(ClockKind.HANDLE, 60, ClockUnit.DAYS, "34"),
        ClockRule(ClockKind.EXTENSION, 30, ClockUnit.DAYS, "34"),
        ClockRule(ClockKind.ASK_REVIEW, 30, ClockUnit.DAYS, "35"),
    )
}


@dataclass(frozen=True, slots=True)
class Step:
    """A permitted transition: its basis, and what it does to clocks and holder."""

    article: str
    starts: tuple[ClockKind, ...] = ()
    meets: tuple[ClockKind, ...] = ()
    needs_holder: bool = False
    """The matter goes to another unit, which must be named."""
    returns_to_first: bool = False
    """The matter goes back to the body that registered it."""


_UNTIL_ANSWERED = (ClockKind.NOTICE, ClockKind.OBJECTION)
_ALL_DUTIES = tuple(kind for kind in ClockKind if kind is not ClockKind.ASK_REVIEW)
_HAND_OVER = Step("22(1)", starts=_UNTIL_ANSWERED, meets=(ClockKind.ROUTE,), needs_holder=True)
_REDIRECT = Step("31", meets=_ALL_DUTIES)
_REPLY = Step(
    "32", starts=(ClockKind.ASK_REVIEW,), meets=(ClockKind.HANDLE, ClockKind.EXTENSION)
)  # fmt: skip
_CLOSE = Step("34")

_ANSWERS_OF_A_UNIT = {
    CaseState.ACCEPTED: Step("23(3)", starts=(ClockKind.HANDLE,), meets=_UNTIL_ANSWERED),
    CaseState.NOT_ACCEPTED: Step("23(3)", meets=_ALL_DUTIES),
    # The text gives the returned matter no period of its own; the duty to route it counts again.
    CaseState.OBJECTED: Step(
        "23(3)", starts=(ClockKind.ROUTE,), meets=_UNTIL_ANSWERED, returns_to_first=True
    ),
    CaseState.REDIRECTED: _REDIRECT,
}

STEPS: dict[CaseState, dict[CaseState, Step]] = {
    CaseState.REGISTERED: {
        CaseState.TRANSFERRED: _HAND_OVER,
        CaseState.ASSIGNED: _HAND_OVER,
        CaseState.ACCEPTED: Step("23(2)", starts=(ClockKind.HANDLE,), meets=(ClockKind.ROUTE,)),
        CaseState.NOT_ACCEPTED: Step("19(3)", meets=_ALL_DUTIES),
        CaseState.REDIRECTED: Step("22(2)", meets=_ALL_DUTIES),
    },
    CaseState.TRANSFERRED: _ANSWERS_OF_A_UNIT,
    CaseState.ASSIGNED: _ANSWERS_OF_A_UNIT,
    CaseState.OBJECTED: {
        CaseState.TRANSFERRED: _HAND_OVER,
        CaseState.ASSIGNED: _HAND_OVER,
        CaseState.REDIRECTED: Step("22(2)", meets=_ALL_DUTIES),
    },
    CaseState.ACCEPTED: {
        CaseState.EXTENDED: Step("34", starts=(ClockKind.EXTENSION,), meets=(ClockKind.HANDLE,)),
        CaseState.REPLIED: _REPLY,
        CaseState.REDIRECTED: _REDIRECT,
    },
    CaseState.EXTENDED: {CaseState.REPLIED: _REPLY},
    CaseState.REPLIED: {CaseState.CLOSED: _CLOSE},
    CaseState.NOT_ACCEPTED: {CaseState.CLOSED: Step("23(3)")},
    CaseState.REDIRECTED: {CaseState.CLOSED: Step("31")},
    CaseState.CLOSED: {},
}

OPENING_CLOCKS = (ClockKind.ROUTE,)
"""What starts when a matter is registered."""


def step(current: CaseState, to: CaseState) -> Step:
    """The step from `current` to `to`. Raises `StepNotPermitted` naming what may follow."""
    permitted = STEPS[current]
    if to not in permitted:
        raise StepNotPermitted(
            "This case cannot take that step now. Reload it and choose one that is offered.",
            state=current.value, permitted=[state.value for state in permitted],
        )  # fmt: skip
    return permitted[to]


@dataclass(frozen=True, slots=True)
class Clock:
    """A deadline that runs from `started_on`, which is itself not counted."""

    kind: ClockKind
    article: str
    started_on: date
    length: int
    unit: ClockUnit
    due_on: date
    due_on_rolled: date


def start_clock(kind: ClockKind, started_on: date, table: DayTable) -> Clock:
    """The clock that `kind`'s article gives, from the day of the event that started it."""
    rule = RULES[kind]
    due_on = last_day(started_on, rule.length, rule.unit, table)
    return Clock(
        kind, rule.article, started_on, rule.length, rule.unit, due_on, roll_forward(due_on, table)
    )


def last_day(started_on: date, length: int, unit: ClockUnit, table: DayTable) -> date:
    """The last day of a period of `length` that starts after `started_on`."""
    match unit:
        case ClockUnit.DAYS:
            return started_on + timedelta(days=length)
        case ClockUnit.WORKING_DAYS:
            day = started_on
            for _ in range(length):
                day = roll_forward(day + timedelta(days=1), table)
            return day
    assert_never(unit)


def roll_forward(day: date, table: DayTable) -> date:
    """`day`, or the next working day after it if it is a rest day (Civil Code art. 203)."""
    while not is_working(day, table):
        day += timedelta(days=1)
    return day


@dataclass(frozen=True, slots=True)
class CountedDay:
    """A day between start and end: its ordinal, or None if it was passed over, and why."""

    day: date
    ordinal: int | None
    note: str | None


def counted_days(clock: Clock, table: DayTable) -> tuple[CountedDay, ...]:
    """Every day from the one after the start to the strict due date, counted out."""
    days: list[CountedDay] = []
    ordinal, day = 0, clock.started_on
    while day < clock.due_on:
        day += timedelta(days=1)
        counts = clock.unit is ClockUnit.DAYS or is_working(day, table)
        ordinal += counts
        days.append(CountedDay(day, ordinal if counts else None, _name(day, table)))
    return tuple(days)


def explain(
    clock: Clock, table: DayTable, language: Language = Language.CHINESE
) -> tuple[str, ...]:
    """Why the clock ends when it ends, a sentence a line, in Chinese or else in English."""
    zh = language is Language.CHINESE
    lines = [_basis(clock, zh=zh), _first_day(clock, zh=zh)]
    days = counted_days(clock, table)
    if clock.unit is ClockUnit.WORKING_DAYS:
        lines += [_counted(day, zh=zh) for day in days]
    else:
        lines.append(_span(days, zh=zh))
    if clock.due_on_rolled != clock.due_on:
        lines.append(_rolled(clock, table, zh=zh))
    return tuple(lines)


def purpose(kind: ClockKind, language: Language = Language.CHINESE) -> str:
    """What must (or may) happen before the clock runs out, in plain words."""
    chinese, english = _PURPOSES[kind]
    return chinese if language is Language.CHINESE else english


_PURPOSES = {
    ClockKind.ROUTE: (
        "信访部门应当转送、交办或者报请处理",
        "the petition office must pass the matter to the body that is competent",
    ),
    ClockKind.NOTICE: (
        "责任单位应当书面告知是否受理",
        "the responsible body must say in writing whether it accepts the matter",
    ),
    ClockKind.OBJECTION: (
        "责任单位认为不属于其职权的，应当提出异议",
        "the body may object that the matter is not within its remit",
    ),
    ClockKind.HANDLE: (
        "责任单位应当办结并书面答复",
        "the responsible body must close the matter and reply in writing",
    ),
    ClockKind.EXTENSION: (
        "经批准延期，责任单位应当办结并书面答复",
        "after an approved extension the body must close the matter and reply in writing",
    ),
    ClockKind.ASK_REVIEW: (
        "信访人不服答复的，可以请求复查",
        "the person may ask the next higher body for a review",
    ),
}
_WEEKDAYS_ZH = "一二三四五六日"


def _basis(clock: Clock, *, zh: bool) -> str:
    working = clock.unit is ClockUnit.WORKING_DAYS
    if zh:
        unit = "个工作日" if working else "日"
        words = purpose(clock.kind)
        return f"《信访工作条例》{article_zh(clock.article)}：{clock.length}{unit}内，{words}。"
    unit = "working days" if working else "days"
    words = purpose(clock.kind, Language.ENGLISH)
    return f"Petition Regulations art. {clock.article}: within {clock.length} {unit} {words}."


def _first_day(clock: Clock, *, zh: bool) -> str:
    day = clock.started_on.isoformat()
    return f"{day} 开始，当日不计。" if zh else f"Started on {day}; that day is not counted."


def _span(days: tuple[CountedDay, ...], *, zh: bool) -> str:
    first, last = days[0].day.isoformat(), days[-1].day.isoformat()
    if zh:
        return f"{first} 为第1日，{last} 为第{len(days)}日，节假日计算在内。"
    return f"Day 1 is {first}, day {len(days)} is {last}; rest days count."


def _counted(day: CountedDay, *, zh: bool) -> str:
    when = f"{day.day.isoformat()} {_weekday(day.day, zh=zh)}"
    if day.ordinal is None:
        reason = day.note or ("休息日" if zh else "rest day")
        return f"{when} 不计（{reason}）。" if zh else f"{when}: not counted ({reason})."
    note = (f"（{day.note}）" if zh else f" ({day.note})") if day.note else ""
    return f"{when} 第{day.ordinal}个工作日{note}。" if zh else f"{when}: day {day.ordinal}{note}."


def _rolled(clock: Clock, table: DayTable, *, zh: bool) -> str:
    due, rolled = clock.due_on.isoformat(), clock.due_on_rolled.isoformat()
    reason = _name(clock.due_on, table) or ("休息日" if zh else "a rest day")
    if zh:
        return f"{due} 为休息日（{reason}），顺延至 {rolled}；提醒以 {due} 为准。"
    return f"{due} is a rest day ({reason}), so it ends on {rolled}; warnings go by {due}."


def _name(day: date, table: DayTable) -> str | None:
    """What a holiday or an adjusted working day is called; a plain weekend has no name."""
    note = day_note(day, table)
    return note.name if note is not None and note.kind != "weekend" else None


def _weekday(day: date, *, zh: bool) -> str:
    return f"周{_WEEKDAYS_ZH[day.weekday()]}" if zh else f"{day:%a}"


def article_zh(article: str) -> str:
    """`22(1)` as 第二十二条第一款."""
    number, _, paragraph = article.rstrip(")").partition("(")
    words = f"第{_numeral(int(number))}条"
    return f"{words}第{_numeral(int(paragraph))}款" if paragraph else words


def _numeral(n: int) -> str:
    """1 to 99 in Chinese numerals."""
    digits = "零一二三四五六七八九"
    tens, ones = divmod(n, 10)
    if not tens:
        return digits[ones]
    return ("" if tens == 1 else digits[tens]) + "十" + (digits[ones] if ones else "")
