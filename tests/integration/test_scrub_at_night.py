"""The night's look, from its timer through the durable job to who reads the alarm; and by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from dbos import DBOS
from fastapi import FastAPI
from sqlalchemy import select
from typer.testing import CliRunner, Result

from app.cli import cli
from app.database import upgrade
from app.main import create_app
from app.scrubbing import NIGHT_AT, REPORT_NAME, Report, last_report
from core.audit import AuditLine
from core.clock import LOCAL_ZONE, SystemClock
from core.db import Database
from core.edge import STAFF_COOKIE
from core.settings import Settings
from media import manifest, scrub
from media.chain import Chain
from media.scrub import State
from media.signing import Signer
from tests.support.journals import small_journal
from tests.support.matters import make_prefecture

ONE_O_CLOCK = datetime.combine(datetime(2026, 11, 23), NIGHT_AT, LOCAL_ZONE).astimezone(UTC)
SECONDS_BEFORE = 2.0


class TwoSecondsToOne(SystemClock):
    """A wall that says 00:59:58 when it is first looked at, and loses two seconds in a hundred: a
    timer that was set by it wakes before its time."""

    def __init__(self) -> None:
        self._began_ns = self.monotonic_ns()

    def now(self) -> datetime:
        passed_s = (self.monotonic_ns() - self._began_ns) / 1e9
        return ONE_O_CLOCK + timedelta(seconds=0.98 * passed_s - SECONDS_BEFORE)


def house_at(place: Path) -> Settings:
    return Settings(var_dir=place / "var", roles=("web",), port=0)


def record(settings: Settings, name: str) -> Path:
    """A small finished recording, signed and in the house's chain; its directory."""
    directory = settings.recordings_dir / name
    directory.mkdir(parents=True)
    small_journal(directory, name, is_sealed=True)
    signer = Signer.at(settings.signing_key_file)
    manifest.recover(directory, signer=signer, succession=Chain(settings.recordings_dir))
    return directory


def flip_a_bit(directory: Path) -> None:
    (path,) = directory.glob("*.rrj")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@asynccontextmanager
async def lines_of(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database)
    yield database
    await database.close()


async def actions(settings: Settings) -> list[tuple[str, str, str]]:
    """What the audit log tells of looks: action, object, result."""
    async with lines_of(settings) as database, database.reading() as tx:
        rows = await tx.scalars(
            select(AuditLine).where(AuditLine.actor == "house").order_by(AuditLine.position)
        )
        return [(row.action, row.object_id, row.result) for row in rows]


async def asked(app: FastAPI, path: str) -> tuple[int, dict[str, Any]]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://house", cookies={STAFF_COOKIE: "admin"}
    ) as client:
        answer = await client.get(path)
        return answer.status_code, answer.json()


async def test_at_one_o_clock_a_flipped_bit_is_found_and_told_once(tmp_path: Path) -> None:
    settings = house_at(tmp_path)
    whole, flipped = record(settings, "whole"), record(settings, "flipped")
    week_ago = ONE_O_CLOCK - timedelta(days=7)
    for directory in (whole, flipped):
        scrub.write_state(directory, State(week_ago, week_ago, ()))
    flip_a_bit(flipped)
    before = Report((ONE_O_CLOCK - timedelta(days=1)).isoformat(), 2, 0, (), 0, 2, None, 0)
    (settings.var_dir / REPORT_NAME).write_text(json.dumps(asdict(before)))
    await upgrade(settings.database)
    async with lines_of(settings) as database:
        await make_prefecture(database)

    app = create_app(settings, clock=TwoSecondsToOne())
    async with app.router.lifespan_context(app):
        async with asyncio.timeout(60):
            while last_report(settings) == before:
                await asyncio.sleep(0.1)
        status, health = await asked(app, "/api/admin/health")
        assert (status, health["scrub"]["damaged"]) == (200, ["flipped"])
        assert (health["scrub"]["recordings"], health["scrub"]["late"]) == (2, False)
        assert (health["scrub"]["chain_links"], health["scrub"]["chain_problems"]) == (2, 0)
        # It is alarm for people; the server goes on taking calls.
        assert (await asked(app, "/readyz"))[0] == 200
        jobs = await asyncio.to_thread(DBOS.list_workflows, workflow_id_prefix="scrub-")
        assert [job.workflow_id for job in jobs] == ["scrub-2026-11-23-01"]
    assert await actions(settings) == [
        ("scrub_found_damage", "flipped", "failed"), ("scrub", "all", "failed"),
    ]  # fmt: skip
    found = scrub.read_state(flipped)
    assert found is not None and found.whole_at == week_ago
    assert [problem.code for problem in found.problems] == ["sha256"]


