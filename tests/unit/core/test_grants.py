"""A Grant is permission that travels: what is inside comes out unchanged or not at all."""

from datetime import UTC, datetime, timedelta

import pytest

from core.grants import Grant, GrantKey, GrantRefused, new_grant
from core.ids import AppointmentId, ParticipantId, RoomId

NOW = datetime(2026, 5, 25, 1, 0, tzinfo=UTC)
KEY = GrantKey(b"k" * 32)


def make_grant(ttl_s: int = 60) -> Grant:
    return new_grant(
        room_id=RoomId("r"), appointment_id=AppointmentId("a"), participant_id=ParticipantId("p"),
        role="petitioner", label_zh="来访人", label_bo=None, label_en="Petitioner",
        publish=("camera", "microphone"), may_admit=False, may_end=False, slot_ends_at=None,
        official_id="o", county_id="c", now=NOW, ttl=timedelta(seconds=ttl_s),
    )  # fmt: skip


def test_a_grant_comes_out_as_it_went_in() -> None:
    grant = make_grant()
    assert KEY.verify(KEY.sign(grant), now=NOW) == grant


def test_a_grant_is_refused_from_the_second_it_expires() -> None:
    token = KEY.sign(make_grant(60))
    KEY.verify(token, now=NOW + timedelta(seconds=59))
    with pytest.raises(GrantRefused, match="expired"):
        KEY.verify(token, now=NOW + timedelta(seconds=60))


def test_a_grant_of_another_installation_is_refused() -> None:
    with pytest.raises(GrantRefused):
        GrantKey(b"x" * 32).verify(KEY.sign(make_grant()), now=NOW)


def test_every_changed_character_is_noticed() -> None:
    token = KEY.sign(make_grant())
    for position in range(0, len(token) - 1, 7):
        changed = "A" if token[position] != "A" else "B"
        with pytest.raises(GrantRefused):
            KEY.verify(token[:position] + changed + token[position + 1 :], now=NOW)


def test_a_resume_token_is_no_grant_and_a_grant_no_resume_token() -> None:
    grant = make_grant()
    with pytest.raises(GrantRefused):
        KEY.verify(KEY.sign_resume(grant), now=NOW)
    with pytest.raises(GrantRefused):
        KEY.verify_resume(KEY.sign(grant))
    assert KEY.verify_resume(KEY.sign_resume(grant)) == grant


@pytest.mark.parametrize("garbage", ["", ".", "a.b.c", "e30.e30.e30", "\x00", "令牌", "." * 5000])
def test_garbage_is_refused_in_words(garbage: str) -> None:
    with pytest.raises(GrantRefused, match="enter again"):
        KEY.verify(garbage, now=NOW)
