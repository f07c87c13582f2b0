"""The relay's tables: plain data that the hot loop walks, with no behaviour to speak of.

    Leg ──sources──▶ Source ──▶ Publication ──targets──▶ Subscription ──▶ Leg
    (one transport)  (one SSRC)  (a live track)           (its forwarding)  (of the receiver)

peer.py fills them, router.py and feedback.py walk them. They are mutable, slotted and free of
properties on purpose: a lookup here happens for every packet, and the fast lane in C walks the same
tables; the numbers that it changes lie in their bases (media/numbers.py). All times are monotonic
nanoseconds; all numbers of RTP are taken modulo their width.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from core.ids import ParticipantId
from media.bitrate import Downlink, Uplink
from media.events import MediaEvent
from media.freezes import Stillness
from media.ice import Credentials
from media.numbers import LegNumbers, PublicationNumbers, SourceNumbers, SubscriptionNumbers
from media.socket import Address
from media.srtp import SrtpSession
from media.taps import PartyTap
from media.tracks import CodecInfo, TrackName

# Two seconds of a 2.5 Mbit/s picture and ten of sound. Powers of two: the slot is a mask of the
# sequence number, and a new packet overwrites the one that long ago held its slot.
VIDEO_CACHE_PACKETS: Final = 512
AUDIO_CACHE_PACKETS: Final = 512

# Of one client, in a second: twenty times what a bad line needs. Reading a NACK for 8,000 packets
# takes 0.7 ms; beyond this the newest is ignored, unread.
RTCP_BYTES_PER_SECOND: Final = 128 * 1024

CachedPacket = tuple[int, int, bytes]
"""(publication's sequence number, publication's timestamp, the packet as it was received)."""


class Leg(LegNumbers):
    """One transport of one participant: an ICE name, a DTLS association, a pair of SRTP keys."""

    __slots__ = (
        "address",
        "allowed_at_ns",
        "back_at_ns",
        "bytes_out",
        "connected_at_ns",
        "consent_at_ns",
        "credentials",
        "declared",
        "declared_repairs",
        "downlink",
        "inbound",
        "local_ssrc",
        "loss_in",
        "notify",
        "number",
        "numbers",
        "outbound",
        "packets_out",
        "participant_id",
        "publications",
        "refresh",
        "remote_ufrag",
        "repairs",
        "reporters",
        "round_trip_ns",
        "rtcp_budget",
        "rx",
        "sources",
        "srtp_profile",
        "subscriptions",
        "tap",
        "tx",
        "uplink",
    )

    def __init__(
        self,
        participant_id: ParticipantId,
        number: int,
        credentials: Credentials,
        *,
        notify: Callable[[MediaEvent], None],
        refresh: Callable[["Publication"], None],
        now_ns: int,
    ) -> None:
        self.participant_id = participant_id
        self.number = number
        self.credentials = credentials
        self.notify = notify
        self.refresh = refresh  # choose a publication's targets anew (Peer.refresh)
        self.remote_ufrag: str | None = None  # known from the answer on
        # Where to send; set by ice.AddressBook alone, from authenticated checks.
        self.address: Address | None = None
        self.is_connected = False
        self.connected_at_ns = 0
        self.srtp_profile = ""
        # libsrtp's handles (Any: cffi), None until DTLS is through; the sessions keep them alive.
        self.rx: Any = None
        self.tx: Any = None
        self.inbound: SrtpSession | None = None
        self.outbound: SrtpSession | None = None
        self.local_ssrc = random_ssrc()  # speaks for us in RTCP
        self.tap: PartyTap | None = None
        # What this client may send: mid → publication, and what its answer said about SSRCs.
        self.publications: dict[str, Publication] = {}
        self.declared: dict[int, str] = {}
        self.declared_repairs: dict[int, int] = {}
        # Its payload types → ours, for a client that offered (media/offers.py); None: it uses ours.
        self.numbers: Mapping[int, int] | None = None
        # What it does send: media SSRC → source; RTX SSRC → the source that it repairs.
        self.sources: dict[int, Source] = {}
        self.repairs: dict[int, Source] = {}
        # What we send to it: our media SSRC → subscription (feedback names streams so).
        self.subscriptions: dict[int, Subscription] = {}
        # The SSRCs under which it has sent RTCP (node.py bounds them), and what it may still send
        # of it in this second, in bytes (feedback.py).
        self.reporters: set[int] = set()
        self.rtcp_budget = RTCP_BYTES_PER_SECOND
        self.last_packet_ns = now_ns
        self.back_at_ns = 0  # when the latest silence was broken; 0 = it has not been yet
        self.consent_at_ns = now_ns
        self.packets_in = 0
        self.bytes_in = 0
        self.packets_out = 0  # of ended subscriptions and repairs; living ones count themselves
        self.bytes_out = 0
        self.rejected = 0  # failed SRTP authentication, replayed, or of no use
        self.round_trip_ns = 0  # 0 = not measured yet
        self.loss_in = 0.0  # fraction lost on the way to us, over the last report interval
        # How fast its client may send, how fast it can receive (media/bitrate.py).
        self.uplink = Uplink()
        self.downlink = Downlink()
        self.allowed_at_ns = 0  # when it was last told (REMB); 0 = never


class Publication(PublicationNumbers):
    """A participant's live track. It keeps its identity, numbering and clock across legs."""

    __slots__ = (
        "cache",
        "is_live",
        "is_muted",
        "keyframe_asked_ns",
        "keyframe_due_ns",
        "keyframe_from_seq",
        "keyframe_missed_seq",
        "mid",
        "name",
        "participant_id",
        "sought_seq",
        "source",
        "stillness",
        "subscriptions",
        "targets",
        "translated",
    )

    def __init__(self, participant_id: ParticipantId, name: TrackName, mid: str) -> None:
        self.participant_id = participant_id
        self.name = name
        self.mid = mid  # the same in every peer's description
        self.source: Source | None = None  # what feeds it at present
        self.is_live = False  # the room has been let live
        self.is_muted = False
        # Live and not muted: only then is a packet forwarded or recorded (the gate, T7).
        self.is_open = False
        self.subscriptions: list[Subscription] = []
        # The subscriptions that can take a packet this instant; empty while the gate is shut.
        self.targets: tuple[Subscription, ...] = ()
        # The same for those with payload types of their own, which are served apart.
        self.translated: tuple[Subscription, ...] = ()
        # Forwarded numbering, one unbroken line over legs, mutes and SSRC changes.
        self.next_seq = secrets.randbits(14)
        self.next_timestamp = secrets.randbits(32)
        self.last_arrival_ns = 0
        size = AUDIO_CACHE_PACKETS if name.kind == "audio" else VIDEO_CACHE_PACKETS
        self.cache: list[CachedPacket | None] = [None] * size
        self.cache_mask = size - 1
        self.keyframe_asked_ns = -(10**18)  # long ago
        self.keyframe_due_ns = 0  # 0 = nobody is waiting for one to be asked for
        # What will do: one that begins at the first of these numbers or later (somebody got nothing
        # before), and ends at the second or later (somebody has missed what came until then).
        self.keyframe_from_seq = self.next_seq
        self.keyframe_missed_seq = self.next_seq
        self.stillness = Stillness()
        self.sought_seq = self.next_seq  # up to where a keyframe has been looked for
        self.is_speaking = False
        self.loud_packets = 0
        self.loud_until_ns = 0


