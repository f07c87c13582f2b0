"""Fuzz targets for what stands behind the parsers of datagrams: the relay, and the guard.

Whoever holds keys is no friend yet: `relay` and `guard` encrypt their inputs as a participant
would, so that what decrypts is as hostile as what does not.
"""

import asyncio
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pylibsrtp import Policy

from bench.fuzz_net import (
    CAMERA_RTX,
    CAMERA_SSRC,
    OURS,
    SOUND_SSRC,
    SOUND_TO_BOB,
    TO_BOB,
    compounds,
    packets,
    signed,
)
from bench.fuzz_target import Target, Taste, at_the_end, pieces, run_of
from core.clock import SystemClock
from core.ids import ParticipantId, RoomId
from media.events import MediaEvent
from media.feedback import RESENDS_PER_SECOND, Feedback
from media.node import MediaNode
from media.router import MAX_HOLES, MAX_SOURCES_PER_LEG, Router
from media.socket import IPV4_NAME_BYTES, Outbox
from media.srtp import (
    MAX_PLAIN_BYTES,
    PacketBuffer,
    SrtpSession,
    protect,
    protect_rtcp,
)
from media.tables import Leg, Publication, Subscription
from media.taps import MarkKind
from media.tracks import CodecInfo, TrackName

GCM: Final = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
KEY_BYTES: Final = 28
MS: Final = 1_000_000
TO_BOB_RTX: Final = 3334
ALICE, BOB, NOBODY = (
    struct.pack("=H2s4s8x", 2, bytes([9, n]), bytes([127, 0, 0, n])) for n in (1, 2, 3)
)


# -- The relay, from one participant's point of view ---------------------------------------------


class _Tap:
    """A recorder's tap that counts, and knows no bounds of its own."""

    intake = None

    def __init__(self) -> None:
        self.tracks = self.packets = self.reports = 0

    def open_track(self, ssrc: int, name: TrackName, codec: CodecInfo) -> int:
        self.tracks += 1
        return min(self.tracks - 1, 255)

    def rtp(self, track_index: int, packet: bytes, arrival_ns: int) -> None:
        assert len(packet) <= MAX_PLAIN_BYTES
        self.packets += 1

    def rtcp_sr(self, track_index: int, ntp_time: int, rtp_time: int, arrival_ns: int) -> None:
        assert 0 <= ntp_time < 1 << 64
        assert 0 <= rtp_time < 1 << 32
        self.reports += 1

    def mark(
        self, kind: MarkKind, at_ns: int, track_index: int | None = None, detail: str = ""
    ) -> None:
        pass

    def end(self) -> None:
        pass


class _Party:
    """One leg, and the keys of the client at its far end."""

    def __init__(self, name: str, address: bytes) -> None:
        self.events: list[MediaEvent] = []
        self.leg = Leg(
            ParticipantId(name),
            1,
            OURS,
            notify=self.events.append,
            refresh=lambda _: None,
            now_ns=0,
        )
        up, down = b"u" * KEY_BYTES, b"d" * KEY_BYTES
        self.leg.inbound = SrtpSession.inbound(up, GCM)
        self.leg.outbound = SrtpSession.outbound(down, GCM)
        self.leg.rx, self.leg.tx = self.leg.inbound.context, self.leg.outbound.context
        self.leg.address = address
        self.leg.is_connected = True
        self.sends = SrtpSession.outbound(up, GCM)


class _Relay:
    """Router and feedback between `alice`, who sends anything, and `bob`, who listens."""

    def __init__(self, *, is_open: bool) -> None:
        self.posted = self.reports = 0
        self.outbox = Outbox(IPV4_NAME_BYTES, self._hand_over)
        self.feedback = Feedback(self._count, self._count, lambda: None)
        self.router = Router(self.outbox, self.feedback)
        self.alice, self.bob = _Party("alice", ALICE), _Party("bob", BOB)
        self.tap = _Tap()
        self.alice.leg.tap = self.tap
        for name, mid, ssrc, rtx in (
            (TrackName.CAMERA, "m0", CAMERA_SSRC, CAMERA_RTX),
            (TrackName.MICROPHONE, "m1", SOUND_SSRC, 0),
        ):
            publication = Publication(self.alice.leg.participant_id, name, mid)
            publication.is_live = publication.is_open = is_open
            publication.next_seq, publication.next_timestamp = 100, 0
            self.alice.leg.publications[mid] = publication
            self.alice.leg.declared[ssrc] = mid
            if rtx:
                self.alice.leg.declared_repairs[rtx] = ssrc
            self._subscribe(publication, TO_BOB if rtx else SOUND_TO_BOB)

    def _subscribe(self, publication: Publication, ssrc: int) -> None:
        target = Subscription(publication, self.bob.leg)
        target.ssrc, target.rtx_ssrc = ssrc, TO_BOB_RTX if ssrc == TO_BOB else 0
        target.is_wanted = target.is_started = True
        target.resend_budget = RESENDS_PER_SECOND
        publication.subscriptions.append(target)
        if publication.is_open:
            publication.targets = (target,)
        self.bob.leg.subscriptions[ssrc] = target

    def _hand_over(self, count: int) -> None:
        self.posted += count

    def _count(self, leg: Leg, data: bytes) -> None:
        assert len(data) >= 8
        self.reports += 1


