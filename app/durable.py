"""DBOS, launched so that a house where nothing happens costs nothing.

DBOS keeps workflows and their steps beside the data. By itself it also asks the database every
second for work that this house never gives it: a queue of its own, delayed workflows, deadlines
(dbos 3.4: 0.8 % of a core on SQLite). None of that has a setting, so this is the ONLY file that
touches its private attributes; tests/unit/app/test_durable.py keeps that honest.
"""

from typing import Final

from dbos import DBOS, DBOSConfig
from dbos import _workflow_commands as commands

UNUSED_POLL_S: Final = 300.0
"""How often DBOS may look after what nobody here uses."""


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
    dbos._registry.get_internal_queue()._polling_interval_sec = UNUSED_POLL_S
    commands._BACKGROUND_JOBS_INTERVAL_SEC = UNUSED_POLL_S
    DBOS.launch()


def stop() -> None:
    """End every thread of DBOS. What is unfinished is taken up at the next launch. Blocks."""
    DBOS.destroy()
