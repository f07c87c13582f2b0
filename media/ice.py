"""ICE-lite: we only answer checks, and an address counts once an authenticated check came from it.

The browser always finds us, because our candidates stand in the offer; where *it* is we learn from
STUN alone, never from SDP, so no description can aim our packets at a third party. An ICE restart,
a moved network and a new NAT mapping are all the same event: a fresh checked address for a known
username fragment. RFC 8445 (lite: §2.5, §7.3), 8489 (STUN).

`answer_check` is pure; `AddressBook` keeps who may speak from where.
"""

import secrets
import string
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from aioice import stun

from media.socket import Address

HEADER_BYTES = 20
# Browsers' checks are about 110 bytes; we parse nothing much larger.
MAX_CHECK_BYTES = 548
USERNAME = 0x0006
INTEGRITY_BYTES = 20  # HMAC-SHA1 (RFC 5389 §15.4)
# A multi-homed client has a few; more is somebody playing. The oldest goes first.
MAX_ADDRESSES_PER_LEG = 8
# Clients check every few seconds: hours of a call. The oldest is forgotten first.
MAX_TRANSACTIONS_PER_LEG = 4096
TOGETHER_NS = 1_000_000_000
_ALPHABET = string.ascii_letters + string.digits  # a subset of ice-char (RFC 8839 §5.4)


@dataclass(frozen=True, slots=True)
class Credentials:
    """One leg's ICE name and password. The password never appears in a log."""

    ufrag: str
    password: str


def new_credentials() -> Credentials:
    """95 bits of name (collisions are impossible in practice) and 142 bits of password."""
    return Credentials(ufrag=_random_text(16), password=_random_text(24))


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


@dataclass(frozen=True, slots=True)
class Check:
    """An authenticated connectivity check and what to send back to where it came from.

    `accepted` is False when the answer is an error (role conflict): the address proves nothing.
    """

    ufrag: str
    remote_ufrag: str
    nominated: bool
    accepted: bool
    response: bytes
    transaction: bytes


def read_usernames(data: bytes) -> tuple[str, str] | None:
    """(our ufrag, their ufrag) of a binding request, before anything is trusted or computed.

    None for whatever is not a well-formed binding request: it gets no answer, so that nobody can
    use us to find out who is here or to reflect traffic.
    """
    if not HEADER_BYTES <= len(data) <= MAX_CHECK_BYTES:
        return None
    kind, length, cookie = struct.unpack_from("!HHI", data)
    if kind != stun.Method.BINDING or cookie != stun.COOKIE or length != len(data) - HEADER_BYTES:
        return None
    offset = HEADER_BYTES
    while offset + 4 <= len(data):
        attribute, size = struct.unpack_from("!HH", data, offset)
        offset += 4
        if offset + size > len(data):
            return None
        if attribute == USERNAME:
            ours, colon, theirs = data[offset : offset + size].decode("latin-1").partition(":")
            return (ours, theirs) if colon else None
        offset += size + (-size % 4)
    return None


def answer_check(
    data: bytes, address: tuple[str, int], password_of: Callable[[str], str | None]
) -> Check | None:
    """Judge one STUN datagram from `address` (IP text and port, as the client should see itself).

    `password_of(ufrag)` is our password for a name we gave out, or None. Returns None for anything
    not authenticated; the caller drops it silently and counts it.
    """
    usernames = read_usernames(data)
    if usernames is None:
        return None
    password = password_of(usernames[0])
    if password is None:
        return None
    try:
        request = stun.parse_message(data)
    except (ValueError, IndexError, struct.error):  # short attributes raise all three
        return None
    key = password.encode()
    if not _is_authentic(request, key):
        return None
    if "ICE-CONTROLLED" in request.attributes:
        # A lite agent is always the controlled one; the other side has to change its role.
        response = _response(request, stun.Class.ERROR, {"ERROR-CODE": (487, "Role Conflict")}, key)
        return Check(
            *usernames,
            nominated=False,
            accepted=False,
            response=response,
            transaction=request.transaction_id,
        )
    response = _response(request, stun.Class.RESPONSE, {"XOR-MAPPED-ADDRESS": address}, key)
    return Check(
        *usernames,
        nominated="USE-CANDIDATE" in request.attributes,
        accepted=True,
        response=response,
        transaction=request.transaction_id,
    )


