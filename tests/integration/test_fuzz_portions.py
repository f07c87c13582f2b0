"""Portions of a campaign add up, and a process that dies in one is told of."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from bench import fuzz_portions
from bench.fuzz_corpus import corpus_of
from bench.fuzz_mutate import BATCH, Mutator
from bench.fuzz_portions import again, run
from bench.fuzz_targets import TARGETS

SECONDS = 0.2


def of_target(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = (row for row in rows if "target" in row)
    return row


def test_a_second_portion_goes_on_where_the_first_one_stopped(tmp_path: Path) -> None:
    file = tmp_path / "sums.json"
    first = of_target(json.loads(json.dumps(list(run(["rtp"], SECONDS, file)))))
    assert first["inputs"] == first["next_batch"] * BATCH > 0
    *_, result = rows = list(run(["rtp"], SECONDS, file))
    second = of_target(rows)
    assert second["inputs"] == second["next_batch"] * BATCH > first["inputs"]
    (portion,) = second["portions"]
    assert portion["inputs"] == second["inputs"]
    assert result["inputs"] == second["inputs"]
    assert result["ok"]
    assert json.loads(file.read_text())[-1]["inputs"] == result["inputs"]
    target = TARGETS["rtp"]
    assert again("rtp", 1, 5) == Mutator(corpus_of(target), 1, target.max_bytes).nth(5)


def test_a_parser_that_has_had_enough_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "sums.json"
    list(run(["rtp"], SECONDS, file, wanted=BATCH))
    rows = list(run(["rtp"], SECONDS, file, wanted=BATCH))
    assert [row for row in rows if "target" in row] == []
    (parser,) = (row for row in rows if row.get("parser") == "rtp")
    assert parser["is_done"]
    assert parser["hours_left"] == 0


def test_a_file_of_another_seed_is_not_added_to(tmp_path: Path) -> None:
    file = tmp_path / "sums.json"
    list(run(["rtp"], SECONDS, file))
    with pytest.raises(ValueError, match="about seed 1"):
        list(run(["rtp"], SECONDS, file, seed=2))


def test_a_process_that_dies_is_a_fault_and_its_batch_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A number that no child takes ends it before it says a word.
    child = fuzz_portions._child
    monkeypatch.setattr(
        fuzz_portions, "_child", lambda name, seed, first, *_, **__: child("none", seed, first, 1)
    )
    file = tmp_path / "sums.json"
    *_, result = rows = list(run(["rtp"], SECONDS, file))
    row = of_target(rows)
    assert (row["inputs"], row["next_batch"]) == (0, 1)
    assert "ended with 1 in batch 0" in row["crashes"][0]["fault"]
    assert not result["ok"]


def test_a_fault_that_is_mended_is_told_as_such(tmp_path: Path) -> None:
    file = tmp_path / "sums.json"
    rows = list(run(["rtp"], SECONDS, file))
    of_target(rows)["crashes"] = [{"fault": "KeyError in old.py:1", "number": 5, "input": None}]
    file.write_text(json.dumps(rows), encoding="utf-8")
    *_, result = rows = list(run(["rtp"], SECONDS, file))
    row = of_target(rows)
    assert row["crashes"] == []
    assert [fault["number"] for fault in row["mended"]] == [5]
    assert result["ok"]


def test_a_change_of_the_corpus_begins_a_portion_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sums.json"
    list(run(["rtp"], SECONDS, file))
    monkeypatch.setattr(fuzz_portions, "digest_of", lambda corpus: "another")
    row = of_target(list(run(["rtp"], SECONDS, file)))
    assert [portion["corpus"] for portion in row["portions"]][1:] == ["another"]
    assert sum(portion["inputs"] for portion in row["portions"]) == row["inputs"]


def test_a_child_that_was_stopped_is_waited_for() -> None:
    stops = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); print('b')"
    with _says(f"print('a', flush=True); {stops}") as child:
        begun = time.monotonic()
        Timer(1.0, os.kill, (child.pid, signal.SIGCONT)).start()
        assert list(fuzz_portions._lines(child, silence_s=0.3)) == [b"a", b"b"]
        assert time.monotonic() - begun > 0.9, "it was not stopped"


@pytest.mark.parametrize("silent", ["while True: pass", "import time; time.sleep(60)"])
def test_a_child_that_is_stuck_is_given_up(silent: str) -> None:
    with _says(f"print('a', flush=True)\n{silent}") as child:
        assert list(fuzz_portions._lines(child, silence_s=0.3)) == [b"a"]


@contextmanager
def _says(program: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
