"""Every parser of outside bytes gets damaged input, and a call is shouted at by strangers.

Short, and the same each time: `reception drill fuzz` and `drill storm` are the campaigns. What a
campaign has found stays in tests/fuzz/regressions/ and is tried here first.
"""

import os
from pathlib import Path

import pytest

from bench import fuzz
from bench.fuzz import REGRESSIONS, Budget
from bench.fuzz_mutate import mutants
from bench.fuzz_target import Target, pieces, run_of
from bench.fuzz_targets import TARGETS
from bench.storm import run as storm

SECONDS = 2.0
INPUTS = 3_000


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_refused_and_nothing_else_happens(name: str, tmp_path: Path) -> None:
    *rows, result = fuzz.run([name], Budget(SECONDS, INPUTS), keep=tmp_path, guided=False)
    assert rows[0]["crashes"] == []
    assert rows[0]["inputs"] >= len(TARGETS[name].seeds())
    assert result["ok"]


def test_regressions_belong_to_targets_that_there_are() -> None:
    assert {path.name for path in REGRESSIONS.iterdir() if path.is_dir()} <= set(TARGETS)


def test_a_parser_that_falls_over_is_told_of_and_its_input_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taste(data: bytes) -> None:
        if b"\xff" in data:
            raise IndexError("out of the end")

    weak = Target("weak", lambda: taste, lambda: [b"abcdefgh"])
    monkeypatch.setitem(TARGETS, "weak", weak)
    *rows, result = fuzz.run(["weak"], Budget(inputs=5_000), keep=tmp_path, guided=False)
    (crash,) = rows[0]["crashes"]
    assert "IndexError" in crash["fault"]
    assert b"\xff" in Path(crash["input"]).read_bytes()
    assert not result["ok"]


def test_the_same_seed_damages_the_same_way() -> None:
    def first(seed: int) -> list[bytes]:
        made = mutants([b"one seed", b"another one"], seed, 64)
        return [next(made) for _ in range(50)]

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_a_run_comes_apart_as_it_was_put_together() -> None:
    items = [(1, b"one"), (255, b""), (7, b"x" * 300)]
    assert list(pieces(run_of(*items), 9)) == items
    assert list(pieces(b"\x05\xff\xffrest", 9)) == [(5, b"rest")]


@pytest.mark.skipif(not fuzz.has_atheris(), reason="atheris has no wheel for this machine")
def test_coverage_guides_where_it_can(tmp_path: Path) -> None:
    *rows, result = fuzz.run(["stun"], Budget(seconds=2), keep=tmp_path, guided=True)
    assert rows[0]["edges"] > 20
    assert rows[0]["inputs"] > 1_000
    assert result["ok"], rows


@pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets are root's")
def test_a_call_goes_on_and_is_recorded_while_strangers_shout() -> None:
    calm, stormy, result = storm(20_000, 5_000)
    # The storm was one: of every kind, and the node has seen it.
    assert result["datagrams"] > 19_000
    assert min(result["kinds"].values()) > 500
    reasons = ("short", "oversized", "unknown_kind", "stun_refused", "stun_replayed")
    for reason in (*reasons, "stranger", "rejected"):
        assert result["dropped"][reason] > 500, result["dropped"]
    assert calm["dropped"].get("oversized", 0) == 0
    # And nobody in the call noticed.
    assert stormy["media_sent"] > 500
    assert result["lost_by_the_node"] == 0
    assert result["foreign_recorded"] == 0
    assert result["addresses"] == 2
    assert result["recorded_packets"] >= result["sent_packets"] - result["overflowed"]
