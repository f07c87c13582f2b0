"""What follows an event, durably: each step once, whatever crashes in between.

A dispatcher reads the outbox (core/events.py) and starts one DBOS workflow per event, named after
what it is about, so that starting it twice is starting it once. DBOS keeps its steps beside the
data (SQLite or PostgreSQL) and resumes at the first unfinished one after a crash.

    SESSION_STARTED → the appointment is called
    SESSION_ENDED   → open_case ∥ (seal → mux: can be watched) → (verify → poster → compose)
    one at night    → scrub: every finished recording is read again within seven days

A case never waits for the muxer, and no recording's files wait for another one's picture. Workflow
threads do no work of their own: database steps run on the process's event loop, media steps in
child processes at low priority (media/jobs.py), so neither disturbs a room that lives in the same
process.

Nothing here polls for its living: who commits an event pokes the dispatcher, and turns are taken by
locks in this process. DBOS's own queues would ask the database several times a second for ever.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import structlog
from dbos import DBOS, SetWorkflowID
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import durable, scrubbing
from cases import intake
from cases.model import Case
from core.clock import LOCAL_ZONE
from core.edge import Services
from core.events import Event, EventKind, mark_handled, unhandled
from core.ids import AppointmentId, RecordingId, SessionId, new_id
from media import jobs
from media.model import Recording
from scheduling import booking

log = structlog.get_logger()
T = TypeVar("T")

POLL_S = 1.0
"""How long an event can wait that another process wrote: nobody pokes us for it."""
IDLE_POLL_S = 15.0
"""The same where the rooms live in this process, which pokes: only a poke that was lost, or the
event of a process that died before it acted on it, waits this long."""
STEP_TIMEOUT_S = 3600
ABANDON_WITHIN_S = 10.0


class Abandoned(BaseException):
    """The process stops in mid-step. No `Exception`, which DBOS would write down as the result."""


@dataclass(frozen=True, slots=True)
class House:
    """What workflow code reaches for: services, and the loop on which database steps run."""

    services: Services
    loop: asyncio.AbstractEventLoop
    # Whose turn it is: one recording at a time in each lane, for live rooms come first.
    making_playable: asyncio.Lock = field(default_factory=asyncio.Lock)
    completing: asyncio.Lock = field(default_factory=asyncio.Lock)

    tasks: set["asyncio.Task[Any]"] = field(default_factory=set)

    current: ClassVar["House | None"] = None

    def wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None = STEP_TIMEOUT_S) -> T:
        """Run `work` on the process's event loop and wait for it, from a workflow's thread."""
        try:
            return asyncio.run_coroutine_threadsafe(self._own(work), self.loop).result(timeout_s)
        except CancelledError:
            raise Abandoned from None

    async def _own(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return await task

    async def abandon(self) -> None:
        """End what workflows are waiting for; their children end with it. Nothing is lost: a
        workflow that DBOS could not see through is taken up at the next start."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=ABANDON_WITHIN_S)


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
    if not make_playable(recording_id):
        return "failed"
    return "ready" if complete(recording_id) else "failed"


# What is wrong with a recording these two keep; what they raise is the database's or the disk's
# trouble, and passes: they are asked again for some minutes.
@DBOS.step(retries_allowed=True, max_attempts=9, interval_seconds=2.0)
def make_playable(recording_id: str) -> bool:
    """The parties' files. False when it failed and the recording says why. Repeatable."""
    return _media_steps(recording_id, jobs.PLAYABLE, house().making_playable)


@DBOS.step(retries_allowed=True, max_attempts=9, interval_seconds=2.0)
def complete(recording_id: str) -> bool:
    """The full check, the still, the one picture. False and repeatable as `make_playable`."""
    return _media_steps(recording_id, jobs.COMPLETE, house().completing)


def _media_steps(recording_id: str, steps: Sequence[str], turn: asyncio.Lock) -> bool:
    async def run() -> bool:
        services = house().services
        # The last step labels the picture; by then the case has long been opened.
        async with services.database.reading() as tx:
            number = await tx.scalar(
                select(Case.number)
                .join(Recording, Recording.session_id == Case.session_id)
                .where(Recording.id == recording_id)
            )
        async with turn:
            return await jobs.run_steps(
                services, RecordingId(recording_id), steps, case_number=number or ""
            )

    # No timeout of its own: the steps in front of it and its own have theirs.
    return house().wait(run(), timeout_s=None)