class Source(SourceNumbers):
    """One media SSRC on one leg, and how its numbers map onto the publication's."""

    __slots__ = (
        "advanced_at_anchor",
        "advanced_reported",
        "codec",
        "extension_head",
        "first_seq",
        "has_nack",
        "holes",
        "leg",
        "nack_budget",
        "overtaken",
        "publication",
        "received_reported",
        "received_sampled",
        "recovered",
        "report_arrival_ns",
        "report_ntp",
        "ssrc",
        "unrecovered",
    )

    def __init__(
        self, ssrc: int, leg: Leg, publication: Publication, codec: CodecInfo, first_seq: int
    ) -> None:
        self.ssrc = ssrc
        self.leg = leg
        self.publication = publication
        self.codec = codec
        self.payload_type = codec.payload_type
        self.clock_rate = codec.clock_rate
        self.has_nack = True
        self.track_index = -1  # the recorder's; -1 = not opened there
        # source number + offset = publication number; set when the first packet passes the gate.
        self.is_anchored = False
        self.seq_offset = 0
        self.timestamp_offset = 0
        # Reception (RFC 3550 §6.4.1, A.3): `advanced` counts numbers passed, `received` packets.
        self.first_seq = first_seq
        self.next_seq = first_seq
        self.advanced = 0
        self.advanced_at_anchor = 0
        self.received = 0
        self.recovered = 0  # came by retransmission
        self.unrecovered = 0  # given up
        self.overtaken = 0  # of these, pictures that a keyframe had already replaced
        self.advanced_reported = 0
        self.received_reported = 0
        self.received_sampled = 0
        self.jitter = 0.0  # in timestamp units
        self.transit = 0
        self.last_timestamp = -1
        self.report_ntp = 0  # of the last sender report; 0 = none yet
        self.report_arrival_ns = 0
        # Missing numbers: sequence → [first seen missing, last asked, times asked].
        self.holes: dict[int, list[int]] = {}
        self.nack_budget = 0
        # Where the one header extension that we use sat last time (see router.py).
        self.extension_id = 0
        self.extension_head = b""
        self.extension_at = 0


