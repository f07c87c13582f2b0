"""The one place from which recordings are deleted: a durable job, after everything was asked again.

Once a minute the keeper counts how long confirmed deletions have cooled and starts the job of each
one that is ripe. The job is three steps, each of which may be repeated after any crash:

    decide (one transaction, the point of no return) → erase the files → certificate, ledger, audit

Without two people's signatures nothing is ever ripe: what is merely due is a line in a list.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from dbos import DBOS, SetWorkflowID
from sqlalchemy.ext.asyncio import AsyncSession

from app.workflows import House, house
from cases import keeping, retention
from cases.keeping_model import DeletionCertificate
from cases.retention import Table
from core.edge import Services
from core.errors import ReceptionError
from core.ids import DeletionId
from media import erasure
from media.erasure import Erasure
from media.signing import Signer

log = structlog.get_logger()

LOOK_EVERY_S = 60.0


@DBOS.workflow()
def delete_recording(deletion_id: str) -> str:
    """What became of it: "not_now", "trouble" (both are tried again) or "deleted"."""
    recording_id = decide(deletion_id)
    if recording_id is None:
        return "not_now"
    return "deleted" if erase(deletion_id, recording_id) else "trouble"


@DBOS.step(retries_allowed=True, max_attempts=5, interval_seconds=0.5)
def decide(deletion_id: str) -> str | None:
    async def ask() -> str | None:
        services = house().services

        async def work(tx: AsyncSession) -> str | None:
            return await keeping.decide(
                tx, DeletionId(deletion_id), table_of(services), now=services.clock.now()
            )

        return await services.database.run(work)

    return house().wait(ask())


@DBOS.step(retries_allowed=True, max_attempts=5, interval_seconds=0.5)
def erase(deletion_id: str, recording_id: str) -> bool:
    """Files first, then the certificate: nothing is certified that is still there. False if the
    disk refused; the deletion then says why."""

    async def run() -> bool:
        services = house().services
        try:
            await erase_and_certify(services, DeletionId(deletion_id), recording_id)
        except (OSError, ReceptionError) as problem:
            words = f"{type(problem).__name__}: {problem}"
            log.error("deletion_trouble", deletion_id=deletion_id, words=words)
            await services.database.run(
                lambda tx: keeping.note_trouble(tx, DeletionId(deletion_id), words)
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
        await keeping.require_decided(tx, deletion_id, recording_id)
    directory = services.settings.recordings_dir.resolve() / recording_id
    # Before anything goes: a key that cannot be used must not be found out afterwards.
    signer = await asyncio.to_thread(Signer.at, services.settings.signing_key_file)
    gone: Erasure = await asyncio.to_thread(
        erasure.erase, directory, services.blobs, f"recordings/{recording_id}"
    )

    async def work(tx: AsyncSession) -> DeletionCertificate:
        return await keeping.complete(
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
        # As in app/workflows.py: DBOS is called from threads of ours only.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="keeper")

    async def start(self) -> None:
        assert House.current is not None, "workflows are launched first"
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
        """Count the cooling, start the job of everything ripe. Starting one twice starts it once:
        a job is named after its deletion and the attempts that failed before it."""
        database = self._services.database
        seen = keeping.look(self._services.clock)
        async with database.reading() as tx:
            is_needed = await keeping.is_anything_confirmed(tx)
        if not is_needed:
            return
        await database.run(lambda tx: keeping.count_cooling(tx, seen))
        async with database.reading() as tx:
            ripe = await keeping.ripe(tx)
        for deletion_id, attempts in ripe:
            await self._in_thread(_start, deletion_id, f"delete-{deletion_id}-{attempts}")

    async def _in_thread(self, work: Callable[..., None], *arguments: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _start(deletion_id: str, workflow_id: str) -> None:
    with SetWorkflowID(workflow_id):
        DBOS.start_workflow(delete_recording, deletion_id)
