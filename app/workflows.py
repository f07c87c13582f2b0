"""What follows an event, durably: each step once, whatever crashes in between.

A dispatcher reads the outbox (core/events.py) and starts one DBOS workflow per event, named after
what it is about, so that starting it twice is starting it once. DBOS keeps its steps beside the
data (SQLite or PostgreSQL) and resumes at the first unfinished one after a crash.

    SESSION_STARTED → the appointment is called
    SESSION_ENDED   → open_case ∥ (seal → mux → verify → poster → compose)

A case never waits for the muxer. Workflow threads do no work of their own: database steps run on
the process's event loop, media steps in child processes at low priority (media/jobs.py), so neither
disturbs a room that lives in the same process.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import structlog
from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cases import intake
from cases.model import Case
from core.edge import Services
from core.events import Event, EventKind, mark_handled, unhandled
from core.ids import AppointmentId, RecordingId, SessionId, new_id
from media import jobs
from media.model import Recording
from scheduling import booking

log = structlog.get_logger()
T = TypeVar("T")

IDLE_POLL_S = 1.0
"""How long an event can wait if nobody pokes the dispatcher: another process wrote it."""
STEP_TIMEOUT_S = 3600

FINISHING = "finishing"
"""The queue of recordings: one at a time per process, for live rooms come first."""


@dataclass(frozen=True, slots=True)
class House:
    """What workflow code reaches for: services, and the loop on which database steps run."""

    services: Services
    loop: asyncio.AbstractEventLoop

    current: ClassVar["House | None"] = None

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the process's event loop and wait for it, from a workflow's thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(STEP_TIMEOUT_S)


def house() -> House:
    if House.current is None:
        raise RuntimeError("workflows run only inside a started process")
    return House.current


@DBOS.workflow()
def after_call(session_id: str) -> str:
    """Open the case of an ended session. Finishing its recording is a workflow beside this one."""
    return open_case_step(session_id)


@DBOS.step(retries_allowed=True, max_attempts=10, interval_seconds=0.5)
def open_case_step(session_id: str) -> str:
    async def open_case() -> str:
        services = house().services

        async def work(tx: AsyncSession) -> str:
            case = await intake.open_case(tx, SessionId(session_id), now=services.clock.now())
            return case.id

        return await services.database.run(work)

    return house().wait(open_case())


@DBOS.workflow()
def finish_recording(recording_id: str) -> str:
    """Journals → playable files → the one picture people watch."""
    for step in jobs.STEPS:
        if not media_step(recording_id, step):
            return "failed"
    return "ready"


@DBOS.step()
def media_step(recording_id: str, step: str) -> bool:
    """One idempotent step in a child process. False when it failed and the recording says why."""

    async def run() -> bool:
        services = house().services
        # The last step labels the picture; by then the case has long been opened.
        async with services.database.reading() as tx:
            number = await tx.scalar(
                select(Case.number)
                .join(Recording, Recording.session_id == Case.session_id)
                .where(Recording.id == recording_id)
            )
        return await jobs.run_step(
            services, RecordingId(recording_id), step, case_number=number or ""
        )

    return house().wait(run())


class Workflows:
    """The dispatcher's life: `start` with the process, `poke` after a commit, `stop` at the end."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # DBOS is called from threads of ours only: called on a loop, it replaces that loop's
        # default executor by its own and shuts it down with itself (dbos 3.4).
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="workflows")

    async def start(self) -> None:
        House.current = House(self._services, asyncio.get_running_loop())
        await self._in_thread(self._launch)
        self._task = asyncio.create_task(self._dispatch_forever(), name="dispatch events")

    def poke(self) -> None:
        """Something was committed; look now. Never blocks."""
        self._woken.set()

    async def retry_recording(self, recording_id: str) -> None:
        """Finish a failed recording again, from its first unfinished step."""
        await self._in_thread(_enqueue_finish, recording_id, f"finish-{recording_id}-{new_id()}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._in_thread(DBOS.destroy)
        self._threads.shutdown()
        House.current = None

    async def _in_thread(self, work: Callable[..., T], *arguments: str) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _launch(self) -> None:
        DBOS(
            config=DBOSConfig(
                name="reception",
                system_database_url=self._services.settings.workflow_database,
                # Fixed, so that a new release takes up what the old one left.
                application_version="1",
                executor_id=self._services.settings.node_name,
                log_level="WARNING",
            )
        )
        DBOS.launch()
        DBOS.register_queue(FINISHING, worker_concurrency=1, polling_interval_sec=0.5)

    async def _dispatch_forever(self) -> None:
        while True:
            try:
                await self.dispatch()
            except Exception:  # the edge of a task: a database in trouble must not end it
                log.exception("dispatch_failed")
                await asyncio.sleep(IDLE_POLL_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), IDLE_POLL_S)
            self._woken.clear()

    async def dispatch(self) -> None:
        """Act on every event that nobody has acted on."""
        async with self._services.database.reading() as tx:
            events = await unhandled(tx)
        for event in events:
            await self._follow(event)

    async def _follow(self, event: Event) -> None:
        database, now = self._services.database, self._services.clock.now()
        match event.kind:
            case EventKind.SESSION_STARTED:
                await database.run(lambda tx: self._mark_called(tx, event))
            case EventKind.SESSION_ENDED:
                await database.run(lambda tx: self._mark_held(tx, event))
                await self._after_call(event.subject_id)
            case _:
                pass  # told for the ledger's sake; nothing follows yet
        await database.run(lambda tx: mark_handled(tx, event.id, now=now))
        log.info("event_handled", kind=event.kind, subject_id=event.subject_id)

    async def _after_call(self, session_id: str) -> None:
        await self._in_thread(_start_after_call, session_id)
        async with self._services.database.reading() as tx:
            recording_id = await tx.scalar(
                select(Recording.id).where(Recording.session_id == session_id)
            )
        if recording_id is not None:
            await self._in_thread(_enqueue_finish, recording_id, f"finish-{recording_id}")

    async def _mark_called(self, tx: AsyncSession, event: Event) -> None:
        await booking.mark_called(
            tx, AppointmentId(event.payload["appointment_id"]), SessionId(event.subject_id),
            now=self._services.clock.now(),
        )  # fmt: skip

    async def _mark_held(self, tx: AsyncSession, event: Event) -> None:
        await booking.mark_held(
            tx, AppointmentId(event.payload["appointment_id"]), now=self._services.clock.now()
        )


def _start_after_call(session_id: str) -> None:
    with SetWorkflowID(f"after-call-{session_id}"):
        DBOS.start_workflow(after_call, session_id)


def _enqueue_finish(recording_id: str, workflow_id: str) -> None:
    queue = DBOS.retrieve_queue(FINISHING)
    assert queue is not None, "registered at launch"
    with SetWorkflowID(workflow_id):
        queue.enqueue(finish_recording, recording_id)
