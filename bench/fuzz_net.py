"""Fuzz targets for what comes as datagrams: STUN, DTLS, RTP, RTCP, and the guard before all.

Whoever holds keys is no friend yet: `relay` and `guard` encrypt their inputs as a participant
would, so that what decrypts is as hostile as what does not.
"""

import asyncio
import hmac
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from aioice import stun
from aiortc.rtp import RtcpPsfbPacket
from pylibsrtp import Policy

from bench.fuzz_target import Target, Taste, at_the_end, pieces, run_of
from core.clock import SystemClock
from core.ids import ParticipantId, RoomId
from media.dtls import DtlsAssociation, fingerprint_of, new_certificate
from media.events import MediaEvent
from media.feedback import RESENDS_PER_SECOND, Feedback
from media.ice import Credentials, answer_check
from media.node import MediaNode
from media.router import MAX_HOLES, MAX_SOURCES_PER_LEG, Router
from media.rtp import (
    HEADER,
    build_nack,
    build_pli,
    build_receiver_report,
    build_remb,
    build_sender_report,
    find_extension,
    parse_rtcp,
    payload_length,
    payload_offset,
    read_remb,
    renumbered,
    restore_rtx,
    wrap_rtx,
)
from media.sdp import H264, OPUS, RTX_OF, VP8
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
CAMERA_SSRC, CAMERA_RTX, SOUND_SSRC = 1111, 1112, 2222
TO_BOB, TO_BOB_RTX, SOUND_TO_BOB = 3333, 3334, 4444
OURS: Final = Credentials("ourufrag12345678", "ourpassword-ourpassword!")
ALICE, BOB, NOBODY = (
    struct.pack("=H2s4s8x", 2, bytes([9, n]), bytes([127, 0, 0, n])) for n in (1, 2, 3)
)


# -- STUN ----------------------------------------------------------------------------------------


def _stun() -> Taste:
    """A first byte of 128 and more: the rest is signed as a check of someone who knows the password
    would be, so its attributes are read."""
    key = OURS.password.encode()

    def taste(data: bytes) -> None:
        datagram = data[1:]
        if data[:1] >= b"\x80":
            datagram = _signed(datagram, key)
        check = answer_check(
            datagram,
            ("192.0.2.1", 5000),
            lambda name: OURS.password if name == OURS.ufrag else None,
        )
        if check is not None:
            assert check.ufrag == OURS.ufrag
            # Never an amplifier: what goes back is no longer than what came, but for our own tail.
            assert len(check.response) <= len(datagram) + 64
            assert stun.parse_message(check.response).check_message_integrity(key)

    return taste


def _signed(body: bytes, key: bytes) -> bytes:
    """A message whose header tells the truth about its length, and whose integrity holds."""
    body = body[20:] if len(body) >= 20 else body
    body = body[: len(body) & ~3]
    transaction = hmac.digest(b"transaction", body, "sha1")
    head = struct.pack("!HHI12s", 1, len(body) + 24, stun.COOKIE, transaction)
    return head + body + b"\0\x08\0\x14" + hmac.digest(key, head + body, "sha1")


def a_check(**attributes: object) -> bytes:
    request = stun.Message(
        stun.Method.BINDING,
        stun.Class.REQUEST,
        transaction_id=b"transaction!",
        attributes={"USERNAME": f"{OURS.ufrag}:theirs", "PRIORITY": 1, **attributes},
    )
    request.add_message_integrity(OURS.password.encode())
    return bytes(request)


def _stun_seeds() -> Sequence[bytes]:
    checks = [
        a_check(**{"ICE-CONTROLLING": 1, "USE-CANDIDATE": None}),
        a_check(**{"ICE-CONTROLLED": 1}),
        a_check(**{"XOR-MAPPED-ADDRESS": ("192.0.2.7", 9), "SOFTWARE": "x"}),
    ]
    return [bytes([mode]) + check for check in checks for mode in (0, 128)]


# -- DTLS ----------------------------------------------------------------------------------------