@DBOS.workflow()
def nightly_scrub(night: str) -> int:
    """One round of app/scrubbing.py; `night` names it, so that it is begun once."""
    return scrub_step(night)


@DBOS.step()
def scrub_step(night: str) -> int:
    async def scrub() -> int:
        report = await scrubbing.scrub_round(house().services, within_s=scrubbing.NIGHT_S)
        log.info("night_scrubbed", night=night)
        return report.recordings

    return house().wait(scrub(), timeout_s=None)


class Workflows:
    """The dispatcher's life: `start` with the process, `poke` after a commit, `stop` at the end."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._poll_s = IDLE_POLL_S if "room" in services.settings.roles else POLL_S
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._night: asyncio.Task[None] | None = None
        # DBOS is called from threads of ours only: called on a loop, it replaces that loop's
        # default executor by its own and shuts it down with itself (dbos 3.4).
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="workflows")

    async def start(self) -> None:
        House.current = House(self._services, asyncio.get_running_loop())
        await self._in_thread(self._launch)
        self._task = asyncio.create_task(self._dispatch_forever(), name="dispatch events")
        self._night = asyncio.create_task(self._scrub_nightly(), name="scrub nightly")

    def poke(self) -> None:
        """Something was committed; look now. Never blocks."""
        self._woken.set()

    async def retry_recording(self, recording_id: str) -> None:
        """Finish a failed recording again, from its first unfinished step."""
        await self._in_thread(_start_finish, recording_id, f"finish-{recording_id}-{new_id()}")

    async def stop(self) -> None:
        for task in (self._task, self._night):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        # In this order: what is cancelled now must not be written down as having failed.
        await self._in_thread(durable.stop)
        await house().abandon()
        self._threads.shutdown()
        House.current = None

    async def _in_thread(self, work: Callable[..., T], *arguments: str) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _launch(self) -> None:
        settings = self._services.settings
        durable.launch(settings.workflow_database, executor_id=settings.node_name)

    async def _dispatch_forever(self) -> None:
        while True:
            wait_s = self._poll_s
            # Before looking: what is committed while we look pokes us again.
            self._woken.clear()
            try:
                await self.dispatch()
            except Exception:  # the edge of a task: a database in trouble must not end it
                log.exception("dispatch_failed")
                wait_s = POLL_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait_s)

    async def _scrub_nightly(self) -> None:
        """Begin a round every night. What was begun and not ended DBOS takes up by itself."""
        began_at: datetime | None = None
        while True:
            now = self._services.clock.now()
            report = scrubbing.last_report(self._services.settings)
            ended_at = datetime.fromisoformat(report.at) if report else None
            last_at = max((at for at in (began_at, ended_at) if at), default=None)
            at = scrubbing.next_round(now, last_at)
            await asyncio.sleep(max(0.0, (at - now).total_seconds()))
            # The hour that was meant, not the one in which we woke: a timer may be a moment early,
            # and then the same night would be begun twice.
            began_at = at
            night = f"{at.astimezone(LOCAL_ZONE):%Y-%m-%d-%H}"
            try:
                await self._in_thread(_start_scrub, night)
            except Exception:  # the edge of a task: a database in trouble must not end the nights
                log.exception("scrub_not_begun")

    async def dispatch(self) -> None:
        """Act on every event that nobody has acted on."""
        while True:
            async with self._services.database.reading() as tx:
                events = await unhandled(tx)
            for event in events:
                await self._follow(event)
            if not events:
                return

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
            await self._in_thread(_start_finish, recording_id, f"finish-{recording_id}")

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


def _start_scrub(night: str) -> None:
    with SetWorkflowID(f"scrub-{night}"):
        DBOS.start_workflow(nightly_scrub, night)


def _start_finish(recording_id: str, workflow_id: str) -> None:
    with SetWorkflowID(workflow_id):
        DBOS.start_workflow(finish_recording, recording_id)
