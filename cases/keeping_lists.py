"""The archive's lists: recordings by what may become of them. Only reads."""

from collections.abc import Sequence
from datetime import date, datetime

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from cases import retention
from cases.keeping import Kept, with_all
from cases.keeping_model import Deletion, LegalHold, RecordingClass
from cases.model import Case, CaseEvent
from cases.retention import DEFAULT_CLASS, Table
from cases.schemas import CaseState
from core.clock import LOCAL_ZONE
from media.model import Recording
from signaling.model import Session

_OPEN_DELETION = exists().where(Deletion.recording_id == Recording.id, Deletion.ended_at.is_(None))
_DELETED = exists().where(
    Deletion.recording_id == Recording.id, Deletion.deleted_at.is_not(None)
)  # fmt: skip
_HELD = exists().where(LegalHold.recording_id == Recording.id, LegalHold.lifted_at.is_(None))


def is_due(table: Table, today: date) -> ColumnElement[bool]:
    """`retention.is_due` as a condition on `Recording`, `Case` and `Session`."""
    newer = RecordingClass.__table__.alias("newer")
    newest = ~exists().where(
        newer.c.recording_id == RecordingClass.recording_id,
        newer.c.position > RecordingClass.position,
    )
    ways: list[ColumnElement[bool]] = []
    for kind, rule in table.items():
        before = retention.over_before(rule, today)
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
        ended = func.coalesce(Session.ended_at, Session.started_at)
        ways.append(and_(is_of_class, closed < midnight, ended < midnight))
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
    return await with_all(tx, [(row[0], row[1], row[2]) for row in rows], table)


def after(started_at: datetime, recording_id: str) -> ColumnElement[bool]:
    """What follows this one in `page`."""
    return or_(
        Session.started_at > started_at,
        and_(Session.started_at == started_at, Recording.id > recording_id),
    )
