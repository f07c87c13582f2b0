"""Finishing a recording, step by step, as durable work calls it: rows here, labour in children.

`run_steps` marks the recording, runs steps of `media/finishing.py` in one child process, follows
its progress and writes down each result. Steps may be repeated after any crash; one that fails
leaves the recording `failed`, with words, and can be retried. Journals are never touched after
they are sealed. With model.py the only module of the media plane that knows the database.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.blobs import BlobStore
from core.clock import Clock
from core.db import Database
from core.errors import NotFound
from core.ids import RecordingId, new_id
from core.settings import Settings
from media.ffmpeg import ffmpeg_path
from media.finishing import Job, Step
from media.model import FileKind, Recording, RecordingFile, RecordingState
from media.mux import MuxedFile, MuxResult

log = structlog.get_logger(__name__)

STEPS: Final[tuple[str, ...]] = tuple(step.value for step in Step)
PLAYABLE: Final[tuple[str, ...]] = (Step.SEAL.value, Step.MUX.value)
"""After these the parties' files are there to be watched: seconds after the call."""
COMPLETE: Final[tuple[str, ...]] = (Step.VERIFY.value, Step.POSTER.value, Step.COMPOSE.value)
"""And after these the recording is ready: minutes of computing for an hour of talk."""
STEP_TIMEOUT_S: Final = 3000.0
PROGRESS_EVERY_S: Final = 1.0
_KILL_AFTER_S: Final = 5.0
_LONGEST_LINE_BYTES: Final = 4 * 1024 * 1024  # a mux result with thousands of gaps
_SHARES: Final = {
    Step.SEAL: (0, 2), Step.MUX: (2, 10), Step.VERIFY: (10, 40),
    Step.POSTER: (40, 42), Step.COMPOSE: (42, 100),
}  # fmt: skip
"""Which part of the whole each step is, about as long as they take."""
_COMPOSED_POSITION: Final = 0
_FIRST_FILE_POSITION: Final = 1
_POSTER_POSITION: Final = 900


class Workshop(Protocol):
    """What finishing needs of the house; `core.edge.Services` is one."""

    @property
    def settings(self) -> Settings: ...
    @property
    def database(self) -> Database: ...
    @property
    def blobs(self) -> BlobStore: ...
    @property
    def clock(self) -> Clock: ...


class StepFailed(Exception):
    """A child said no, or died. `words` are for the person who will press retry."""

    def __init__(self, code: str, words: str, details: object = None) -> None:
        super().__init__(words)
        self.code = code
        self.words = words
        self.details = details


async def run_step(
    house: Workshop, recording_id: RecordingId, step: str, *, case_number: str = ""
) -> bool:
    """Run one of `STEPS`, as `run_steps` does."""
    return await run_steps(house, recording_id, (step,), case_number=case_number)


async def run_steps(
    house: Workshop, recording_id: RecordingId, steps: Sequence[str], *, case_number: str = ""
) -> bool:
    """Run some of `STEPS` in their order, in one child.

    False if one failed: the recording then says why and may be retried. `case_number` is what the
    composed picture is labelled with; empty leaves the label out.

    Repeatable; a recording that is ready or expired is left alone. Raises `NotFound` if there is
    no such recording, and whatever the database raises: then nothing is known and the caller
    should call again.
    """
    wanted = [Step(step) for step in steps]
    job = await _begin(house, recording_id, wanted[0], case_number)
    if job is None:
        return True
    running = _Running(house, recording_id, job, wanted)
    try:
        await _in_child(running)
        if Step.COMPOSE in wanted:
            # Everything in it stands among the blobs now, and can be made again from the journals.
            await asyncio.to_thread(shutil.rmtree, job.work, ignore_errors=True)
    except (StepFailed, OSError) as problem:
        await _fail(house, recording_id, running.step, problem)
        return False
    return True


@dataclass(slots=True)
class _Running:
    """A child at work: which step it is in, and what is still to come."""

    house: Workshop
    recording_id: RecordingId
    job: Job
    wanted: list[Step]
    at: int = 0

    @property
    def step(self) -> Step:
        return self.wanted[self.at]

    async def done(self, result: dict[str, Any]) -> None:
        """The step under way is through: keep what it made, mark the next one."""
        await _keep(self.house, self.recording_id, self.step, self.job, result)
        log.info("recording_step_done", recording_id=self.recording_id, step=self.step.value)
        if self.at + 1 < len(self.wanted):
            self.at += 1
            await _begin(self.house, self.recording_id, self.step, self.job.case_number)


