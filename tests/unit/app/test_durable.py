"""What app/durable.py takes for granted of DBOS's inside, so that an upgrade cannot break it."""

import contextlib
import inspect
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbos import DBOS, SetWorkflowID, WorkflowHandle, _queue
from dbos import _workflow_commands as commands

from app import durable

UNFINISHED_WITHIN_S = 30


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "workflows.db"


@pytest.fixture
def launched(database: Path) -> Iterator[None]:
    durable.launch(f"sqlite:///{database}", executor_id="test")
    yield
    durable.stop()


def test_what_nobody_uses_is_looked_after_seldom(launched: None) -> None:
    source = inspect.getsource(commands.background_jobs_thread)
    assert "_BACKGROUND_JOBS_INTERVAL_SEC" in source, "the interval is read from somewhere else"
    assert commands._BACKGROUND_JOBS_INTERVAL_SEC == durable.UNUSED_POLL_S
    assert "queue._polling_interval_sec" in inspect.getsource(_queue.queue_worker_thread)


def test_a_workflow_runs_to_its_end_without_any_queue(launched: None) -> None:
    assert DBOS.start_workflow(_doubled, 21).get_result(polling_interval_sec=0.01) == 42


def test_what_a_process_left_unfinished_goes_on_at_once(launched: None, database: Path) -> None:
    with SetWorkflowID("left"):
        DBOS.start_workflow(_doubled, 21).get_result(polling_interval_sec=0.01)
    durable.stop()
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM workflow_output")
        changed = connection.execute("UPDATE workflow_status SET status = 'PENDING'").rowcount
    assert changed == 1, "nothing was left unfinished"
    durable.launch(f"sqlite:///{database}", executor_id="test")
    left: WorkflowHandle[int] = DBOS.retrieve_workflow("left")
    deadline = time.monotonic() + UNFINISHED_WITHIN_S
    while left.get_status().status != "SUCCESS" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left.get_status().status == "SUCCESS"
    assert left.get_result(polling_interval_sec=0.01) == 42


def test_once_everything_runs_the_queue_rests(launched: None) -> None:
    queue = DBOS(config={"name": "reception"})._registry.get_internal_queue()
    deadline = time.monotonic() + UNFINISHED_WITHIN_S
    while queue._polling_interval_sec != durable.UNUSED_POLL_S and time.monotonic() < deadline:
        time.sleep(0.02)
    assert queue._polling_interval_sec == durable.UNUSED_POLL_S


@DBOS.workflow()
def _doubled(number: int) -> int:
    return number * 2
