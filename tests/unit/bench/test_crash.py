"""What the crash campaign makes of what it sees: losses, promises, and its own size."""

import random
from pathlib import Path

import pytest

from bench.crash import KINDS, Plan, summary
from bench.crash_call import Sent
from bench.crash_proof import Expected, changed, expected_of, fingerprint, lost_ms, unplayable
from bench.crash_strace import Traced
from media.mux import MuxedFile

MS = 1_000_000


def heard(*at_ms: int) -> Sent:
    """A party whose packets 0, 1, … left at these times."""
    return Sent("a", [(1, seq, at * MS) for seq, at in enumerate(at_ms)], sound_ssrc=1)


def test_what_was_lost_is_counted_from_the_oldest_missing_packet() -> None:
    sent = heard(0, 20, 40, 60)
    assert lost_ms(sent, {(1, 0), (1, 1), (1, 2), (1, 3)}, 70 * MS) == 0
    assert lost_ms(sent, {(1, 0), (1, 1), (1, 2)}, 70 * MS) == 10
    assert lost_ms(sent, {(1, 0), (1, 3)}, 70 * MS) == 50, "a hole in the middle is no smaller loss"


def test_who_had_sent_nothing_could_lose_nothing() -> None:
    assert lost_ms(heard(), set(), 70 * MS) is None


def test_a_picture_is_expected_only_from_a_whole_keyframe() -> None:
    sent = heard(0)
    sent.keyframes.append([(2, 0), (2, 1)])
    assert expected_of([sent], {(1, 0), (2, 0)}) == [Expected("a", sound=True, picture=False)]
    assert expected_of([sent], {(2, 0), (2, 1)}) == [Expected("a", sound=False, picture=True)]


def test_whoever_is_in_the_journals_must_be_in_a_file() -> None:
    expected = [Expected("a", sound=True, picture=True)]
    assert len(unplayable(expected, [])) == 2
    file = MuxedFile(
        kind="party", participant_id="a", role="official", label="", path="party-a.webm",
        mime="video/webm", bytes=1, sha256="", duration_ms=1, offset_ms=0, width=None, height=None,
        has_audio=True, has_video=False, gaps=(), speech=(), audio_packets=1, video_frames=0,
        lost_frames=0,
    )  # fmt: skip
    assert unplayable(expected, [file]) == ["a is not seen"]


def test_a_finalised_recording_may_gain_a_signature_and_nothing_else(tmp_path: Path) -> None:
    book = tmp_path / "manifest.json"
    book.write_text("{}")
    before = fingerprint(tmp_path)
    (tmp_path / "manifest.sig").write_text("signed")
    assert changed(before, tmp_path) == []
    book.write_text("{ }")
    assert changed(before, tmp_path) == ["manifest.json"]


def test_points_are_counted_for_each_thread_and_only_below_the_recording() -> None:
    watched = Traced([
        '7 write(3</x/a.rrj>, "", 1) = 1',
        '8 write(4</elsewhere>, "", 1) = 1',
        '8 write(3</x/a.rrj>, "", 1) = 1',
        "7 fdatasync(3</x/a.rrj>) = 0",
    ])  # fmt: skip
    assert watched.points(Path("/x")) == [("fdatasync", 1), ("write", 1), ("write", 2)]


@pytest.mark.parametrize("kills", [1, 7, 40, 1000])
@pytest.mark.parametrize("kinds", [KINDS, ("live",), ("syscall",), ("house",), ("live", "house")])
def test_the_kinds_share_all_kills(kills: int, kinds: tuple[str, ...]) -> None:
    plan = Plan(kills, 1, kinds)
    assert sum(plan.share(kind) for kind in KINDS) == kills
    assert all(plan.share(kind) >= 0 for kind in KINDS)


def row(**values: object) -> dict[str, object]:
    return {"kind": "live", "phase": "lives", "points": ["talking"], "kills": 1, **values}


def test_a_thousand_losses_have_a_p999_below_the_worst() -> None:
    numbers = random.Random(1).sample(range(2000), 2000)
    found = summary([row(lost_ms=[float(n) for n in numbers])])["lost_ms"]
    assert found["max"] == 1999
    assert found["p999"] == 1997
    assert found["p50"] == 999


def test_every_promise_counts() -> None:
    kept = summary([row(lost_ms=[60.0])])
    assert kept["ok"]
    assert kept["kills"] == 1
    assert not summary([row(lost_ms=[101.0])])["ok"]
    for fault in ("unplayable", "finalised_lost", "cases_missing", "cases_doubled", "trouble"):
        found = summary([row(lost_ms=[60.0], **{fault: ["one"]})])
        assert found[fault] == 1
        assert not found["ok"]
