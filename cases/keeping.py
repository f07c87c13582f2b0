"""Keeping recordings (保管): what people do, by the rules of cases/retention.py, in the database.

Every act loads all that decides, asks the pure rule, and writes rows, ledger line and audit line in
one transaction. The recording's row is locked first, so that two acts never decide side by side.
Acts that judge by the day take both clocks and refuse one that is in doubt (keeping_clock.py). What
follows by itself is in keeping_job.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from cases import keeping_clock, ledger, retention
from cases.keeping_model import Deletion, DeletionCertificate, LegalHold, RecordingClass
from cases.ledger import EventWord
from cases.model import Case, CaseEvent
from cases.recordings import NoRecording
from cases.retention import (
    COOLING,
    DEFAULT_CLASS,
    Keeping,
    MatterClass,
    NothingProposed,
    Proposal,
    Rule,
    Seen,
    Table,
)
from cases.schemas import CaseState
from core import audit
from core.clock import Clock, local_date
from core.identity import Account, Staff
from core.ids import CaseId, DeletionId, LegalHoldId, new_id
from media.manifest import boot_id
from media.model import Recording, RecordingState
from signaling.model import Session

_SETTLED = (RecordingState.READY, RecordingState.FAILED)
MS: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Kept:
    """A recording and all that decides whether it stays."""

    recording: Recording
    case: Case
    session: Session
    closed_at: datetime | None
    rule: Rule
    holds: tuple[LegalHold, ...]
    """All that were ever placed, oldest first."""
    deletion: Deletion | None
    """The one that is under way or done."""
    keeping: Keeping

    @property
    def closed_on(self) -> date | None:
        return None if self.closed_at is None else local_date(self.closed_at)


async def kept(tx: AsyncSession, case_id: str, table: Table, *, lock: bool = False) -> Kept:
    """What is known of the recording of a case. Raises `NoRecording`.

    `lock`: hold it against everyone else who would act on it, to the end of the transaction.
    """
    return await _load(tx, Case.id == case_id, table, lock=lock)


async def kept_as(tx: AsyncSession, recording_id: str, table: Table) -> Kept:
    """As `kept(lock=True)`, by the recording."""
    return await _load(tx, Recording.id == recording_id, table, lock=True)


async def _load(tx: AsyncSession, which: ColumnElement[bool], table: Table, *, lock: bool) -> Kept:
    query = (
        select(Recording, Case, Session)
        .join(Case, Case.session_id == Recording.session_id)
        .join(Session, Session.id == Recording.session_id)
        .where(which)
        .options(joinedload(Case.county))
        .execution_options(populate_existing=True)
    )
    rows = list(await tx.execute(query.with_for_update(of=Recording) if lock else query))
    if not rows:
        raise NoRecording("Nothing was recorded of this talk. The minutes say what was said.")
    return (await with_all(tx, [(row[0], row[1], row[2]) for row in rows], table))[0]


async def with_all(
    tx: AsyncSession, rows: Sequence[tuple[Recording, Case, Session]], table: Table
) -> list[Kept]:
    """These recordings, with all that decides whether each of them stays."""
    ids = [recording.id for recording, _, _ in rows]
    classes = await tx.scalars(
        select(RecordingClass)
        .where(RecordingClass.recording_id.in_(ids))
        .order_by(RecordingClass.position)
    )
    class_of = {row.recording_id: MatterClass(row.matter_class) for row in classes}
    holds = list(
        await tx.scalars(
            select(LegalHold)
            .where(LegalHold.recording_id.in_(ids))
            .order_by(LegalHold.placed_at, LegalHold.id)
            .execution_options(populate_existing=True)
        )
    )
    deletions = await tx.scalars(
        select(Deletion)
        .where(Deletion.recording_id.in_(ids), Deletion.ended_at.is_(None))
        .execution_options(populate_existing=True)
    )
    deletion_of = {row.recording_id: row for row in deletions}
    closed = {
        row[0]: row[1]
        for row in await tx.execute(
            select(CaseEvent.case_id, func.max(CaseEvent.at))
            .where(
                CaseEvent.case_id.in_([case.id for _, case, _ in rows]),
                CaseEvent.kind == CaseState.CLOSED.value,
            )
            .group_by(CaseEvent.case_id)
        )
    }
    return [
        _kept(
            row, closed.get(row[1].id), table[class_of.get(row[0].id, DEFAULT_CLASS)],
            tuple(hold for hold in holds if hold.recording_id == row[0].id),
            deletion_of.get(row[0].id),
        )
        for row in rows
    ]  # fmt: skip


def _kept(
    row: tuple[Recording, Case, Session],
    closed_at: datetime | None,
    rule: Rule,
    holds: tuple[LegalHold, ...],
    deletion: Deletion | None,
) -> Kept:
    recording, case, session = row
    closed_on = None if closed_at is None else local_date(closed_at)
    return Kept(
        recording, case, session, closed_at, rule, holds, deletion,
        Keeping(
            keep_until=retention.keep_until(
                rule, closed_on, local_date(session.ended_at or session.started_at)
            ),
            is_settled=recording.state in _SETTLED,
            holds=frozenset(hold.id for hold in holds if hold.lifted_at is None),
            proposal=None if deletion is None else proposal_of(deletion),
            is_deleted=deletion is not None and deletion.deleted_at is not None,
        ),
    )  # fmt: skip


def proposal_of(row: Deletion) -> Proposal:
    return Proposal(
        row.proposed_by, row.confirmed_by, row.cooled_ms * MS, _seen(row),
        is_decided=row.decided_at is not None, is_halted=row.halted_at is not None,
    )  # fmt: skip


def _seen(row: Deletion) -> Seen | None:
    if row.seen_at is None or row.seen_mono_ns is None or row.seen_boot_id is None:
        return None
    return Seen(row.seen_at, row.seen_mono_ns, row.seen_boot_id)


def count(row: Deletion, proposal: Proposal) -> None:
    """Write down how long it has cooled."""
    row.cooled_ms = proposal.cooled // MS
    if proposal.seen is not None:
        row.seen_at, row.seen_mono_ns = proposal.seen.wall, proposal.seen.mono_ns
        row.seen_boot_id = proposal.seen.boot_id


def look(clock: Clock) -> Seen:
    """Both clocks, now."""
    return Seen(clock.now(), clock.monotonic_ns(), boot_id())


# Each act takes a `kept(lock=True)` and raises what the rule raises.


async def classify(
    tx: AsyncSession, it: Kept, kind: MatterClass, words: str, by: Staff, *, now: datetime
) -> None:
    """Say what the matter came to; its period follows."""
    retention.reclassify(it.keeping, None)
    position = await tx.scalar(
        select(func.count()).where(RecordingClass.recording_id == it.recording.id)
    )
    tx.add(
        RecordingClass(
            recording_id=it.recording.id, position=(position or 0) + 1, matter_class=kind.value,
            words=words, classed_at=now, classed_by=by.account_id,
        )
    )  # fmt: skip
    await note(
        tx, it, EventWord.RECORDING_CLASSED, words, by.actor, now=now, matter_class=kind.value
    )


async def place_hold(
    tx: AsyncSession, it: Kept, words: str, by: Staff, *, now: datetime
) -> LegalHold:
    """Nothing is deleted while it stands; a deletion that was asked for is over."""
    hold = LegalHold(
        id=LegalHoldId(new_id()), recording_id=it.recording.id, words=words, placed_at=now,
        placed_by=by.account_id, lifted_at=None, lifted_by=None, lifted_words=None,
    )  # fmt: skip
    retention.place_hold(it.keeping, hold.id)
    tx.add(hold)
    # The reason may be known to few: it stands with the hold, not in the ledger that many read.
    await note(
        tx, it, EventWord.RECORDING_HELD, "录音录像暂缓销毁。", by.actor, now=now, hold_id=hold.id
    )
    if it.deletion is not None:
        await stop(tx, it, it.deletion, "暂缓销毁", by.actor, now=now)
    return hold


async def lift_hold(
    tx: AsyncSession, it: Kept, hold_id: str, words: str, by: Staff, *, now: datetime
) -> None:
    retention.lift_hold(it.keeping, hold_id)
    hold = next(hold for hold in it.holds if hold.id == hold_id)
    hold.lifted_at, hold.lifted_by, hold.lifted_words = now, by.account_id, words
    await note(
        tx, it, EventWord.RECORDING_HOLD_LIFTED, "一项暂缓销毁已解除。", by.actor, now=now,
        hold_id=hold_id,
    )  # fmt: skip


async def propose(tx: AsyncSession, it: Kept, words: str, by: Staff, *, seen: Seen) -> Deletion:
    """The first signature. Of two at once the unique index lets one through. Raises
    `ClockDoubted`."""
    now = seen.wall
    retention.propose(it.keeping, by.account_id, local_date(now))
    await keeping_clock.require_sane(tx, seen)
    row = Deletion(
        id=DeletionId(new_id()), recording_id=it.recording.id, words=words, proposed_at=now,
        proposed_by=by.account_id, confirmed_at=None, confirmed_by=None, cooled_ms=0, seen_at=None,
        seen_mono_ns=None, seen_boot_id=None, ended_at=None, ended_by=None, ended_words=None,
        decided_at=None, attempts=0, trouble=None, halted_at=None, deleted_at=None,
    )  # fmt: skip
    tx.add(row)
    await note(tx, it, EventWord.DELETION_PROPOSED, words, by.actor, now=now, deletion_id=row.id)
    return row


async def confirm(tx: AsyncSession, it: Kept, deletion_id: str, by: Staff, *, seen: Seen) -> None:
    """The second signature; cooling begins. Whoever asks about the case can read it from now on.
    Raises `ClockDoubted`."""
    now, row = seen.wall, it.deletion
    if row is None or row.id != deletion_id:
        raise NothingProposed("That deletion is not proposed any more. Reload the page.")
    after = retention.confirm(it.keeping, by.account_id, seen, local_date(now))
    await keeping_clock.require_sane(tx, seen)
    assert after.proposal is not None
    row.confirmed_at, row.confirmed_by = now, by.account_id
    count(row, after.proposal)
    await note(
        tx, it, EventWord.DELETION_CONFIRMED,
        "录音录像保管期限已满，72 小时后依法销毁。有异议的，请在此前向接待室提出。",
        by.actor, now=now, is_public=True, deletion_id=row.id,
    )  # fmt: skip


async def cancel(tx: AsyncSession, it: Kept, words: str, by: Staff, *, now: datetime) -> None:
    retention.cancel(it.keeping)
    assert it.deletion is not None
    await stop(tx, it, it.deletion, words, by.actor, now=now)


async def go_on(tx: AsyncSession, it: Kept, by: Staff, *, now: datetime) -> None:
    """Let a halted deletion be tried again; the keeper begins its next attempt."""
    retention.go_on(it.keeping)
    assert it.deletion is not None
    it.deletion.halted_at = it.deletion.trouble = None
    await audit.record(
        tx, now=now, actor=by.actor, action="deletion_retried", object_kind="recording",
        object_id=it.recording.id, deletion_id=it.deletion.id, attempts=it.deletion.attempts,
    )  # fmt: skip


async def stop(
    tx: AsyncSession, it: Kept, row: Deletion, words: str, actor: str, *, now: datetime
) -> None:
    """End a deletion that is not decided."""
    row.ended_at, row.ended_by, row.ended_words = now, actor, words
    # Whoever could read that it would go must be able to read that it stays, and no more than that.
    await note(
        tx, it, EventWord.DELETION_STOPPED, "录音录像继续保管。", actor, now=now,
        is_public=row.confirmed_at is not None, deletion_id=row.id,
    )  # fmt: skip


async def note(
    tx: AsyncSession,
    it: Kept,
    kind: EventWord,
    words: str,
    actor: str,
    *,
    now: datetime,
    is_public: bool = False,
    **details: str | int | None,
) -> None:
    """The case's ledger has the words, the audit log has the ids."""
    await ledger.append(
        tx, CaseId(it.case.id), now=now, kind=kind.value, actor=actor, words=words,
        is_public=is_public,
    )  # fmt: skip
    await audit.record(
        tx, now=now, actor=actor, action=kind.value, object_kind="recording",
        object_id=it.recording.id, result="ok", case_id=it.case.id, **details,
    )  # fmt: skip


