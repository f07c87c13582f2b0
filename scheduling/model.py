"""Tables before the call: reception days, their slots, claims on slots, appointments, parties.

A slot is promised to one party by one row: `holds.slot_id` is a primary key, so two claims on one
slot cannot exist, on any engine, whatever the code does. A claim starts as a hold of some minutes,
which may be taken over once it has expired, and becomes permanent when it is confirmed. Deleting
the row frees the slot.
"""

from datetime import date, datetime, time
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Date,
    ForeignKey,
    Index,
    String,
    Text,
    Time,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db import Base
from core.identity import Official, OrgUnit
from scheduling.schemas import AppointmentState, ReceptionDayState, Relation

OVER = (AppointmentState.CANCELLED, AppointmentState.REDIRECTED)
"""States in which an appointment no longer needs its slot."""


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class ReceptionDay(Base):
    """A leader's reception day (接访日). Hours are local to Asia/Shanghai."""

    __tablename__ = "reception_days"
    __table_args__ = (
        CheckConstraint(_one_of("state", tuple(ReceptionDayState)), name="state"),
        CheckConstraint("slot_minutes BETWEEN 5 AND 60", name="slot_minutes"),
        CheckConstraint("rooms BETWEEN 1 AND 8", name="rooms"),
        Index("ix_reception_days_day_official", "day", "official_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    official_id: Mapped[str] = mapped_column(ForeignKey("officials.id"))
    day: Mapped[date] = mapped_column(Date)
    starts: Mapped[time] = mapped_column(Time)
    ends: Mapped[time] = mapped_column(Time)
    slot_minutes: Mapped[int]
    rooms: Mapped[int]
    place: Mapped[str] = mapped_column(String(200))
    topics: Mapped[list[str]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16))
    created_by: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None] = mapped_column(String(200))

    official: Mapped[Official] = relationship(lazy="raise")
    admitted: Mapped[list["ReceptionDayCounty"]] = relationship(lazy="raise")


class ReceptionDayCounty(Base):
    """A county whose people may book this day."""

    __tablename__ = "reception_day_counties"

    reception_day_id: Mapped[str] = mapped_column(ForeignKey("reception_days.id"), primary_key=True)
    county_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"), primary_key=True, index=True)

    county: Mapped[OrgUnit] = relationship(lazy="raise")


class Slot(Base):
    """A time in one room of a reception day, cut when the day is made."""

    __tablename__ = "slots"
    __table_args__ = (
        UniqueConstraint("reception_day_id", "starts_at", "room_no"),
        CheckConstraint("ends_at > starts_at", name="ends_after_start"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    reception_day_id: Mapped[str] = mapped_column(ForeignKey("reception_days.id"))
    room_no: Mapped[int]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]

    reception_day: Mapped[ReceptionDay] = relationship(lazy="raise")


class Hold(Base):
    """The one claim on a slot: a hold until `expires_at`, permanent once `confirmed_at` is set."""

    __tablename__ = "holds"
    __table_args__ = (
        Index("ix_holds_holder_open", "holder", postgresql_where=text("confirmed_at IS NULL"),
              sqlite_where=text("confirmed_at IS NULL")),
    )  # fmt: skip

    slot_id: Mapped[str] = mapped_column(ForeignKey("slots.id"), primary_key=True)
    token_digest: Mapped[str] = mapped_column(String(64), unique=True)
    holder: Mapped[str] = mapped_column(String(80))
    held_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]


class NumberSeries(Base):
    """The last serial given to an appointment of a county on a day."""

    __tablename__ = "number_series"

    county_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    last: Mapped[int]


class Appointment(Base):
    """A party's promise of a talk: who comes, about what, when; and how far it has got."""

    __tablename__ = "appointments"
    __table_args__ = (
        CheckConstraint(_one_of("state", tuple(AppointmentState)), name="state"),
        CheckConstraint("people_total >= 1", name="people_total"),
        # Says a second time, where the appointment lies, what `holds` says: one slot, one party.
        Index("uq_appointments_slot_in_use", "slot_id", unique=True,
              postgresql_where=text(f"NOT ({_one_of('state', OVER)})"),
              sqlite_where=text(f"NOT ({_one_of('state', OVER)})")),
        Index("ix_appointments_reception_day_id_state", "reception_day_id", "state"),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[str] = mapped_column(String(24), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    reception_day_id: Mapped[str] = mapped_column(ForeignKey("reception_days.id"))
    slot_id: Mapped[str] = mapped_column(ForeignKey("slots.id"))
    county_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"), index=True)
    kiosk_id: Mapped[str | None] = mapped_column(ForeignKey("kiosks.id"))
    village: Mapped[str] = mapped_column(String(80))
    matter: Mapped[str] = mapped_column(String(200))
    language: Mapped[str] = mapped_column(String(8))
    needs_interpreter: Mapped[bool]
    people_total: Mapped[int]
    booked_by: Mapped[str] = mapped_column(String(80))
    confirmed_at: Mapped[datetime]
    checked_in_at: Mapped[datetime | None]
    notice_version: Mapped[str | None] = mapped_column(String(32))
    notice_language: Mapped[str | None] = mapped_column(String(8))
    notice_shown_at: Mapped[datetime | None]
    notice_read_aloud: Mapped[bool | None]
    device_check: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True)  # schemas.DeviceCheck
    )
    device_checked_at: Mapped[datetime | None]
    called_at: Mapped[datetime | None]
    session_id: Mapped[str | None] = mapped_column(String(32), index=True)
    ended_at: Mapped[datetime | None]
    """When the appointment left the queue for good: held, missed, cancelled or redirected."""
    cancel_reason: Mapped[str | None] = mapped_column(Text)

    reception_day: Mapped[ReceptionDay] = relationship(lazy="raise")
    slot: Mapped[Slot] = relationship(lazy="raise")
    county: Mapped[OrgUnit] = relationship(lazy="raise")
    party: Mapped[list["PartyMember"]] = relationship(
        lazy="raise", order_by="PartyMember.position", back_populates="appointment"
    )


class PartyMember(Base):
    """Someone who comes along (《信访工作条例》 art. 19, 20). Read by few, logged nowhere."""

    __tablename__ = "party_members"
    __table_args__ = (
        UniqueConstraint("appointment_id", "position"),
        CheckConstraint(_one_of("relation", tuple(Relation)), name="relation"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    appointment_id: Mapped[str] = mapped_column(ForeignKey("appointments.id"))
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(60))
    relation: Mapped[str] = mapped_column(String(16))
    id_number: Mapped[str | None] = mapped_column(String(32))
    phone: Mapped[str | None] = mapped_column(String(24))

    appointment: Mapped[Appointment] = relationship(lazy="raise", back_populates="party")