SOUNDLESS: Final = 0x40
"""In a run's kind byte: RTCP instead of RTP; with the low bit, from bob instead of alice."""


def _relay() -> Taste:
    """Runs of packets that decrypt. The first byte's low bit opens the gate; shut, none passes."""
    buffer = PacketBuffer()

    def taste(data: bytes) -> None:
        is_open = bool(data[:1] and data[0] & 1)
        relay = _Relay(is_open=is_open)
        now_ns, count = 1_000 * MS, 0
        for kind, body in pieces(data[1:], 64):
            now_ns += (kind >> 1 & 0x1F) * 7 * MS
            party = relay.bob if kind & 1 else relay.alice
            if kind & SOUNDLESS:
                relay.feedback.receive(party.leg, body, now_ns)
            elif _is_rtp(body) and _encrypt(party.sends, body, buffer, protect):
                count += 1
                relay.router.receive(party.leg, buffer, now_ns)
            if kind & 0x80:
                relay.feedback.poll(now_ns)
                for leg in (relay.alice.leg, relay.bob.leg):
                    relay.feedback.sample(leg, now_ns)
                    relay.feedback.report(leg, now_ns)
        relay.outbox.flush()
        assert is_open or not (relay.posted or relay.tap.packets)
        assert relay.posted <= count and relay.tap.packets <= count
        for party in (relay.alice, relay.bob):
            assert len(party.leg.sources) <= MAX_SOURCES_PER_LEG
            for source in party.leg.sources.values():
                assert len(source.holes) <= MAX_HOLES
        # One report a spacing and source, whatever a datagram holds, and the answers' budgets.
        assert relay.reports <= 64 * (MAX_SOURCES_PER_LEG + RESENDS_PER_SECOND)

    return taste


def _is_rtp(data: bytes) -> bool:
    """What the guard would hand to the router: these bytes travel unencrypted."""
    return len(data) >= 12 and 128 <= data[0] < 192 and not 192 <= data[1] < 224


def _encrypt(
    session: SrtpSession, plain: bytes, buffer: PacketBuffer, how: Callable[..., int]
) -> bool:
    """Whether libsrtp would send it: it checks the same of a header as it does of what arrives."""
    plain = plain[:MAX_PLAIN_BYTES]
    buffer.view[: len(plain)] = plain
    buffer.length[0] = len(plain)
    return len(plain) >= 12 and how(session.context, buffer.cdata, buffer.length) == 0


def _relay_seeds() -> Sequence[bytes]:
    media = [(0, packet) for packet in packets()]
    reports = [(SOUNDLESS | n & 1, c) for n, c in enumerate(compounds())]
    both = [item for pair in zip(media, reports, strict=False) for item in pair]
    from_bob = [(SOUNDLESS | 0x81, compound) for compound in compounds()]
    return [
        b"\1" + run_of(*media),
        b"\1" + run_of(*media, *from_bob),
        b"\1" + run_of(*both, *((0x90, packet) for packet in packets())),
        b"\0" + run_of(*both),
    ]


# -- The guard -----------------------------------------------------------------------------------

FORM_PLAIN, FORM_RTP, FORM_RTCP, FORM_CHECK = range(4)


