"""A router between two clients without sockets: real SRTP, hand-made packets, given times."""

import os
from dataclasses import dataclass, field

from aiortc.rtp import AnyRtcpPacket, RtcpPacket
from pylibsrtp import Policy, Session

from core.ids import ParticipantId
from media.events import MediaEvent
from media.feedback import NACKS_PER_SECOND, RESENDS_PER_SECOND, Feedback
from media.ice import new_credentials
from media.journal import MarkKind
from media.router import Router
from media.rtp import HEADER
from media.sdp import OPUS, RTX_OF, VP8
from media.socket import IPV4_NAME_BYTES, Address, Outbox
from media.srtp import PacketBuffer, SrtpSession, address_of
from media.tables import Leg, Publication, Subscription
from media.taps import Intake
from media.tracks import CodecInfo, TrackName

GCM = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
MS = 1_000_000
SECOND = 1_000_000_000
ONE_BYTE = bytes.fromhex("bede")


def rtp(
    seq: int,
    *,
    timestamp: int = 0,
    ssrc: int = 1111,
    payload_type: int = VP8.payload_type,
    payload: bytes = b"picture",
    extension: bytes = b"",
) -> bytes:
    """A plain RTP packet. `extension`: elements of the one-byte form, padded to words here."""
    first = 0x90 if extension else 0x80
    header = HEADER.pack(first, payload_type, seq & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
    if extension:
        extension += bytes(-len(extension) % 4)
        header += ONE_BYTE + (len(extension) // 4).to_bytes(2, "big") + extension
    return header + payload


@dataclass
class ListeningTap:
    """A recorder's tap that remembers."""

    tracks: list[tuple[int, TrackName, CodecInfo]] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    reports: list[tuple[int, int]] = field(default_factory=list)
    marks: list[MarkKind] = field(default_factory=list)
    marks_ns: list[int] = field(default_factory=list)
    """When each of `marks` says that it was."""
    is_ended: bool = False
    intake: Intake | None = None

    def open_track(self, ssrc: int, name: TrackName, codec: CodecInfo) -> int:
        self.tracks.append((ssrc, name, codec))
        return len(self.tracks) - 1

    def rtp(self, track_index: int, packet: bytes, arrival_ns: int) -> None:
        if self.intake is None or not self.intake.put(track_index, packet, arrival_ns):
            self.packets.append(packet)

    def rtcp_sr(self, track_index: int, ntp_time: int, rtp_time: int, arrival_ns: int) -> None:
        self.reports.append((ntp_time, rtp_time))

    def mark(
        self, kind: MarkKind, at_ns: int, track_index: int | None = None, detail: str = ""
    ) -> None:
        self.marks.append(kind)
        self.marks_ns.append(at_ns)

    def end(self) -> None:
        self.is_ended = True


class Client:
    """The far end of one leg: encrypts what it sends, decrypts what the relay sent it."""

    def __init__(self, name: str, address: Address) -> None:
        self.events: list[MediaEvent] = []
        self.leg = Leg(
            ParticipantId(name),
            1,
            new_credentials(),
            notify=self.events.append,
            refresh=lambda _: None,
            now_ns=0,
        )
        up, down = os.urandom(28), os.urandom(28)  # AES-128-GCM: 16 bytes of key, 12 of salt
        self.leg.inbound, self.leg.outbound = (
            SrtpSession.inbound(up, GCM),
            SrtpSession.outbound(down, GCM),
        )
        self.leg.rx, self.leg.tx = self.leg.inbound.context, self.leg.outbound.context
        self.leg.address = address
        self.leg.is_connected = True
        outbound = Policy(up, Policy.SSRC_ANY_OUTBOUND, srtp_profile=GCM)
        outbound.allow_repeat_tx = True
        self.encrypt = Session(outbound)
        inbound = Policy(down, Policy.SSRC_ANY_INBOUND, srtp_profile=GCM)
        inbound.allow_repeat_tx = True
        self.decrypt = Session(inbound)
        self.tap = ListeningTap()


class Relay:
    """`alice` publishes camera and microphone, `bob` receives both; the room is live."""

    def __init__(self, *, is_in_c: bool = False) -> None:
        self.rx = PacketBuffer()
        self.outbox = Outbox(IPV4_NAME_BYTES, self._hand_over)
        self.sent: list[tuple[bytes, Address]] = []
        self.rtcp: list[tuple[Leg, AnyRtcpPacket]] = []
        self.repairs: list[bytes] = []
        self.wakes = 0
        self.feedback = Feedback(
            self._send_rtcp, lambda _, data: self.repairs.append(data), self._wake
        )
        self.router = Router(self.outbox, self.feedback)
        self.lane = self.router.lane if is_in_c else None
        self.taken_by_lane = 0
        self.alice = Client("alice", b"alice's address!")
        self.bob = Client("bob", b"bob's address!!!")
        self.camera = self._publish(TrackName.CAMERA, "m0", 1111, rtx_ssrc=1112)
        self.microphone = self._publish(TrackName.MICROPHONE, "m1", 2222)
        self.to_bob = self._subscribe(self.camera, self.bob)
        self.sound_to_bob = self._subscribe(self.microphone, self.bob)

    def receive(self, client: Client, packet: bytes, now_ns: int = 0) -> None:
        """`packet` arrives from `client`, encrypted as it would be."""
        self.receive_encrypted(client, client.encrypt.protect(packet), now_ns)

    def receive_encrypted(self, client: Client, data: bytes, now_ns: int = 0) -> None:
        self.rx.view[: len(data)] = data
        self.rx.length[0] = len(data)
        if self.lane is not None and self.lane.forward(
            client.leg, address_of(self.rx.cdata), address_of(self.rx.length), now_ns
        ):
            self.taken_by_lane += 1
        else:
            self.router.receive(client.leg, self.rx, now_ns)
        self.outbox.flush()

    def delivered(self, client: Client) -> list[bytes]:
        """What `client` has been sent since last asked, decrypted."""
        mine = [data for data, address in self.sent if address == client.leg.address]
        self.sent = [(data, to) for data, to in self.sent if to != client.leg.address]
        return [client.decrypt.unprotect(data) for data in mine]

    def asked(self, client: Client) -> list[AnyRtcpPacket]:
        """The RTCP that `client` has been sent since last asked."""
        mine = [packet for leg, packet in self.rtcp if leg is client.leg]
        self.rtcp = [(leg, packet) for leg, packet in self.rtcp if leg is not client.leg]
        return mine

    def refill_budgets(self) -> None:
        """What the node does every second."""
        for source in self.alice.leg.sources.values():
            source.nack_budget = NACKS_PER_SECOND
        for subscription in self.bob.leg.subscriptions.values():
            subscription.resend_budget = RESENDS_PER_SECOND

    def record(self) -> ListeningTap:
        """Have alice recorded from here on."""
        self.alice.leg.tap = self.alice.tap
        return self.alice.tap

    def _publish(
        self, name: TrackName, mid: str, ssrc: int, rtx_ssrc: int | None = None
    ) -> Publication:
        publication = Publication(self.alice.leg.participant_id, name, mid)
        publication.is_live = publication.is_open = True
        self.alice.leg.publications[mid] = publication
        self.alice.leg.declared[ssrc] = mid
        if rtx_ssrc is not None:
            self.alice.leg.declared_repairs[rtx_ssrc] = ssrc
        return publication

    def _subscribe(self, publication: Publication, client: Client) -> Subscription:
        subscription = Subscription(publication, client.leg)
        subscription.is_wanted = subscription.is_started = True
        subscription.seq_offset = 100
        subscription.resend_budget = RESENDS_PER_SECOND
        codec = VP8 if publication.name.kind == "video" else OPUS
        numbers = {codec.payload_type, RTX_OF.get(codec.payload_type, codec.payload_type)}
        subscription.payload_types = frozenset(numbers)
        publication.subscriptions.append(subscription)
        publication.targets = (*publication.targets, subscription)
        client.leg.subscriptions[subscription.ssrc] = subscription
        return subscription

    def _hand_over(self, count: int) -> None:
        for buffer, receiver in zip(
            self.outbox.buffers[:count], self.outbox.receivers, strict=False
        ):
            self.sent.append((buffer.view[: buffer.length[0]].tobytes(), receiver.tobytes()))

    def _send_rtcp(self, leg: Leg, data: bytes) -> None:
        self.rtcp += [(leg, packet) for packet in RtcpPacket.parse(data)]

    def _wake(self) -> None:
        self.wakes += 1
