"""Finishing a recording, step by step, as durable work calls it: rows here, labour in children.

`run_steps` marks the recording, runs steps of `media/finishing.py` in a child process, follows its
progress and writes down each result. Steps may be repeated after any crash. One that fails is tried
again if the cause may pass; then it is put into quarantine: the recording is `failed`, with words,
what was made stays to be watched, and a person can retry. Journals are never touched after they are
sealed. With model.py the only module of the media plane that knows the database.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
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
from media import journal, manifest
from media.ffmpeg import Limits, ffmpeg_path
from media.finishing import Job, Step
from media.journal import JournalUnreadable
from media.model import FileKind, Recording, RecordingFile, RecordingState
from media.mux import MuxedFile, MuxResult
from media.warm import WarmParent

log = structlog.get_logger(__name__)

STEPS: Final[tuple[str, ...]] = tuple(step.value for step in Step)
PLAYABLE: Final[tuple[str, ...]] = (Step.SEAL.value, Step.MUX.value)
"""After these the parties' files are there to be watched: seconds after the call."""
COMPLETE: Final[tuple[str, ...]] = (Step.VERIFY.value, Step.POSTER.value, Step.COMPOSE.value)
"""And after these the recording is ready: minutes of computing for an hour of talk."""
RETRY_AFTER_S: Final = (2.0, 10.0)
"""So a step is tried three times: long enough for a machine short of memory to find some."""
LONGEST_TALK_S: Final = 86_400.0
_UNREADABLE: Final = JournalUnreadable.code
_MAY_PASS: Final = frozenset(
    {
        "step_crashed",
        "step_timeout",
        "machine_refused",
        "ffmpeg_failed",
        "recording_busy",
        _UNREADABLE,
    }
)
_INCOMPLETE: Final = (
    "The disk does not give back a part of what was recorded. All the rest can be watched, and "
    "the gaps say what is missing. If there is a copy, put it in place and try again."
)
_NOT_NEEDED_BY_OTHERS: Final = frozenset({Step.POSTER})
_OVER: Final = frozenset({RecordingState.READY, RecordingState.EXPIRED})
_LOOK_AGAIN_S: Final = 0.2
PROGRESS_EVERY_S: Final = 1.0
WARM: Final = WarmParent()
"""Every child of this process is forked from this one."""
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
    house: Workshop,
    recording_id: RecordingId,
    steps: Sequence[str],
    *,
    case_number: str = "",
    limits: Limits | None = None,
    retry_after_s: Sequence[float] = RETRY_AFTER_S,
) -> bool:
    """Run some of `STEPS` in their order, in one child after another until all are through.

    False if one failed for good: the recording then says why and may be retried. `case_number` is
    what the composed picture is labelled with; empty leaves the label out. `limits` are what a
    child may take, by default what fits the recording; what may pass (a killed child, a machine
    that refused) is tried again after each of `retry_after_s`.

    Repeatable, by several processes at once: one works, the others wait for its lock and find it
    done. A recording that is ready or expired is left alone. Raises `NotFound` if there is no such
    recording, and whatever the database raises: then nothing is known and the caller should call
    again.
    """
    wanted = [Step(step) for step in steps]
    directory = house.settings.recordings_dir.resolve() / recording_id
    async with _alone(directory) as lock_fd:
        job = await _begin(house, recording_id, wanted[0], directory, limits=limits)
        if job is None:
            await _clear(directory / "work")
            return True
        job = replace(job, case_number=case_number)
        running = _Running(house, recording_id, job, lock_fd, list(wanted))
        failure = await running.through(retry_after_s)
        if failure is not None:
            await _fail(house, recording_id, *failure)
            return False
        if Step.COMPOSE in wanted:
            # Everything in it stands among the blobs now, and can be made again from the journals.
            await _clear(Path(job.work))
    return True


@asynccontextmanager
async def _alone(directory: Path) -> AsyncIterator[int | None]:
    """Hold the recording's finishing lock; it is given to the children too, so that nobody begins
    while one of a dead process still writes. None where there is no such directory: the first
    step will say so.

    Waits for as long as another process is at work, which its own time limits bound.
    """
    if not directory.is_dir():
        yield None
        return
    while True:
        fd = manifest.lock_directory(directory, manifest.FINISHING_LOCK)
        if fd is not None:
            break
        await asyncio.sleep(_LOOK_AGAIN_S)  # another process holds it: nobody could wake us
    try:
        yield fd
    finally:
        os.close(fd)


