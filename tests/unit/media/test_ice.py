"""ICE-lite: who is answered, who is not, and which address counts."""

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from media.ice import (
    MAX_ADDRESSES_PER_LEG,
    MAX_TRANSACTIONS_PER_LEG,
    TOGETHER_NS,
    AddressBook,
    Check,
    Freshness,
    answer_check,
    new_credentials,
)
from media.socket import Address

OURS = "server-name"
PASSWORD = "correct horse battery staple"
ADDRESS = ("192.0.2.7", 4242)


def password_of(ufrag: str) -> str | None:
    return PASSWORD if ufrag == OURS else None


def request(
    *, username: str = f"{OURS}:theirs", password: str = PASSWORD, **attributes: object
) -> bytes:
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    message = stun.Message(
        stun.Method.BINDING,
        stun.Class.REQUEST,
        attributes={"USERNAME": username, "PRIORITY": 1, **named},
    )
    message.add_message_integrity(password.encode())
    return bytes(message)


def judge(data: bytes) -> Check | None:
    return answer_check(data, ADDRESS, password_of)


def test_an_authentic_check_is_told_where_it_came_from() -> None:
    check = judge(request(ICE_CONTROLLING=1))
    assert check is not None
    assert check.accepted
    assert (check.ufrag, check.remote_ufrag, check.nominated) == (OURS, "theirs", False)
    response = stun.parse_message(check.response)
    assert response.message_class == stun.Class.RESPONSE
    assert response.attributes["XOR-MAPPED-ADDRESS"] == ADDRESS
    assert response.check_message_integrity(PASSWORD.encode())


def test_a_nomination_is_noticed() -> None:
    check = judge(request(ICE_CONTROLLING=1, USE_CANDIDATE=None))
    assert check is not None
    assert check.nominated


def test_a_wrong_password_gets_no_answer() -> None:
    assert judge(request(password="guess")) is None


def test_an_unknown_name_gets_no_answer() -> None:
    assert judge(request(username="nobody:theirs")) is None


def test_a_client_that_wants_to_be_controlled_is_told_of_the_conflict() -> None:
    check = judge(request(ICE_CONTROLLED=1))
    assert check is not None
    assert not check.accepted
    assert stun.parse_message(check.response).error_code == 487


def test_what_stands_behind_the_integrity_is_not_believed() -> None:
    unsigned = stun.Message(
        stun.Method.BINDING, stun.Class.REQUEST, attributes={"USERNAME": f"{OURS}:theirs"}
    )
    unsigned.attributes["MESSAGE-INTEGRITY"] = stun.message_integrity(
        bytes(unsigned), PASSWORD.encode()
    )
    unsigned.attributes["USE-CANDIDATE"] = None
    check = judge(bytes(unsigned))
    assert check is not None
    assert not check.nominated


@pytest.mark.parametrize("size", [0, 4, 19, 21])
def test_a_short_or_long_integrity_gets_no_answer(size: int) -> None:
    message = stun.Message(
        stun.Method.BINDING,
        stun.Class.REQUEST,
        attributes={"USERNAME": f"{OURS}:theirs", "MESSAGE-INTEGRITY": bytes(size)},
    )
    assert judge(bytes(message)) is None


@pytest.mark.parametrize("name", ["PRIORITY", "ICE-CONTROLLING", "XOR-MAPPED-ADDRESS"])
def test_a_short_attribute_gets_no_answer(name: str) -> None:
    good = stun.Message(
        stun.Method.BINDING, stun.Class.REQUEST, attributes={"USERNAME": f"{OURS}:theirs"}
    )
    kind = stun.ATTRIBUTES_BY_NAME[name][0]
    body = bytes(good)[20:] + kind.to_bytes(2, "big") + b"\x00\x01\x00\x00\x00\x00"
    data = stun.set_body_length(bytes(good)[:20] + body, len(body))
    assert judge(data) is None


