"""Many processes fight over the same slots; afterwards nobody has been lied to."""

import json
import sys

import pytest

from bench.booking import NotEmpty, overlapping, owned_twice, run, run_scratch

ATTEMPTS, PROCESSES = 5_000, 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_thousand_contended_bookings_make_no_double_and_lose_nothing(database_url, capsys):
    result = run(database_url, ATTEMPTS, PROCESSES, seed=20260525)
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps(result)}\n")
    assert result["errors"] == {}
    assert result["double"] == 0
    assert result["lost_confirmations"] == 0
    assert result["unexplained"] == 0
    assert result["audit_broken_at"] is None
    # It was a fight, and not a queue.
    assert result["attempts"] == ATTEMPTS
    assert result["overlapping_attempts"] > ATTEMPTS / 20
    assert result["taken"] > ATTEMPTS / 4
    for happened in ("confirmed", "confirmed_twice", "expired", "cancelled", "abandoned"):
        assert result[happened] > 0, happened


def test_the_drill_sees_a_double_when_there_is_one():
    assert owned_twice([(1, 0, 10), (1, 10, 20), (2, 5, 15)]) == 0
    assert owned_twice([(1, 0, 10), (1, 9, 20), (2, 5, 15)]) == 1


def test_attempts_on_different_slots_do_not_count_as_contention():
    assert overlapping([]) == 0


@pytest.mark.timeout(300)
def test_the_drill_refuses_a_database_in_use(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path / 'drill.db'}"
    run(url, 1, 1, seed=1)
    with pytest.raises(NotEmpty):
        run(url, 1, 1, seed=1)


@pytest.mark.timeout(300)
def test_a_scratch_drill_answers_with_what_the_command_prints():
    result = run_scratch(20, 1, 1)
    assert {"double", "lost_confirmations", "attempts_per_s"} <= result.keys()
