"""What several parts of an outage campaign come to together."""

from typing import Any

from bench.outage_summary import quantiles, summary
from bench.outage_watch import Row


def row(kind: str, back_s: float | None, **changes: Any) -> dict[str, Any]:  # any field of a row
    made = Row(kind, 0, changes.pop("outage_s", 0), proof="it happened", **changes)
    made.sound_up_s = made.picture_up_s = made.sound_down_s = made.picture_down_s = back_s
    return made.as_dict()


def test_parts_are_counted_together() -> None:
    told = summary(
        [
            {"part": {"lanes": 1}},
            row("link", 0.5, outage_s=5), row("link", 1.5, outage_s=30), row("hang", 0.2),
            {"part": {"lanes": 2}},
            row("link", 0.7, outage_s=5.0), row("server", 4.0, ready_s=3.0),
        ]
    )  # fmt: skip
    assert [part["lanes"] for part in told["parts"]] == [1, 2]
    assert told["outage"]["5"]["back"] == {"n": 2, "p50_s": 0.6, "p95_s": 0.7, "max_s": 0.7}
    assert list(told["outage"]) == ["5", "30"]
    assert told["server"]["after_ready"]["max_s"] == 1.0
    assert (told["runs"], told["failed"]) == (5, 0)


def test_what_did_not_come_back_or_did_not_happen_has_failed() -> None:
    told = summary([row("nat", None), row("nat", 0.5, trouble="the mapping stayed")])
    assert told["failed"] == 2


def test_a_recording_that_is_untrue_has_failed() -> None:
    verdict = {"kind": "link", "gap_ms": 5_000, "left_ms": 0, "back_ms": None}
    told = summary([row("link", 0.5), {"recorded": False, "lane": 0, **verdict}])
    assert told["failed"] == 1
    assert told["recorded"]["untrue"] == 1


def test_the_95th_percentile_of_twenty_is_the_nineteenth() -> None:
    assert quantiles(float(number) for number in range(1, 21))["p95_s"] == 19.0
