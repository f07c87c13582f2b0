"""How long a recording is kept (保管), and the one way in which it may go. Pure.

Nothing goes by itself. When its period is over a recording is *due*, and stands in a list; then one
person proposes its deletion, another one confirms it, and 72 hours pass in which anyone of them may
stop it. A legal hold (暂缓销毁) wins over everything up to the decision that the durable job takes,
in one transaction, after asking all of it again.

    kept → due → proposed → cooling → deleting → deleted
      ↖______↙ a hold, or whoever stops it; from `deleting` on nothing comes back
    cooling, deleting ⇄ halted: the job ended in a way that nobody foresaw, and a person must look

The law gives three periods, for ever, 30 and 10 years (国家档案局令第8号, 2006), and no destruction
without an appraisal and a signed list (《档案法实施条例》 art. 24). Which matter belongs to which
period is each organ's own table, approved by its archive authority (art. 19); until that is
configured the table here is an estimate and says so. A day late is an inconvenience, a day early
cannot be undone: periods run from the end of the year in which the matter was closed, or the talk
ended if that is later. Which day it is, is itself in question: see cases/keeping_clock.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from core.errors import Conflict, Forbidden

COOLING: Final = timedelta(hours=72)
"""Between confirming and deleting: not a setting, so that nobody shortens it."""
LONGEST_STRETCH: Final = timedelta(minutes=10)
"""How much cooling one look at the clocks may count. While the house is closed nobody could stop
a deletion, so that time does not count."""
LEGAL_BASIS: Final = "《中华人民共和国档案法实施条例》第二十四条"


class NotDue(Conflict):
    code = "not_due"


class UnderHold(Conflict):
    code = "under_hold"


class NotSettled(Conflict):
    code = "recording_not_settled"


class AlreadyProposed(Conflict):
    code = "deletion_already_proposed"


class NothingProposed(Conflict):
    code = "no_deletion_proposed"


class AlreadyConfirmed(Conflict):
    code = "deletion_already_confirmed"


class SamePerson(Forbidden):
    code = "same_person"


class StillCooling(Conflict):
    code = "still_cooling"


class TooLate(Conflict):
    """The decision has been taken; what is gone is gone."""

    code = "deletion_decided"


class NoSuchHold(Conflict):
    code = "no_such_hold"


class Halted(Conflict):
    """Its job broke off; somebody must look at that first."""

    code = "deletion_halted"


class NotHalted(Conflict):
    code = "deletion_not_halted"


class MatterClass(StrEnum):
    """What a matter came to, as archives sort it. It says nothing about who brought it."""

    INSTRUCTION = "instruction"  # 有领导人重要批示并有处理结果
    RESULT = "result"  # 有处理结果
    NO_RESULT = "no_result"  # 没有处理结果


DEFAULT_CLASS: Final = MatterClass.RESULT
"""Until an archivist says otherwise."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How long a class of matters is kept. `years` None: for ever."""

    matter_class: MatterClass
    years: int | None
    source: str
    is_estimated: bool
    """True: the periods are the law's, that this class has this one is our reading of it."""


Table = Mapping[MatterClass, Rule]

_ORDER_8: Final = "国家档案局令第8号（2006）"
ESTIMATED: Final[Table] = {
    kind: Rule(kind, years, _ORDER_8, is_estimated=True)
    for kind, years in (
        (MatterClass.INSTRUCTION, None),
        (MatterClass.RESULT, 30),
        (MatterClass.NO_RESULT, 10),
    )
}


def table(years: Iterable[tuple[str, int]], approval: str) -> Table:
    """The house's table: `years` by class (0: for ever) as `approval` approved them; the rest
    stays estimated."""
    approved = {
        MatterClass(kind): Rule(MatterClass(kind), length or None, approval, is_estimated=False)
        for kind, length in years
    }
    return {**ESTIMATED, **approved}


