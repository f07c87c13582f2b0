"""How long after a call can it be watched, and what does that cost?

A recording of each length lies there as the relay leaves it (bench/recorded.py: real VP8 and Opus,
two parties at a VGA call's rate). From its end on everything is the house's own: the book is
closed, a durable workflow runs the steps in children at low priority, rows appear. "Playable" is
when the files of both parties stand in the database; "ready" is when the one picture does. Each
length is measured twice: cold, as after five quiet minutes, when the warm parent of the children
(media/warm.py) must be started first, and warm.

    run(seconds, with_picture_up_to_s=…, at_once=…) -> {"rows": [{"minutes", "playable_s", …}], …}
"""

import asyncio
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from dbos import DBOS
from sqlalchemy import event, func, select, update

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
from media import jobs, manifest
from media.model import FileKind, Recording, RecordingFile, RecordingState

LOOK_EVERY_S: Final = 0.005
FLOOR_S: Final = 1.0
SHARE: Final = 0.002
PLAYABLE_WITHIN_S: Final = 600.0
READY_WITHIN_S: Final = 3000.0


def run(
    seconds: Sequence[int], *, with_picture_up_to_s: int, at_once: Sequence[int] = (1,)
) -> dict[str, Any]:
    """Measure each length, with each number of calls that end `at_once`. The one picture is
    composed for a single warm one of up to `with_picture_up_to_s`.

    Raises RuntimeError if a recording fails to become playable or ready.
    """
    return asyncio.run(_run(seconds, with_picture_up_to_s, at_once))


def in_words(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    return (
        f"{row['calls']} × {row['minutes']:.1f} min, {row['start']}: playable after "
        f"{row['playable_s']:.2f} s (target {row['target_s']:.2f}), "
        f"{row['cpu_s']:.2f} CPU-s, {row['cpu_s_per_call_min']:.2f} per call-minute"
    )


async def _run(
    seconds: Sequence[int], with_picture_up_to_s: int, at_once: Sequence[int]
) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="reception-finalise-") as scratch:
        async with AsyncExitStack() as stack:
            services = await _services(stack, Path(scratch))
            workflows = Workflows(services)
            await workflows.start()
            stack.push_async_callback(workflows.stop)
            # Once before anything counts: files of Python and ffmpeg come from the disk only once.
            await _measure(services, workflows, 5, 1, with_picture=False)
            for each in seconds:
                for calls in at_once:
                    for start in ("cold", "warm"):
                        if start == "cold":
                            await asyncio.to_thread(jobs.WARM.end)
                        is_first = start == "warm" and calls == 1
                        with_picture = is_first and each <= with_picture_up_to_s
                        row = await _measure(
                            services, workflows, each, calls, with_picture=with_picture
                        )
                        rows.append({"start": start, **row})
            await _until_nothing_is_under_way()
    return {"rows": rows, "met": all(row["playable_s"] <= row["target_s"] for row in rows)}


async def _until_nothing_is_under_way() -> None:
    """Wait for the workflows whose turn for the picture came last: what is cut off by the end of
    the house complains of it, at length."""

    def under_way() -> int:
        waiting = ["PENDING", "ENQUEUED"]
        return len(DBOS.list_workflows(status=waiting, load_input=False, load_output=False))

    async with asyncio.timeout(PLAYABLE_WITHIN_S):
        while await asyncio.to_thread(under_way):  # on a loop, DBOS takes its executor away
            await asyncio.sleep(0.1)


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
    services: Services, workflows: Workflows, seconds: int, calls: int, *, with_picture: bool
) -> dict[str, Any]:
    made = [await _captured(services, seconds) for _ in range(calls)]
    packets = made[0][1]
    recording_ids = [recording_id for recording_id, _ in made]
    async with AsyncExitStack() as held_back:
        if not with_picture:
            await held_back.enter_async_context(house().completing)
        row = await _time(services, workflows, recording_ids, with_picture)
        if not with_picture:
            # What is ready is left alone: the picture's turn comes and finds nothing to do.
            async with services.database.transaction() as tx:
                await tx.execute(
                    update(Recording)
                    .where(Recording.id.in_(recording_ids))
                    .values(state=RecordingState.READY)
                )
    row = {"minutes": round(seconds / 60, 3), "calls": calls, "packets": packets, **row}
    row["target_s"] = round(calls * (FLOOR_S + SHARE * seconds), 2)
    row["cpu_s_per_call_min"] = round(row["cpu_s"] * 60 / seconds / calls, 3)
    if with_picture:
        row["ready_cpu_s_per_call_min"] = round(row["ready_cpu_s"] * 60 / seconds, 3)
    for recording_id in recording_ids:
        shutil.rmtree(services.settings.recordings_dir / recording_id, ignore_errors=True)
    return {**row, **circumstances()}


async def _captured(services: Services, seconds: int) -> tuple[RecordingId, int]:
    """A call that has ended, and its packets."""
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
    return recording_id, packets


async def _time(
    services: Services,
    workflows: Workflows,
    recording_ids: Sequence[RecordingId],
    with_picture: bool,
) -> dict[str, Any]:
    began, cpu_s = time.monotonic(), _cpu_s()
    for recording_id in recording_ids:
        await workflows.retry_recording(recording_id)
    async with asyncio.timeout(PLAYABLE_WITHIN_S * len(recording_ids)):
        await _through(house().making_playable)
        # Between two turns it looks as after the last.
        while await _unplayable(services, recording_ids):
            await _through(house().making_playable)
    playable_s, playable_cpu_s = time.monotonic() - began, _cpu_s() - cpu_s
    row = {
        "playable_s": round(playable_s, 3),
        "cpu_s": round(playable_cpu_s, 3),
    }
    if with_picture:
        async with asyncio.timeout(READY_WITHIN_S):
            await _through(house().completing)
        row["ready_s"] = round(time.monotonic() - began, 2)
        row["ready_cpu_s"] = round(_cpu_s() - cpu_s - playable_cpu_s, 2)
        await _expect(services, recording_ids[0], FileKind.COMPOSED)
    return row


async def _through(turn: asyncio.Lock) -> None:
    """Wait until `turn` has been taken and given back: its child has ended, its rows stand.

    Asking the database instead would cost CPU, which counts.
    """
    while not turn.locked():
        await asyncio.sleep(LOOK_EVERY_S)
    while turn.locked():
        await asyncio.sleep(LOOK_EVERY_S)


async def _unplayable(services: Services, recording_ids: Sequence[RecordingId]) -> int:
    """How many have no files yet. Raises RuntimeError if one has failed."""
    async with services.database.reading() as tx:
        failed = await tx.scalar(
            select(Recording.error).where(
                Recording.id.in_(recording_ids), Recording.state == RecordingState.FAILED
            )
        )
        playable = await tx.scalar(
            select(func.count(RecordingFile.recording_id.distinct())).where(
                RecordingFile.recording_id.in_(recording_ids),
                RecordingFile.kind == FileKind.PARTY,
            )
        )
    if failed is not None:
        raise RuntimeError(f"the recording failed: {failed}")
    return len(recording_ids) - (playable or 0)


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
    """CPU of this process, of every child that was waited for, and of the warm parent, who waits
    for the children that are its own."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime + time.process_time() + jobs.WARM.cpu_s
