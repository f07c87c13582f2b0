"""How long after a call can it be watched, and what does that cost?

A recording of each length lies there as the relay leaves it (bench/recorded.py: real VP8 and Opus,
two parties at a VGA call's rate). From its end on everything is the house's own: the book is
closed, a durable workflow runs the steps in children at low priority, rows appear. "Playable" is
when the files of both parties stand in the database; "ready" is when the one picture does.

    run(minutes, with_picture_up_to=…) -> {"rows": [{"minutes", "playable_s", "cpu_s", …}], …}
"""

import asyncio
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event, select, update

from app.database import upgrade
from app.workflows import Workflows, house
from bench.circumstances import circumstances
from bench.recorded import STARTED, make_recording
from core.blobs import DirectoryBlobs
from core.clock import SystemClock
from core.db import Database
from core.edge import Services
from core.grants import GrantKey
from core.ids import RecordingId, new_id
from core.settings import Settings
from core.store import open_store
from media import manifest
from media.model import FileKind, Recording, RecordingFile, RecordingState

LOOK_EVERY_S: Final = 0.005
FLOOR_S: Final = 1.0
SHARE: Final = 0.002
PLAYABLE_WITHIN_S: Final = 600.0
READY_WITHIN_S: Final = 3000.0


def run(minutes: Sequence[int], *, with_picture_up_to: int) -> dict[str, Any]:
    """Measure each length; the one picture is composed for lengths up to `with_picture_up_to`.

    Raises RuntimeError if a recording fails to become playable or ready.
    """
    return asyncio.run(_run(minutes, with_picture_up_to))


def in_words(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    return (
        f"{row['minutes']:.0f} min: playable after {row['playable_s']:.2f} s "
        f"(target {row['target_s']:.2f}), {row['cpu_s_per_call_min']:.2f} CPU-s per call-minute"
    )


async def _run(minutes: Sequence[int], with_picture_up_to: int) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="reception-finalise-") as scratch:
        async with AsyncExitStack() as stack:
            services = await _services(stack, Path(scratch))
            workflows = Workflows(services)
            await workflows.start()
            stack.push_async_callback(workflows.stop)
            # Once before anything counts: files of Python and ffmpeg come from the disk only once.
            await _measure(services, workflows, seconds=5, with_picture=False)
            for each in minutes:
                with_picture = each <= with_picture_up_to
                rows.append(await _measure(services, workflows, each * 60, with_picture))
    return {"rows": rows, "met": all(row["playable_s"] <= row["target_s"] for row in rows)}


async def _services(stack: AsyncExitStack, scratch: Path) -> Services:
    settings = Settings(var_dir=scratch)
    database = Database(settings.database)

    @event.listens_for(database.engine.sync_engine, "connect")
    def _alone(connection: Any, _record: Any) -> None:  # the DBAPI's connections have no type
        # A recording stands here without its session, appointment, official and county.
        connection.execute("PRAGMA foreign_keys=OFF")

    await upgrade(settings.database)
    stack.push_async_callback(database.close)
    store = open_store("")
    stack.push_async_callback(store.aclose)
    return Services(
        settings=settings, database=database, store=store,
        blobs=DirectoryBlobs(settings.blobs_dir), clock=SystemClock(),
        grant_key=GrantKey(settings.secret_bytes),
    )  # fmt: skip


async def _measure(
    services: Services, workflows: Workflows, seconds: int, with_picture: bool
) -> dict[str, Any]:
    recording_id = RecordingId(new_id())
    directory = services.settings.recordings_dir / recording_id
    packets = await asyncio.to_thread(make_recording, directory, seconds)
    # What the recorder leaves: closed journals, and the book not yet closed.
    (directory / manifest.FILE_NAME).unlink()
    async with services.database.transaction() as tx:
        tx.add(
            Recording(
                id=recording_id, session_id=new_id(), state=RecordingState.CAPTURED,
                started_at=STARTED,
            )
        )  # fmt: skip
    async with AsyncExitStack() as held_back:
        if not with_picture:
            await held_back.enter_async_context(house().completing)
        row = await _time(services, workflows, recording_id, with_picture)
        if not with_picture:
            # What is ready is left alone: the picture's turn comes and finds nothing to do.
            async with services.database.transaction() as tx:
                await tx.execute(
                    update(Recording)
                    .where(Recording.id == recording_id)
                    .values(state=RecordingState.READY)
                )
    row = {"minutes": seconds / 60, "packets": packets, **row}
    row["target_s"] = round(FLOOR_S + SHARE * seconds, 2)
    row["cpu_s_per_call_min"] = round(row["cpu_s"] * 60 / seconds, 3)
    if with_picture:
        row["ready_cpu_s_per_call_min"] = round(row["ready_cpu_s"] * 60 / seconds, 3)
    shutil.rmtree(directory, ignore_errors=True)
    return {**row, **circumstances()}


async def _time(
    services: Services,
    workflows: Workflows,
    recording_id: RecordingId,
    with_picture: bool,
) -> dict[str, Any]:
    began, cpu_s = time.monotonic(), _cpu_s()
    await workflows.retry_recording(recording_id)
    await _through(house().making_playable, PLAYABLE_WITHIN_S)
    playable_s, playable_cpu_s = time.monotonic() - began, _cpu_s() - cpu_s
    await _expect(services, recording_id, FileKind.PARTY)
    row = {
        "playable_s": round(playable_s, 3),
        "cpu_s": round(playable_cpu_s, 3),
    }
    if with_picture:
        await _through(house().completing, READY_WITHIN_S)
        row["ready_s"] = round(time.monotonic() - began, 2)
        row["ready_cpu_s"] = round(_cpu_s() - cpu_s - playable_cpu_s, 2)
        await _expect(services, recording_id, FileKind.COMPOSED)
    return row


async def _through(turn: asyncio.Lock, within_s: float) -> None:
    """Wait until `turn` has been taken and given back: its child has ended, its rows stand.

    Asking the database instead would cost CPU, which counts.
    """
    async with asyncio.timeout(within_s):
        while not turn.locked():
            await asyncio.sleep(LOOK_EVERY_S)
        while turn.locked():
            await asyncio.sleep(LOOK_EVERY_S)


async def _expect(services: Services, recording_id: RecordingId, kind: FileKind) -> None:
    async with services.database.reading() as tx:
        recording = await tx.get(Recording, recording_id)
        assert recording is not None
        if recording.state == RecordingState.FAILED:
            raise RuntimeError(f"the recording failed: {recording.error}")
        found = await tx.scalar(
            select(RecordingFile.id).where(
                RecordingFile.recording_id == recording_id, RecordingFile.kind == kind
            )
        )
    if found is None:
        raise RuntimeError(f"no {kind} file was made")


def _cpu_s() -> float:
    """CPU of this process and of every child that has ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = os.times()
    return children.ru_utime + children.ru_stime + ours.user + ours.system