class Guarded:
    """A real node on loopback with two parties in a live room, whose datagrams are laid where the
    kernel would lay them."""

    def __init__(self, *, is_live: bool = True) -> None:
        self.loop = asyncio.new_event_loop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.node = self.loop.run_until_complete(
            MediaNode.start(host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock())
        )
        self.room = self.node.open_room(RoomId("fuzz"))
        self.parties = [self._join(name, at) for name, at in (("alice", ALICE), ("bob", BOB))]
        if is_live:
            self.room.go_live(None)
        self.tasted = 0

    def _join(self, name: str, address: bytes) -> SrtpSession:
        """Someone whose ICE and DTLS are behind them."""
        peer = self.room.add_peer(
            ParticipantId(name),
            label=name,
            publishes=[TrackName.CAMERA, TrackName.MICROPHONE],
            on_event=lambda _: None,
        )
        leg = peer.leg
        session = SrtpSession.outbound(b"u" * KEY_BYTES, GCM)
        leg.inbound = SrtpSession.inbound(b"u" * KEY_BYTES, GCM)
        leg.outbound = SrtpSession.outbound(b"d" * KEY_BYTES, GCM)
        leg.rx, leg.tx = leg.inbound.context, leg.outbound.context
        leg.is_connected = True
        self.node._book.prove(leg, address, nominated=True)
        return session

    def lay(self, form: int, who: int, body: bytes, slot: int) -> None:
        """One datagram into a receive slot. `who`: alice, bob, or an address nobody knows."""
        buffer = self.node._socket.received[slot]
        self.node._socket.senders[slot][:] = (ALICE, BOB, NOBODY)[who]
        if form in (FORM_RTP, FORM_RTCP) and who < 2:
            how = protect if form == FORM_RTP else protect_rtcp
            if _encrypt(self.parties[who], body, buffer, how):
                return
        if form == FORM_CHECK:
            peer = self.room.peers()[who & 1]
            body = signed(
                _username(f"{peer.leg.credentials.ufrag}:x") + body,
                peer.leg.credentials.password.encode(),
            )
        body = body[:MAX_PLAIN_BYTES]
        buffer.view[: len(body)] = body
        buffer.length[0] = len(body)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is called here finds the loop running, without the cost of a turn of it."""
        asyncio.events._set_running_loop(self.loop)
        try:
            yield
        finally:
            asyncio.events._set_running_loop(None)

    def take(self, count: int) -> None:
        """What the socket does when the kernel has given `count` datagrams."""
        with self.inside():
            self.node._datagrams(count, 0, self.node.now_ns())
            self.node._socket.outbox.flush()
        self.tasted += 1
        if self.tasted % 64 == 0:
            self.loop.run_until_complete(asyncio.sleep(0))
            for peer in self.room.peers():
                peer.check(self.node.now_ns())
                if self.tasted % 640 == 0:
                    peer.every_second(self.node.now_ns())
        assert not self.faults, self.faults

    def close(self) -> None:
        self.loop.run_until_complete(self.node.aclose())
        self.loop.close()


def _username(text: str) -> bytes:
    raw = text.encode()
    return bytes(20) + struct.pack("!HH", 6, len(raw)) + raw + bytes(-len(raw) % 4)


def _guard() -> Taste:
    guarded = Guarded()
    at_the_end(guarded.close)
    node = guarded.node
    batch = min(16, len(node._socket.received))
    associations = len(node._dtls_by_ufrag)

    def taste(data: bytes) -> None:
        count = 0
        for kind, body in pieces(data, 16):
            guarded.lay(kind & 3, (kind >> 2) % 3, body, count)
            count += 1
            if count == batch:
                guarded.take(count)
                count = 0
        if count:
            guarded.take(count)
        assert len(node._by_address) <= 2 * 8
        assert len(node._strays) <= 2
        assert len(node._dtls_by_ufrag) == associations
        for peer in guarded.room.peers():
            assert len(peer.leg.sources) <= MAX_SOURCES_PER_LEG

    return taste


def _guard_seeds() -> Sequence[bytes]:
    media = [(FORM_RTP, packet) for packet in packets()]
    reports = [(FORM_RTCP | (n & 1) << 2, compound) for n, compound in enumerate(compounds())]
    strange = [(FORM_PLAIN | 2 << 2, packet) for packet in packets()]
    checks = [
        (FORM_CHECK | who << 2, body)
        for who in range(3)
        for body in (b"\x80\x2a\0\x08" + bytes(8), b"\0\x25\0\0", b"")
    ]
    rng = random.Random(1)
    classes = [(FORM_PLAIN, bytes([first]) + rng.randbytes(40)) for first in (0, 20, 63, 70, 130)]
    return [run_of(*items[:16]) for items in (media, reports, strange, checks, classes)]


TARGETS: Final = (
    Target("relay", _relay, _relay_seeds, 4096),
    Target("guard", _guard, _guard_seeds, 4096),
)
