"""The nightly scrub, from the list of what is due to the alarm: rows here, reading in a child.

Every finalised recording is read again within seven days (media/scrub.py). A finding is an error in
the log, a line in the audit log when it is new, and a trouble on the health page until a later look
finds the recording whole again. Every round also walks the house's chain of manifests and puts its
length and last digest into the audit log, which is a chain of its own.
"""

import asyncio
import base64
import contextlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from datetime import time as day_time
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import select

from core import audit
from core.blobs import BlobStore, DirectoryBlobs
from core.clock import LOCAL_ZONE, Clock, SystemClock
from core.db import Database
from core.settings import Settings
from media import manifest, scrub
from media.chain import Chain
from media.jobs import Workshop
from media.model import RecordingFile
from media.scrub import FinishedFile, Look, Round, State, Wanted
from media.signing import Signer

log = structlog.get_logger(__name__)

REPORT_NAME: Final = "scrub.json"
ACTOR: Final = "house"
NIGHT_AT: Final = day_time(1, 0)
NIGHT_S: Final = 5 * 3600.0
"""A round that began at one is over before the first clerk comes; the rest is the next night's."""
LATE_AFTER: Final = timedelta(days=2)
SOON: Final = timedelta(minutes=10)
_LONGEST_LINE_BYTES: Final = 1024 * 1024
_KILL_AFTER_S: Final = 5.0

