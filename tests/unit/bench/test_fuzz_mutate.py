"""Damaged inputs can be made again by their number, and what they show is told."""

from pathlib import Path

import pytest

from bench import fuzz_corpus
from bench.fuzz_corpus import corpus_of, digest_of, reap
from bench.fuzz_mutate import BATCH, SHOOTS, Mutator
from bench.fuzz_portion_child import Portion, Stuck
from bench.fuzz_target import Target, at_each_beginning, begin, end
from bench.fuzz_targets import TARGETS

CORPUS = [b"one input", b"\x80another one\x00\x00\x01\xff" * 3, b""]


def test_an_input_is_made_again_from_its_number() -> None:
    made = Mutator(CORPUS, 1, 64).batch(7)
    assert len(made) == BATCH
    assert [Mutator(CORPUS, 1, 64).nth(7 * BATCH + n) for n in (0, 5, BATCH - 1)] == [
        made[0], made[5], made[-1],
    ]  # fmt: skip


def test_another_seed_and_another_batch_give_other_inputs() -> None:
    first = Mutator(CORPUS, 1, 64)
    assert first.batch(0) != first.batch(1)
    assert first.batch(0) != Mutator(CORPUS, 2, 64).batch(0)


def test_no_input_is_longer_than_the_target_allows() -> None:
    made = Mutator(CORPUS, 3, 20)
    assert max(len(data) for n in range(4) for data in made.batch(n)) <= 20


def test_most_inputs_are_like_no_other_and_every_place_is_touched() -> None:
    seed = bytes(range(40, 80))
    made = [data for n in range(4) for data in Mutator([seed], 1, 200).batch(n)]
    assert len(set(made)) > len(made) * 0.7
    changed = {
        at
        for data in made
        if len(data) == len(seed)
        for at in range(len(seed))
        if data[at] != seed[at]
    }
    assert changed == set(range(len(seed)))
    assert {len(data) for data in made} >= {0, 1, len(seed) - 1, len(seed), len(seed) + 1}


def test_stems_stand_before_their_shoots() -> None:
    made = Mutator([b"whole"], 1, 64).batch(0)
    assert made[::SHOOTS].count(b"whole") > BATCH // SHOOTS // 5


def test_what_breaks_a_parser_is_told_once_with_the_number_that_makes_it_again() -> None:
    def taste(data: bytes) -> bool:
        if b"\xff" in data:
            raise IndexError("out of the end")
        return True

    mutator = Mutator([b"harmless"], 1, 64)
    portion = Portion(taste)
    for number in range(3):
        portion.batch(number, mutator.batch(number))
    (crash,) = portion.crashes.values()
    assert "IndexError" in crash["fault"]
    assert b"\xff" in mutator.nth(crash["number"])
    assert 0 < portion.taken < 3 * BATCH


def test_the_slowest_input_is_told() -> None:
    def taste(data: bytes) -> None:
        if data.startswith(b"slow"):
            sum(range(300_000))

    portion = Portion(taste)
    portion.batch(2, [*([b"quick"] * 5), b"slow", *([b"quick"] * 5)])
    assert portion.slowest == 2 * BATCH + 5
    assert portion.slowest_s > 0.001
    assert portion.crashes == {}


def test_an_input_without_end_is_a_fault() -> None:
    def taste(data: bytes) -> None:
        if data == b"endless":
            raise Stuck

    portion = Portion(taste)
    portion.batch(0, [b"quick", b"endless"])
    (crash,) = portion.crashes.values()
    assert crash["number"] == 1


def test_a_target_begins_anew_for_each_batch() -> None:
    seen: list[bytes] = []
    sizes: list[int] = []
    at_each_beginning(seen.clear)

    def taste(data: bytes) -> None:
        seen.append(data)
        sizes.append(len(seen))

    try:
        portion = Portion(taste)
        for number in range(2):
            portion.batch(number, [b"a", b"b", b"c"])
        assert max(sizes) == 3
    finally:
        end()
    assert sizes[:3] == [1, 2, 3]
    begin()  # nothing is left of it
    assert seen


def test_a_corpus_keeps_the_shortest_input_of_each_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_corpus, "CORPUS", tmp_path)
    monkeypatch.setattr(fuzz_corpus, "COUNTED", (str(Path(__file__).parent),))

    def taste(data: bytes) -> None:
        if data.startswith(b"a"):
            data.count(b"x")
        elif data.startswith(b"b"):
            data.count(b"y")

    target = Target("small", lambda: taste, lambda: [b"seed"])
    kept = reap(target, [b"aaa", b"a", b"bbb", b"bb", b"cccc"])
    assert kept == [b"seed", b"a", b"bb"]
    assert corpus_of(target) == kept
    assert digest_of(kept) != digest_of(kept[1:])


@pytest.mark.parametrize("name", [t.name for t in TARGETS.values() if t.parser])
def test_every_parser_has_a_corpus_and_bears_it(name: str) -> None:
    corpus = corpus_of(TARGETS[name])
    assert (fuzz_corpus.CORPUS / f"{name}.bin").stat().st_size <= fuzz_corpus.MOST_BYTES
    taste = TARGETS[name].prepare()
    try:
        begin()
        assert any(taste(data) is True for data in corpus), "none was taken"
    finally:
        end()
