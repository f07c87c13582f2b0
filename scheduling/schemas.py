"""What the pages before the call send and receive."""

from datetime import date, datetime, time
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from core.schemas import Language, Line, OrgUnitView, RequestModel, ResponseModel, Words


class ReceptionDayState(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"
    CANCELLED = "cancelled"


class SlotState(StrEnum):
    FREE = "free"
    HELD = "held"
    TAKEN = "taken"
    PAST = "past"


class AppointmentState(StrEnum):
    """`requested → confirmed → checked_in → called → held`, or one of the three ways out."""

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    CHECKED_IN = "checked_in"
    CALLED = "called"
    HELD = "held"
    NO_SHOW = "no_show"
    CANCELLED = "cancelled"
    REDIRECTED = "redirected"


class Relation(StrEnum):
    """How someone in the party stands to the matter (《信访工作条例》 art. 19, 20)."""

    PETITIONER = "petitioner"  # 信访人
    REPRESENTATIVE = "representative"  # 代表
    AGENT = "agent"  # 代理人
    COMPANION = "companion"  # 随访人


class OfficialView(ResponseModel):
    id: str
    org_unit: OrgUnitView
    title_zh: str
    title_bo: str | None
    title_en: str


class ReceptionDayCreate(RequestModel):
    """A leader's reception day (接访日). Hours are local; slots are cut from them."""

    official_id: str
    day: date
    starts: time
    ends: time
    slot_minutes: Annotated[int, Field(ge=5, le=60)] = 15
    rooms: Annotated[int, Field(ge=1, le=8)] = 1
    place: Line
    topics: Annotated[list[Line], Field(max_length=12, default_factory=list)]
    county_ids: Annotated[list[str], Field(min_length=1, max_length=64)]
    publish: bool = True


class DayNote(ResponseModel):
    """Why a date is unusual. `announced` false means the State Council has not published it yet."""

    kind: str  # "holiday" | "adjusted_workday" | "weekend"
    name: str
    announced: bool


class ReceptionDayView(ResponseModel):
    id: str
    official: OfficialView
    day: date
    starts: time
    ends: time
    slot_minutes: int
    rooms: int
    place: str
    topics: tuple[str, ...]
    counties: tuple[OrgUnitView, ...]
    state: ReceptionDayState
    cancel_reason: str | None
    published_at: datetime | None
    slots_total: int
    slots_free: int
    """Still to be had; a slot whose time has come is neither free nor taken."""
    slots_taken: int
    note: DayNote | None


class CancelReason(RequestModel):
    reason: Line


class SlotView(ResponseModel):
    id: str
    reception_day_id: str
    room_no: int
    starts_at: datetime
    ends_at: datetime
    state: SlotState


class HoldView(ResponseModel):
    """Five minutes in which only the holder of `token` can confirm this slot."""

    token: str
    slot: SlotView
    expires_at: datetime


class PartyMemberIn(RequestModel):
    name: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    relation: Relation
    id_number: Annotated[str, StringConstraints(max_length=32)] | None = None
    phone: Annotated[str, StringConstraints(max_length=24)] | None = None


class PartyMemberView(ResponseModel):
    name: str
    relation: Relation
    id_number_masked: str | None
    phone_masked: str | None


class AppointmentCreate(RequestModel):
    """Confirm a held slot. `people_total` counts everyone the matter concerns who comes along."""

    hold_token: str
    matter: Line
    language: Language = Language.CHINESE
    county_id: str
    kiosk_id: str | None = None
    village: Annotated[str, StringConstraints(max_length=80)] = ""
    party: Annotated[list[PartyMemberIn], Field(min_length=1, max_length=40)]
    people_total: Annotated[int, Field(ge=1, le=500)] = 1
    needs_interpreter: bool = False


class NoticeGiven(RequestModel):
    """The recording notice was shown (PIPL art. 17, 35: notice, not consent)."""

    version: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    language: Language
    read_aloud: bool = False


class NoticeView(ResponseModel):
    version: str
    language: Language
    shown_at: datetime
    read_aloud: bool


class DeviceCheck(RequestModel):
    """Three questions answered by the person: see yourself? bar moves? hear yourself?"""

    picture: bool
    bar_moves: bool
    heard_self: bool


class AppointmentView(ResponseModel):
    """An appointment as staff see it."""

    id: str
    number: str  # printed on the slip; names nobody
    state: AppointmentState
    reception_day_id: str
    official: OfficialView
    place: str
    slot: SlotView
    county: OrgUnitView
    village: str
    kiosk_id: str | None
    matter: str
    language: Language
    needs_interpreter: bool
    party: tuple[PartyMemberView, ...]
    people_total: int
    confirmed_at: datetime
    checked_in_at: datetime | None
    notice: NoticeView | None
    device_check: DeviceCheck | None
    device_checked_at: datetime | None
    called_at: datetime | None
    session_id: str | None
    cancel_reason: str | None


class KioskCheckIn(RequestModel):
    """The number from the slip, or what its QR code says."""

    number: Annotated[str, StringConstraints(min_length=4, max_length=200)]


class KioskVisit(ResponseModel):
    """What the kiosk shows about the visit it is serving: no names, no phone numbers."""

    appointment_id: str
    number: str
    state: AppointmentState
    official_title_zh: str
    official_title_bo: str | None
    official_title_en: str
    starts_at: datetime
    matter: str
    language: Language
    notice_version: str
    """The version that must be shown before the call; see `notice_given`."""
    notice_given: bool
    device_checked: bool


class WaitingView(ResponseModel):
    """An honest place in the queue. `estimate_minutes` is None when nothing honest can be said."""

    number: str
    state: AppointmentState
    people_before: int
    estimate_minutes: int | None
    official_present: bool
    room_open: bool
    """True when `enter` will give a Grant: go to the call page."""
    next_step: (
        str  # i18n key under `waiting.`: come_soon | wait_here | official_late | enter_now | ended
    )


class EnterView(ResponseModel):
    """Permission to join, and where: open `ws_url`, send `join` with the single-use `grant`."""

    grant: str
    ws_url: str
    room_id: str
    participant_id: str
    expires_at: datetime


class DeviceKind(StrEnum):
    """What without a browser may be plugged into a talk."""

    HALL_CAMERA = "hall_camera"  # picture and sound: a camera, or a codec box
    DOCUMENT_CAMERA = "document_camera"  # 高拍仪
    HALL_SCREEN = "hall_screen"


class DeviceGrantCreate(RequestModel):
    """`first`: whose picture a screen shows if it has room for one only."""

    kind: DeviceKind
    first: Literal["petitioner", "official"] = "petitioner"


class GivenDeviceView(ResponseModel):
    """A permission that was made for a device; good until it expires or is taken back."""

    grant_id: str
    kind: DeviceKind
    given_at: datetime
    expires_at: datetime
    taken_back_at: datetime | None


class DeviceGrantView(ResponseModel):
    """What to type into the device: POST an SDP offer to `url` with `grant` as bearer token."""

    grant_id: str
    kind: DeviceKind
    url: str
    grant: str
    room_id: str
    participant_id: str
    publishes: tuple[str, ...]
    expires_at: datetime


class BriefView(ResponseModel):
    """The one page a leader reads before a talk (接访阅笺)."""

    appointment: AppointmentView
    earlier_cases: tuple["EarlierCase", ...]
    competent_level: str  # county | prefecture | province
    level_distance: int
    level_note: str
    """条例 art. 20: 0 or 1 is as it should be; shown to people, never used to refuse."""


class EarlierCase(ResponseModel):
    number: str
    opened_at: datetime
    title: str
    state: str
    open_promises: int


class OfficeDay(ResponseModel):
    """An official's day: what is booked, who is ready, what comes next."""

    day: date
    official: OfficialView
    reception_days: tuple[ReceptionDayView, ...]
    appointments: tuple[AppointmentView, ...]


class TalkView(ResponseModel):
    """A talk, as far as an alarm has to name it."""

    appointment_id: str
    number: str
    names: tuple[str, ...]


class SideAway(ResponseModel):
    """A side of a talk that has lost it: the petitioner's for a minute, the official's for half."""

    talk: TalkView
    role: str
    since: datetime


class UnheardTrack(ResponseModel):
    """Nothing of this track has been recorded since then, though its sender is in the talk."""

    role: str
    track: str
    since: datetime


class RecordingAlarm(ResponseModel):
    """A talk whose recording needs somebody now.

    `trouble`: why nothing can be written (disk_full, disk_failed, disk_silent, not_begun,
    not_resumed), or None.
    """

    talk: TalkView
    since: datetime
    trouble: str | None
    unheard: tuple[UnheardTrack, ...]


class TooMuchSent(ResponseModel):
    """Somebody's line was closed then, because it sent far more than any camera does."""

    talk: TalkView
    role: str
    since: datetime


class DeskAlarms(ResponseModel):
    """What of a county's talks needs somebody now. `is_anyone_talking`: ask again in a second."""

    away: tuple[SideAway, ...]
    recording: tuple[RecordingAlarm, ...]
    excess: tuple[TooMuchSent, ...]
    is_anyone_talking: bool


class DeskBoard(ResponseModel):
    """The appointments of a county's day."""

    county: OrgUnitView
    day: date
    appointments: tuple[AppointmentView, ...]


class PublicDay(ResponseModel):
    """A published reception day on the notice board."""

    id: str
    official_title_zh: str
    official_title_bo: str | None
    official_title_en: str
    day: date
    starts: time
    ends: time
    place: str
    topics: tuple[str, ...]
    counties: tuple[OrgUnitView, ...]
    slots_total: int
    slots_free: int
    next_free_at: datetime | None


class CancelAppointment(RequestModel):
    reason: Words