# --- rows ----------------------------------------------------------------------------------------


async def _begin(
    house: Workshop, recording_id: RecordingId, step: Step, case_number: str
) -> Job | None:
    """Mark the step as under way. None if there is nothing to do any more."""

    async def work(tx: AsyncSession) -> Job | None:
        recording = await _recording(tx, recording_id)
        if recording.state in (RecordingState.READY, RecordingState.EXPIRED):
            return None
        recording.state = RecordingState.MUXING
        recording.stage = step.value
        recording.progress_percent = _SHARES[step][0]
        recording.error_code = recording.error = None
        recording.captured_at = recording.captured_at or house.clock.now()
        directory = house.settings.recordings_dir.resolve() / recording_id
        return Job(
            recording=str(directory),
            work=str(directory / "work"),
            ffmpeg=ffmpeg_path(house.settings.ffmpeg),
            case_number=case_number,
            started_at=recording.started_at.isoformat(),
            signing_key=str(house.settings.signing_key_file.resolve()),
        )

    return await house.database.run(work)


async def _keep(
    house: Workshop, recording_id: RecordingId, step: Step, job: Job, done: dict[str, Any]
) -> None:
    """Put what a step made where people find it, then its rows."""
    files: list[RecordingFile] = []
    result: MuxResult | None = None
    match step:
        case Step.SEAL:
            pass
        case Step.MUX | Step.VERIFY:
            # The parties' files are shown as soon as they open and seek; the full check that
            # follows may add problems, and says who spoke when.
            result = MuxResult.from_json(done)
            if result.problems:
                log.warning(
                    "recording_has_problems", recording_id=recording_id, problems=result.problems
                )
            files = [
                _party_row(recording_id, position, file)
                for position, file in enumerate(result.files, _FIRST_FILE_POSITION)
            ]
        case Step.POSTER:
            files = [_made_row(recording_id, FileKind.POSTER, "image/jpeg", _POSTER_POSITION, done)]
        case Step.COMPOSE:
            files = [
                _made_row(recording_id, FileKind.COMPOSED, "video/mp4", _COMPOSED_POSITION, done)
            ]
    for row in files:
        source = Path(job.work) / row.blob_key.rsplit("/", 1)[1]
        await asyncio.to_thread(house.blobs.put_file, row.blob_key, source)

    async def work(tx: AsyncSession) -> None:
        recording = await _recording(tx, recording_id)
        recording.progress_percent = _SHARES[step][1]
        if result is not None:
            recording.duration_ms = result.duration_ms
            recording.timeline = timeline_of(result)
        await _upsert(tx, recording_id, files)
        if step is Step.COMPOSE:
            recording.state = RecordingState.READY
            recording.stage = None
            recording.ready_at = house.clock.now()

    await house.database.run(work)


async def _fail(
    house: Workshop, recording_id: RecordingId, step: Step, problem: StepFailed | OSError
) -> None:
    code, words = (
        (problem.code, problem.words)
        if isinstance(problem, StepFailed)
        else ("machine_refused", f"The machine refused: {problem.strerror or problem}")
    )
    log.error(
        "recording_step_failed",
        recording_id=recording_id,
        step=step.value,
        code=code,
        words=words,
        details=getattr(problem, "details", None),
    )

    async def work(tx: AsyncSession) -> None:
        recording = await _recording(tx, recording_id)
        recording.state = RecordingState.FAILED
        recording.error_code, recording.error = code[:40], words

    await house.database.run(work)


async def _tell_progress(
    house: Workshop, recording_id: RecordingId, step: Step, percent: int
) -> None:
    low, high = _SHARES[step]

    async def work(tx: AsyncSession) -> None:
        recording = await _recording(tx, recording_id)
        overall = low + (high - low) * percent // 100
        recording.progress_percent = max(recording.progress_percent, min(overall, 99))

    await house.database.run(work)


async def _recording(tx: AsyncSession, recording_id: RecordingId) -> Recording:
    recording = await tx.get(Recording, recording_id)
    if recording is None:
        raise NotFound("There is no such recording.")
    return recording


async def _upsert(
    tx: AsyncSession, recording_id: RecordingId, files: Sequence[RecordingFile]
) -> None:
    """Insert rows, or bring those of the same blob up to date: a file keeps its id for ever."""
    existing = {
        row.blob_key: row
        for row in await tx.scalars(
            select(RecordingFile).where(RecordingFile.recording_id == recording_id)
        )
    }
    for row in files:
        known = existing.get(row.blob_key)
        if known is not None:
            row.id = known.id
        await tx.merge(row)