async def _clear(work: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


@dataclass(slots=True)
class _Running:
    """Steps under way: what is still to come, the one in front being worked on."""

    house: Workshop
    recording_id: RecordingId
    job: Job
    lock_fd: int | None
    remaining: list[Step]
    attempt: int = 1
    """How often the step in front has been begun."""
    quarantined: tuple[Step, StepFailed] | None = None
    """The first step that was given up."""

    @property
    def step(self) -> Step:
        return self.remaining[0]

    async def through(self, retry_after_s: Sequence[float]) -> "tuple[Step, StepFailed] | None":
        """Work everything off. The first step that had to be given up, and why, or None."""
        while self.remaining:
            try:
                await _in_child(self)
            except (StepFailed, OSError) as problem:
                failure = _in_words(problem)
                if failure.code in _MAY_PASS and self.attempt <= len(retry_after_s):
                    self._tell("recording_step_again", failure)
                    await asyncio.sleep(retry_after_s[self.attempt - 1])
                    self.attempt += 1
                    if failure.code == _UNREADABLE and self.attempt > len(retry_after_s):
                        self.job = replace(self.job, leaves_out=True)
                    continue
                self._tell("recording_step_quarantined", failure)
                self.quarantined = self.quarantined or (self.step, failure)
                if self.step not in _NOT_NEEDED_BY_OTHERS:
                    break
                await self._next()
        return self.quarantined

    async def done(self, result: dict[str, Any]) -> None:
        """The step in front is through: keep what it made, mark the next one."""
        is_whole = self.quarantined is None
        await _keep(self.house, self.recording_id, self.step, self.job, result, is_whole=is_whole)
        log.info("recording_step_done", recording_id=self.recording_id, step=self.step.value)
        if self.step is Step.VERIFY and result.get("unread"):
            # Everything else may be made; what is missing may yet be found in a copy.
            failure = StepFailed(_UNREADABLE, _INCOMPLETE, result["unread"])
            self._tell("recording_step_quarantined", failure)
            self.quarantined = self.quarantined or (self.step, failure)
        await self._next()

    async def _next(self) -> None:
        self.remaining.pop(0)
        self.attempt = 1
        if self.remaining:
            await _mark(self.house, self.recording_id, self.step)

    def _tell(self, event: str, failure: StepFailed) -> None:
        log.error(
            event,
            recording_id=self.recording_id,
            step=self.step.value,
            attempt=self.attempt,
            code=failure.code,
            words=failure.words,
            details=failure.details,
        )


def _in_words(problem: StepFailed | OSError) -> StepFailed:
    if isinstance(problem, StepFailed):
        return problem
    return StepFailed("machine_refused", f"The machine refused: {problem.strerror or problem}")


# --- rows ----------------------------------------------------------------------------------------


async def _begin(
    house: Workshop,
    recording_id: RecordingId,
    step: Step,
    directory: Path,
    *,
    limits: Limits | None,
) -> Job | None:
    """Mark the step as under way. None if there is nothing to do any more."""
    journal_bytes = await asyncio.to_thread(_journal_bytes, directory)

    async def work(tx: AsyncSession) -> Job | None:
        recording = await _recording(tx, recording_id)
        if recording.state in _OVER:
            return None
        recording.captured_at = recording.captured_at or house.clock.now()
        talk_s = (recording.captured_at - recording.started_at).total_seconds()
        _under_way(recording, step)
        return Job(
            recording=str(directory),
            work=str(directory / "work"),
            ffmpeg=ffmpeg_path(house.settings.ffmpeg),
            started_at=recording.started_at.isoformat(),
            signing_key=str(house.settings.signing_key_file.resolve()),
            is_chained=True,
            limits=limits or Limits.fit_for(journal_bytes, min(max(talk_s, 0), LONGEST_TALK_S)),
        )

    return await house.database.run(work)


async def _mark(house: Workshop, recording_id: RecordingId, step: Step) -> None:
    async def work(tx: AsyncSession) -> None:
        recording = await _recording(tx, recording_id)
        if recording.state not in _OVER:
            _under_way(recording, step)

    await house.database.run(work)


def _under_way(recording: Recording, step: Step) -> None:
    recording.state = RecordingState.MUXING
    recording.stage = step.value
    # What was reached before a crash or a retry stays: files that are there are there.
    recording.progress_percent = max(recording.progress_percent, _SHARES[step][0])
    recording.error_code = recording.error = None


def _journal_bytes(directory: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in journal.journals_in(directory))
    return 0


async def _keep(
    house: Workshop,
    recording_id: RecordingId,
    step: Step,
    job: Job,
    done: dict[str, Any],
    *,
    is_whole: bool,
) -> None:
    """Put what a step made where people find it, then its rows. `is_whole`: no step before it is
    missing, so the last one makes the recording ready."""
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
    if files and await _is_over(house, recording_id):
        return  # deleted meanwhile: nothing of it may come back
    for row in files:
        source = Path(job.work) / row.blob_key.rsplit("/", 1)[1]
        await asyncio.to_thread(house.blobs.put_file, row.blob_key, source)

    async def work(tx: AsyncSession) -> None:
        recording = await _recording(tx, recording_id)
        if recording.state in _OVER:
            return
        is_ready = step is Step.COMPOSE and is_whole
        reached = 100 if is_ready else min(_SHARES[step][1], 99)
        recording.progress_percent = max(recording.progress_percent, reached)
        if result is not None:
            recording.duration_ms = result.duration_ms
            recording.timeline = timeline_of(result)
        await _upsert(tx, recording_id, files)
        if is_ready:
            recording.state = RecordingState.READY
            recording.stage = None
            recording.ready_at = house.clock.now()

    await house.database.run(work)


async def _is_over(house: Workshop, recording_id: RecordingId) -> bool:
    async with house.database.reading() as tx:
        return (await _recording(tx, recording_id)).state in _OVER


async def _fail(
    house: Workshop, recording_id: RecordingId, step: Step, failure: StepFailed
) -> None:
    async def work(tx: AsyncSession) -> None:
        recording = await _recording(tx, recording_id)
        if recording.state in _OVER:
            return
        recording.state = RecordingState.FAILED
        recording.stage = step.value
        recording.error_code, recording.error = failure.code[:40], failure.words

    await house.database.run(work)


async def _tell_progress(
    house: Workshop, recording_id: RecordingId, step: Step, percent: int
) -> None:
    low, high = _SHARES[step]

    async def work(tx: AsyncSession) -> None:
        recording = await _recording(tx, recording_id)
        if recording.state in _OVER:
            return
        overall = low + (high - low) * percent // 100
        recording.progress_percent = max(recording.progress_percent, min(overall, 99))

    await house.database.run(work)


async def _recording(tx: AsyncSession, recording_id: RecordingId) -> Recording:
    # Held until the transaction ends: it may be decided just now that the recording goes.
    recording = await tx.get(Recording, recording_id, with_for_update=True)
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
    """Run what remains in a child and follow it; it never outlives us. Raises `StepFailed`."""
    last_step = running.remaining[-1]
    timeout_s = running.job.limits.step_s * len(running.remaining)
    child = await WARM.fork(running.remaining, lock_fd=running.lock_fd)
    try:
        child.give(json.dumps(asdict(running.job)).encode())
        async with asyncio.timeout(timeout_s):
            last = await _follow(running, child.lines)
            code = await child.ended()
            words = await child.last_words()
    except TimeoutError:
        if running.remaining:
            raise StepFailed("step_timeout", "This step took too long and was stopped.") from None
    finally:
        await child.end()
    if not running.remaining:
        return  # all was told; how the child ended afterwards changes nothing
    if "error" in last:
        raise StepFailed(last["code"], last["error"], last.get("details"))
    if code == -signal.SIGBUS:
        # A file that is read through memory, and a disk that does not give a piece of it.
        step = running.step.value
        raise StepFailed(_UNREADABLE, f"The disk cannot read a file ({step}).", words)
    if code != 0 or last.get("step") != last_step or "done" not in last:
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
