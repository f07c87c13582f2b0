"""Nobody is forgotten, nobody comes twice, and no turn has more than its share."""

from hypothesis import given
from hypothesis import strategies as st

from media.rota import Rota

TURNS, EVERY, TOGETHER = 50, 5, 2


def test_a_round_names_everybody_once() -> None:
    rota: Rota[int] = Rota(TURNS, together=TOGETHER)
    for member in range(123):
        rota.add(member)
    named = [member for turn in range(TURNS) for member in rota.whose(turn)]
    assert sorted(named) == list(range(123))
    assert max(len(rota.whose(turn)) for turn in range(TURNS)) == 3


def test_every_fifth_turn_names_everybody_ten_times_a_round() -> None:
    rota: Rota[int] = Rota(TURNS, together=TOGETHER)
    for member in range(123):
        rota.add(member)
    named = [member for turn in range(TURNS) for member in rota.whose(turn, EVERY)]
    assert sorted(named) == sorted(list(range(123)) * 10)
    assert max(len(rota.whose(turn, EVERY)) for turn in range(TURNS)) <= 30


def test_who_has_a_turn_is_also_named_among_those_of_every_fifth() -> None:
    rota: Rota[int] = Rota(TURNS, together=TOGETHER)
    for member in range(60):
        rota.add(member)
    for turn in range(TURNS):
        assert set(rota.whose(turn)) <= set(rota.whose(turn, EVERY))


def test_a_few_share_a_turn_so_that_few_turns_wake_anybody() -> None:
    rota: Rota[int] = Rota(TURNS, together=4)
    for member in range(10):
        rota.add(member)
    assert [len(rota.whose(turn)) for turn in range(4)] == [4, 4, 2, 0]
    rota.remove(1)
    rota.add(10)
    assert rota.whose(0) == [0, 2, 3, 10], "a place that is free is taken first"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_coming_and_going_leaves_who_is_here(steps: list[tuple[bool, int]]) -> None:
    rota: Rota[int] = Rota(7, together=TOGETHER)
    here: set[int] = set()
    for comes, member in steps:
        if comes and member not in here:
            rota.add(member)
            here.add(member)
        elif not comes:
            rota.remove(member)
            here.discard(member)
    assert len(rota) == len(here)
    assert sorted(member for turn in range(7) for member in rota.whose(turn)) == sorted(here)


def test_the_wait_ends_where_somebody_is() -> None:
    rota: Rota[str] = Rota(12, together=1)
    assert rota.wait(3) == 12, "nobody: one round"
    for name in "abcd":
        rota.add(name)
    rota.remove("b")
    assert [rota.whose(turn) for turn in range(4)] == [["a"], [], ["c"], ["d"]]
    assert rota.wait(0) == 2
    assert rota.wait(3) == 9, "round the corner"
    assert Rota[str](50, together=1).wait(49, 5) == 50
    assert rota.wait(0, 4) == 2
    assert rota.wait(3, 4) == 1, "the first of the next four"
