"""What follows two signatures by itself: cooling is counted, then the durable job's steps.

app/keeping.py runs the job; here is what each of its steps reads and writes, one transaction each.
An attempt has a number. It counts until it fails, and fails once, however often a step of it is
repeated after a crash.
"""

from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from cases import access, certificate, keeping, keeping_clock, retention
from cases.certificate import Facts, Signatory
from cases.keeping import Kept
from cases.keeping_clock import ClockDoubted
from cases.keeping_model import Deletion, DeletionCertificate
from cases.ledger import SYSTEM, EventWord
from cases.retention import (
    COOLING,
    NotDue,
    NothingProposed,
    NotSettled,
    SamePerson,
    Seen,
    StillCooling,
    Table,
    UnderHold,
)
from core import audit
from core.clock import local_date
from core.identity import staff_by_id
from core.ids import DeletionId
from core.policy import Verb
from media.erasure import Erasure
from media.model import RecordingFile, RecordingState
from media.signing import Signer

log = structlog.get_logger()

_REFUSALS: Final = (
    ClockDoubted, NotDue, UnderHold, NotSettled, StillCooling, NothingProposed, SamePerson,
)  # fmt: skip


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
        keeping.count(row, retention.observe(keeping.proposal_of(row), seen))


async def is_anything_confirmed(tx: AsyncSession) -> bool:
    """Whether the keeper has anything to do: almost always not, and then it only reads."""
    confirmed = exists().where(
        Deletion.confirmed_at.is_not(None),
        Deletion.ended_at.is_(None),
        Deletion.deleted_at.is_(None),
    )
    return bool(await tx.scalar(select(confirmed)))


async def ripe(tx: AsyncSession) -> list[tuple[DeletionId, int]]:
    """Deletions whose job must run, and which attempt it is. Halted ones wait for a person."""
    is_cool = Deletion.cooled_ms >= COOLING // keeping.MS
    rows = await tx.execute(
        select(Deletion.id, Deletion.attempts)
        .where(
            Deletion.confirmed_at.is_not(None),
            Deletion.ended_at.is_(None),
            Deletion.deleted_at.is_(None),
            Deletion.halted_at.is_(None),
            or_(is_cool, Deletion.decided_at.is_not(None)),
        )
        .order_by(Deletion.id)
    )
    return [(DeletionId(row[0]), row[1]) for row in rows]


async def decide(
    tx: AsyncSession, deletion_id: DeletionId, attempt: int, table: Table, *, seen: Seen
) -> str | None:
    """The point of no return: everything is asked once more, here, in one transaction.

    The id of the recording whose files must go now; None if they must not, or if this attempt is
    over. From then on nobody finds the recording, and nothing is made of it any more.
    """
    row = await tx.get(Deletion, deletion_id)
    if row is None:
        return None
    now, it = seen.wall, await keeping.kept_as(tx, row.recording_id, table)
    row = it.deletion
    if row is None or row.id != deletion_id or not _is_open(row, attempt):
        return None
    if row.decided_at is not None:
        return it.recording.id
    if not await _may_still_sign(tx, it, row, now=now):
        await keeping.stop(tx, it, row, "签署人不再有此权限", SYSTEM, now=now)
        log.warning("deletion_stopped", deletion_id=deletion_id, cause="signatory")
        return None
    try:
        retention.decide(it.keeping, local_date(now))
        await keeping_clock.require_sane(tx, seen)
    except _REFUSALS as refusal:
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


async def note_trouble(tx: AsyncSession, deletion_id: DeletionId, attempt: int, words: str) -> None:
    """The job could not see it through; the next one begins where this one stood. An attempt that
    is over has nothing to tell."""
    row = await _locked(tx, deletion_id)
    if row is not None and _is_open(row, attempt):
        row.attempts += 1
        row.trouble = words


async def halt(
    tx: AsyncSession, deletion_id: DeletionId, attempt: int, words: str, *, now: datetime
) -> bool:
    """The attempt ended in a way that nobody foresaw: none follows until a person says so.

    Whether it was this call that halted it; of several that saw the same end, one does.
    """
    row = await _locked(tx, deletion_id)
    if row is None or row.ended_at is not None or not _is_open(row, attempt):
        return False
    row.attempts += 1
    row.trouble, row.halted_at = words, now
    await audit.record(
        tx, now=now, actor=SYSTEM, action="deletion_halted", object_kind="recording",
        object_id=row.recording_id, result="failed", deletion_id=deletion_id, attempt=attempt,
    )  # fmt: skip
    return True


async def halted(tx: AsyncSession) -> int:
    """How many deletions wait for a person to look at what broke them off."""
    found = await tx.scalar(
        select(func.count())
        .select_from(Deletion)
        .where(Deletion.halted_at.is_not(None), Deletion.ended_at.is_(None))
    )
    return found or 0


async def _locked(tx: AsyncSession, deletion_id: DeletionId) -> Deletion | None:
    return await tx.get(Deletion, deletion_id, with_for_update=True, populate_existing=True)


def _is_open(row: Deletion, attempt: int) -> bool:
    """Whether this attempt still counts: it has not failed, and nobody has halted it."""
    return row.deleted_at is None and row.halted_at is None and row.attempts == attempt


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
    it = await keeping.kept_as(tx, row.recording_id, table)
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
    await keeping.note(
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
    names = await keeping.names_of(tx, (row.proposed_by, row.confirmed_by))
    return Facts(
        recording_id=it.recording.id, session_id=it.session.id, case_number=it.case.number,
        held_at=it.session.started_at, closed_on=it.closed_on, keep_until=it.keeping.keep_until,
        rule=it.rule,
        proposed=Signatory(row.proposed_by, names[row.proposed_by], row.proposed_at, row.words),
        confirmed=Signatory(row.confirmed_by, names[row.confirmed_by], row.confirmed_at, None),
        cooled_s=row.cooled_ms // 1000, decided_at=row.decided_at, deleted_at=now,
    )  # fmt: skip
