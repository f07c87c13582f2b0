"""The ledger of one case (一案一台账): lines appended, chained by SHA-256, never changed.

As core/audit.py, but per case, and for people to read: who did what on which basis. A line's
digest covers the digest before it, so a changed, removed or swapped line breaks every later one.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cases.model import Case, CaseEvent
from core.audit import GENESIS
from core.ids import CaseId

SYSTEM = "system"
"""The actor of what follows by itself."""


class EventWord(StrEnum):
    """What a line may tell, beside the steps of the workflow, which are told by their state."""

    REGISTERED = "registered"
    PAPERS_JOINED = "papers_joined"
    PROMISE_MADE = "promise_made"
    PROMISE_KEPT = "promise_kept"
    DEMAND_CHANGED = "demand_changed"
    MINUTES_CHANGED = "minutes_changed"
    MATERIAL_ADDED = "material_added"
    CLOCK_STARTED = "clock_started"
    RECORDING_RETRIED = "recording_retried"
    RECORDING_CLASSED = "recording_classed"
    RECORDING_HELD = "recording_held"
    RECORDING_HOLD_LIFTED = "recording_hold_lifted"
    DELETION_PROPOSED = "deletion_proposed"
    DELETION_CONFIRMED = "deletion_confirmed"
    DELETION_STOPPED = "deletion_stopped"
    RECORDING_DELETED = "recording_deleted"


async def append(
    tx: AsyncSession,
    case_id: CaseId,
    *,
    now: datetime,
    kind: str,
    actor: str,
    words: str,
    article: str | None = None,
    is_public: bool = True,
) -> CaseEvent:
    """Write one line at the end. Locks the case, so that two writers keep one chain."""
    await tx.execute(select(Case.id).where(Case.id == case_id).with_for_update())
    last = await tx.scalar(
        select(CaseEvent)
        .where(CaseEvent.case_id == case_id)
        .order_by(CaseEvent.position.desc())
        .limit(1)
    )
    line = CaseEvent(
        case_id=case_id, position=last.position + 1 if last else 1, at=now, kind=kind, actor=actor,
        words=words, article=article, is_public=is_public,
        previous_digest=last.digest if last else GENESIS, digest="",
    )  # fmt: skip
    line.digest = line_digest(line)
    tx.add(line)
    await tx.flush()
    return line


async def lines(tx: AsyncSession, case_id: CaseId) -> list[CaseEvent]:
    """The whole ledger, oldest first."""
    rows = await tx.scalars(
        select(CaseEvent).where(CaseEvent.case_id == case_id).order_by(CaseEvent.position)
    )
    return list(rows)


def first_break(ledger: Iterable[CaseEvent]) -> int | None:
    """The position where the first line that does not fit was expected, or None if all fit.

    A ledger whose last lines were cut off still fits; the audit log, which names each line's
    writer and time, tells on that.
    """
    previous = GENESIS
    for expected, line in enumerate(ledger, start=1):
        fits = line.position == expected and line.previous_digest == previous
        if not fits or line.digest != line_digest(line):
            return expected
        previous = line.digest
    return None


def line_digest(line: CaseEvent) -> str:
    """SHA-256 over the line's content and the digest before it, as canonical JSON."""
    content = [
        line.case_id, line.position, line.at.isoformat(), line.kind, line.actor, line.words,
        line.article, line.is_public, line.previous_digest,
    ]  # fmt: skip
    canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
