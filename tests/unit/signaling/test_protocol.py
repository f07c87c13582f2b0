"""Whatever arrives in a frame is either one of our messages or refused with a code."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signaling.protocol import (
    CLIENT_MESSAGE,
    Mute,
    Ping,
    UnknownType,
    Unreadable,
    parse,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TYPES = [
    "hello", "join", "resume", "answer", "publish", "mute", "media_lost", "admit", "leave", "end",
    "ping", "offer", "",
]  # fmt: skip
FIELDS = ["id", "versions", "grant", "resume_token", "last_seq", "revision", "sdp", "tracks", "t"]


def is_parsed_or_refused(text: str) -> None:
    try:
        message = parse(text)
    except Unreadable as refusal:
        assert refusal.code in ("malformed", "unknown_type")
        assert refusal.request_id is None or 1 <= len(refusal.request_id) <= 40
    else:
        assert CLIENT_MESSAGE.validate_json(message.model_dump_json()) == message


@given(st.text())
@example("[" * 100_000)
@example('{"type":' * 50_000)
@example('{"type": "ping", "t": NaN}')
@example('{"type": "ping", "t": 1e999}')
@example('{"type": "leave", "id": "\\ud800"}')
@example('{"type": "leave", "id": "\ud800"}')
@example('{"type": "resume", "id": "1", "resume_token": "x", "last_seq": ' + "9" * 5_000 + "}")
def test_any_text_is_parsed_or_refused(text: str) -> None:
    is_parsed_or_refused(text)


@given(json_values)
def test_any_json_is_parsed_or_refused(value: object) -> None:
    is_parsed_or_refused(json.dumps(value))


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_fields_of_any_type_are_parsed_or_refused(kind: str, fields: dict[str, object]) -> None:
    is_parsed_or_refused(json.dumps({"type": kind, **fields}))


@given(st.binary(max_size=300))
def test_any_bytes_read_as_text_are_parsed_or_refused(data: bytes) -> None:
    is_parsed_or_refused(data.decode(errors="replace"))


def test_a_refusal_names_the_request_and_the_field_but_not_what_was_sent() -> None:
    with pytest.raises(Unreadable) as refused:
        parse('{"type": "mute", "id": "m1", "track": "secret words", "muted": true}')
    assert refused.value.request_id == "m1"
    assert "track" in refused.value.message
    assert "secret" not in refused.value.message


def test_an_unknown_type_is_refused_as_such() -> None:
    for text in ('{"type": "dance", "id": "d"}', '{"id": "d"}'):
        with pytest.raises(UnknownType) as refused:
            parse(text)
        assert refused.value.request_id == "d"


def test_unknown_fields_are_ignored() -> None:
    text = '{"type": "mute", "id": "m", "track": "camera", "muted": true, "colour": 7}'
    assert isinstance(parse(text), Mute)


def test_infinity_does_not_come_back_in_a_pong() -> None:
    with pytest.raises(Unreadable):
        parse('{"type": "ping", "t": Infinity}')
    assert isinstance(parse('{"type": "ping", "t": 1.5}'), Ping)
