"""DBOS, launched so that a house where nothing happens costs nothing.

DBOS keeps workflows and their steps beside the data. By itself it also asks the database every
second for work that this house never gives it: a queue of its own, delayed workflows, deadlines
(dbos 3.4: 0.8 % of a core on SQLite). None of that has a setting, so this is the ONLY file that
touches its private attributes; tests/unit/app/test_durable.py keeps that honest.

One thing does go through that queue: what a process left unfinished when it ended. So the queue is
asked often after a start, until all of that runs again, and hardly ever from then on.
"""

import threading
from typing import Final

from dbos import DBOS, DBOSConfig, Queue
from dbos import _workflow_commands as commands

UNUSED_POLL_S: Final = 300.0
"""How often DBOS may look after what nobody here uses."""
TAKE_UP_POLL_S: Final = 0.2
"""How soon after a start unfinished work goes on."""
TAKE_UP_POLL_AT_MOST_S: Final = 10.0
"""Some of it may not be ours to take up: work of a name that this release does not know."""


def launch(database_url: str, *, executor_id: str) -> None:
    """Open or make the workflow database and take up what was left unfinished. Blocks.

    Call it on a thread of ours: called on a loop, DBOS replaces that loop's default executor.
    """
    dbos = DBOS(
        config=DBOSConfig(
            name="reception",
            system_database_url=database_url,
            # Fixed, so that a new release takes up what the old one left.
            application_version="1",
            executor_id=executor_id,
            log_level="WARNING",
            scheduler_polling_interval_sec=UNUSED_POLL_S,
        )
    )
    queue = dbos._registry.get_internal_queue()
    queue._polling_interval_sec = TAKE_UP_POLL_S
    commands._BACKGROUND_JOBS_INTERVAL_SEC = UNUSED_POLL_S
    DBOS.launch()
    stopped = threading.Event()
    watch = threading.Thread(
        target=_rest_when_taken_up, args=(dbos, queue, executor_id, stopped), name="take up work"
    )
    # DBOS ends what stands in these lists before it closes its database.
    dbos.background_thread_stop_events.append(stopped)
    dbos._background_threads.append(watch)
    watch.start()


def _rest_when_taken_up(
    dbos: DBOS, queue: Queue, executor_id: str, stopped: threading.Event
) -> None:
    """Let the queue rest as soon as everything that this executor has begun runs in this process.

    Work begun meanwhile may be listed a moment before it runs or after it has ended: then we look
    again.
    """
    while not stopped.wait(queue._polling_interval_sec):
        begun = DBOS.list_workflows(
            status=["PENDING", "ENQUEUED"], executor_id=executor_id,
            load_input=False, load_output=False,
        )  # fmt: skip
        running = set(dbos._active_workflows_set.activeList())
        if all(workflow.workflow_id in running for workflow in begun):
            queue._polling_interval_sec = UNUSED_POLL_S
            return
        queue._polling_interval_sec = min(queue._polling_interval_sec * 1.2, TAKE_UP_POLL_AT_MOST_S)


def stop() -> None:
    """End every thread of DBOS. What is unfinished is taken up at the next launch. Blocks."""
    DBOS.destroy()
