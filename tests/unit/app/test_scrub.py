"""The nightly look: what changed is found and named, what is whole is left in peace."""

import base64
import json
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.scrubbing import LATE_AFTER, SOON, next_round
from core.clock import LOCAL_ZONE
from media import manifest, scrub
from media.scrub import FinishedFile, Look, Pace, Round, State, Wanted
from media.signing import Signer
from media.verification import Problem
from tests.support.journals import small_journal

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
QUICK = 10**9


def recording(place: Path, name: str = "r") -> Path:
    directory = place / name
    directory.mkdir()
    small_journal(directory, name, is_sealed=True)
    manifest.recover(directory, signer=Signer.at(place / "key"))
    return directory


def codes(directory: Path, *finished: FinishedFile, key: str = "") -> list[tuple[str, str]]:
    look = scrub.look(Wanted(str(directory), finished), Pace(QUICK), key)
    return [(problem.path, problem.code) for problem in look.problems]


def test_what_is_whole_raises_nothing(tmp_path: Path) -> None:
    directory = recording(tmp_path)
    key = base64.b64encode(Signer.at(tmp_path / "key").public_key).decode()
    assert codes(directory, key=key) == []


def test_every_bit_of_a_signature_and_of_a_manifest_counts(tmp_path: Path) -> None:
    directory = recording(tmp_path)
    for name in ("manifest.sig", manifest.FILE_NAME):
        path = directory / name
        data = path.read_bytes()
        for bit in range(0, len(data) * 8, 1 if name == "manifest.sig" else 7):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            assert codes(directory), f"bit {bit} of {name}"
        path.write_bytes(data)
    assert codes(directory) == []


def test_a_changed_journal_and_a_changed_or_missing_finished_file_are_named(tmp_path: Path) -> None:
    directory = recording(tmp_path)
    film = tmp_path / "film.webm"
    film.write_bytes(b"film")
    known = FinishedFile(str(film), manifest.digests(film)[0])
    gone = FinishedFile("/nowhere/gone.webm", "")
    assert codes(directory, known, gone) == [("gone.webm", "missing")]
    film.write_bytes(b"fill")
    [path] = directory.glob("*.rrj")
    path.write_bytes(path.read_bytes() + b"x")
    assert codes(directory, known) == [(path.name, "sha256"), ("film.webm", "sha256")]
    path.unlink()
    assert (path.name, "missing") in codes(directory)


def test_who_signs_with_another_key_is_found_out(tmp_path: Path) -> None:
    assert codes(recording(tmp_path), key="another") == [("manifest.sig", "other_key")]


def test_the_longest_unseen_come_first_and_nothing_waits_longer_than_a_week(tmp_path: Path) -> None:
    ages = {"new": None, "yesterday": 1, "six": 6, "seven": 7, "month": 30}
    for name, days in ages.items():
        directory = recording(tmp_path, name)
        if days is not None:
            at = NOW - timedelta(days=days)
            scrub.write_state(directory, State(at, at, ()))
    order = [path.name for path in scrub.due(tmp_path, NOW)]
    assert order == ["new", "month", "seven", "six"]
    assert len(scrub.due(tmp_path, NOW, everything=True)) == 5
    assert scrub.overdue(tmp_path, NOW) == 1
    assert scrub.DUE_AFTER + timedelta(days=1) <= scrub.OVERDUE_AFTER


def test_a_recording_whose_book_is_gone_is_missed(tmp_path: Path) -> None:
    directory = recording(tmp_path)
    scrub.write_state(directory, State(NOW - timedelta(days=8), NOW - timedelta(days=8), ()))
    (directory / manifest.FILE_NAME).unlink()
    assert scrub.due(tmp_path, NOW) == [directory]
    assert codes(directory) == [(manifest.FILE_NAME, "missing")]


def test_a_state_tells_when_it_was_last_whole(tmp_path: Path) -> None:
    directory = recording(tmp_path)
    damage = (Problem("a", "sha256", "changed"),)
    state = State(NOW, NOW, ()).after(Look("r", 1, damage), NOW + timedelta(days=6))
    scrub.write_state(directory, state)
    assert scrub.read_state(directory) == state
    assert state.whole_at == NOW and state.problems == damage
    (directory / scrub.STATE_NAME).write_text("{")
    assert scrub.read_state(directory) is None


def test_a_round_and_a_look_survive_the_pipe() -> None:
    asked = Round((Wanted("/r", (FinishedFile("/f", "00"),)),), 5, "key")
    assert Round.decode(json.dumps(asdict(asked))) == asked
    look = Look("r", 3, (Problem("a", "b", "c"),))
    assert Look.decode(json.dumps(asdict(look)).encode()) == look


def test_reading_keeps_to_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, slept_s = 100.0, 0.0

    def sleep(seconds: float) -> None:
        nonlocal now_s, slept_s
        now_s, slept_s = now_s + seconds, slept_s + seconds

    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(time, "sleep", sleep)
    pace = Pace(1000, now_s)
    for _ in range(50):
        pace.read(100)
    assert slept_s == pytest.approx(5.0)


def test_rounds_begin_at_night_or_soon_where_nights_were_missed() -> None:
    at = next_round(NOW, NOW - timedelta(hours=9)).astimezone(LOCAL_ZONE)
    assert (at.hour, at.minute) == (1, 0) and at > NOW
    assert next_round(NOW, None) == NOW + SOON
    assert next_round(NOW, NOW - LATE_AFTER - timedelta(hours=1)) == NOW + SOON