class Subscription(SubscriptionNumbers):
    """The forwarding of one publication to one leg."""

    __slots__ = (
        "floor",
        "has_nack",
        "is_resumed",
        "is_started",
        "is_wanted",
        "leg",
        "loss",
        "numbers",
        "paused_at_ns",
        "paused_seq",
        "payload_types",
        "publication",
        "report_ntp_middle",
        "report_sent_ns",
        "reported_ns",
        "resend_budget",
        "resent",
        "rtx_seq",
        "timestamp_offset",
    )

    def __init__(self, publication: Publication, leg: Leg) -> None:
        self.publication = publication
        self.leg = leg
        self.ssrc = random_ssrc()
        self.rtx_ssrc = random_ssrc() if publication.name.kind == "video" else 0
        self.rtx_seq = secrets.randbits(14)
        self.is_wanted = False  # the client's answer takes it
        self.payload_types: frozenset[int] = frozenset()
        self.has_nack = True
        # publication number + offset = number on this wire. Fixed at the first packet; chosen anew
        # after a pause, ahead of every number used: under one key a number must always mean the
        # same bytes (AES-GCM, RFC 7714 §8).
        self.is_started = False
        self.seq_offset = 0
        # Only for a client that offered (media/outlets.py). Our payload types → its own; None: it
        # uses ours. What was shown before under this SSRC ended at `timestamp_offset`; numbers of
        # the publication before `floor` belong to that time (-1: so long ago that none can come).
        self.numbers: Mapping[int, int] | None = None
        self.timestamp_offset = 0
        self.floor = -1
        # While nothing is forwarded here: the number that was next on this wire, and the arrival of
        # the publication's last packet before; -1 while it flows.
        self.paused_seq = -1
        self.paused_at_ns = 0
        self.is_resumed = False  # after a pause, and its receiver has not said yet that it saw it
        self.packets = 0
        self.octets = 0
        self.resent = 0
        self.resend_budget = 0
        self.loss = 0.0  # as the receiver reports it
        self.report_ntp_middle = 0
        self.report_sent_ns = 0
        self.reported_ns = 0  # when the receiver last reported


def random_ssrc() -> int:
    """A fresh SSRC; never 0, which means "none" here."""
    return secrets.randbits(32) or 1