def _party_row(recording_id: RecordingId, position: int, file: MuxedFile) -> RecordingFile:
    return RecordingFile(
        id=new_id(),
        recording_id=recording_id,
        position=position,
        kind=file.kind,
        participant_id=file.participant_id,
        role=file.role[:16],
        label=file.label[:80],
        blob_key=_blob_key(recording_id, file.path),
        mime=file.mime,
        size_bytes=file.bytes,
        sha256=file.sha256,
        duration_ms=file.duration_ms,
        offset_ms=file.offset_ms,
        width=file.width,
        height=file.height,
        has_audio=file.has_audio,
        has_video=file.has_video,
    )


def _made_row(
    recording_id: RecordingId, kind: FileKind, mime: str, position: int, done: dict[str, Any]
) -> RecordingFile:
    is_film = kind is FileKind.COMPOSED
    return RecordingFile(
        id=new_id(),
        recording_id=recording_id,
        position=position,
        kind=kind.value,
        participant_id=None,
        role=None,
        label="",
        blob_key=_blob_key(recording_id, done["path"]),
        mime=mime,
        size_bytes=done["bytes"],
        sha256=done["sha256"],
        duration_ms=done["duration_ms"] if is_film else 0,
        offset_ms=0,
        width=done["width"],
        height=done["height"],
        has_audio=is_film,
        has_video=True,
    )


def _blob_key(recording_id: RecordingId, name: str) -> str:
    return f"recordings/{recording_id}/{name}"


def timeline_of(result: MuxResult) -> dict[str, Any]:
    """The gaps and the speech of all parties on the session's timeline, as the row keeps them."""
    gaps = [
        {
            "participant_id": file.participant_id,
            "label": file.label,
            "track": gap.track,
            "start_ms": gap.start_ms,
            "end_ms": gap.end_ms,
            "cause": gap.cause,
        }
        for file in result.files
        for gap in file.gaps
    ]
    speech = [
        {"participant_id": file.participant_id, "start_ms": span.start_ms, "end_ms": span.end_ms}
        for file in result.files
        for span in file.speech
    ]
    return {
        "gaps": sorted(gaps, key=lambda gap: gap["start_ms"]),
        "speech": sorted(speech, key=lambda span: span["start_ms"]),
    }


# --- the child -----------------------------------------------------------------------------------


async def _in_child(running: _Running) -> None:
    """Run the steps in a child and follow it. Raises `StepFailed`; the child never outlives us."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "media.finishing", *running.wanted,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE_BYTES,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    stderr = asyncio.create_task(_last_words(process.stderr), name="read a child's stderr")
    try:
        process.stdin.write(json.dumps(asdict(running.job)).encode())
        process.stdin.close()
        async with asyncio.timeout(STEP_TIMEOUT_S * len(running.wanted)):
            last = await _follow(running, process.stdout)
            code = await process.wait()
            words = await stderr
    except TimeoutError:
        raise StepFailed("step_timeout", "This step took too long and was stopped.") from None
    finally:
        await _end(process)
        stderr.cancel()
    if "error" in last:
        raise StepFailed(last["code"], last["error"], last.get("details"))
    if code != 0 or last.get("step") != running.wanted[-1] or "done" not in last:
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        raise StepFailed("step_crashed", f"This step was ended by the system ({how}).", words)


async def _follow(running: _Running, lines: asyncio.StreamReader) -> dict[str, Any]:
    """Keep each result, pass progress on about once a second; return the child's last line."""
    last: dict[str, Any] = {}
    told_at = time.monotonic()
    async for line in lines:
        try:
            last = json.loads(line)
        except ValueError:
            continue  # not ours: a library spoke on standard output
        if "done" in last:
            await running.done(last["done"])
        elif "percent" in last and time.monotonic() - told_at >= PROGRESS_EVERY_S:
            told_at = time.monotonic()
            await _tell_progress(running.house, running.recording_id, running.step, last["percent"])
    return last


async def _last_words(stream: asyncio.StreamReader) -> str:
    """The end of what a child wrote to standard error; the rest is thrown away."""
    kept = b""
    while data := await stream.read(65536):
        kept = (kept + data)[-2000:]
    return kept.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that the child, and the ffmpeg below it, is gone."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), _KILL_AFTER_S)
