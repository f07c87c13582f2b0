"""Where a client that offered receives (WHEP): each section is an outlet with one SSRC for life.

Such a client gets no further offers, so what it is shown has to change behind its back: an outlet
is bound to a publication, and when that ends to another one, and its numbers and clock go on as if
nothing had happened. Under one SRTP key a number must always mean the same bytes (router.py), hence
the floor: whatever a publication sent before it was bound never leaves by this outlet.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from media.offers import AnswerSection, OfferedSection, outgoing_numbers
from media.rtp import renumbered
from media.sdp import CODECS, RTX_OF
from media.tables import Leg, Publication, Subscription, random_ssrc

# Twice the longest cache: what is further behind the edge than this is nowhere kept any more.
_FLOOR_FADES_AFTER: Final = 1024


class Outlet:
    """One receiving section of a client that offered."""

    def __init__(self, section: OfferedSection) -> None:
        self.section = section
        self.ssrc = random_ssrc()
        has_repairs = section.kind == "video" and all(c.rtx is not None for c in section.codecs)
        self.rtx_ssrc = random_ssrc() if has_repairs else 0
        self.numbers = outgoing_numbers(section)
        self.subscription: Subscription | None = None

    @property
    def payload_types(self) -> frozenset[int]:
        """Ours, of what this section can take."""
        return frozenset(self.numbers)

    def is_free(self, leg: Leg) -> bool:
        """Nothing is bound, or what was bound has ended."""
        bound = self.subscription
        return bound is None or leg.subscriptions.get(self.ssrc) is not bound

    def answer(self) -> AnswerSection:
        return AnswerSection(
            self.section, "sendonly", self.section.codecs, self.ssrc, self.rtx_ssrc
        )

    def bind(self, publication: Publication, leg: Leg, now_ns: int) -> Subscription:
        """Show `publication` here from now on. The outlet must be free."""
        fresh = Subscription(publication, leg)
        fresh.ssrc, fresh.rtx_ssrc = self.ssrc, self.rtx_ssrc
        fresh.numbers = self.numbers
        fresh.payload_types = self.payload_types
        fresh.has_nack = any("nack" in codec.feedback for codec in self.section.codecs)
        fresh.is_wanted = True
        before, self.subscription = self.subscription, fresh
        if before is not None:
            _go_on(before, fresh, now_ns)
        publication.subscriptions.append(fresh)
        leg.subscriptions[self.ssrc] = fresh
        return fresh


def _go_on(before: Subscription, fresh: Subscription, now_ns: int) -> None:
    """Continue the numbers and the clock of what was shown before under the same SSRC."""
    ended, begun = before.publication, fresh.publication
    fresh.rtx_seq = before.rtx_seq
    fresh.floor = begun.next_seq
    fresh.is_started = before.is_started
    fresh.seq_offset = (ended.next_seq + before.seq_offset - begun.next_seq) & 0xFFFF
    clock_rate = next(
        codec.clock_rate for codec in CODECS.values() if codec.mime.startswith(begun.name.kind)
    )
    quiet_ns = now_ns - ended.last_arrival_ns if ended.last_arrival_ns else 0
    # What the next publication adds for its own silence by itself is not added twice.
    counted_ns = now_ns - begun.last_arrival_ns if begun.last_arrival_ns else 0
    last = ended.next_timestamp + before.timestamp_offset
    elapsed = (quiet_ns - counted_ns) * clock_rate // 1_000_000_000
    fresh.timestamp_offset = (last + elapsed - begun.next_timestamp) & 0xFFFFFFFF


def choose(
    publications: Sequence[Publication], shown: Sequence[Publication], kind: str
) -> Publication | None:
    """The first publication of this kind that is not shown yet. Pure."""
    taken = {id(publication) for publication in shown}
    fitting = (p for p in publications if p.name.kind == kind and id(p) not in taken)
    return next(fitting, None)


def is_below_floor(target: Subscription, seq: int) -> bool:
    """Whether the publication's number `seq` is from before it was bound to this outlet."""
    if target.floor < 0:
        return False
    ahead = (seq - target.floor) & 0xFFFF
    if ahead >= 0x8000:
        return True
    if ahead > _FLOOR_FADES_AFTER:
        target.floor = -1
    return False


def in_our_numbers(packet: bytes, numbers: Mapping[int, int]) -> bytes:
    """A packet of a client that offered, under our payload type and without header extensions.

    Returned as it is if its number is none of the client's, or if its header lies: the router then
    refuses it like any other packet of an unknown kind.
    """
    number = numbers.get(packet[1] & 0x7F)
    if number is None:
        return packet
    try:
        return renumbered(packet, number)
    except ValueError:
        return packet


def in_their_numbers(packet: bytes, numbers: Mapping[int, int]) -> bytes | None:
    """A packet of ours as such a client expects it; None if it could not read it."""
    number = numbers.get(packet[1] & 0x7F)
    if number is None or (packet[1] & 0x7F) in RTX_OF.values():
        return None
    try:
        return renumbered(packet, number)
    except ValueError:
        return None
