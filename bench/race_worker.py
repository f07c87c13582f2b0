"""What one racer of `reception drill race` does: close a book or finish a recording, when told.

Racers are forked once and wait at a barrier before every round, so that they truly begin together.
A victim is forked from a racer and dies by its own SIGKILL at a chosen sync or rename, which means
with the recording's lock in its hands.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import event

from core.blobs import DirectoryBlobs
from core.clock import SystemClock
from core.db import Database
from core.ids import RecordingId
from core.settings import Settings
from media import jobs, manifest, signing
from media.chain import Chain
from media.signing import Signer

CASE_NUMBER: Final = "513328-SP-20260302-00001"
BARRIER_S: Final = 120.0
_LOCK_SEEN_WITHIN_S: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1


class Barrier(Protocol):
    """What `multiprocessing.Barrier` is to us."""

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class Close:
    """Close the book of this recording. `dies_at`: first as a victim, before its nth sync."""

    directory: Path
    signing_key: Path
    dies_at: int | None


@dataclass(frozen=True, slots=True)
class Finish:
    """Finish this recording. `dies_after_s`: first as a victim, so long after it has the lock."""

    recording_id: RecordingId
    var_dir: Path
    database: str
    dies_after_s: float | None


def racer(tasks: Connection, barrier: Barrier) -> None:
    """A racer's whole life: tasks come, answers go, None ends it."""
    _end_with_parent()
    structlog.reset_defaults()  # what the command told it to leave out is counted here
    while (task := tasks.recv()) is not None:
        try:
            answer = _close(task, barrier) if isinstance(task, Close) else _finish(task, barrier)
        except BaseException as surprise:  # of whatever kind, the campaign tells it as a failure
            answer = {"error": f"{type(surprise).__name__}: {surprise}"}
        tasks.send(answer)


def watcher(tasks: Connection) -> None:
    """Look at one recording after another, for anything half-written."""
    _end_with_parent()
    directory: Path | None = tasks.recv()
    while directory is not None:
        looks = {"looks": 0, "before": 0, "half_written": 0, "changed": 0}
        seen: bytes | None = None
        while not tasks.poll(0.0003):
            looks["looks"] += 1
            try:
                data = (directory / manifest.FILE_NAME).read_bytes()
                looks["half_written"] += not data.endswith(b"}\n") or not json.loads(data)
            except FileNotFoundError:
                looks["before"] += 1
                continue
            except ValueError:
                looks["half_written"] += 1
                continue
            looks["changed"] += seen is not None and seen != data
            seen = data
            with contextlib.suppress(FileNotFoundError):
                signature = (directory / signing.FILE_NAME).read_bytes()
                looks["half_written"] += not signing.Signature.decode(signature).is_over(data)
        tasks.recv()  # the round is over
        tasks.send(looks)
        directory = tasks.recv()


def _end_with_parent() -> None:
    """A campaign that is killed leaves nobody waiting at a barrier."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# --- closing a book ------------------------------------------------------------------------------


def _close(task: Close, barrier: Barrier) -> dict[str, Any]:
    died: int | None = None
    if task.dies_at is None:
        barrier.wait(BARRIER_S)
    else:
        died = _victim(task, task.dies_at, barrier)
    book = _recover(task)
    return {
        "manifest": _sha256(task.directory / manifest.FILE_NAME),
        "signature": _sha256(task.directory / signing.FILE_NAME),
        "sealed_at": book.sealed_at,
        "died": died,
    }


def _recover(task: Close) -> manifest.Manifest:
    return manifest.recover(
        task.directory,
        patience_s=BARRIER_S,
        signer=Signer.at(task.signing_key),
        succession=Chain(task.directory.parent),
    )


def _victim(task: Close, dies_at: int, barrier: Barrier) -> int:
    """Fork one that closes the book, lets the others begin once it is at work, and dies. The signal
    that ended it; 0 if it came through."""
    pid = os.fork()
    if pid == 0:
        _mortal(dies_at, barrier)
        _recover(task)
        os._exit(0)
    return -min(0, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _mortal(dies_at: int, barrier: Barrier) -> None:
    """From here on the `dies_at`th sync or rename of this process is its end; at the first one the
    others begin."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == 1:
                barrier.wait(BARRIER_S)
            if count == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        return call

    for name in ("fsync", "fdatasync", "replace"):
        setattr(os, name, counted(getattr(os, name)))


# --- finishing -----------------------------------------------------------------------------------


class _House:
    """As much of `core.edge.Services` as finishing needs."""

    def __init__(self, task: Finish) -> None:
        self.settings = Settings(var_dir=task.var_dir)
        self.database = Database(task.database)
        self.blobs = DirectoryBlobs(self.settings.blobs_dir)
        self.clock = SystemClock()

        @event.listens_for(self.database.engine.sync_engine, "connect")
        def _alone(connection: Any, _record: Any) -> None:  # the DBAPI's connections have no type
            # A recording stands here without its session, appointment, official and county.
            connection.execute("PRAGMA foreign_keys=OFF")


def _finish(task: Finish, barrier: Barrier) -> dict[str, Any]:
    victim = None if task.dies_after_s is None else _forked_finisher(task)
    barrier.wait(BARRIER_S)
    died: int | None = None
    if victim is not None and task.dies_after_s is not None:
        time.sleep(task.dies_after_s)
        os.kill(victim, signal.SIGKILL)  # a zombie by now, if it came through
        died = -min(0, os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]))
    with _steps_done() as steps:
        done = asyncio.run(_all_steps(task))
    return {"done": done, "steps": dict(steps), "died": died}


async def _all_steps(task: Finish) -> bool:
    house = _House(task)
    try:
        return await jobs.run_steps(house, task.recording_id, jobs.STEPS, case_number=CASE_NUMBER)
    finally:
        await house.database.close()


@contextlib.contextmanager
def _steps_done() -> Iterator[Counter[str]]:
    """Which steps this process has brought to their end, and how often."""
    steps: Counter[str] = Counter()
    with structlog.testing.capture_logs() as lines:
        yield steps
    steps.update(line["step"] for line in lines if line["event"] == "recording_step_done")


def _forked_finisher(task: Finish) -> int:
    """Fork one that finishes; its pid, once it is seen to hold the recording's finishing lock."""
    pid = os.fork()
    if pid == 0:
        with structlog.testing.capture_logs():
            asyncio.run(_all_steps(task))
        os._exit(0)
    directory = task.var_dir / "recordings" / task.recording_id
    until = time.monotonic() + _LOCK_SEEN_WITHIN_S
    while (fd := manifest.lock_directory(directory, manifest.FINISHING_LOCK)) is not None:
        os.close(fd)
        if time.monotonic() > until:
            raise TimeoutError("the victim never took the lock")
        time.sleep(0.01)
    return pid


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
