"""Does the disk hold what has been promised? Hours that are booked against hours that still fit.

Appointments are made days ahead; a full disk shows on the day itself. Here both are counted: the
time of every slot that is taken (and of every slot on offer), day by day, against the free space in
hours of recording. Nothing is refused for it: publishing a day goes on, and those who publish and
those who keep the machine are told, in time to make room.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import LOCAL_ZONE
from core.edge import Services
from core.settings import Settings
from media.model import FileKind, Recording, RecordingFile
from scheduling.model import Appointment, ReceptionDay, Slot
from scheduling.schemas import AppointmentState, ReceptionDayState

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 3600.0
MEASURED_FROM_H: Final = 1.0
"""Less than an hour of finished recordings says little about the next one."""
COMING: Final = (
    AppointmentState.REQUESTED,
    AppointmentState.CONFIRMED,
    AppointmentState.CHECKED_IN,
    AppointmentState.CALLED,
)
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Forecast:
    """Hours of talk that the disk still holds above its reserve, and hours that are coming.

    `short_on`: the first day whose booked talks do not all fit; `short_if_full_on`: the first if
    every slot on offer is taken. None: all fit.
    """

    free_mib: int
    reserve_mib: int
    recorded_hour_mib: int
    measured_hour_mib: int | None
    """What the house's own recordings took, if there are enough of them."""
    hours_free: float
    hours_booked: float
    hours_offered: float
    short_on: date | None
    short_if_full_on: date | None

    @property
    def is_enough(self) -> bool:
        return self.short_on is None

    def as_dict(self) -> dict[str, Any]:  # JSON
        words = {name: _text(value) for name, value in asdict(self).items()}
        return {**words, "is_enough": self.is_enough}

    def in_words(self) -> str:
        """For the log and the console."""
        words = (
            f"room for {self.hours_free:.0f} h of recording, {self.hours_booked:.1f} h booked, "
            f"{self.hours_offered:.1f} h on offer"
        )
        if self.short_on is not None:
            return f"{words}; what is booked fits until {self.short_on}"
        if self.short_if_full_on is not None:
            return f"{words}; if every slot is taken it fits until {self.short_if_full_on}"
        return words


def _text(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def forecast(
    *,
    free_mib: int,
    settings: Settings,
    booked: Mapping[date, float],
    offered: Mapping[date, float],
    measured_hour_mib: int | None = None,
) -> Forecast:
    """Set hours of each day against the space. `offered` contains what is booked."""
    hour_mib = max(settings.recorded_hour_mib, measured_hour_mib or 0)
    hours_free = max(0.0, (free_mib - settings.min_free_disk_mib) / hour_mib)
    return Forecast(
        free_mib=free_mib,
        reserve_mib=settings.min_free_disk_mib,
        recorded_hour_mib=hour_mib,
        measured_hour_mib=measured_hour_mib,
        hours_free=round(hours_free, 1),
        hours_booked=round(sum(booked.values()), 1),
        hours_offered=round(sum(offered.values()), 1),
        short_on=_first_short(booked, hours_free),
        short_if_full_on=_first_short(offered, hours_free),
    )


def _first_short(hours_of: Mapping[date, float], hours_free: float) -> date | None:
    """The first day on which what has come by its evening does not fit."""
    needed = 0.0
    for day in sorted(hours_of):
        needed += hours_of[day]
        if needed > hours_free:
            return day
    return None


def free_disk_mib(settings: Settings) -> int:
    """Free space where recordings grow or everything else lies, whichever is less."""
    least = min(_free_bytes(settings.var_dir), _free_bytes(settings.recordings_dir))
    return least // _MIB


def _free_bytes(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(directory).free


def has_reserve(settings: Settings) -> bool:
    """Whether a recording may begin: the rule of `media.recorder.Recorder.open`."""
    return free_disk_mib(settings) >= settings.min_free_disk_mib


async def look(tx: AsyncSession, settings: Settings, now: datetime) -> Forecast:
    """The forecast of this house, now."""
    is_published = ReceptionDay.state == ReceptionDayState.PUBLISHED
    has_appointment = Slot.id.in_(select(Appointment.slot_id).where(Appointment.state.in_(COMING)))
    return forecast(
        free_mib=await asyncio.to_thread(free_disk_mib, settings),
        settings=settings,
        booked=await _hours(tx, now, has_appointment),
        offered=await _hours(tx, now, is_published | has_appointment),
        measured_hour_mib=await _measured_hour_mib(tx),
    )


async def _hours(tx: AsyncSession, now: datetime, wanted: ColumnElement[bool]) -> dict[date, float]:
    """Hours of slots that have not ended, by local day."""
    rows = await tx.execute(
        select(Slot.starts_at, Slot.ends_at)
        .join(ReceptionDay, ReceptionDay.id == Slot.reception_day_id)
        .where(Slot.ends_at > now, wanted)
    )
    hours: dict[date, float] = {}
    for starts_at, ends_at in rows:
        day = starts_at.astimezone(LOCAL_ZONE).date()
        hours[day] = hours.get(day, 0.0) + (ends_at - starts_at).total_seconds() / 3600
    return hours


async def _measured_hour_mib(tx: AsyncSession) -> int | None:
    """MiB per hour of this house's newest finished recordings: journals, parties' files, picture.

    A party's file holds what its journals hold, so they are counted twice instead of read.
    """
    newest = (
        select(Recording.id)
        .where(Recording.ready_at.is_not(None), Recording.duration_ms > 0)
        .order_by(Recording.ready_at.desc())
        .limit(100)
    )
    rows = await tx.execute(
        select(Recording.id, Recording.duration_ms, RecordingFile.kind, RecordingFile.size_bytes)
        .join(RecordingFile, RecordingFile.recording_id == Recording.id)
        .where(Recording.id.in_(newest))
    )
    length_ms: dict[str, int] = {}
    total_bytes = 0
    for recording_id, duration_ms, kind, size_bytes in rows:
        length_ms[recording_id] = duration_ms or 0
        is_copy = kind in (FileKind.PARTY, FileKind.DOCUMENT)
        total_bytes += size_bytes * (2 if is_copy else 1)
    hours = sum(length_ms.values()) / 3_600_000
    return round(total_bytes / _MIB / hours) if hours >= MEASURED_FROM_H else None


@asynccontextmanager
async def watched(services: Services) -> AsyncIterator[None]:
    """While it lasts, look once an hour and log a warning if what is booked does not fit."""
    task = asyncio.create_task(_watch(services), name="watch the disk")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _watch(services: Services) -> None:
    while True:
        try:
            async with services.database.reading() as tx:
                found = await look(tx, services.settings, services.clock.now())
            if not found.is_enough or not has_reserve(services.settings):
                log.warning("disk_booked_out", words=found.in_words(), **found.as_dict())
        except Exception:  # the edge of a task: a database in trouble must not end it
            log.exception("disk_not_looked_at")
        await asyncio.sleep(LOOK_EVERY_S)