class _Handshake:
    """Two associations of ours, joined by hand. `first`: before anything was said."""

    def __init__(self, certificate: Any) -> None:
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.connected = 0
        self.closed: list[str] = []
        self.server = self._half(certificate, self.to_client, "server")
        self.client = self._half(certificate, self.to_server, "client")
        print_ = fingerprint_of(certificate)
        self.server.start(print_)
        self.client.path_found()
        self.client.start(print_)

    def _half(self, certificate: Any, out: list[bytes], role: Any) -> DtlsAssociation:
        return DtlsAssociation(
            certificate,
            send=out.append,
            on_connected=self._on_connected,
            on_closed=self.closed.append,
            role=role,
        )

    def _on_connected(self, *_: object) -> None:
        self.connected += 1

    async def go_on(self, *, until: Callable[[], bool]) -> None:
        for _ in range(400):
            if until():
                return
            for datagram in self.to_server:
                self.server.feed(datagram)
            for datagram in self.to_client:
                self.client.feed(datagram)
            self.to_server.clear()
            self.to_client.clear()
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.server.aclose()
        await self.client.aclose()


def _dtls() -> Taste:
    """Runs of datagrams to the server's half. The first byte says when: below 128 while shaking
    hands, else when connected. A connected association must outlive whatever nobody signed."""
    loop = asyncio.new_event_loop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    certificate = new_certificate()
    kept: list[_Handshake] = []

    async def connected() -> _Handshake:
        if not kept:
            pair = _Handshake(certificate)
            await pair.go_on(until=lambda: pair.connected == 2)
            assert pair.connected == 2
            kept.append(pair)
        return kept[0]

    async def one(data: bytes) -> None:
        is_late = data[0] >= 128
        if is_late:
            pair = await connected()
        else:
            pair = _Handshake(certificate)
            await pair.go_on(until=lambda: bool(pair.to_server))
        for _, datagram in pieces(data[1:], 40):
            # The node's guard lets nothing else this far.
            if len(datagram) >= 8 and 20 <= datagram[0] < 64:
                pair.server.feed(datagram)
        for _ in range(100):
            await asyncio.sleep(0)
        if is_late:
            assert not pair.closed, "ended by something that nobody signed"
            pair.to_client.clear()
        else:
            await pair.aclose()

    def taste(data: bytes) -> None:
        if data:
            loop.run_until_complete(one(data))
            assert not faults, faults

    def close() -> None:
        for pair in kept:
            loop.run_until_complete(pair.aclose())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    at_the_end(close)

    return taste


def _dtls_seeds() -> Sequence[bytes]:
    """A handshake recorded now (its keys are new each time), whole and in parts, and its end."""

    async def record() -> list[bytes]:
        pair = _Handshake(new_certificate())
        said: list[bytes] = []
        for _ in range(200):
            said += pair.to_server
            await pair.go_on(until=lambda: not (pair.to_server or pair.to_client))
            await asyncio.sleep(0)
        await pair.client.aclose()
        said += pair.to_server
        await pair.server.aclose()
        await asyncio.sleep(0)
        return said

    said = asyncio.run(record())
    alert = bytes.fromhex("15fefd00000000000000000002") + b"\1\0"
    runs = [run_of(*((0, datagram) for datagram in said)), run_of((0, alert))]
    runs += [run_of((0, datagram)) for datagram in said]
    return [bytes([when]) + run for run in runs for when in (0, 128)]


# -- RTP and RTCP --------------------------------------------------------------------------------