async def names_of(tx: AsyncSession, account_ids: Iterable[str | None]) -> dict[str, str]:
    """The names with which these accounts sign."""
    rows = await tx.execute(
        select(Account.id, Account.display_name).where(
            Account.id.in_({account_id for account_id in account_ids if account_id})
        )
    )
    return {row[0]: row[1] for row in rows}


async def certificate_of(tx: AsyncSession, recording_id: str) -> DeletionCertificate | None:
    found: DeletionCertificate | None = await tx.scalar(
        select(DeletionCertificate).where(DeletionCertificate.recording_id == recording_id)
    )
    return found


async def past_deletions(tx: AsyncSession, recording_id: str) -> list[Deletion]:
    """Those that were stopped, newest first."""
    rows = await tx.scalars(
        select(Deletion)
        .where(Deletion.recording_id == recording_id, Deletion.ended_at.is_not(None))
        .order_by(Deletion.ended_at.desc(), Deletion.id)
    )
    return list(rows)


def earliest_cool(it: Kept, now: datetime) -> datetime | None:
    """When cooling is over if the house stays open; None if it does not cool."""
    proposal = it.keeping.proposal
    if proposal is None or proposal.confirmed_by is None or proposal.is_cool:
        return None
    return now + (COOLING - proposal.cooled)
