"""What the archivist's pages send and receive. People appear by the name they sign with."""

from datetime import date, datetime
from enum import StrEnum

from pydantic import AwareDatetime

from cases.keeping_clock import Against
from cases.retention import MatterClass, State
from core.schemas import OrgUnitView, RequestModel, ResponseModel, Words


class Shelf(StrEnum):
    """Which recordings a list shows."""

    DUE = "due"
    ASKED = "asked"  # proposed, cooling, being deleted
    HELD = "held"
    DELETED = "deleted"
    ALL = "all"


class RuleView(ResponseModel):
    matter_class: MatterClass
    years: int | None
    """None: for ever."""
    source: str
    is_estimated: bool


class LegalHoldView(ResponseModel):
    id: str
    words: str
    placed_at: datetime
    placed_by: str
    lifted_at: datetime | None
    lifted_by: str | None
    lifted_words: str | None


class DeletionView(ResponseModel):
    """A deletion that was asked for: under way, done, or stopped (`ended_at`)."""

    id: str
    words: str
    proposed_at: datetime
    proposed_by: str
    confirmed_at: datetime | None
    confirmed_by: str | None
    cooled_s: int
    cooling_s: int
    earliest_at: datetime | None
    """When it is cool if the house stays open; None before it is confirmed and after it is cool."""
    ended_at: datetime | None
    ended_by: str | None
    ended_words: str | None
    decided_at: datetime | None
    halted_at: datetime | None
    """Its job broke off in a way that nobody foresaw; `trouble` says how. A person must look."""
    deleted_at: datetime | None
    trouble: str | None


class CertificateView(ResponseModel):
    """What the case's page tells of a deleted recording; the papers are at the two addresses."""

    deleted_at: datetime
    files: int
    bytes: int
    manifest_sha256: str | None
    sha256: str
    """Of the certificate itself; the audit log names it."""
    pdf_url: str
    json_url: str


class KeepingView(ResponseModel):
    """Everything that decides how long one recording stays."""

    case_id: str
    case_number: str
    title: str
    county: OrgUnitView
    held_on: date
    closed_on: date | None
    """When the matter was closed; None while it is open."""
    recording_id: str
    state: State
    rule: RuleView
    keep_until: date | None
    holds: tuple[LegalHoldView, ...]
    deletion: DeletionView | None
    past: tuple[DeletionView, ...]
    """Deletions that were stopped, newest first."""
    certificate: CertificateView | None
    may: tuple[str, ...]
    """What this person may do now: class, hold, lift, propose, confirm, cancel, retry."""


class KeepingLine(ResponseModel):
    """One recording in the archivist's list."""

    case_id: str
    case_number: str
    title: str
    county: OrgUnitView
    held_on: date
    closed_on: date | None
    state: State
    matter_class: MatterClass
    keep_until: date | None
    is_estimated: bool


class KeepingPage(ResponseModel):
    items: tuple[KeepingLine, ...]
    next_cursor: str | None
    rules: tuple[RuleView, ...]


class ClassChange(RequestModel):
    matter_class: MatterClass
    words: Words


class Reason(RequestModel):
    words: Words


class DeletionConfirm(RequestModel):
    deletion_id: str
    """The one that was read, so that nobody confirms another than they saw."""


class WallClockView(ResponseModel):
    """The server's clock, and what it contradicts; while it does, nobody signs by it."""

    server_time: datetime
    against: Against | None
    off_s: int | None
    """So far ahead of what it should say; behind if negative."""


class ClockConfirm(RequestModel):
    my_time: AwareDatetime
    """What the computer of the person says who finds the server's clock right."""
