"""Whether a recording tells an outage truly: to a tenth of a second, or not."""

import pytest

from bench.aftermath import Verdict


def verdict(kind: str = "link", **changes: int | None) -> Verdict:
    told: dict[str, int | None] = {
        "gap_ms": 5_000, "left_ms": 0, "back_ms": 40, "file_ms": 20, "missing_ms": 5_000,
    }  # fmt: skip
    return Verdict(kind, **(told | changes))  # type: ignore[arg-type]  # some are None on purpose


def test_marks_and_gap_in_their_places_are_true() -> None:
    assert verdict().is_true


@pytest.mark.parametrize("where", ["left_ms", "back_ms", "file_ms"])
def test_a_mark_that_is_missing_or_stands_elsewhere_is_untrue(where: str) -> None:
    assert not verdict(**{where: None}).is_true
    assert not verdict(**{where: 150}).is_true


def test_what_nobody_noticed_needs_no_mark() -> None:
    short = verdict(gap_ms=300, missing_ms=20, left_ms=None, back_ms=None, file_ms=None)
    assert short.is_true


def test_what_was_sent_again_is_no_gap_in_the_file_but_a_silence_all_the_same() -> None:
    assert verdict(missing_ms=20, file_ms=None).is_true
    assert not verdict(missing_ms=20, file_ms=None, left_ms=None).is_true


def test_a_killed_server_could_not_note_when_it_lost_the_line() -> None:
    assert verdict("server", left_ms=None).is_true
    assert not verdict("server", back_ms=None).is_true


def test_a_relay_that_stood_still_knows_its_last_look_and_no_better() -> None:
    assert verdict("hang", left_ms=180).is_true
    assert not verdict("hang", left_ms=250).is_true
    assert not verdict("hang", left_ms=None).is_true
