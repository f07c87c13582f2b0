"""What is written down about keeping recordings: class, holds, deletions, certificates, clocks.

Rows are only ever added or ended, never removed. The database states the two rules that matter
most: one open deletion per recording, and never one person for both signatures.
"""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from cases.model import one_of
from cases.retention import MatterClass
from core.db import Base


class RecordingClass(Base):
    """The class that an archivist gave a recording. The newest row counts; none: the default."""

    __tablename__ = "recording_classes"
    __table_args__ = (one_of("matter_class", MatterClass),)

    recording_id: Mapped[str] = mapped_column(ForeignKey("recordings.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    matter_class: Mapped[str] = mapped_column(String(16))
    words: Mapped[str] = mapped_column(Text)
    classed_at: Mapped[datetime]
    classed_by: Mapped[str] = mapped_column(ForeignKey("accounts.id"))


class LegalHold(Base):
    """Someone's order that a recording stays, whatever its period; several may stand at once."""

    __tablename__ = "legal_holds"
    __table_args__ = (
        CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted"),
        Index("ix_legal_holds_recording_id", "recording_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    recording_id: Mapped[str] = mapped_column(ForeignKey("recordings.id"))
    words: Mapped[str] = mapped_column(Text)
    placed_at: Mapped[datetime]
    placed_by: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    lifted_at: Mapped[datetime | None]
    lifted_by: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"))
    lifted_words: Mapped[str | None] = mapped_column(Text)


class Deletion(Base):
    """A deletion that was asked for, and how far it came. Ended ones stay as history."""

    __tablename__ = "deletions"
    __table_args__ = (
        Index(
            "uq_deletions_open",
            "recording_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        CheckConstraint("confirmed_by <> proposed_by", name="two_people"),
        CheckConstraint("(confirmed_at IS NULL) = (confirmed_by IS NULL)", name="confirmed"),
        CheckConstraint("decided_at IS NULL OR confirmed_by IS NOT NULL", name="decided"),
        CheckConstraint("decided_at IS NULL OR ended_at IS NULL", name="no_return"),
        CheckConstraint("deleted_at IS NULL OR decided_at IS NOT NULL", name="deleted"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    recording_id: Mapped[str] = mapped_column(ForeignKey("recordings.id"))
    words: Mapped[str] = mapped_column(Text)
    """The appraisal (鉴定意见): why it may go."""
    proposed_at: Mapped[datetime]
    proposed_by: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    confirmed_at: Mapped[datetime | None]
    confirmed_by: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"))
    cooled_ms: Mapped[int] = mapped_column(BigInteger)
    seen_at: Mapped[datetime | None]
    """When cooling was last counted, by the wall; beside it the other clock and its boot."""
    seen_mono_ns: Mapped[int | None] = mapped_column(BigInteger)
    seen_boot_id: Mapped[str | None] = mapped_column(String(40))
    ended_at: Mapped[datetime | None]
    """Stopped: by a person, by a hold, or because a signatory may no longer sign."""
    ended_by: Mapped[str | None] = mapped_column(String(80))
    ended_words: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime | None]
    attempts: Mapped[int]
    """How often its job began and could not see it through; names the next one."""
    trouble: Mapped[str | None] = mapped_column(Text)
    """What hindered the last attempt, for the administrator."""
    halted_at: Mapped[datetime | None]
    """The last attempt ended in a way that nobody foresaw; no other begins until a person says so.
    """
    deleted_at: Mapped[datetime | None]


class DeletionCertificate(Base):
    """What was deleted, by whose word and on which basis: the exact bytes that were signed."""

    __tablename__ = "deletion_certificates"
    __table_args__ = (UniqueConstraint("recording_id"),)

    deletion_id: Mapped[str] = mapped_column(ForeignKey("deletions.id"), primary_key=True)
    recording_id: Mapped[str] = mapped_column(ForeignKey("recordings.id"))
    made_at: Mapped[datetime]
    body: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(Text)
    """As `manifest.sig` is: algorithm, public key, signature."""


class ClockAnchor(Base):
    """What the wall clock said when a boot of a machine was first seen, or a person confirmed it.

    Both clocks at that moment, and the newest audit line of that time: what the wall is held
    against for as long as this boot lasts (cases/keeping_clock.py).
    """

    __tablename__ = "clock_anchors"

    boot_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    wall_at: Mapped[datetime]
    mono_ns: Mapped[int] = mapped_column(BigInteger)
    known_at: Mapped[datetime | None]
    """The newest audit line's time; None: there was none, or a person has confirmed the clock."""
    confirmed_by: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"))
