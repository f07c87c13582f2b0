"""Where a track of a leg is placed on the session's timeline."""

import pytest

from media.index import MAX_ROUND_TRIP_MS, Leg, TrackIndex, shortest_round_trip_ns, timeline_maps
from media.journal import Mark, MarkKind, SenderReport, TrackRecord
from media.sdp import OPUS, VP8
from media.tracks import CodecInfo, TrackName

MS_NS = 1_000_000
SECOND_NS = 1_000_000_000
SECONDS = 30


def track(index: int, name: TrackName, codec: CodecInfo, *, behind_ms: int = 0) -> TrackIndex:
    """A track whose clock began at 0 with the session. Its reports come at once; packets come as
    late as `behind_ms`, but for those of the first second."""
    found = TrackIndex(TrackRecord(index, index, name, codec))
    for second in range(SECONDS):
        ticks = second * codec.clock_rate
        found.reports.append((SenderReport(second << 32, ticks), second * SECOND_NS))
    for step in range(SECONDS * 10):
        sent_ns = step * SECOND_NS // 10
        late_ns = behind_ms * MS_NS if step >= 10 else 0
        found.anchors.append((sent_ns, sent_ns + late_ns))
    return found


def leg_of(*tracks: TrackIndex, round_trips: tuple[str, ...] = ()) -> Leg:
    marks = [(0, 255, Mark(MarkKind.ROUND_TRIP, detail)) for detail in round_trips]
    return Leg(1, [], [], dict(enumerate(tracks)), marks)


def test_a_sender_that_falls_behind_with_its_sound_keeps_it_with_the_picture() -> None:
    leg = leg_of(
        track(0, TrackName.CAMERA, VP8),
        track(1, TrackName.MICROPHONE, OPUS, behind_ms=6000),
    )
    to_ns = timeline_maps(leg)
    at_s = 20
    assert to_ns[0](at_s * VP8.clock_rate) == pytest.approx(at_s * SECOND_NS, abs=MS_NS)
    assert to_ns[1](at_s * OPUS.clock_rate) == pytest.approx(at_s * SECOND_NS, abs=MS_NS)


def test_half_the_shortest_round_trip_is_taken_off() -> None:
    leg = leg_of(track(0, TrackName.CAMERA, VP8), round_trips=("90.0", "80.0", "?", "nan"))
    assert timeline_maps(leg)[0](10 * VP8.clock_rate) == 10 * SECOND_NS - 40 * MS_NS


@pytest.mark.parametrize("told", ["9e9", "1e400", "-5", "words"])
def test_a_round_trip_that_cannot_be_is_bounded_or_ignored(told: str) -> None:
    shortest_ns = shortest_round_trip_ns(leg_of(round_trips=(told,)))
    assert 0 <= shortest_ns <= MAX_ROUND_TRIP_MS * MS_NS
