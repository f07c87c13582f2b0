"""What the pages after (and beside) the call send and receive."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from core.schemas import Language, OrgUnitView, RequestModel, ResponseModel, Words


class CaseState(StrEnum):
    """《信访工作条例》 art. 22-36; see cases/workflow.py for what may follow what."""

    REGISTERED = "registered"  # 已登记
    TRANSFERRED = "transferred"  # 已转送
    ASSIGNED = "assigned"  # 已交办
    REDIRECTED = "redirected"  # 导入法定途径
    OBJECTED = "objected"  # 异议退回
    ACCEPTED = "accepted"  # 已受理
    NOT_ACCEPTED = "not_accepted"  # 不予受理
    EXTENDED = "extended"  # 办理中（延期）
    REPLIED = "replied"  # 已答复
    CLOSED = "closed"  # 办结


class Outcome(StrEnum):
    """What was said to a demand (briefs: 当场解决 / 限期解决 / 会后答复 / 解释说明)."""

    ON_THE_SPOT = "on_the_spot"
    BY_DATE = "by_date"
    REPLY_LATER = "reply_later"
    EXPLAINED = "explained"


class PromiseState(StrEnum):
    OPEN = "open"
    KEPT = "kept"
    OVERDUE = "overdue"


class DemandCreate(RequestModel):
    """A demand, noted while it is being said. The second defaults to now on the session's clock."""

    text: Words
    marked_at_ms: Annotated[int, Field(ge=0)] | None = None


class DemandChange(RequestModel):
    """Only the fields that are sent change. `due_on` and `owner_org_id` make it a promise."""

    text: Words | None = None
    outcome: Outcome | None = None
    owner_org_id: str | None = None
    due_on: date | None = None
    answer: Words | None = None
    answered_at_ms: Annotated[int, Field(ge=0)] | None = None


class DemandView(ResponseModel):
    id: str
    position: int
    text: str
    marked_at_ms: int
    outcome: Outcome | None
    answer: str | None
    answered_at_ms: int | None
    owner: OrgUnitView | None
    due_on: date | None
    promise_state: PromiseState | None
    """None while no owner and date are set: a demand becomes a promise when both are."""


class MinutesChange(RequestModel):
    summary: Annotated[str, StringConstraints(max_length=20000)]
    revision: int
    """The revision this edit was made on; a newer one answers 409 with the current text."""


class MinutesView(ResponseModel):
    session_id: str
    summary: str
    revision: int
    saved_at: datetime | None
    demands: tuple[DemandView, ...]


class SessionOutcome(ResponseModel):
    """What the kiosk and the office show when the talk is over."""

    session_id: str
    state: Literal["live", "ended"]
    started_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    case_id: str | None
    case_number: str | None
    query_code: str | None
    demands: tuple[DemandView, ...]
    slip_url: str | None


class MaterialView(ResponseModel):
    """A page shown to the camera or uploaded, and the second at which it was shown."""

    id: str
    title: str
    marked_at_ms: int | None
    mime: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    url: str


class CaseEventView(ResponseModel):
    """One line of the case's ledger: appended, never changed."""

    position: int
    at: datetime
    kind: str
    actor: str
    words: str
    article: str | None


class ClockView(ResponseModel):
    """A running deadline and why it runs."""

    kind: str
    article: str
    started_on: date
    length: int
    unit: Literal["days", "working_days"]
    due_on: date
    due_on_rolled: date
    met_at: datetime | None
    days_left: int | None
    explanation: tuple[str, ...]


class CasePartyView(ResponseModel):
    name: str
    relation: str


class RecordingFileView(ResponseModel):
    id: str
    kind: Literal["party", "document", "composed", "poster"]
    participant_id: str | None
    role: str | None
    label: str
    mime: str
    size_bytes: int
    sha256: str
    duration_ms: int
    offset_ms: int
    """Where on the session's timeline this file's time 0 lies."""
    width: int | None
    height: int | None
    has_audio: bool
    has_video: bool
    url: str


class GapView(ResponseModel):
    participant_id: str | None
    label: str
    start_ms: int
    end_ms: int
    cause: str


