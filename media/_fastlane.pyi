"""What media/_fastlane.c offers; media/fastlane.py says when."""

from collections.abc import Mapping

from media.numbers import (
    LegNumbers as LegNumbers,
)
from media.numbers import (
    OutboxNumbers as OutboxNumbers,
)
from media.numbers import (
    PublicationNumbers as PublicationNumbers,
)
from media.numbers import (
    SessionNumbers as SessionNumbers,
)
from media.numbers import (
    SourceNumbers as SourceNumbers,
)
from media.numbers import (
    SubscriptionNumbers as SubscriptionNumbers,
)
from media.router import Router
from media.socket import Address, Outbox
from media.srtp import SrtpSession
from media.tables import Leg, Publication, Source, Subscription
from media.taps import Intake as Intake  # missing where the processor has no CRC32C instruction

class Lane:
    def __init__(
        self,
        *,
        tables: tuple[
            type[Leg],
            type[Source],
            type[Publication],
            type[Subscription],
            type[SrtpSession],
            type[Outbox],
        ],
        router: Router,
        outbox: Outbox,
        unprotect: int,
        protect: int,
        slots: int,
        names: int,
        name_bytes: int,
        slot_count: int,
        audio_level_extension: int,
        loud_level: int,
        loud_packets: int,
        speech_hangover_ns: int,
    ) -> None: ...
    def forward(
        self, leg: Leg, packet_address: int, length_address: int, arrival_ns: int, /
    ) -> bool:
        """One SRTP packet from `leg`. False: not the common case, nothing was touched."""

    def forward_batch(
        self,
        messages_address: int,
        at: int,
        end: int,
        most_bytes: int,
        by_address: Mapping[Address, Leg],
        arrival_ns: int,
        /,
    ) -> int:
        """Datagrams `at` to `end` of an array of `struct mmsghdr`, in order. Returns the first that
        is not the common case and was not touched, or `end`. Media of `most_bytes` is not taken."""

    dropped: int
    """What the kernel did not take of what `relay` forwarded."""

    def listen(
        self,
        *,
        fd: int,
        incoming: int,
        slots: int,
        outgoing: int,
        most_bytes: int,
        by_address: dict[Address, Leg],
    ) -> None:
        """What `relay` needs to know of the socket: `fd`, its `slots` receive slots (an array of
        `struct mmsghdr` at `incoming`), the outbox's headers at `outgoing`, and the rest as
        `forward_batch` is told it."""

    def relay(
        self, others: int, timeout_ns: int, trusted_until_ns: int, /
    ) -> tuple[int, int, int] | None:
        """Wait for datagrams and forward them, until the descriptor `others` can be read,
        `timeout_ns` (negative: for ever) is over, a signal came, or Python was called.

        A batch of which something is not the common case ends the wait: `(count, at, arrival_ns)`,
        those before `at` forwarded and posted, not yet sent. So does each that comes after
        `trusted_until_ns`, untouched."""

def take_in(fd: int, messages_address: int, most: int, /) -> int:
    """As `socket.take_in_in_python`."""

def hand_over(fd: int, messages_address: int, count: int, /) -> int:
    """As `socket.hand_over_in_python`; what goes to one receiver in datagrams of one length goes to
    the kernel as one (UDP_SEGMENT, Linux 4.18), if it takes that."""
