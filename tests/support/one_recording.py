"""A house with one captured recording and nothing else: all that finishing needs to be tried on."""

import hashlib
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import event, select

from core.blobs import DirectoryBlobs
from core.clock import SystemClock
from core.db import Database
from core.ids import RecordingId
from core.settings import Settings
from media import journal
from media.model import Recording, RecordingFile, RecordingState
from tests.support.databases import create_tables
from tests.support.media_material import STARTED, Speaker, flash_and_beep, record

KIOSK, OFFICIAL = "a" * 32, "b" * 32
RECORDING = RecordingId("c" * 32)
SESSION = "5" * 32
AT_ONCE = (0.0, 0.0)
"""As `retry_after_s`: a step that fails is tried three times, without waiting."""


@dataclass(frozen=True)
class House:
    """As much of `core.edge.Services` as finishing a recording needs."""

    settings: Settings
    database: Database
    blobs: DirectoryBlobs
    clock: SystemClock

    def with_ffmpeg(self, ffmpeg: Path) -> "House":
        settings = Settings(var_dir=self.settings.var_dir, ffmpeg=ffmpeg)
        return replace(self, settings=settings)

    @property
    def directory(self) -> Path:
        return self.settings.recordings_dir / RECORDING

    async def recording(self) -> Recording:
        async with self.database.reading() as tx:
            found = await tx.get(Recording, RECORDING)
            assert found is not None
            return found

    async def files(self) -> list[RecordingFile]:
        async with self.database.reading() as tx:
            query = select(RecordingFile).order_by(RecordingFile.position)
            return list(await tx.scalars(query))


async def open_house(scratch: Path) -> House:
    """Nothing has been recorded yet. Whoever opened it closes its `database`."""
    database = Database(f"sqlite+aiosqlite:///{scratch / 'test.db'}")
    event.listen(database.engine.sync_engine, "connect", without_neighbours)
    await create_tables(database)
    async with database.transaction() as tx:
        tx.add(
            Recording(
                id=RECORDING, session_id=SESSION, state=RecordingState.CAPTURED, started_at=STARTED
            )
        )
    settings = Settings(var_dir=scratch / "var")
    return House(settings, database, DirectoryBlobs(settings.blobs_dir), SystemClock())


def without_neighbours(connection: Any, _record: Any) -> None:
    """For "connect": the recording needs no session, official or county beside it."""
    connection.execute("PRAGMA foreign_keys=OFF")


def record_two_parties(directory: Path) -> None:
    """Three seconds of two people who flash and beep, closed by a book."""
    clip = flash_and_beep(3.0)
    record(directory, [Speaker(KIOSK, clip), Speaker(OFFICIAL, clip, role="official")])


def originals(directory: Path) -> dict[str, str]:
    """Each journal's name and what it hashes to."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in journal.journals_in(directory)
    }


async def logged(work: Awaitable[bool]) -> tuple[bool, list[dict[str, Any]]]:
    """What came of it, and the lines that were logged meanwhile."""
    with structlog.testing.capture_logs() as lines:
        done = await work
        return done, [dict(line) for line in lines]


def counts(lines: list[dict[str, Any]], event: str) -> list[tuple[str, str]]:
    """Step and code of each line that tells of `event`."""
    return [(line["step"], line["code"]) for line in lines if line["event"] == event]
