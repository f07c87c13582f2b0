"""Coverage counts each second of a recording once, however often it was watched."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cases.review import coverage, merged

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=20)


@given(spans)
def test_the_union_covers_exactly_the_watched_moments(watched: list[tuple[int, int]]) -> None:
    moments = {moment for start, end in watched for moment in range(start, end)}
    union = merged(watched)
    assert {moment for start, end in union for moment in range(start, end)} == moments
    assert all(one[1] < other[0] for one, other in itertools.pairwise(union))


@given(spans, st.integers(0, 50))
def test_coverage_never_exceeds_the_recording(watched: list[tuple[int, int]], length: int) -> None:
    view = coverage(watched, length)
    assert 0 <= view.watched_ms <= length
    assert (view.coverage_percent == 100) == (view.watched_ms == length and length > 0)


def test_watching_the_opening_three_times_is_not_watching_the_whole() -> None:
    assert coverage([(0, 10_000)] * 3, 30_000).coverage_percent == 33


def test_nearly_all_is_not_all() -> None:
    assert coverage([(0, 99_999)], 100_000).coverage_percent == 99