Tell = Callable[[Look], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What the last round found; kept beside the recordings' directory for the health page."""

    at: str
    recordings: int
    bytes: int
    damaged: tuple[str, ...]
    """Ids of recordings in which something had changed when they were last looked at."""
    overdue: int
    chain_links: int
    chain_head: str | None
    chain_problems: int


def next_round(now: datetime, last_at: datetime | None) -> datetime:
    """When to begin: at night, or soon if nights were missed (a machine that is switched off)."""
    if last_at is None or now - last_at > LATE_AFTER:
        return now + SOON
    local = now.astimezone(LOCAL_ZONE)
    tonight = datetime.combine(local.date(), NIGHT_AT, LOCAL_ZONE)
    return tonight if tonight > local else tonight + timedelta(days=1)


def last_report(settings: Settings) -> Report | None:
    """None before the first round, or if nobody can tell."""
    try:
        value = json.loads((settings.var_dir / REPORT_NAME).read_bytes())
        return Report(**{**value, "damaged": tuple(value["damaged"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


async def scrub_round(
    house: Workshop,
    *,
    everything: bool = False,
    within_s: float | None = None,
    tell: Tell = lambda _look: None,
) -> Report:
    """Look at what is due, or at everything; stop beginning new ones after `within_s`.

    Repeatable: a round that died is gone on with. Raises `OSError` and what the database raises.
    """
    recordings = house.settings.recordings_dir.resolve()
    now = house.clock.now()
    directories = await asyncio.to_thread(scrub.due, recordings, now, everything=everything)
    wanted = [await _wanted(house, directory) for directory in directories]
    count = size = 0
    async with contextlib.aclosing(_looks(house.settings, wanted, within_s)) as looks:
        async for look in looks:
            await _keep(house, recordings / look.recording, look)
            tell(look)
            count, size = count + 1, size + look.size_bytes
    report = await asyncio.to_thread(_report, house, recordings, count, size)
    async with house.database.transaction() as tx:
        await audit.record(
            tx, now=house.clock.now(), actor=ACTOR, action="scrub", object_kind="recordings",
            object_id="all", result="failed" if report.damaged or report.chain_problems else "ok",
            recordings=count, damaged=len(report.damaged), overdue=report.overdue,
            chain_links=report.chain_links, chain_head=report.chain_head,
            chain_problems=report.chain_problems,
        )  # fmt: skip
    text = json.dumps(asdict(report), indent=1)
    await asyncio.to_thread(
        manifest.write_durably, house.settings.var_dir / REPORT_NAME, text.encode()
    )
    log.info("scrub_done", recordings=count, damaged=len(report.damaged), overdue=report.overdue)
    return report


@dataclass(frozen=True, slots=True)
class _House:
    settings: Settings
    database: Database
    blobs: BlobStore
    clock: Clock


async def scrub_once(settings: Settings, *, everything: bool, tell: Tell) -> Report:
    """`scrub_round` outside of a running server."""
    database = Database(settings.database)
    try:
        house = _House(settings, database, DirectoryBlobs(settings.blobs_dir), SystemClock())
        return await scrub_round(house, everything=everything, tell=tell)
    finally:
        await database.close()


async def _wanted(house: Workshop, directory: Path) -> Wanted:
    async with house.database.reading() as tx:
        rows = await tx.scalars(
            select(RecordingFile).where(RecordingFile.recording_id == directory.name)
        )
        finished = tuple(
            FinishedFile(_place(house.blobs, row.blob_key), row.sha256) for row in rows
        )
    return Wanted(str(directory), finished)


def _place(blobs: BlobStore, key: str) -> str:
    try:
        return str(blobs.local_path(key))
    except FileNotFoundError:
        return f"/nowhere/{key}"  # its absence is for the look to tell


def _report(house: Workshop, recordings: Path, count: int, size: int) -> Report:
    now = house.clock.now()
    states = [(path.name, scrub.read_state(path)) for path in scrub.finalised(recordings)]
    chain = Chain(recordings).verify()
    for problem in chain.problems:
        log.error("chain_broken", recording=problem.path, code=problem.code)
    return Report(
        at=now.isoformat(),
        recordings=count,
        bytes=size,
        damaged=tuple(name for name, state in states if state and state.problems),
        overdue=scrub.overdue(recordings, now),
        chain_links=chain.links,
        chain_head=chain.head_sha256,
        chain_problems=len(chain.problems),
    )


async def _keep(house: Workshop, directory: Path, look: Look) -> None:
    """Raise the alarm, then note that it was looked at: dying in between raises it twice."""
    now = house.clock.now()
    before = await asyncio.to_thread(scrub.read_state, directory)
    if look.problems:
        log.error(
            "scrub_found_damage",
            recording_id=look.recording,
            problems=[(problem.path, problem.code) for problem in look.problems],
        )
    if look.problems and (before is None or before.problems != look.problems):
        first = look.problems[0]
        async with house.database.transaction() as tx:
            await audit.record(
                tx, now=now, actor=ACTOR, action="scrub_found_damage", object_kind="recording",
                object_id=look.recording, result="failed", problems=len(look.problems),
                path=first.path, code=first.code,
            )  # fmt: skip
    state = (before or State(now, None, ())).after(look, now)
    await asyncio.to_thread(scrub.write_state, directory, state)


async def _looks(
    settings: Settings, wanted: list[Wanted], within_s: float | None
) -> AsyncGenerator[Look, None]:
    """Each look of a child as it comes. The child never outlives this."""
    if not wanted:
        return
    signer = await asyncio.to_thread(Signer.at, settings.signing_key_file)
    key = base64.b64encode(signer.public_key).decode()
    asked = Round(tuple(wanted), settings.scrub_mib_per_s * 1024 * 1024, key)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "media.scrub",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE_BYTES, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    until_s = None if within_s is None else time.monotonic() + within_s
    try:
        process.stdin.write(json.dumps(asdict(asked)).encode())
        process.stdin.close()
        seen = 0
        async for line in process.stdout:
            seen += 1
            yield Look.decode(line)
            if until_s is not None and time.monotonic() > until_s:
                return
        if await process.wait() != 0 or seen < len(wanted):
            raise ChildProcessError(f"The scrub ended after {seen} of {len(wanted)} recordings.")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait_for(process.wait(), _KILL_AFTER_S)


def in_words(look: Look) -> str:
    """A look as a line for people."""
    if not look.problems:
        return f"{look.recording}: whole"
    return "\n".join(f"{look.recording}: {one.path}: {one.words}" for one in look.problems)


def as_row(look: Look) -> dict[str, Any]:
    return asdict(look)