def rtp(
    seq: int,
    ssrc: int = CAMERA_SSRC,
    payload_type: int = VP8.payload_type,
    payload: bytes = b"\x90\x80\x81\x22\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00",
    extension: bytes = b"",
) -> bytes:
    """A plain packet. `extension`: elements of the one-byte form."""
    head = HEADER.pack(0x90 if extension else 0x80, payload_type, seq, seq * 3000, ssrc)
    if extension:
        extension += bytes(-len(extension) % 4)
        head += b"\xbe\xde" + (len(extension) // 4).to_bytes(2, "big") + extension
    return head + payload


MID: Final = b"\x11m0"
LEVEL: Final = b"\x20\x9e"
STAMP: Final = b"\x32abc"


def _packets() -> list[bytes]:
    sound = OPUS.payload_type
    padded = bytearray(rtp(7, payload=b"\0\0\0\4"))
    padded[0] |= 0x20
    return [
        rtp(1),
        rtp(2, extension=MID + STAMP),
        rtp(5),
        rtp(3, CAMERA_RTX, RTX_OF[VP8.payload_type], b"\0\3" + b"\x80repaired"),
        rtp(1, SOUND_SSRC, sound, b"\xf8\xff\xfe", LEVEL),
        rtp(2, SOUND_SSRC, sound, b"\xf8\xff\xfe", b"\x11m1" + LEVEL),
        rtp(9, 5555, H264.payload_type, b"\x67\x42\xe0\x1f", MID),
        rtp(6, CAMERA_SSRC, H264.payload_type, b"\x65picture"),
        bytes(padded),
    ]


def _rtp() -> Taste:
    def taste(data: bytes) -> None:
        try:
            offset = payload_offset(data)
            assert 12 <= offset <= len(data)
            length = payload_length(data)
            assert 0 <= length <= len(data) - offset
        except ValueError:
            assert find_extension(data, 1) is None or len(data) > 12
        for number in (1, 2, 3, 14):
            found = find_extension(data, number)
            assert found is None or (found[0] > 12 and sum(found) <= len(data))
        with suppress(ValueError):  # what it documents for a malformed header
            changed = renumbered(data, 96)
            assert payload_offset(changed) <= len(changed)
            assert changed[1] & 0x7F == 96
        restored = restore_rtx(data, 96, 7)
        if restored is not None:
            assert len(restored) == len(data) - 2
            payload_offset(restored)
        with suppress(ValueError):
            wrapped = wrap_rtx(data, payload_type=97, ssrc=1, sequence=2, original=3, timestamp=4)
            assert len(wrapped) == len(data) + 2

    return taste


def _compounds() -> list[bytes]:
    report = build_sender_report(
        CAMERA_SSRC, ntp_time=1 << 40, rtp_time=3000, packets=1, octets=2, cname="alice"
    )
    return [
        report,
        build_receiver_report(9, [], "bob"),
        build_nack(9, TO_BOB, [101, 102, 105]),
        build_nack(9, SOUND_TO_BOB, [101]),
        build_pli(9, TO_BOB),
        b"\x84\xce\x00\x04"
        + (9).to_bytes(4, "big")
        + bytes(4)
        + TO_BOB.to_bytes(4, "big")
        + b"\1\0\0\0",
        build_remb(9, 300_000, [TO_BOB]),
        report + build_nack(9, TO_BOB, [101]) + build_pli(9, TO_BOB),
        # A receiver's report on what it was sent, and a goodbye in another's name.
        b"\x81\xc9\x00\x07" + (9).to_bytes(4, "big") + TO_BOB.to_bytes(4, "big") + bytes(20),
        b"\x81\xcb\x00\x01" + CAMERA_SSRC.to_bytes(4, "big"),
    ]


def _rtcp() -> Taste:
    """Parsing alone; `relay` acts on what was parsed."""

    def taste(data: bytes) -> None:
        try:
            packets = parse_rtcp(data)
        except ValueError:
            return
        for packet in packets:
            if isinstance(packet, RtcpPsfbPacket):
                read_remb(packet)

    return taste


# -- The relay, from one participant's point of view ---------------------------------------------


class _Tap:
    """A recorder's tap that counts, and knows no bounds of its own."""

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
    media = [(0, packet) for packet in _packets()]
    reports = [(SOUNDLESS | n & 1, c) for n, c in enumerate(_compounds())]
    both = [item for pair in zip(media, reports, strict=False) for item in pair]
    from_bob = [(SOUNDLESS | 0x81, compound) for compound in _compounds()]
    return [
        b"\1" + run_of(*media),
        b"\1" + run_of(*media, *from_bob),
        b"\1" + run_of(*both, *((0x90, packet) for packet in _packets())),
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
            body = _signed(
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
            self.node._datagrams(count)
            self.node._socket.outbox.flush()
        self.tasted += 1
        if self.tasted % 64 == 0:
            self.loop.run_until_complete(asyncio.sleep(0))
            self.room.check(self.node.now_ns(), is_second=self.tasted % 640 == 0)
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
    media = [(FORM_RTP, packet) for packet in _packets()]
    reports = [(FORM_RTCP | (n & 1) << 2, compound) for n, compound in enumerate(_compounds())]
    strange = [(FORM_PLAIN | 2 << 2, packet) for packet in _packets()]
    checks = [
        (FORM_CHECK | who << 2, body)
        for who in range(3)
        for body in (b"\x80\x2a\0\x08" + bytes(8), b"\0\x25\0\0", b"")
    ]
    rng = random.Random(1)
    classes = [(FORM_PLAIN, bytes([first]) + rng.randbytes(40)) for first in (0, 20, 63, 70, 130)]
    return [run_of(*items[:16]) for items in (media, reports, strange, checks, classes)]


TARGETS: Final = (
    Target("stun", _stun, _stun_seeds, 700),
    Target("dtls", _dtls, _dtls_seeds, 4096),
    Target("rtp", _rtp, _packets),
    Target("rtcp", _rtcp, _compounds),
    Target("relay", _relay, _relay_seeds, 4096),
    Target("guard", _guard, _guard_seeds, 4096),
)
