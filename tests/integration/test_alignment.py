"""A short call over bad lines, with clocks that run wrong: its files still keep the time."""

import pytest

from bench.alignment import AV_LIMIT_MS, PARTIES_LIMIT_MS, run
from bench.netlab import why_not

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.slow,
]

SECONDS = 20


async def test_sound_picture_paper_and_parties_stay_together_over_loss_and_a_rejoin() -> None:
    rows = [row async for row in run(SECONDS, loss_percent=5, skew_ppm=200)]
    hall, office, summary = rows
    goals = summary["goals"]
    # The faults first: a drill in which nothing went wrong shows nothing.
    for fault in ("packets_were_lost", "a_new_leg_was_recorded", "clocks_ran_apart"):
        assert goals[fault], summary["faults"]
    assert goals["a_second_file_was_made"]
    assert goals["found"], (hall, office)
    for party in (hall, office):
        assert party["av_ms"]["max"] <= AV_LIMIT_MS
        assert party["av_run_together_ms"]["max"] <= AV_LIMIT_MS
    assert hall["document_camera_ms"]["max"] <= AV_LIMIT_MS
    assert summary["party_party_ms"]["max"] <= PARTIES_LIMIT_MS
    assert summary["party_party_after_rejoin_ms"]["count"] > 0
