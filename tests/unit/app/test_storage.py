"""Hours booked against hours free: the first day that does not fit is named, days ahead."""

from datetime import date
from pathlib import Path

import pytest

from app import storage
from app.storage import Forecast, forecast
from core.settings import Settings

MONDAY, TUESDAY, FRIDAY = date(2026, 5, 25), date(2026, 5, 26), date(2026, 5, 29)


def of(
    free_mib: int,
    booked: dict[date, float],
    offered: dict[date, float] | None = None,
    measured: int | None = None,
) -> Forecast:
    settings = Settings(min_free_disk_mib=2000, recorded_hour_mib=4000)
    return forecast(
        free_mib=free_mib, settings=settings, booked=booked, offered=offered or booked,
        measured_hour_mib=measured,
    )  # fmt: skip


def test_the_reserve_is_no_room_for_what_is_booked() -> None:
    assert of(2000, {}).hours_free == 0
    assert of(6000, {}).hours_free == 1
    assert of(100, {}).hours_free == 0


def test_the_first_day_that_does_not_fit_is_named() -> None:
    found = of(2000 + 5 * 4000, {FRIDAY: 3, MONDAY: 2, TUESDAY: 1})
    assert (found.short_on, found.is_enough) == (FRIDAY, False)
    assert str(FRIDAY) in found.in_words()
    assert of(2000 + 6 * 4000, {FRIDAY: 3, MONDAY: 2, TUESDAY: 1}).is_enough


def test_slots_on_offer_warn_without_an_alarm() -> None:
    found = of(2000 + 5 * 4000, {MONDAY: 2}, {MONDAY: 4, TUESDAY: 4})
    assert found.is_enough
    assert found.short_if_full_on == TUESDAY
    assert str(TUESDAY) in found.in_words()


def test_what_the_house_has_measured_counts_if_it_is_more() -> None:
    assert of(10_000, {}, measured=8000).hours_free == 1
    assert of(10_000, {}, measured=1000).hours_free == 2


def test_a_forecast_is_ready_for_json() -> None:
    found = of(2000, {MONDAY: 1}).as_dict()
    assert found["short_on"] == "2026-05-25"
    assert found["short_if_full_on"] == "2026-05-25"
    assert found["is_enough"] is False


def test_a_recording_may_begin_exactly_down_to_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(var_dir=tmp_path, min_free_disk_mib=2000)
    monkeypatch.setattr(storage, "_free_bytes", lambda _: 2000 * 1024 * 1024)
    assert storage.has_reserve(settings)
    monkeypatch.setattr(storage, "_free_bytes", lambda _: 2000 * 1024 * 1024 - 1)
    assert not storage.has_reserve(settings)


def test_the_fuller_of_two_disks_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(var_dir=tmp_path)
    free = {settings.var_dir: 90 << 30, settings.recordings_dir: 3 << 30}
    monkeypatch.setattr(storage, "_free_bytes", free.__getitem__)
    assert storage.free_disk_mib(settings) == 3 * 1024