def test_truncated_and_lengthened_checks_get_no_answer() -> None:
    data = request(ICE_CONTROLLING=1)
    for length in range(len(data)):
        assert judge(data[:length]) is None
    assert judge(data + b"\0\0\0\0") is None


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_any_changed_byte_gets_no_answer_and_no_exception(where: int, value: int) -> None:
    data = bytearray(request(ICE_CONTROLLING=1))
    signed = len(data) - 8 - 24  # behind it: integrity and fingerprint
    index = 20 + where % (signed - 20)
    if data[index] == value:
        return
    data[index] = value
    assert judge(bytes(data)) is None


def test_credentials_are_long_and_fresh() -> None:
    one, other = new_credentials(), new_credentials()
    assert one != other
    assert len(one.ufrag) >= 4
    assert len(one.password) >= 22  # RFC 8839 §5.4


class SomeLeg:
    address: Address | None = None


def test_the_first_proven_address_is_used_until_the_client_nominates() -> None:
    book: AddressBook[SomeLeg] = AddressBook()
    leg = SomeLeg()
    assert book.prove(leg, b"wifi", nominated=False)
    assert not book.prove(leg, b"cable", nominated=False)
    assert leg.address == b"wifi"
    assert book.prove(leg, b"cable", nominated=True)
    assert leg.address == b"cable"
    assert book.by_address == {b"wifi": leg, b"cable": leg}


def test_an_address_that_another_leg_proves_changes_hands() -> None:
    book: AddressBook[SomeLeg] = AddressBook()
    old, new = SomeLeg(), SomeLeg()
    book.prove(old, b"mapping", nominated=True)
    book.prove(new, b"mapping", nominated=True)
    assert book.by_address[b"mapping"] is new
    assert old.address is None


def test_a_leg_with_very_many_addresses_loses_the_oldest() -> None:
    book: AddressBook[SomeLeg] = AddressBook()
    leg = SomeLeg()
    for number in range(MAX_ADDRESSES_PER_LEG + 5):
        book.prove(leg, b"%d" % number, nominated=False)
    assert len(book.by_address) == MAX_ADDRESSES_PER_LEG
    assert leg.address == b"0"  # the one in use stays
    assert b"0" in book.by_address


def test_a_forgotten_leg_is_nowhere() -> None:
    book: AddressBook[SomeLeg] = AddressBook()
    leg = SomeLeg()
    book.prove(leg, b"here", nominated=True)
    book.forget(leg)
    assert book.by_address == {}
    assert leg.address is None


def test_a_check_that_was_overheard_moves_nothing_when_sent_from_elsewhere() -> None:
    book: AddressBook[SomeLeg] = AddressBook()
    leg = SomeLeg()
    assert book.freshness(leg, b"t" * 12, b"mine", 0) is Freshness.NEW
    book.prove(leg, b"mine", nominated=True)
    assert book.freshness(leg, b"t" * 12, b"mine", 500) is Freshness.AGAIN
    assert book.freshness(leg, b"t" * 12, b"theirs", 500) is Freshness.REPLAYED
    assert book.freshness(leg, b"u" * 12, b"moved", 900) is Freshness.NEW


def test_of_two_that_arrive_together_the_known_address_is_believed() -> None:
    book: AddressBook[SomeLeg] = AddressBook()
    leg = SomeLeg()
    book.prove(leg, b"mine", nominated=True)
    assert book.freshness(leg, b"t" * 12, b"theirs", 0) is Freshness.NEW
    assert book.freshness(leg, b"t" * 12, b"mine", TOGETHER_NS - 1) is Freshness.NEW
    assert book.freshness(leg, b"t" * 12, b"mine", TOGETHER_NS) is Freshness.REPLAYED


def test_transactions_are_remembered_up_to_a_number_and_as_long_as_the_leg() -> None:
    book: AddressBook[SomeLeg] = AddressBook()
    leg = SomeLeg()
    for number in range(2 * MAX_TRANSACTIONS_PER_LEG):
        book.freshness(leg, number.to_bytes(12, "big"), b"mine", 0)
    assert len(book._transactions[id(leg)]) == MAX_TRANSACTIONS_PER_LEG
    book.forget(leg)
    assert not book._transactions
