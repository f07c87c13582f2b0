"""What is booked in a real database, against the disk: counted, shown to those whom it concerns."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from app import storage
from app.doctor import check_directory, check_storage
from core.clock import LOCAL_ZONE, ManualClock
from core.db import Database
from core.settings import Settings
from scheduling.model import Appointment
from tests.support.matters import START, make_prefecture
from tests.support.signal_house import make_appointment


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=tmp_path, min_free_disk_mib=64, recorded_hour_mib=100)


async def test_slots_that_are_taken_are_counted_until_they_have_ended(
    sqlite_database: Database, settings: Settings
) -> None:
    prefecture = await make_prefecture(sqlite_database)
    appointment_id = await make_appointment(sqlite_database, prefecture)
    clock = ManualClock(START - timedelta(days=3))
    async with sqlite_database.transaction() as tx:
        await tx.execute(update(Appointment).values(state="confirmed"))
    async with sqlite_database.reading() as tx:
        ahead = await storage.look(tx, settings, clock.now())
        past = await storage.look(tx, settings, START + timedelta(days=3))
    assert ahead.hours_booked > 0
    assert ahead.hours_offered >= ahead.hours_booked
    assert ahead.is_enough
    assert past.hours_booked == past.hours_offered == 0
    async with sqlite_database.transaction() as tx:
        cancelled = update(Appointment).where(Appointment.id == appointment_id)
        await tx.execute(cancelled.values(state="cancelled"))
    async with sqlite_database.reading() as tx:
        assert (await storage.look(tx, settings, clock.now())).hours_booked == 0


async def test_a_disk_that_is_too_small_for_what_is_booked_is_told_days_ahead(
    sqlite_database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefecture = await make_prefecture(sqlite_database)
    await make_appointment(sqlite_database, prefecture)
    monkeypatch.setattr(storage, "_free_bytes", lambda _: 65 * 1024 * 1024)
    async with sqlite_database.transaction() as tx:
        await tx.execute(update(Appointment).values(state="confirmed"))
    async with sqlite_database.reading() as tx:
        found = await storage.look(tx, settings, START - timedelta(days=3))
    assert found.short_on == START.astimezone(LOCAL_ZONE).date()


async def test_the_doctor_goes_by_the_rule_of_the_recorder(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_free_bytes", lambda _: 64 * 1024 * 1024)
    assert (await check_directory(settings)).is_well
    monkeypatch.setattr(storage, "_free_bytes", lambda _: 63 * 1024 * 1024)
    finding = await check_directory(settings)
    assert not finding.is_well and finding.remedy
    assert (await check_storage(settings)).is_well  # nothing is booked in an empty database
