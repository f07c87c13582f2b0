"""The TypeScript twin says what the models say."""

import re
from typing import get_args

from signaling import protocol
from signaling.wire import typescript


def test_every_message_has_an_interface_with_its_literal_type() -> None:
    text = typescript()
    for union in (protocol.ClientMessage, protocol.ServerMessage):
        for model in get_args(get_args(union)[0]):
            (literal,) = get_args(model.model_fields["type"].annotation)
            assert f"export interface {model.__name__} {{\n  type: '{literal}';" in text


def test_only_what_a_client_may_leave_out_is_optional() -> None:
    assert re.findall(r"(\w+)\?:", typescript()) == ["client"]


def test_the_twin_is_the_same_each_time() -> None:
    assert typescript() == typescript()


def test_no_line_is_longer_than_the_house_allows() -> None:
    assert max(map(len, typescript().splitlines())) <= 100
