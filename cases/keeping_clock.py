"""Which day is it, really? Periods are judged by the wall clock, and a wall clock can be wrong.

One that is wrong for seconds, at exactly the moments in which a deletion is proposed, confirmed and
decided, would make a recording look due. So whoever judges first holds what the wall says against
what it said before: within one boot of the machine by the other clock, which nobody can set; from
one boot to the next by the newest line of the audit log. What does not fit is refused, until it
fits again or a person says that it is right, whose own computer must agree.

`doubt` and `agrees` are pure. The rest writes one row a boot, and none while nothing changes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from cases.keeping_model import ClockAnchor
from cases.retention import Seen
from core import audit
from core.audit import AuditLine
from core.errors import Conflict
from core.identity import Staff

STEP_ALLOWED: Final = timedelta(seconds=60)
"""How far the wall may have been set in one boot, all in all: a first synchronisation. The other
clock is slewed as the wall is, so that nothing else parts them; it stands still while a machine is
suspended, and then somebody looks."""
SILENCE_ALLOWED: Final = timedelta(days=3)
"""How long the house may have been off, nobody signing in and no nightly round, before somebody
looks at the clock."""
AGREES_WITHIN: Final = timedelta(minutes=5)
"""How far the clocks of two machines of one house may be apart."""


class ClockDoubted(Conflict):
    code = "clock_doubted"


class ClocksDisagree(Conflict):
    code = "clocks_disagree"


class Against(StrEnum):
    """What the wall clock contradicts."""

    MONOTONIC = "monotonic"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the wall said once in this boot, and which audit line was the newest then."""

    seen: Seen
    known_at: datetime | None


@dataclass(frozen=True, slots=True)
class Doubt:
    """The wall is ahead of what it should say by `off`, or behind if that is negative."""

    against: Against
    off: timedelta


def doubt(anchor: Anchor, now: Seen) -> Doubt | None:
    """What speaks against the wall clock of `now`, in the boot of `anchor`."""
    at_boot = _gap(anchor.known_at, anchor.seen.wall)
    if at_boot is not None:
        return Doubt(Against.AUDIT, at_boot)
    passed = timedelta(microseconds=(now.mono_ns - anchor.seen.mono_ns) // 1000)
    off = now.wall - (anchor.seen.wall + passed)
    return Doubt(Against.MONOTONIC, off) if abs(off) > STEP_ALLOWED else None


def agrees(now: Seen, their_time: datetime) -> bool:
    """Whether the computer of the person who confirms the clock says the same."""
    return abs(now.wall - their_time) <= AGREES_WITHIN


def _gap(known_at: datetime | None, wall: datetime) -> timedelta | None:
    """How far `wall` is off what may follow a line of `known_at`. None: it may follow."""
    if known_at is None or -STEP_ALLOWED <= wall - known_at <= SILENCE_ALLOWED:
        return None
    return wall - known_at


async def look(tx: AsyncSession, now: Seen) -> Doubt | None:
    """What speaks against the clock now. Of a boot that was not seen before it keeps the anchor."""
    row = await tx.get(ClockAnchor, now.boot_id, populate_existing=True)
    if row is None:
        row = await _begin(tx, now)
    anchor = Anchor(Seen(row.wall_at, row.mono_ns, row.boot_id), row.known_at)
    found = doubt(anchor, now)
    if found is None or found.against is not Against.AUDIT:
        return found
    if _gap(row.known_at, now.wall) is not None:
        return found
    # Wrong when the machine started, and set right since: a first synchronisation that came late.
    row.wall_at, row.mono_ns = now.wall, now.mono_ns
    return None


async def require_sane(tx: AsyncSession, now: Seen) -> None:
    """Raise `ClockDoubted` if anything speaks against the clock. Judge by `now` and no later."""
    found = await look(tx, now)
    if found is not None:
        raise ClockDoubted(in_words(found))


async def confirm(tx: AsyncSession, now: Seen, their_time: datetime, by: Staff) -> None:
    """A person says that the clock is right, and their computer agrees; else `ClocksDisagree`."""
    if not agrees(now, their_time):
        raise ClocksDisagree(
            "The server's clock and your computer's are more than five minutes apart: "
            "one of them is wrong. Set it right first."
        )
    found = await look(tx, now)
    await vouch(tx, now, by.account_id)
    await audit.record(
        tx, now=now.wall, actor=by.actor, action="clock_confirmed", object_kind="clock",
        object_id=now.boot_id, off_ms=None if found is None else off_ms(found),
        against=None if found is None else found.against.value,
    )  # fmt: skip


async def vouch(tx: AsyncSession, now: Seen, account_id: str | None) -> None:
    """From here on the clock is right by this person's word; None: it is rehearsed (app/seed.py),
    and nobody takes its days for real ones."""
    await tx.merge(
        ClockAnchor(
            boot_id=now.boot_id, wall_at=now.wall, mono_ns=now.mono_ns, known_at=None,
            confirmed_by=account_id,
        )
    )  # fmt: skip


def off_ms(found: Doubt) -> int:
    return found.off // timedelta(milliseconds=1)


def in_words(found: Doubt) -> str:
    way = "ahead of" if found.off > timedelta() else "behind"
    what = (
        "what it should say by this machine's other clock"
        if found.against is Against.MONOTONIC
        else "the last line of the audit log"
    )
    return (
        f"The server's clock is {abs(found.off)} {way} {what}. "
        "Nothing is deleted by such a clock. Have it set right, or confirm it on the archive page."
    )


async def _begin(tx: AsyncSession, now: Seen) -> ClockAnchor:
    """The anchor of a boot that was not seen before. Another process may be quicker."""
    newest = await tx.scalar(select(AuditLine.at).order_by(AuditLine.position.desc()).limit(1))
    made = ClockAnchor(
        boot_id=now.boot_id, wall_at=now.wall, mono_ns=now.mono_ns, known_at=newest,
        confirmed_by=None,
    )  # fmt: skip
    try:
        async with tx.begin_nested():
            tx.add(made)
    except IntegrityError:
        return await tx.get_one(ClockAnchor, now.boot_id, populate_existing=True)
    return made
