"""What is kept of a talk when it is over: the case, its ledger, its promises, its papers.

Demands, minutes and materials hang on the Session, because they are written while people talk; the
Case joins them by `session_id`, which is UNIQUE: one ended Session, exactly one Case (invariant 5).
Ledger lines and playback spans are only ever appended. Nothing here says anything about a person's
conduct or "risk", and no column may ever be added that does (invariant 8).
"""

from collections.abc import Iterable
from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from cases.schemas import CaseState, Outcome
from cases.workflow import ClockKind, ClockUnit
from core.db import Base
from core.identity import Official, OrgUnit


class CaseForm(StrEnum):
    """信访形式. Other forms (letter, visit, net, phone) come with their own intake."""

    VIDEO = "video"


class Face(StrEnum):
    GOOD = "good"
    FAIR = "fair"
    BAD = "bad"


def one_of(column: str, values: Iterable[StrEnum]) -> CheckConstraint:
    """The database's own statement of which words `column` may hold."""
    words = ", ".join(f"'{value.value}'" for value in values)
    return CheckConstraint(f"{column} IN ({words})", name=column)


class Case(Base):
    """A registered matter (信访件)."""

    __tablename__ = "cases"
    __table_args__ = (
        UniqueConstraint("session_id", name="uq_cases_session_id"),
        UniqueConstraint("number", name="uq_cases_number"),
        one_of("state", CaseState),
        one_of("form", CaseForm),
        Index("ix_cases_opened_at_id", "opened_at", "id"),
        Index("ix_cases_county_id_opened_at", "county_id", "opened_at"),
        Index("ix_cases_holder_id", "holder_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[str] = mapped_column(String(40))
    query_code: Mapped[str] = mapped_column(String(8))
    """Kept readable: the desk prints it again for who lost the slip. Random, see numbering.py."""
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    appointment_id: Mapped[str] = mapped_column(ForeignKey("appointments.id"), index=True)
    title: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    form: Mapped[str] = mapped_column(String(16))
    language: Mapped[str] = mapped_column(String(8))
    county_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"))
    village: Mapped[str] = mapped_column(String(80))
    official_id: Mapped[str] = mapped_column(ForeignKey("officials.id"))
    people_total: Mapped[int]
    """人次: everyone who came; the party lists only who spoke for them."""
    holder_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"))
    """Who must act now; never empty."""
    first_holder_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"))
    """Who registered it (首接责任); a matter that a unit sends back returns here."""
    held_since: Mapped[datetime]
    opened_at: Mapped[datetime]

    county: Mapped[OrgUnit] = relationship(foreign_keys=[county_id], lazy="raise")
    holder: Mapped[OrgUnit] = relationship(foreign_keys=[holder_id], lazy="raise")
    official: Mapped[Official] = relationship(foreign_keys=[official_id], lazy="raise")


class CaseSerial(Base):
    """The last serial number given in a county on a day; see intake.next_serial."""

    __tablename__ = "case_serials"

    county_code: Mapped[str] = mapped_column(String(16), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    last: Mapped[int]


class CaseParty(Base):
    """Someone the matter belongs to, as named at the desk when it was registered."""

    __tablename__ = "case_parties"
    __table_args__ = (UniqueConstraint("case_id", "position"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"))
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(60))
    relation: Mapped[str] = mapped_column(String(16))
    party_member_id: Mapped[str | None] = mapped_column(String(32), index=True)
    """The line of the appointment's party this was copied from."""


class CaseEvent(Base):
    """One line of a case's ledger, chained to the one before by SHA-256 (see cases/ledger.py)."""

    __tablename__ = "case_events"

    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(24))
    actor: Mapped[str] = mapped_column(String(80))
    words: Mapped[str] = mapped_column(Text)
    article: Mapped[str | None] = mapped_column(String(40))
    is_public: Mapped[bool]
    """Whether whoever holds number and query code may read this line."""
    previous_digest: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))


class ClockRow(Base):
    """A deadline that started; met once, never moved. A longer one is a new row."""

    __tablename__ = "clocks"
    __table_args__ = (
        one_of("kind", ClockKind),
        one_of("unit", ClockUnit),
        CheckConstraint("length > 0", name="length"),
        Index("ix_clocks_case_id", "case_id"),
        Index("ix_clocks_open_due", "met_at", "due_on"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"))
    kind: Mapped[str] = mapped_column(String(16))
    article: Mapped[str] = mapped_column(String(40))
    started_on: Mapped[date]
    started_by: Mapped[int]
    """Position of the ledger line that started it."""
    length: Mapped[int]
    unit: Mapped[str] = mapped_column(String(16))
    due_on: Mapped[date]
    """The strict last day; warnings go by this one."""
    due_on_rolled: Mapped[date]
    """Moved to the next working day if the strict one is a rest day."""
    met_at: Mapped[datetime | None]


class Demand(Base):
    """One thing that was asked for and what was said to it; with owner and date, a Promise."""

    __tablename__ = "demands"
    __table_args__ = (
        UniqueConstraint("session_id", "position"),
        CheckConstraint("marked_at_ms >= 0", name="marked_at_ms"),
        CheckConstraint(
            "outcome IS NULL OR outcome IN ("
            + ", ".join(f"'{outcome.value}'" for outcome in Outcome)
            + ")",
            name="outcome",
        ),
        Index("ix_demands_owner_id_due_on", "owner_id", "due_on"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    position: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    marked_at_ms: Mapped[int]
    outcome: Mapped[str | None] = mapped_column(String(16))
    answer: Mapped[str | None] = mapped_column(Text)
    answered_at_ms: Mapped[int | None]
    owner_id: Mapped[str | None] = mapped_column(ForeignKey("org_units.id"))
    due_on: Mapped[date | None]
    kept_at: Mapped[datetime | None]
    noted_at: Mapped[datetime]
    noted_by: Mapped[str] = mapped_column(String(80))

    owner: Mapped[OrgUnit | None] = relationship(lazy="raise")


class MinutesRow(Base):
    """The record of a talk, as its official last saved it."""

    __tablename__ = "minutes"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    summary: Mapped[str] = mapped_column(Text)
    revision: Mapped[int]
    saved_at: Mapped[datetime]
    saved_by: Mapped[str] = mapped_column(String(80))


class Material(Base):
    """A page that was shown or handed in; the file lies in the blob store under `blob_key`."""

    __tablename__ = "materials"
    __table_args__ = (Index("ix_materials_session_id", "session_id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    title: Mapped[str] = mapped_column(String(200))
    marked_at_ms: Mapped[int | None]
    mime: Mapped[str] = mapped_column(String(32))
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    width: Mapped[int]
    height: Mapped[int]
    blob_key: Mapped[str] = mapped_column(String(160))
    added_at: Mapped[datetime]
    added_by: Mapped[str] = mapped_column(String(80))


class Playback(Base):
    """A stretch of the session's timeline that someone has watched: the watch log."""

    __tablename__ = "playbacks"
    __table_args__ = (
        CheckConstraint("start_ms >= 0 AND end_ms > start_ms", name="span"),
        Index("ix_playbacks_case_id_account_id", "case_id", "account_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    start_ms: Mapped[int]
    end_ms: Mapped[int]
    reported_at: Mapped[datetime]


class Finding(Base):
    """A reviewer's remark, pinned to a second."""

    __tablename__ = "findings"
    __table_args__ = (Index("ix_findings_case_id_at_ms", "case_id", "at_ms"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"))
    at_ms: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    author_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    created_at: Mapped[datetime]


class Rating(Base):
    """One of three faces. A missing row means nobody answered, never that someone was content."""

    __tablename__ = "ratings"
    __table_args__ = (one_of("face", Face),)

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    face: Mapped[str] = mapped_column(String(8))
    rated_at: Mapped[datetime]
    rated_by: Mapped[str] = mapped_column(String(80))
