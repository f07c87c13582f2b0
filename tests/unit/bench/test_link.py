"""The impairment scheduler: seeded, bounded, and honest about what it did."""

from itertools import pairwise

import pytest

from bench.link import MS_NS, Burst, Impairment, Lane, percentile


def fates(impairment: Impairment, *, seed: int = 1, count: int = 4000, size: int = 1000,
          every_ms: float = 5) -> list[int | None]:  # fmt: skip
    """What becomes of `count` packets, one each `every_ms`."""
    lane = Lane(impairment, seed)
    return [lane.fate(int(n * every_ms * MS_NS), size) for n in range(count)]


def test_an_unimpaired_lane_passes_everything_at_once() -> None:
    assert fates(Impairment()) == [n * 5 * MS_NS for n in range(4000)]


def test_the_same_seed_means_the_same_fate_and_another_seed_another() -> None:
    bad = Impairment(loss=0.1, burst=Burst(0.02, 0.3), jitter_ms=30, reorder=0.05)
    assert fates(bad) == fates(bad)
    assert fates(bad) != fates(bad, seed=2)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_random_loss_is_about_the_share_asked_for_and_counted(share: float) -> None:
    lane = Lane(Impairment(loss=share), 3)
    passed = [lane.fate(n, 100) is not None for n in range(20_000)]
    assert 1 - sum(passed) / 20_000 == pytest.approx(share, rel=0.15)
    assert lane.counts.lost == passed.count(False)
    assert lane.counts.packets == 20_000


def test_bursts_come_in_stretches_of_the_length_asked_for() -> None:
    lost = [fate is None for fate in fates(Impairment(burst=Burst(0.01, 0.2)), count=40_000)]
    starts = sum(now and not before for before, now in pairwise(lost))
    assert sum(lost) / starts == pytest.approx(1 / 0.2, rel=0.15)
    assert sum(lost) / len(lost) == pytest.approx(0.01 / 0.21, rel=0.2)


def test_adding_an_impairment_does_not_change_which_packets_another_loses() -> None:
    alone = [fate is None for fate in fates(Impairment(loss=0.1))]
    with_jitter = [fate is None for fate in fates(Impairment(loss=0.1, jitter_ms=30))]
    assert alone == with_jitter


def test_jitter_delays_within_its_bound_and_keeps_the_order() -> None:
    left = [f for f in fates(Impairment(delay_ms=20, jitter_ms=30)) if f is not None]
    waits = [(leaves - n * 5 * MS_NS) / MS_NS for n, leaves in enumerate(left)]
    assert left == sorted(left)
    assert 20 <= min(waits) < 23
    assert 45 < max(waits) <= 50


def test_reordering_holds_back_its_share_and_lets_the_next_overtake() -> None:
    lane = Lane(Impairment(reorder=0.05), 1)
    left = [lane.fate(n * 5 * MS_NS, 100) or 0 for n in range(4000)]
    overtaken = sum(a > b for a, b in pairwise(left))
    assert lane.counts.reordered / 4000 == pytest.approx(0.05, rel=0.2)
    assert overtaken >= lane.counts.reordered * 0.9


def test_a_bottleneck_passes_its_rate_and_drops_what_its_queue_cannot_hold() -> None:
    # 1,000 bytes each 5 ms are 1.6 Mbit/s into 300 kbit/s.
    lane = Lane(Impairment(rate_bps=300_000, queue_bytes=20_000), 1)
    left = [fate for n in range(4000) if (fate := lane.fate(n * 5 * MS_NS, 1000)) is not None]
    seconds = left[-1] / 1e9
    assert len(left) * 8000 / seconds == pytest.approx(300_000, rel=0.02)
    assert lane.counts.overflowed == 4000 - len(left)
    # 20,000 bytes at 300 kbit/s are 533 ms: nothing waits longer.
    assert max(left[i] - left[i - 1] for i in range(1, len(left))) <= 30 * MS_NS
    assert left[0] == 8000 * 1_000_000_000 // 300_000


def test_a_cut_line_passes_nothing_and_says_how_much() -> None:
    lane = Lane(Impairment(is_cut=True), 1)
    assert [lane.fate(n, 100) for n in range(10)] == [None] * 10
    assert lane.counts.cut == 10


def test_impairments_survive_json() -> None:
    told = {"loss": 0.05, "burst": {"enter": 0.1, "leave": 0.5, "loss": 0.9}}
    assert Impairment.of(told) == Impairment(loss=0.05, burst=Burst(0.1, 0.5, 0.9))
    assert Impairment.of({"burst": None}) == Impairment()
    with pytest.raises(TypeError):
        Impairment.of({"los": 0.05})


def test_percentiles_name_a_value_that_was_there() -> None:
    assert percentile([3, 1, 2, 4], 0.5) == 2
    assert percentile([3, 1, 2, 4], 0.95) == 4
    assert percentile([], 0.5) is None