def _is_authentic(request: stun.Message, key: bytes) -> bool:
    integrity = request.attributes.get("MESSAGE-INTEGRITY")
    # compare_digest refuses to compare bytes of different length without a word; be explicit.
    return (
        isinstance(integrity, bytes)
        and len(integrity) == INTEGRITY_BYTES
        and request.check_message_integrity(key)
    )


def _response(
    request: stun.Message, message_class: stun.Class, attributes: dict[str, object], key: bytes
) -> bytes:
    message = stun.Message(
        message_method=request.message_method,
        message_class=message_class,
        transaction_id=request.transaction_id,
        attributes=attributes,
    )
    message.add_message_integrity(key)
    return bytes(message)


class Addressed(Protocol):
    """What the book keeps of a leg: the address we send to, None until one is proven."""

    address: Address | None


LegT = TypeVar("LegT", bound=Addressed)


class Freshness(Enum):
    """What a check's transaction says of it."""

    NEW = "new"
    AGAIN = "again"  # the same, from the same place: answered, and it changes nothing
    REPLAYED = "replayed"  # the same, from elsewhere


class AddressBook(Generic[LegT]):
    """Which leg speaks from which address. `by_address` is the hot loop's one lookup per packet.

    An address enters only through `prove`, which the caller calls after an authenticated check.
    """

    def __init__(self) -> None:
        self.by_address: dict[Address, LegT] = {}
        self._proven: dict[int, list[Address]] = {}  # id(leg) → addresses, oldest first
        # id(leg) → transaction → where it came from first, and when; oldest first.
        self._transactions: dict[int, dict[bytes, tuple[Address, int]]] = {}

    def prove(self, leg: LegT, address: Address, *, nominated: bool) -> bool:
        """Note that `leg` answers at `address`. Whether the address we send to has changed.

        The first proven address is used until the client nominates; the last nomination wins. An
        address that was another leg's changes hands: the same NAT mapping reused, or a new leg.
        """
        previous = self.by_address.get(address)
        if previous is not leg:
            if previous is not None:
                self._drop(previous, address)
            self.by_address[address] = leg
            known = self._proven.setdefault(id(leg), [])
            known.append(address)
            if len(known) > MAX_ADDRESSES_PER_LEG:
                self._drop(leg, next(a for a in known if a != leg.address))
        if leg.address is None or (nominated and leg.address != address):
            leg.address = address
            return True
        return False

    def freshness(self, leg: LegT, transaction: bytes, address: Address, now_ns: int) -> Freshness:
        """Whether an authentic check with this transaction may prove or nominate anything.

        A check holds no time and no address, so whoever overhears one can send it from elsewhere
        and have the call's media sent there until the client's next. A client repeats a transaction
        only from where it began. Where two arrive together nobody knows which was first: the
        address that we know already is believed then.
        """
        seen = self._transactions.setdefault(id(leg), {})
        first = seen.get(transaction)
        if first is None:
            if len(seen) >= MAX_TRANSACTIONS_PER_LEG:
                del seen[next(iter(seen))]
            seen[transaction] = (address, now_ns)
            return Freshness.NEW
        if first[0] == address:
            return Freshness.AGAIN
        is_together = now_ns - first[1] < TOGETHER_NS
        is_known = self.by_address.get(address) is leg
        return Freshness.NEW if is_together and is_known else Freshness.REPLAYED

    def forget(self, leg: LegT) -> None:
        """The leg is over: its addresses mean nothing any more."""
        self._transactions.pop(id(leg), None)
        for address in self._proven.pop(id(leg), ()):
            del self.by_address[address]
        leg.address = None

    def _drop(self, leg: LegT, address: Address) -> None:
        del self.by_address[address]
        known = self._proven[id(leg)]
        known.remove(address)
        if leg.address == address:
            leg.address = known[-1] if known else None
