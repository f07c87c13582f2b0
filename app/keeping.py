"""The one place from which recordings are deleted: a durable job, after everything was asked again.

Once a minute the keeper counts how long confirmed deletions have cooled and starts the job of each
one that is ripe. The job is three steps, each of which may be repeated after any crash:

    decide (one transaction, the point of no return) → erase the files → certificate, ledger, audit

Without two people's signatures nothing is ever ripe: what is merely due is a line in a list.

What is foreseen (a disk that refuses, files still being made) is a trouble, and tried again a
minute later. What is not, ends the attempt's workflow in an error; the keeper finds it there, also
after a restart, and halts the deletion until a person has looked at it. The attempt's number stands
in the workflow's name, so that each is begun once and counted once.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import structlog
from dbos import DBOS, SetWorkflowID
from sqlalchemy.ext.asyncio import AsyncSession

from app.workflows import House, house
from cases import keeping, keeping_clock, keeping_job, retention
from cases.keeping_clock import Doubt
from cases.keeping_model import DeletionCertificate
from cases.retention import Seen, Table
from core import audit
from core.edge import Services
from core.errors import ReceptionError
from core.ids import DeletionId
from media import erasure
from media.erasure import Erasure
from media.signing import Signer

log = structlog.get_logger()
T = TypeVar("T")

LOOK_EVERY_S = 60.0
_BROKEN_OFF: Final = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_LONGEST_WORDS: Final = 500


@DBOS.workflow()
def delete_recording(deletion_id: str) -> str:
    """What became of it: "not_now", "trouble" (both are tried again) or "deleted"."""
    attempt = _attempt_of(DBOS.workflow_id or "")
    recording_id = decide(deletion_id, attempt)
    if recording_id is None:
        return "not_now"
    return "deleted" if erase(deletion_id, attempt, recording_id) else "trouble"


@DBOS.step(retries_allowed=True, max_attempts=5, interval_seconds=0.5)
def decide(deletion_id: str, attempt: int) -> str | None:
    async def ask() -> str | None:
        services = house().services
        seen = keeping.look(services.clock)

        async def work(tx: AsyncSession) -> str | None:
            return await keeping_job.decide(
                tx, DeletionId(deletion_id), attempt, table_of(services), seen=seen
            )

        return await services.database.run(work)

    return house().wait(ask())


@DBOS.step(retries_allowed=True, max_attempts=5, interval_seconds=0.5)
def erase(deletion_id: str, attempt: int, recording_id: str) -> bool:
    """Files first, then the certificate: nothing is certified that is still there. False if the
    disk refused; the deletion then says why."""

    async def run() -> bool:
        services = house().services
        try:
            await erase_and_certify(services, DeletionId(deletion_id), recording_id)
        except (OSError, ReceptionError) as problem:
            words = _in_words(problem)
            log.error("deletion_trouble", deletion_id=deletion_id, words=words)
            await services.database.run(
                lambda tx: keeping_job.note_trouble(tx, DeletionId(deletion_id), attempt, words)
            )
            return False
        return True

    return house().wait(run())


async def erase_and_certify(
    services: Services, deletion_id: DeletionId, recording_id: str
) -> DeletionCertificate:
    """The files of a decided deletion, then its certificate. Repeatable. Raises `OSError`,
    `RecordingBusy`, or what the signing key raises."""
    async with services.database.reading() as tx:
        await keeping_job.require_decided(tx, deletion_id, recording_id)
    directory = services.settings.recordings_dir.resolve() / recording_id
    # Before anything goes: a key that cannot be used must not be found out afterwards.
    signer = await asyncio.to_thread(Signer.at, services.settings.signing_key_file)
    gone: Erasure = await asyncio.to_thread(
        erasure.erase, directory, services.blobs, f"recordings/{recording_id}"
    )

    async def work(tx: AsyncSession) -> DeletionCertificate:
        return await keeping_job.complete(
            tx, deletion_id, gone, table_of(services), signer, now=services.clock.now()
        )

    made = await services.database.run(work)
    await asyncio.to_thread(
        erasure.write_certificate, directory, made.body.encode(), made.signature.encode()
    )
    return made


def table_of(services: Services) -> Table:
    settings = services.settings
    return retention.table(settings.retention_years.items(), settings.retention_approval)


class Keeper:
    """The minute's look: `start` after the workflows, `stop` before them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._doubt: Doubt | None = None
        # As in app/workflows.py: DBOS is called from threads of ours only.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="keeper")

    async def start(self) -> None:
        assert House.current is not None, "workflows are launched first"
        # Before anyone is served: a line of the audit log that was written by a clock that is wrong
        # would speak for that clock.
        await self._watch_clock(keeping.look(self._services.clock))
        self._task = asyncio.create_task(self._look_forever(), name="count cooling")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._threads.shutdown()

    async def _look_forever(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # the edge of a task: a database in trouble must not end it
                log.exception("keeper_failed")
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look at both clocks, count the cooling, start the job of everything ripe. Starting one
        twice starts it once: a job is named after its deletion and the attempts before it."""
        database = self._services.database
        seen = keeping.look(self._services.clock)
        is_sane = await self._watch_clock(seen)
        async with database.reading() as tx:
            is_needed = await keeping_job.is_anything_confirmed(tx)
        if not is_needed:
            return
        await database.run(lambda tx: keeping_job.count_cooling(tx, seen))
        async with database.reading() as tx:
            ripe = await keeping_job.ripe(tx)
        for deletion_id, attempt in ripe:
            name = f"delete-{deletion_id}-{attempt}"
            words = await self._in_thread(_how_it_broke_off, name)
            if words is not None:
                await self._halt(deletion_id, attempt, words)
            elif is_sane:
                await self._in_thread(_start, deletion_id, name)

    async def _watch_clock(self, seen: Seen) -> bool:
        """Whether nothing speaks against the wall clock. A new doubt is told once."""
        found = await self._services.database.run(lambda tx: keeping_clock.look(tx, seen))
        if found is not None and self._doubt is None:
            await self._tell_doubt(seen, found)
        self._doubt = found
        return found is None

    async def _tell_doubt(self, seen: Seen, found: Doubt) -> None:
        off_ms = keeping_clock.off_ms(found)
        log.error("clock_doubted", against=found.against, off_ms=off_ms)
        async with self._services.database.transaction() as tx:
            await audit.record(
                tx, now=seen.wall, actor="house", action="clock_doubted", object_kind="clock",
                object_id=seen.boot_id, result="failed", against=found.against.value,
                off_ms=off_ms,
            )  # fmt: skip

    async def _halt(self, deletion_id: DeletionId, attempt: int, words: str) -> None:
        now = self._services.clock.now()
        is_new = await self._services.database.run(
            lambda tx: keeping_job.halt(tx, deletion_id, attempt, words, now=now)
        )
        if is_new:
            log.error("deletion_halted", deletion_id=deletion_id, attempt=attempt, words=words)

    async def _in_thread(self, work: Callable[..., T], *arguments: str) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _start(deletion_id: str, workflow_id: str) -> None:
    with SetWorkflowID(workflow_id):
        DBOS.start_workflow(delete_recording, deletion_id)


def _attempt_of(workflow_id: str) -> int:
    return int(workflow_id.rpartition("-")[2])


def _how_it_broke_off(workflow_id: str) -> str | None:
    """What ended this attempt, if it was nothing that its steps foresaw."""
    status = DBOS.get_workflow_status(workflow_id)
    if status is None or status.status not in _BROKEN_OFF:
        return None
    if status.error is None:
        return f"The job ended as {status.status.lower()}."
    # Of a step that was tried several times what counts is how it failed at last.
    tried: list[Exception] = getattr(status.error, "errors", [])
    return _in_words(tried[-1] if tried else status.error)


def _in_words(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"[:_LONGEST_WORDS]
