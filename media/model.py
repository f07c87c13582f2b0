"""Tables of what was recorded: one Recording per Session, its finished files, their timeline.

The journals on disk are the truth; these rows say how far their finishing has come. With jobs.py
the only module of the media plane that knows the database.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db import Base


class RecordingState(StrEnum):
    STARTING = "starting"
    CAPTURING = "capturing"
    CAPTURED = "captured"
    MUXING = "muxing"
    READY = "ready"
    FAILED = "failed"
    EXPIRED = "expired"


class FileKind(StrEnum):
    PARTY = "party"
    DOCUMENT = "document"
    COMPOSED = "composed"
    POSTER = "poster"


class Recording(Base):
    """Its journals lie in `settings.recordings_dir / id`."""

    __tablename__ = "recordings"
    __table_args__ = (
        UniqueConstraint("session_id", name="uq_recordings_session_id"),
        CheckConstraint(
            "state IN ('starting','capturing','captured','muxing','ready','failed','expired')",
            name="state",
        ),
        CheckConstraint("progress_percent BETWEEN 0 AND 100", name="progress"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = mapped_column(String(32), ForeignKey("sessions.id"))
    state: Mapped[str] = mapped_column(String(12))
    started_at: Mapped[datetime]
    captured_at: Mapped[datetime | None] = mapped_column(default=None)
    ready_at: Mapped[datetime | None] = mapped_column(default=None)
    stage: Mapped[str | None] = mapped_column(String(12), default=None)
    """The step under way, or the one that failed: seal, mux, verify, poster, compose."""
    progress_percent: Mapped[int] = mapped_column(default=0)
    error_code: Mapped[str | None] = mapped_column(String(40), default=None)
    error: Mapped[str | None] = mapped_column(Text, default=None)
    """In words for the person who will press retry."""
    duration_ms: Mapped[int | None] = mapped_column(default=None)
    timeline: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """`{"gaps": [{participant_id, label, start_ms, end_ms, cause}], "speech": [{…}]}`, from mux."""

    files: Mapped[list["RecordingFile"]] = relationship(
        lazy="raise", order_by="RecordingFile.position"
    )


class RecordingFile(Base):
    """One finished file. `offset_ms` is where its time 0 lies on the session's timeline."""

    __tablename__ = "recording_files"
    __table_args__ = (
        UniqueConstraint("blob_key", name="uq_recording_files_blob_key"),
        CheckConstraint("kind IN ('party','document','composed','poster')", name="kind"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    recording_id: Mapped[str] = mapped_column(String(32), ForeignKey("recordings.id"), index=True)
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(String(12))
    participant_id: Mapped[str | None] = mapped_column(String(32))
    role: Mapped[str | None] = mapped_column(String(16))
    label: Mapped[str] = mapped_column(String(80))
    blob_key: Mapped[str] = mapped_column(String(200))
    mime: Mapped[str] = mapped_column(String(40))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    duration_ms: Mapped[int]
    offset_ms: Mapped[int]
    width: Mapped[int | None]
    height: Mapped[int | None]
    has_audio: Mapped[bool]
    has_video: Mapped[bool]
