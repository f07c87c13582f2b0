"""The outbox: what happened, written in the transaction in which it happened.

Whoever must act on it (app/workflows.py) reads unhandled rows in order, starts a durable workflow
named after the event's id and marks the row; doing so twice changes nothing. A crash between commit
and hand-over loses nothing: the row is still there.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base


class EventKind(StrEnum):
    APPOINTMENT_BOOKED = "appointment_booked"
    SESSION_STARTED = "session_started"
    SESSION_ENDED = "session_ended"
    CASE_OPENED = "case_opened"


class Event(Base):
    __tablename__ = "events"
    __table_args__ = (Index("ix_events_unhandled", "handled_at", "id"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    kind: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[str] = mapped_column(String(32))
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)  # JSON values of the event's own shape
    created_at: Mapped[datetime]
    handled_at: Mapped[datetime | None]


def publish(
    tx: AsyncSession,
    kind: EventKind,
    subject_id: str,
    *,
    now: datetime,
    **payload: str | int | None,
) -> None:
    """Write down that something happened, in the caller's transaction."""
    tx.add(
        Event(kind=kind, subject_id=subject_id, payload=payload, created_at=now, handled_at=None)
    )


async def unhandled(tx: AsyncSession, limit: int = 100) -> list[Event]:
    """The oldest events that nobody has acted on yet."""
    rows = await tx.scalars(
        select(Event).where(Event.handled_at.is_(None)).order_by(Event.id).limit(limit)
    )
    return list(rows)


async def mark_handled(tx: AsyncSession, event_id: int, *, now: datetime) -> None:
    await tx.execute(update(Event).where(Event.id == event_id).values(handled_at=now))