# By hand. What these print and return stands in docs/operations.md.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The house that the commands find."""
    settings = house_at(tmp_path)
    monkeypatch.setenv("RECEPTION_VAR_DIR", str(settings.var_dir))
    monkeypatch.chdir(tmp_path)
    return settings


def said(*words: str) -> tuple[int, list[str]]:
    found: Result = CliRunner().invoke(cli, ["recording", *words])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout.splitlines()


def migrate() -> None:
    assert CliRunner().invoke(cli, ["migrate"]).exit_code == 0


def test_a_look_by_hand_finds_a_flipped_bit_and_then_that_it_was_mended(here: Settings) -> None:
    whole, flipped = record(here, "whole"), record(here, "flipped")
    migrate()
    in_chain = "2 in the chain, 0 problems"
    assert said("scrub") == (0, ["2 looked at, 0 damaged", in_chain])
    (journal,) = flipped.glob("*.rrj")
    bytes_before = journal.read_bytes()
    flip_a_bit(flipped)
    assert said("scrub") == (0, ["0 looked at, 0 damaged", in_chain]), "both were just looked at"
    wrong = f"flipped: {journal.name}: The SHA-256 of this file does not match: it has changed."
    assert said("scrub", "--all") == (1, [wrong, "2 looked at, 1 damaged", in_chain])
    code, lines = said("scrub", "--all", "--json")
    rows = [json.loads(line) for line in lines]
    assert (code, {row["recording"]: len(row["problems"]) for row in rows[:-1]}) == (
        1, {"whole": 0, "flipped": 1},
    )  # fmt: skip
    assert rows[-1]["damaged"] == ["flipped"]
    assert said("verify", str(flipped))[0] == 1
    assert said("verify", str(whole))[0] == 0
    journal.write_bytes(bytes_before)
    assert said("scrub", "--all") == (0, ["2 looked at, 0 damaged", in_chain])


def test_where_nothing_was_recorded_a_look_says_so(here: Settings) -> None:
    here.var_dir.mkdir()
    migrate()
    assert said("scrub") == (0, ["0 looked at, 0 damaged", "0 in the chain, 0 problems"])
    here.recordings_dir.mkdir(exist_ok=True)
    assert said("verify", str(here.recordings_dir), "--chain") == (
        0, ["0 in the chain, 0 from before it", "no chain"],
    )  # fmt: skip


def test_where_there_is_no_house_the_commands_say_that(here: Settings) -> None:
    """Nothing found is not the same as nowhere to look."""
    nowhere = str(here.recordings_dir)
    for words, told in (
        (["scrub"], "The database of this house does not answer"),
        (["verify", nowhere, "--chain"], "does not exist"),
        (["verify", nowhere], "does not exist"),
        (["inspect", nowhere], "does not exist"),
    ):
        found = CliRunner().invoke(cli, ["recording", *words])
        assert (found.exit_code, found.stdout) == (2, "")
        assert told in " ".join(found.stderr.split()), found.stderr


def test_a_chain_tells_of_a_recording_that_was_taken_away_or_exchanged(here: Settings) -> None:
    first, second = record(here, "first"), record(here, "second")
    chain = ("verify", str(here.recordings_dir), "--chain")
    digest = manifest.digests(second / manifest.FILE_NAME)[0]
    assert said(*chain) == (0, ["2 in the chain, 0 from before it", f"the last is {digest}"])
    flip_a_bit(second)
    assert said(*chain)[0] == 0, "a chain is about books; bits of journals are the scrub's"
    book = first / manifest.FILE_NAME
    kept = book.read_bytes()
    book.write_bytes(kept.replace(b'"version"', b'"versioN"'))
    code, lines = said(*chain)
    assert (code, lines[0].split(":")[0]) == (1, "first")
    book.write_bytes(kept)
    first.rename(here.var_dir / "elsewhere")
    code, lines = said(*chain)
    assert (code, lines[0].split(":")[0]) == (1, "first")
