"""Keeping recordings (保管): the rules of cases/retention.py, in the database.

Every act loads all that decides, asks the pure rule, and writes rows, ledger line and audit line in
one transaction. The recording's row is locked first, so that two acts never decide side by side.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from cases import access, certificate, ledger, retention
from cases.certificate import Facts, Signatory
from cases.keeping_model import Deletion, DeletionCertificate, LegalHold, RecordingClass
from cases.ledger import SYSTEM, EventWord
from cases.model import Case, CaseEvent
from cases.recordings import NoRecording
from cases.retention import (
    COOLING,
    DEFAULT_CLASS,
    Keeping,
    MatterClass,
    NotDue,
    NothingProposed,
    NotSettled,
    Proposal,
    Rule,
    SamePerson,
    Seen,
    StillCooling,
    Table,
    UnderHold,
)
from cases.schemas import CaseState
from core import audit
from core.clock import LOCAL_ZONE, Clock, local_date
from core.identity import Account, Staff, staff_by_id
from core.ids import CaseId, DeletionId, LegalHoldId, new_id
from core.policy import Verb
from media.erasure import Erasure
from media.manifest import boot_id
from media.model import Recording, RecordingFile, RecordingState
from media.signing import Signer
from signaling.model import Session

log = structlog.get_logger()

_SETTLED = (RecordingState.READY, RecordingState.FAILED)
_MS = timedelta(milliseconds=1)


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
    return (await _load(tx, Case.id == case_id, table, lock=lock))[0]


async def _load(
    tx: AsyncSession, which: ColumnElement[bool], table: Table, *, lock: bool
) -> list[Kept]:
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
    return await _with_all(tx, [(row[0], row[1], row[2]) for row in rows], table)


async def _with_all(
    tx: AsyncSession, rows: Sequence[tuple[Recording, Case, Session]], table: Table
) -> list[Kept]:
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
            keep_until=retention.keep_until(rule, closed_on),
            is_settled=recording.state in _SETTLED,
            holds=frozenset(hold.id for hold in holds if hold.lifted_at is None),
            proposal=None if deletion is None else _proposal(deletion),
            is_deleted=deletion is not None and deletion.deleted_at is not None,
        ),
    )  # fmt: skip


def _proposal(row: Deletion) -> Proposal:
    return Proposal(
        row.proposed_by, row.confirmed_by, row.cooled_ms * _MS, _seen(row),
        is_decided=row.decided_at is not None,
    )  # fmt: skip


def _seen(row: Deletion) -> Seen | None:
    if row.seen_at is None or row.seen_mono_ns is None or row.seen_boot_id is None:
        return None
    return Seen(row.seen_at, row.seen_mono_ns, row.seen_boot_id)


def _count(row: Deletion, proposal: Proposal) -> None:
    row.cooled_ms = proposal.cooled // _MS
    if proposal.seen is not None:
        row.seen_at, row.seen_mono_ns = proposal.seen.wall, proposal.seen.mono_ns
        row.seen_boot_id = proposal.seen.boot_id


def look(clock: Clock) -> Seen:
    """Both clocks, now."""
    return Seen(clock.now(), clock.monotonic_ns(), boot_id())


# What people do. Each takes a `kept(lock=True)` and raises what the rule raises.


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
    await _note(
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
    await _note(
        tx, it, EventWord.RECORDING_HELD, "录音录像暂缓销毁。", by.actor, now=now, hold_id=hold.id
    )
    if it.deletion is not None:
        await _stop(tx, it, it.deletion, "暂缓销毁", by.actor, now=now)
    return hold


async def lift_hold(
    tx: AsyncSession, it: Kept, hold_id: str, words: str, by: Staff, *, now: datetime
) -> None:
    retention.lift_hold(it.keeping, hold_id)
    hold = next(hold for hold in it.holds if hold.id == hold_id)
    hold.lifted_at, hold.lifted_by, hold.lifted_words = now, by.account_id, words
    await _note(
        tx, it, EventWord.RECORDING_HOLD_LIFTED, "一项暂缓销毁已解除。", by.actor, now=now,
        hold_id=hold_id,
    )  # fmt: skip


async def propose(tx: AsyncSession, it: Kept, words: str, by: Staff, *, now: datetime) -> Deletion:
    """The first signature. Of two at once the unique index lets one through."""
    retention.propose(it.keeping, by.account_id, local_date(now))
    row = Deletion(
        id=DeletionId(new_id()), recording_id=it.recording.id, words=words, proposed_at=now,
        proposed_by=by.account_id, confirmed_at=None, confirmed_by=None, cooled_ms=0, seen_at=None,
        seen_mono_ns=None, seen_boot_id=None, ended_at=None, ended_by=None, ended_words=None,
        decided_at=None, attempts=0, trouble=None, deleted_at=None,
    )  # fmt: skip
    tx.add(row)
    await _note(tx, it, EventWord.DELETION_PROPOSED, words, by.actor, now=now, deletion_id=row.id)
    return row


async def confirm(
    tx: AsyncSession, it: Kept, deletion_id: str, by: Staff, *, now: datetime, seen: Seen
) -> None:
    """The second signature; cooling begins. Whoever asks about the case can read it from now on."""
    row = it.deletion
    if row is None or row.id != deletion_id:
        raise NothingProposed("That deletion is not proposed any more. Reload the page.")
    after = retention.confirm(it.keeping, by.account_id, seen, local_date(now))
    assert after.proposal is not None
    row.confirmed_at, row.confirmed_by = now, by.account_id
    _count(row, after.proposal)
    await _note(
        tx, it, EventWord.DELETION_CONFIRMED,
        "录音录像保管期限已满，72 小时后依法销毁。有异议的，请在此前向接待室提出。",
        by.actor, now=now, is_public=True, deletion_id=row.id,
    )  # fmt: skip


async def cancel(tx: AsyncSession, it: Kept, words: str, by: Staff, *, now: datetime) -> None:
    retention.cancel(it.keeping)
    assert it.deletion is not None
    await _stop(tx, it, it.deletion, words, by.actor, now=now)


async def _stop(
    tx: AsyncSession, it: Kept, row: Deletion, words: str, actor: str, *, now: datetime
) -> None:
    row.ended_at, row.ended_by, row.ended_words = now, actor, words
    # Whoever could read that it would go must be able to read that it stays, and no more than that.
    await _note(
        tx, it, EventWord.DELETION_STOPPED, "录音录像继续保管。", actor, now=now,
        is_public=row.confirmed_at is not None, deletion_id=row.id,
    )  # fmt: skip


async def _note(
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


# What follows by itself (app/keeping.py).


async def count_cooling(tx: AsyncSession, seen: Seen) -> None:
    """Look at the clocks for every deletion that cools."""
    rows = await tx.scalars(
        select(Deletion)
        .where(
            Deletion.confirmed_at.is_not(None),
            Deletion.ended_at.is_(None),
            Deletion.decided_at.is_(None),
        )
        .order_by(Deletion.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for row in rows:
        _count(row, retention.observe(_proposal(row), seen))


async def is_anything_confirmed(tx: AsyncSession) -> bool:
    """Whether the keeper has anything to do: almost always not, and then it only reads."""
    confirmed = exists().where(
        Deletion.confirmed_at.is_not(None),
        Deletion.ended_at.is_(None),
        Deletion.deleted_at.is_(None),
    )
    return bool(await tx.scalar(select(confirmed)))


async def ripe(tx: AsyncSession) -> list[tuple[DeletionId, int]]:
    """Deletions whose job must run, and how often it failed to see one through."""
    is_cool = Deletion.cooled_ms >= COOLING // _MS
    rows = await tx.execute(
        select(Deletion.id, Deletion.attempts)
        .where(
            Deletion.confirmed_at.is_not(None),
            Deletion.ended_at.is_(None),
            Deletion.deleted_at.is_(None),
            or_(is_cool, Deletion.decided_at.is_not(None)),
        )
        .order_by(Deletion.id)
    )
    return [(DeletionId(row[0]), row[1]) for row in rows]


async def decide(
    tx: AsyncSession, deletion_id: DeletionId, table: Table, *, now: datetime
) -> str | None:
    """The point of no return: everything is asked once more, here, in one transaction.

    The id of the recording whose files must go now; None if they must not. From then on nobody
    finds the recording, and nothing is made of it any more.
    """
    row = await tx.get(Deletion, deletion_id)
    if row is None:
        return None
    it = (await _load(tx, Recording.id == row.recording_id, table, lock=True))[0]
    row = it.deletion
    if row is None or row.id != deletion_id or row.deleted_at is not None:
        return None
    if row.decided_at is not None:
        return it.recording.id
    if not await _may_still_sign(tx, it, row, now=now):
        await _stop(tx, it, row, "签署人不再有此权限", SYSTEM, now=now)
        log.warning("deletion_stopped", deletion_id=deletion_id, cause="signatory")
        return None
    try:
        retention.decide(it.keeping, local_date(now))
    except (NotDue, UnderHold, NotSettled, StillCooling, NothingProposed, SamePerson) as refusal:
        row.attempts += 1
        row.trouble = refusal.message
        log.warning("deletion_refused", deletion_id=deletion_id, code=refusal.code)
        return None
    row.decided_at, row.trouble = now, None
    it.recording.state = RecordingState.EXPIRED
    it.recording.stage = it.recording.error_code = it.recording.error = None
    await audit.record(
        tx, now=now, actor=SYSTEM, action="deletion_decided", object_kind="recording",
        object_id=it.recording.id, deletion_id=deletion_id, proposed_by=row.proposed_by,
        confirmed_by=row.confirmed_by,
    )  # fmt: skip
    return it.recording.id


async def _may_still_sign(tx: AsyncSession, it: Kept, row: Deletion, *, now: datetime) -> bool:
    """Whether both are still there and still in the roles in which they signed."""
    _, place = await access.session_place(tx, it.session.id)
    for account_id, verb in (
        (row.proposed_by, Verb.PROPOSE_DELETION),
        (row.confirmed_by, Verb.CONFIRM_DELETION),
    ):
        person = await staff_by_id(tx, account_id) if account_id else None
        if person is None or not access.may(person, verb, place, now=now):
            return False
    return True


async def require_decided(tx: AsyncSession, deletion_id: DeletionId, recording_id: str) -> None:
    """Raise `NothingProposed` unless this deletion of this recording has been decided."""
    decided = await tx.scalar(
        select(Deletion.decided_at).where(
            Deletion.id == deletion_id, Deletion.recording_id == recording_id
        )
    )
    if decided is None:
        raise NothingProposed("This deletion has not been decided. Nothing is erased.")


async def note_trouble(tx: AsyncSession, deletion_id: DeletionId, words: str) -> None:
    """The job could not see it through; the next one begins where this one stood."""
    row = await tx.get(Deletion, deletion_id, with_for_update=True)
    if row is not None and row.deleted_at is None:
        row.attempts += 1
        row.trouble = words


async def complete(
    tx: AsyncSession,
    deletion_id: DeletionId,
    erasure: Erasure,
    table: Table,
    signer: Signer,
    *,
    now: datetime,
) -> DeletionCertificate:
    """The files have gone: rows, certificate, ledger and audit line. Completing twice changes
    nothing and returns the same certificate."""
    existing = await tx.get(DeletionCertificate, deletion_id)
    if existing is not None:
        return existing
    row = (await tx.scalars(select(Deletion).where(Deletion.id == deletion_id))).one()
    it = (await _load(tx, Recording.id == row.recording_id, table, lock=True))[0]
    # Someone may have completed it while we waited for the lock.
    existing = await tx.get(DeletionCertificate, deletion_id, populate_existing=True)
    if existing is not None:
        return existing
    retention.complete(it.keeping)
    body = certificate.make(await _facts(tx, it, row, now=now), erasure)
    made = DeletionCertificate(
        deletion_id=deletion_id, recording_id=it.recording.id, made_at=now, body=body,
        sha256=certificate.sha256(body), signature=signer.sign(body.encode()).encode().decode(),
    )  # fmt: skip
    tx.add(made)
    row.deleted_at, row.trouble = now, None
    await tx.execute(delete(RecordingFile).where(RecordingFile.recording_id == it.recording.id))
    it.recording.state = RecordingState.EXPIRED
    it.recording.timeline = {}
    await _note(
        tx, it, EventWord.RECORDING_DELETED,
        f"录音录像保管期限已满，已依法销毁（{retention.LEGAL_BASIS}）。笔录和台账继续保存。",
        SYSTEM, now=now, is_public=True, deletion_id=deletion_id,
        certificate_sha256=made.sha256, manifest_sha256=erasure.manifest_sha256,
        files=len(erasure.files), bytes=sum(file.bytes for file in erasure.files),
    )  # fmt: skip
    log.info("recording_deleted", recording_id=it.recording.id, deletion_id=deletion_id)
    return made


async def _facts(tx: AsyncSession, it: Kept, row: Deletion, *, now: datetime) -> Facts:
    assert row.confirmed_by is not None and row.confirmed_at is not None
    assert row.decided_at is not None
    assert it.closed_on is not None and it.keeping.keep_until is not None
    names = await names_of(tx, (row.proposed_by, row.confirmed_by))
    return Facts(
        recording_id=it.recording.id, session_id=it.session.id, case_number=it.case.number,
        held_at=it.session.started_at, closed_on=it.closed_on, keep_until=it.keeping.keep_until,
        rule=it.rule,
        proposed=Signatory(row.proposed_by, names[row.proposed_by], row.proposed_at, row.words),
        confirmed=Signatory(row.confirmed_by, names[row.confirmed_by], row.confirmed_at, None),
        cooled_s=row.cooled_ms // 1000, decided_at=row.decided_at, deleted_at=now,
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


# Lists.

_OPEN_DELETION = exists().where(Deletion.recording_id == Recording.id, Deletion.ended_at.is_(None))
_DELETED = exists().where(
    Deletion.recording_id == Recording.id, Deletion.deleted_at.is_not(None)
)  # fmt: skip
_HELD = exists().where(LegalHold.recording_id == Recording.id, LegalHold.lifted_at.is_(None))


def is_due(table: Table, today: date) -> ColumnElement[bool]:
    """`retention.is_due` as a condition on `Recording` and `Case`."""
    newer = RecordingClass.__table__.alias("newer")
    newest = ~exists().where(
        newer.c.recording_id == RecordingClass.recording_id,
        newer.c.position > RecordingClass.position,
    )
    ways: list[ColumnElement[bool]] = []
    for kind, rule in table.items():
        before = retention.closed_before(rule, today)
        if before is None:
            continue
        is_of_class: ColumnElement[bool] = exists().where(
            RecordingClass.recording_id == Recording.id,
            RecordingClass.matter_class == kind.value,
            newest,
        )
        if kind is DEFAULT_CLASS:
            is_of_class = or_(
                is_of_class, ~exists().where(RecordingClass.recording_id == Recording.id)
            )
        closed = (
            select(func.max(CaseEvent.at))
            .where(CaseEvent.case_id == Case.id, CaseEvent.kind == CaseState.CLOSED.value)
            .scalar_subquery()
        )
        midnight = datetime.combine(before, datetime.min.time(), LOCAL_ZONE)
        ways.append(and_(is_of_class, closed < midnight))
    return or_(*ways) if ways else ~true()


def shelf_due(table: Table, today: date) -> ColumnElement[bool]:
    """What could be proposed today."""
    return and_(is_due(table, today), ~_OPEN_DELETION, ~_HELD)


SHELF_ASKED: ColumnElement[bool] = and_(_OPEN_DELETION, ~_DELETED)
SHELF_HELD: ColumnElement[bool] = _HELD
SHELF_DELETED: ColumnElement[bool] = _DELETED


async def page(
    tx: AsyncSession,
    conditions: Sequence[ColumnElement[bool]],
    table: Table,
    *,
    limit: int,
) -> list[Kept]:
    """Recordings whose case fulfils `conditions`, the oldest talk first."""
    query = (
        select(Recording, Case, Session)
        .join(Case, Case.session_id == Recording.session_id)
        .join(Session, Session.id == Recording.session_id)
        .where(*conditions)
        .order_by(Session.started_at, Recording.id)
        .limit(limit)
        .options(joinedload(Case.county))
    )
    rows = list(await tx.execute(query))
    if not rows:
        return []
    return await _with_all(tx, [(row[0], row[1], row[2]) for row in rows], table)


def after(started_at: datetime, recording_id: str) -> ColumnElement[bool]:
    """What follows this one in `page`."""
    return or_(
        Session.started_at > started_at,
        and_(Session.started_at == started_at, Recording.id > recording_id),
    )


def earliest_cool(it: Kept, now: datetime) -> datetime | None:
    """When cooling is over if the house stays open; None if it does not cool."""
    proposal = it.keeping.proposal
    if proposal is None or proposal.confirmed_by is None or proposal.is_cool:
        return None
    return now + (COOLING - proposal.cooled)
