"""Shapes that more than one room speaks over HTTP. Parse once at the boundary, into types.

Requests refuse unknown fields (a misspelt field is an error the sender should see); responses are
frozen. Instants are ISO 8601 in UTC, dates are local calendar days (Asia/Shanghai), and every
length carries its unit in its name.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints


class RequestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class ResponseModel(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


Line = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""One line of text that a person typed."""
Words = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
"""A few paragraphs at most."""


class Language(StrEnum):
    """Languages a person may speak here; the first is the default of every page."""

    CHINESE = "zh-CN"
    TIBETAN = "bo"
    ENGLISH = "en"


class OrgLevel(StrEnum):
    PROVINCE = "province"
    PREFECTURE = "prefecture"
    COUNTY = "county"
    TOWNSHIP = "township"
    DEPARTMENT = "department"


class Role(StrEnum):
    """What a person may do, always bound to an org unit and all units below it."""

    SCHEDULER = "scheduler"  # 信访局: publishes reception days
    DESK = "desk"  # 县接待室: registers, books, checks in, helps
    OFFICIAL = "official"  # 接访领导: receives
    DEPARTMENT = "department"  # 责任单位: carries out promises
    REVIEWER = "reviewer"  # 复核: replays
    ARCHIVIST = "archivist"  # 档案员: keeps recordings, proposes what may go
    ADMIN = "admin"  # 系统管理: people, kiosks, health


class OrgUnitView(ResponseModel):
    id: str
    code: str
    level: OrgLevel
    parent_id: str | None
    name_zh: str
    name_bo: str | None
    name_en: str


class RoleView(ResponseModel):
    role: Role
    org_unit: OrgUnitView


class SignIn(RequestModel):
    username: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    password: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Me(ResponseModel):
    """Who is signed in. `places` lists the pages this person's roles open, in order of use."""

    account_id: str
    username: str
    display_name: str
    official_id: str | None
    roles: tuple[RoleView, ...]
    places: tuple[str, ...]


class KioskCreate(RequestModel):
    name: Line
    county_id: str


class KioskEnrol(RequestModel):
    code: Annotated[str, StringConstraints(min_length=6, max_length=16)]


class KioskView(ResponseModel):
    """A kiosk as the desk and the operators see it."""

    id: str
    name: str
    county: OrgUnitView
    enrolled_at: datetime | None
    last_seen_at: datetime | None
    revoked_at: datetime | None
    help_asked_at: datetime | None


class KioskCreated(ResponseModel):
    kiosk: KioskView
    enrolment_code: str
    """Shown once; good for one use within `expires_at`."""
    expires_at: datetime


class KioskMe(ResponseModel):
    """What the kiosk itself may know."""

    id: str
    name: str
    county: OrgUnitView
    desk_phone: str
    idle_wipe_s: int