def keep_until(rule: Rule, closed_on: date | None, ended_on: date) -> date | None:
    """The last day on which the recording must be there. None: for ever, or the matter is open.

    A period runs from the later of two days that are written down apart, the matter's closing and
    the recording's end: a clock that was wrong at one of them shortens nothing.
    """
    if rule.years is None or closed_on is None:
        return None
    return date(max(closed_on, ended_on).year + rule.years, 12, 31)


def over_before(rule: Rule, today: date) -> date | None:
    """What was closed, and had ended, before this day is due today: `keep_until`, asked the other
    way round."""
    return None if rule.years is None else date(today.year - rule.years, 1, 1)


class State(StrEnum):
    KEPT = "kept"
    DUE = "due"
    HOLD = "hold"
    PROPOSED = "proposed"
    COOLING = "cooling"
    HALTED = "halted"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Seen:
    """Both clocks at one moment. `mono_ns` compares only within one `boot_id`."""

    wall: datetime
    mono_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A deletion that someone asked for. Persons are account ids."""

    proposed_by: str
    confirmed_by: str | None = None
    cooled: timedelta = timedelta()
    seen: Seen | None = None
    """When cooling was last counted."""
    is_decided: bool = False
    is_halted: bool = False
    """Its job ended in a way that nobody foresaw, and nobody has said yet to go on."""

    @property
    def is_cool(self) -> bool:
        return self.confirmed_by is not None and self.cooled >= COOLING


@dataclass(frozen=True, slots=True)
class Keeping:
    """All that decides whether a recording stays."""

    keep_until: date | None
    is_settled: bool
    """Nothing is being made of it at the moment."""
    holds: frozenset[str] = frozenset()
    """Ids of holds that nobody has lifted."""
    proposal: Proposal | None = None
    is_deleted: bool = False


def is_due(keeping: Keeping, today: date) -> bool:
    return keeping.keep_until is not None and today > keeping.keep_until


def state(keeping: Keeping, today: date) -> State:
    """The one word for it. A hold hides everything that it stops."""
    proposal = keeping.proposal
    if keeping.is_deleted:
        return State.DELETED
    if proposal is not None and proposal.is_halted:
        return State.HALTED
    if proposal is not None and proposal.is_decided:
        return State.DELETING
    if keeping.holds:
        return State.HOLD
    if proposal is not None:
        return State.COOLING if proposal.confirmed_by is not None else State.PROPOSED
    return State.DUE if is_due(keeping, today) else State.KEPT


def place_hold(keeping: Keeping, hold_id: str) -> Keeping:
    """Nothing is deleted while the hold stands; a proposal is over and must begin anew."""
    _still_here(keeping)
    return replace(keeping, holds=keeping.holds | {hold_id}, proposal=None)


def lift_hold(keeping: Keeping, hold_id: str) -> Keeping:
    """The others, if there are any, stand on."""
    if hold_id not in keeping.holds:
        raise NoSuchHold("This hold has been lifted already. Reload the page.")
    return replace(keeping, holds=keeping.holds - {hold_id})


def reclassify(keeping: Keeping, until: date | None) -> Keeping:
    """Another class, another last day; not while a deletion is being asked for."""
    _still_here(keeping)
    if keeping.proposal is not None:
        raise AlreadyProposed("Its deletion has been proposed. Withdraw that first.")
    return replace(keeping, keep_until=until)


def propose(keeping: Keeping, person: str, today: date) -> Keeping:
    """The first of two people asks for the deletion."""
    _still_here(keeping)
    if keeping.proposal is not None:
        raise AlreadyProposed("Its deletion has been proposed already. Reload the page.")
    _may_go(keeping, today)
    return replace(keeping, proposal=Proposal(person))


def confirm(keeping: Keeping, person: str, now: Seen, today: date) -> Keeping:
    """The second one, never the same as the first, agrees; cooling begins at zero."""
    _still_here(keeping)
    proposal = keeping.proposal
    if proposal is None:
        raise NothingProposed("No deletion is proposed any more. Reload the page.")
    if proposal.confirmed_by is not None:
        raise AlreadyConfirmed("This deletion has been confirmed already. Reload the page.")
    if proposal.proposed_by == person:
        raise SamePerson("Whoever proposed a deletion cannot confirm it. Ask a second person.")
    _may_go(keeping, today)
    return replace(
        keeping, proposal=replace(proposal, confirmed_by=person, cooled=timedelta(), seen=now)
    )


def cancel(keeping: Keeping) -> Keeping:
    """Stop a deletion, at any time before it is decided."""
    _still_here(keeping)
    if keeping.proposal is None:
        raise NothingProposed("No deletion is proposed any more. Reload the page.")
    return replace(keeping, proposal=None)


def halt(keeping: Keeping) -> Keeping:
    """Its job broke off: nothing more is done until a person says so."""
    assert keeping.proposal is not None and not keeping.is_deleted
    return replace(keeping, proposal=replace(keeping.proposal, is_halted=True))


def go_on(keeping: Keeping) -> Keeping:
    """Somebody has looked at what broke it off. Everything that was asked is asked again."""
    if keeping.is_deleted or keeping.proposal is None or not keeping.proposal.is_halted:
        raise NotHalted("This deletion is not halted any more. Reload the page.")
    return replace(keeping, proposal=replace(keeping.proposal, is_halted=False))


def observe(proposal: Proposal, now: Seen) -> Proposal:
    """Count the cooling since the last look.

    The shorter of what both clocks say, never less than nothing nor more than `LONGEST_STRETCH`: a
    clock that is set, forward or back, gains nothing. Of several machines one counts; another takes
    over, and gains nothing by that, when it has not been heard of for that long.
    """
    if proposal.confirmed_by is None or proposal.is_decided:
        return proposal
    last = proposal.seen
    if last is None:
        return replace(proposal, seen=now)
    by_wall = now.wall - last.wall
    if last.boot_id != now.boot_id:
        is_silent = abs(by_wall) > LONGEST_STRETCH
        return replace(proposal, seen=now) if is_silent else proposal
    by_mono = timedelta(microseconds=(now.mono_ns - last.mono_ns) // 1000)
    gained = max(timedelta(), min(by_wall, by_mono, LONGEST_STRETCH))
    return replace(proposal, cooled=proposal.cooled + gained, seen=now)


def decide(keeping: Keeping, today: date) -> Keeping:
    """The point of no return: everything is asked again. Deciding twice changes nothing."""
    proposal = keeping.proposal
    if keeping.is_deleted or (proposal is not None and proposal.is_decided):
        return keeping
    if proposal is None or proposal.confirmed_by is None:
        raise NothingProposed("No confirmed deletion stands any more.")
    if proposal.confirmed_by == proposal.proposed_by:
        raise SamePerson("One person proposed and confirmed this deletion.")
    if proposal.is_halted:
        raise Halted("It was halted, and nobody has said yet to go on.")
    if not proposal.is_cool:
        raise StillCooling("The 72 hours are not over yet.")
    _may_go(keeping, today)
    return replace(keeping, proposal=replace(proposal, is_decided=True))


def complete(keeping: Keeping) -> Keeping:
    """The files are gone and the certificate is written."""
    assert keeping.proposal is not None and keeping.proposal.is_decided
    return replace(keeping, is_deleted=True)


def _still_here(keeping: Keeping) -> None:
    is_decided = keeping.proposal is not None and keeping.proposal.is_decided
    if keeping.is_deleted or is_decided:
        raise TooLate("This recording has been deleted. Its certificate stands on the case.")


def _may_go(keeping: Keeping, today: date) -> None:
    if keeping.holds:
        raise UnderHold("A legal hold stands. Nothing is deleted until every hold is lifted.")
    if not is_due(keeping, today):
        raise NotDue("Its period is not over yet. It stays until the day shown.")
    if not keeping.is_settled:
        raise NotSettled("Files are still being made of it. Try again when that is done.")
