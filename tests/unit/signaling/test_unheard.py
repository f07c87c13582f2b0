"""Somebody is there and missing from the recording: told after twenty seconds, not before."""

from core.ids import ParticipantId
from signaling.protocol import Track
from signaling.seat import Media, Seat, first_tracks
from signaling.unheard import UNHEARD_AFTER_MS, Expected, Unheard
from tests.support.rooms import make_grant

KIOSK = ParticipantId("petitioner-1")
CAMERA, MICROPHONE = (KIOSK, Track.CAMERA), (KIOSK, Track.MICROPHONE)
FRESH = {CAMERA: 100, MICROPHONE: 100}


def seated(media: Media = Media.CONNECTED) -> Seat:
    grant = make_grant("petitioner")
    return Seat(
        grant=grant, resume_token="", leg=1, leg_since_ms=0, publishing=first_tracks(grant),
        media=media,
    )  # fmt: skip


def test_a_track_that_was_never_written_is_missed_after_twenty_seconds() -> None:
    expected = Expected()
    expected.look([seated()], 1_000)
    ages = {MICROPHONE: 100}
    assert expected.unheard(ages, 1_000 + UNHEARD_AFTER_MS - 1) == ()
    assert expected.unheard(ages, 1_000 + UNHEARD_AFTER_MS) == (
        Unheard(KIOSK, Track.CAMERA, UNHEARD_AFTER_MS),
    )


def test_a_track_that_stopped_is_missed_and_its_return_ends_it() -> None:
    expected = Expected()
    expected.look([seated()], 0)
    assert expected.unheard({**FRESH, CAMERA: 25_000}, 60_000) == (
        Unheard(KIOSK, Track.CAMERA, 25_000),
    )
    assert expected.unheard(FRESH, 61_000) == ()


def test_what_is_muted_is_not_missed_and_has_all_its_time_again_afterwards() -> None:
    expected, seat = Expected(), seated()
    expected.look([seat], 0)
    seat.muted.add(Track.CAMERA)
    expected.look([seat], 10_000)
    muted_for_long = {**FRESH, CAMERA: 100_000}
    assert expected.unheard(muted_for_long, 100_000) == ()
    seat.muted.clear()
    expected.look([seat], 100_000)
    assert expected.unheard(muted_for_long, 119_999) == ()
    assert [one.track for one in expected.unheard(muted_for_long, 120_000)] == [Track.CAMERA]


def test_a_track_that_is_no_longer_published_is_not_missed() -> None:
    expected, seat = Expected(), seated()
    expected.look([seat], 0)
    seat.publishing = (Track.MICROPHONE,)
    expected.look([seat], 1_000)
    assert expected.unheard({MICROPHONE: 100}, 90_000) == ()


def test_whose_line_is_away_is_another_alarm() -> None:
    expected, seat = Expected(), seated()
    expected.look([seat], 0)
    seat.media = Media.SILENT
    expected.look([seat], 5_000)
    assert expected.unheard({}, 90_000) == ()
    seat.media = Media.CONNECTED
    expected.look([seat], 90_000)
    assert expected.unheard({}, 109_000) == ()
    assert len(expected.unheard({}, 110_000)) == 2


def test_who_has_left_is_not_missed() -> None:
    expected, seat = Expected(), seated()
    expected.look([seat], 0)
    seat.has_left = True
    expected.look([seat], 1_000)
    assert expected.unheard({}, 90_000) == ()


def test_nothing_is_expected_of_a_room_that_is_not_live() -> None:
    expected = Expected()
    expected.look([seated()], 0)
    expected.look((), 30_000)
    assert expected.unheard({}, 90_000) == ()
