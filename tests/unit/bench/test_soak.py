"""Growth is told from noise."""

import math

import pytest

from bench.soak import slope_per_hour


def test_what_grows_has_its_slope_and_a_bound_close_above() -> None:
    points = [(n / 60, 100 + 12 * n / 60 + (0.1 if n % 2 else -0.1)) for n in range(120)]
    slope, upper = slope_per_hour(points)
    assert slope == pytest.approx(12, abs=0.1)
    assert slope < upper < 12.2


def test_noise_alone_is_not_growth() -> None:
    slope, upper = slope_per_hour([(n / 60, 100 + (0.5 if n % 3 else -1)) for n in range(120)])
    assert abs(slope) < 0.3
    assert upper < 0.5


def test_two_rounds_prove_nothing() -> None:
    assert slope_per_hour([(0, 100), (1, 101)]) == (1, math.inf)
