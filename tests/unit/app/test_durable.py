"""What app/durable.py takes for granted of DBOS's inside, so that an upgrade cannot break it."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbos import DBOS, _queue
from dbos import _workflow_commands as commands

from app import durable


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[None]:
    durable.launch(f"sqlite:///{tmp_path / 'workflows.db'}", executor_id="test")
    yield
    durable.stop()


def test_what_nobody_uses_is_looked_after_seldom(launched: None) -> None:
    source = inspect.getsource(commands.background_jobs_thread)
    assert "_BACKGROUND_JOBS_INTERVAL_SEC" in source, "the interval is read from somewhere else"
    assert commands._BACKGROUND_JOBS_INTERVAL_SEC == durable.UNUSED_POLL_S
    assert "queue._polling_interval_sec" in inspect.getsource(_queue.queue_worker_thread)


def test_a_workflow_runs_to_its_end_without_any_queue(launched: None) -> None:
    assert DBOS.start_workflow(_doubled, 21).get_result(polling_interval_sec=0.01) == 42


@DBOS.workflow()
def _doubled(number: int) -> int:
    return number * 2
