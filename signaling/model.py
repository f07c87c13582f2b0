"""Tables of the talk itself: one Session per appointment that was ever called, and who was in it.

The UNIQUE appointment decides races: whatever two nodes believe, one of them gets the row. `epoch`
counts the owners a session has had; an owner that was presumed dead and wakes up later finds a
higher epoch and changes nothing.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base


class SessionState(StrEnum):
    LIVE = "live"
    ENDED = "ended"


class Session(Base):
    """A talk that went live. `started_at` is time 0 of its timeline: marks count from there."""

    __tablename__ = "sessions"
    __table_args__ = (
        UniqueConstraint("appointment_id", name="uq_sessions_appointment_id"),
        CheckConstraint("state IN ('live', 'ended')", name="state"),
        CheckConstraint("(state = 'ended') = (ended_at IS NOT NULL)", name="ended_at"),
        # What a starting node asks for: its own sessions that nobody ended.
        Index("ix_sessions_state_node", "state", "node"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    appointment_id: Mapped[str] = mapped_column(String(32), ForeignKey("appointments.id"))
    room_id: Mapped[str] = mapped_column(String(32), index=True)
    official_id: Mapped[str] = mapped_column(String(32), ForeignKey("officials.id"))
    county_id: Mapped[str] = mapped_column(String(32), ForeignKey("org_units.id"))
    node: Mapped[str] = mapped_column(String(80))
    epoch: Mapped[int]
    state: Mapped[str] = mapped_column(String(8))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(32))
    recording_id: Mapped[str | None] = mapped_column(String(32))
    """None when nothing could be recorded at all, e.g. for a full disk."""
    slot_ends_at: Mapped[datetime | None]


class Attendance(Base):
    """One stay of one participant; who leaves and comes again has two."""

    __tablename__ = "attendances"
    __table_args__ = (
        Index(
            "uq_attendances_open",
            "session_id",
            "participant_id",
            unique=True,
            sqlite_where=text("left_at IS NULL"),
            postgresql_where=text("left_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = mapped_column(String(32), ForeignKey("sessions.id"), index=True)
    participant_id: Mapped[str] = mapped_column(String(32))
    role: Mapped[str] = mapped_column(String(16))
    label_zh: Mapped[str] = mapped_column(String(200))
    label_bo: Mapped[str | None] = mapped_column(String(200))
    label_en: Mapped[str] = mapped_column(String(200))
    joined_at: Mapped[datetime]
    left_at: Mapped[datetime | None]
