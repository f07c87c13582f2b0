"""Builders for what happens after a call: a small prefecture, and talks that were held in it.

`make_prefecture` adds units, people and a kiosk; `make_talk` adds an appointment with its session.
Rows are written as the other rooms write them; nothing here decides anything.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.db import Database
from core.identity import Account, Kiosk, Official, OrgUnit, RoleBinding, StaffSession, digest
from core.ids import new_id
from core.schemas import OrgLevel, Role
from media.model import Recording, RecordingFile
from scheduling.model import Appointment, PartyMember, ReceptionDay, Slot
from signaling.model import Attendance, Session

START = datetime(2026, 5, 25, 1, 0, tzinfo=UTC)
"""Nine in the morning of a Monday, local time."""
TALK = timedelta(minutes=14)

_UNITS = (
    ("510000", OrgLevel.PROVINCE, None, "四川省", "Sichuan"),
    ("513300", OrgLevel.PREFECTURE, "510000", "甘孜州", "Garze Prefecture"),
    ("513328", OrgLevel.COUNTY, "513300", "甘孜县", "Garze County"),
    ("513322", OrgLevel.COUNTY, "513300", "泸定县", "Luding County"),
    ("513300-XF", OrgLevel.DEPARTMENT, "513300", "州信访局", "Prefecture Petitions Office"),
    ("513300-JT", OrgLevel.DEPARTMENT, "513300", "州交通运输局", "Prefecture Transport Bureau"),
    ("513300-SL", OrgLevel.DEPARTMENT, "513300", "州水利局", "Prefecture Water Bureau"),
)
_STAFF = (
    ("scheduler", Role.SCHEDULER, "513300", False),
    ("desk", Role.DESK, "513328", False),
    ("other_desk", Role.DESK, "513322", False),
    ("official", Role.OFFICIAL, "513300", True),
    ("transport", Role.DEPARTMENT, "513300-JT", False),
    ("water", Role.DEPARTMENT, "513300-SL", False),
    ("reviewer", Role.REVIEWER, "513300", False),
    ("archivist", Role.ARCHIVIST, "513300", False),
    ("other_archivist", Role.ARCHIVIST, "513322", False),
    ("admin", Role.ADMIN, "513300", False),
)


@dataclass(frozen=True, slots=True)
class Prefecture:
    """Ids of what was made. A staff name or "kiosk" is also the token of its cookie."""

    units: dict[str, str]
    staff: dict[str, str]
    official_id: str
    other_official_id: str
    kiosk_id: str
    other_kiosk_id: str


@dataclass(frozen=True, slots=True)
class Talk:
    appointment_id: str
    session_id: str


async def make_prefecture(database: Database) -> Prefecture:
    """甘孜州 with two counties, three departments, one account per role, two kiosks."""
    async with database.transaction() as tx:
        units = await _make_units(tx)
        officials = [new_id(), new_id()]
        for position, official_id in enumerate(officials):
            tx.add(
                Official(
                    id=official_id, org_unit_id=units["513300"], title_zh="州委副书记",
                    title_bo=None, title_en="Deputy Secretary", position=position,
                )
            )  # fmt: skip
        await tx.flush()
        staff = await _make_staff(tx, units, officials[0])
        kiosks = [new_id(), new_id()]
        for name, kiosk_id in zip(("kiosk", "other_kiosk"), kiosks, strict=True):
            tx.add(
                Kiosk(
                    id=kiosk_id, name=name, county_id=units["513328"], enrolment_digest=None,
                    enrolment_expires_at=None, token_digest=digest(name), enrolled_at=START,
                    revoked_at=None, last_seen_at=None, help_asked_at=None,
                )
            )  # fmt: skip
    return Prefecture(units, staff, officials[0], officials[1], kiosks[0], kiosks[1])


async def _make_units(tx: AsyncSession) -> dict[str, str]:
    units: dict[str, OrgUnit] = {}
    for code, level, parent, name_zh, name_en in _UNITS:
        above = units[parent] if parent else None
        units[code] = OrgUnit(
            id=new_id(), code=code, level=level, parent_id=above.id if above else None,
            path=f"{above.path if above else '/'}{code}/", name_zh=name_zh, name_bo=None,
            name_en=name_en, distance_km=None,
        )  # fmt: skip
        tx.add(units[code])
        await tx.flush()
    return {code: unit.id for code, unit in units.items()}


async def _make_staff(tx: AsyncSession, units: dict[str, str], official_id: str) -> dict[str, str]:
    staff: dict[str, str] = {}
    for name, role, code, presides in _STAFF:
        staff[name] = new_id()
        tx.add(
            Account(
                id=staff[name], username=name, display_name=f"{name} on duty", password_hash="-",
                official_id=official_id if presides else None, disabled_at=None,
            )
        )  # fmt: skip
        await tx.flush()
        tx.add(RoleBinding(account_id=staff[name], role=role, org_unit_id=units[code]))
        tx.add(
            StaffSession(
                token_digest=digest(name), account_id=staff[name], created_at=START,
                expires_at=START + timedelta(days=400),
            )
        )  # fmt: skip
    await tx.flush()
    return staff


async def make_talk(
    database: Database,
    prefecture: Prefecture,
    *,
    ended: bool = True,
    started_at: datetime = START,
    county: str = "513328",
    official_id: str | None = None,
    id_number: str | None = None,
    phone: str | None = None,
) -> Talk:
    """An appointment that was called: its session, live or ended, and who was there."""
    presiding = official_id or prefecture.official_id
    talk = Talk(new_id(), new_id())
    day_id, slot_id = new_id(), new_id()
    async with database.transaction() as tx:
        tx.add(
            ReceptionDay(
                id=day_id, official_id=presiding, day=date(2026, 5, 25), starts=time(9),
                ends=time(12), slot_minutes=15, rooms=1, place="视频接待室", topics=[],
                state="published", created_by="system", created_at=START, published_at=START,
                cancel_reason=None,
            )
        )  # fmt: skip
        await tx.flush()
        tx.add(
            Slot(
                id=slot_id, reception_day_id=day_id, room_no=1, starts_at=started_at,
                ends_at=started_at + timedelta(minutes=15),
            )
        )  # fmt: skip
        await tx.flush()
        appointment = _appointment(talk, prefecture, started_at=started_at, county=county)
        appointment.reception_day_id, appointment.slot_id = day_id, slot_id
        tx.add(appointment)
        await tx.flush()
        tx.add(
            PartyMember(
                id=new_id(), appointment_id=talk.appointment_id, position=0, name="扎西",
                relation="petitioner", id_number=id_number, phone=phone,
            )
        )  # fmt: skip
        tx.add(
            Session(
                id=talk.session_id, appointment_id=talk.appointment_id,
                room_id=talk.appointment_id, official_id=presiding,
                county_id=prefecture.units[county], node="node-1", epoch=1,
                state="ended" if ended else "live", started_at=started_at,
                ended_at=started_at + TALK if ended else None,
                end_reason="ended_by_official" if ended else None, recording_id=None,
                slot_ends_at=None,
            )
        )  # fmt: skip
        await tx.flush()
        for role, after_s in (("petitioner", -5), ("official", -5), ("desk", 60)):
            tx.add(
                Attendance(
                    id=new_id(), session_id=talk.session_id, participant_id=new_id(), role=role,
                    label_zh=role, label_bo=None, label_en=role,
                    joined_at=started_at + timedelta(seconds=after_s),
                    left_at=started_at + TALK if ended else None,
                )
            )  # fmt: skip
    return talk


def _appointment(
    talk: Talk, prefecture: Prefecture, *, started_at: datetime, county: str
) -> Appointment:
    return Appointment(
        id=talk.appointment_id, number=f"N{talk.appointment_id[:16]}", state="called",
        county_id=prefecture.units[county],
        kiosk_id=prefecture.kiosk_id, village="城北二村", matter="通村公路塌方两年未修",
        language="zh-CN", needs_interpreter=False, people_total=3,
        booked_by=f"account:{prefecture.staff['desk']}", confirmed_at=started_at,
        checked_in_at=started_at, notice_version="1", notice_language="zh-CN",
        notice_shown_at=started_at, notice_read_aloud=False, device_check=None,
        device_checked_at=None, called_at=started_at, session_id=talk.session_id, ended_at=None,
        cancel_reason=None,
    )  # fmt: skip


async def make_recording(
    database: Database, talk: Talk, *, state: str = "ready", blob_key: str | None = None
) -> tuple[str, str]:
    """A recording with one party's file (ids of both); the bytes are the caller's to put."""
    recording_id, file_id = new_id(), new_id()
    async with database.transaction() as tx:
        tx.add(
            Recording(
                id=recording_id, session_id=talk.session_id, state=state, started_at=START,
                duration_ms=840_000,
                error="磁盘已满" if state == "failed" else None,
                timeline={
                    "gaps": [{"participant_id": None, "label": "kiosk", "start_ms": 1000,
                              "end_ms": 2500, "cause": "network"}],
                    "speech": [{"participant_id": "p", "start_ms": 0, "end_ms": 900}],
                },
            )
        )  # fmt: skip
        await tx.flush()
        tx.add(
            RecordingFile(
                id=file_id, recording_id=recording_id, position=0, kind="party",
                participant_id="p", role="petitioner", label="甘孜县",
                blob_key=blob_key or f"recordings/{recording_id}/party-p.webm",
                mime="video/webm", size_bytes=10, sha256="ab" * 32, duration_ms=839_000,
                offset_ms=400, width=640, height=360, has_audio=True, has_video=True,
            )
        )  # fmt: skip
    return recording_id, file_id