class SpeechView(ResponseModel):
    participant_id: str
    start_ms: int
    end_ms: int


class RecordingView(ResponseModel):
    id: str
    state: Literal["starting", "capturing", "captured", "muxing", "ready", "failed", "expired"]
    stage: str | None
    progress_percent: int
    error: str | None
    duration_ms: int | None
    files: tuple[RecordingFileView, ...]
    gaps: tuple[GapView, ...]
    speech: tuple[SpeechView, ...]


class MarkView(ResponseModel):
    """A point on the timeline: a demand, a promise, a page shown, someone joining or leaving."""

    kind: Literal["demand", "promise", "material", "join", "leave"]
    at_ms: int
    label: str
    ref_id: str | None


class ReplayView(ResponseModel):
    """Everything a reviewer's page needs. Fetching it writes an audit line."""

    case_id: str
    case_number: str
    title: str
    session_id: str
    started_at: datetime
    duration_ms: int
    recording: RecordingView
    marks: tuple[MarkView, ...]
    minutes: MinutesView
    watermark: str


class PlaybackSpan(RequestModel):
    start_ms: Annotated[int, Field(ge=0)]
    end_ms: Annotated[int, Field(ge=0)]


class PlaybackReport(RequestModel):
    """What has been watched since the last report, on the session's timeline."""

    spans: Annotated[list[PlaybackSpan], Field(max_length=200)]


class PlaybackView(ResponseModel):
    watched_ms: int
    duration_ms: int
    coverage_percent: int


class FindingCreate(RequestModel):
    at_ms: Annotated[int, Field(ge=0)]
    text: Words


class FindingView(ResponseModel):
    id: str
    at_ms: int
    text: str
    author: str
    created_at: datetime


class CaseLine(ResponseModel):
    """A case in a list."""

    id: str
    number: str
    title: str
    state: CaseState
    county: OrgUnitView
    opened_at: datetime
    holder: OrgUnitView
    held_since: datetime
    recording_state: str | None
    promises_open: int
    promises_overdue: int
    next_due_on: date | None


class CasePage(ResponseModel):
    items: tuple[CaseLine, ...]
    next_cursor: str | None


class CaseView(ResponseModel):
    id: str
    number: str
    title: str
    state: CaseState
    form: str
    language: Language
    county: OrgUnitView
    village: str
    official_title_zh: str
    official_title_en: str
    opened_at: datetime
    holder: OrgUnitView
    held_since: datetime
    session_id: str
    appointment_id: str
    appointment_number: str
    people_total: int
    session_started_at: datetime
    session_ended_at: datetime
    end_reason: str
    parties: tuple[CasePartyView, ...]
    demands: tuple[DemandView, ...]
    materials: tuple[MaterialView, ...]
    minutes: MinutesView
    events: tuple[CaseEventView, ...]
    clocks: tuple[ClockView, ...]
    recording: RecordingView | None
    slip_url: str
    may: tuple[str, ...]
    """What this person may do here: replay, retry_recording, transition:<state> …"""


class CaseTransition(RequestModel):
    to: CaseState
    words: Words
    holder_org_id: str | None = None


class CaseQuery(RequestModel):
    number: Annotated[str, StringConstraints(min_length=4, max_length=64)]
    code: Annotated[str, StringConstraints(min_length=4, max_length=16)]


class CaseStatus(ResponseModel):
    """What anyone with number and query code may know: how the matter stands, not whose it is."""

    number: str
    state: CaseState
    opened_at: datetime
    holder_zh: str
    holder_en: str
    held_since: datetime
    next_due_on: date | None
    next_due_why: str | None
    demands: tuple[DemandView, ...]
    events: tuple[CaseEventView, ...]


class AuditLineView(ResponseModel):
    position: int
    at: datetime
    actor: str
    action: str
    object_kind: str
    object_id: str
    result: str
    details: dict[str, str | int | bool | None]


class FaceRating(RequestModel):
    """Three faces, asked at the kiosk by nobody who handled the matter; no answer is no answer."""

    face: Literal["good", "fair", "bad"]
