"""The comparison with Janus itself: one short call through each, recorded and made playable."""

from typing import Any

import pytest

from bench import janus, janus_beside, scale

pytestmark = pytest.mark.slow


def is_missing() -> str:
    try:
        janus.require()
    except janus.JanusMissing as missing:
        return str(missing)
    return ""


@pytest.mark.skipif(bool(is_missing()), reason=is_missing())
def test_both_carry_and_record_the_same_call() -> None:
    rows: list[dict[str, Any]] = []
    result = janus_beside.run([1], repeat=1, seconds=2, tell=rows.append)
    assert [row["server"] for row in rows] == ["reception", "janus"]
    for row in rows:
        assert row["calls"] == 1
        assert row["files"] == 2
        assert row["fault"] == ""
        assert row["packets_in"] > 200
        assert row["relay_cpu_s_per_call_min"] > 0
        assert row["finish_cpu_s_per_call_min"] > 0
        assert row["srtp_profile"] == "SRTP_AEAD_AES_128_GCM"
    assert rows[1]["version"] == janus.version()
    assert result["cpu_ratio"]["1"] > 0
    assert result["lost"] == 0


def test_in_a_room_of_four_everyone_hears_three() -> None:
    rows: list[dict[str, Any]] = []
    result = scale.run(2, rows.append, calls=[1], rooms=[(1, 4)])
    idle, two, four = rows
    assert idle["calls"] == 0
    assert 0.9 < two["packets_out"] / two["packets_in"] < 1.1
    assert 2.8 < four["packets_out"] / four["packets_in"] < 3.2
    assert result["us_cpu_per_packet"].keys() == {"1"}
    assert result["us_cpu_per_copy"].keys() == {"4"}
