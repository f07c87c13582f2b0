"""A small campaign of the outage drill: real pages, real lines, real faults, a real recording."""

import shutil
from typing import Any

import pytest

from bench.lanes import missing_tools
from bench.outage import Plan, run
from tests.support.browser import CHROMIUM

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(missing_tools()), reason=f"needs {', '.join(missing_tools())}"),
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(
        run(Plan(count=1, lanes=1, kinds=("link", "socket", "kill", "tab", "hang"), outages_s=(5,)))
    )


def of_kind(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [row] = [row for row in rows if row.get("kind") == kind and "proof" in row]
    assert row["trouble"] == ""
    return row


def told(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the recording says about each kind; the summary has neither kind nor gap."""
    return {row["kind"]: row for row in rows if "gap_ms" in row}


def test_a_line_that_was_down_for_five_seconds_comes_back_on_the_same_leg(
    rows: list[dict[str, Any]],
) -> None:
    row = of_kind(rows, "link")
    # On a quiet machine well below a second; this one may be busy with other tests.
    assert row["back_s"] < 5
    assert 1.4 < row["noticed_s"] < 3
    assert row["legs"][0] == row["legs"][1]


def test_a_reset_of_signaling_leaves_media_alone(rows: list[dict[str, Any]]) -> None:
    row = of_kind(rows, "socket")
    assert row["legs"][0] == row["legs"][1]
    assert told(rows)["socket"]["gap_ms"] < 1_000


def test_a_killed_browser_is_noticed_and_takes_its_seat_again(rows: list[dict[str, Any]]) -> None:
    row = of_kind(rows, "kill")
    assert row["noticed_s"] < 3
    assert row["back_s"] is not None
    assert row["legs"][1] > row["legs"][0]


def test_a_closed_tab_is_told_to_the_kiosk_and_to_the_desk(rows: list[dict[str, Any]]) -> None:
    row = of_kind(rows, "tab")
    assert row["noticed_s"] < 5
    assert row["words_s"] < 8
    assert 29 < row["desk_told_s"] < 40
    assert row["back_s"] is not None


def test_a_server_that_stood_still_goes_on_with_the_same_talk(rows: list[dict[str, Any]]) -> None:
    row = of_kind(rows, "hang")
    assert row["back_s"] is not None
    assert told(rows)["hang"]["gap_ms"] > 9_000


def test_the_recording_tells_the_outages_where_they_were(rows: list[dict[str, Any]]) -> None:
    found = told(rows)
    assert found["link"]["gap_ms"] > 4_500
    assert found["kill"]["gap_ms"] > 7_000
    assert all(row["recorded"] for row in found.values()), found
