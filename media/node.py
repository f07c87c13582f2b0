"""MediaNode: one UDP port, the guard in front of it, and the rooms behind it.

The guard decides by length and first byte (RFC 7983) before any parser sees a datagram:

    0..3      STUN   answered only if authenticated; the only way for an address to become known
    20..63    DTLS   only from a known address
    128..191  RTP, RTCP (second byte 192..223)   only from a known address whose keys are set;
              RTP also from an unknown one, some, if a known participant's keys open it

Everything else, from whomever, is dropped silently and counted in `drops`.
"""

import asyncio
import contextlib
import gc
import sys
from collections import Counter
from collections.abc import Callable, Sequence

import structlog
from aioice.ice import get_host_addresses

from core.clock import Clock
from core.ids import ParticipantId, RoomId
from media.bitrate import LeftInflows
from media.dtls import DtlsAssociation, fingerprint_of, new_certificate
from media.events import MediaEvent
from media.feedback import Feedback
from media.ice import AddressBook, Check, Credentials, Freshness, answer_check
from media.peer import Offer, OfferedTrack, Peer
from media.rota import Rota
from media.router import Router
from media.sdp import VIDEO_CODECS, SdpRefused, StaleAnswer
from media.socket import RECEIVE_SLOTS, Address, MediaSocket, host_and_port
from media.srtp import (
    MAX_PLAIN_BYTES,
    PacketBuffer,
    SrtpSession,
    protect,
    protect_rtcp,
    unprotect_rtcp,
)
from media.stats import PeerStats
from media.tables import Leg, Publication
from media.taps import Recorder
from media.tracks import CodecInfo, TrackName

__all__ = [
    "MediaNode",
    "MediaRoom",
    "Offer",
    "OfferedTrack",
    "Peer",
    "PeerStats",
    "SdpRefused",
    "StaleAnswer",
    "be_prompt",
]

log = structlog.get_logger(__name__)

# Every peer has one of so many turns a second for reports and estimates, and is looked at in each
# fifth: that soon a silence is noticed, and its end told.
TURNS = 50
LOOK_TURNS = 5
TURN_S = 1 / TURNS
PEERS_TOGETHER = 10  # a millisecond and a half
# What a held-up loop makes up for; older turns are let go.
MAX_LATE_S = 0.2
# Beyond this the process has stood still, and what waits in the socket is from before.
HALT_NS = 1_000_000_000
# A node so full that its socket never runs empty has taken in what waited after so long.
CATCH_UP_NS = 1_000_000_000
# Granularity of NACK retries and delayed keyframe requests, only while there are any.
POLL_S = 0.01
MIN_RTP_BYTES = 12
MIN_RTCP_BYTES = 8
# SSRCs under which one client reports: its streams' and a few more. The newest are refused.
MAX_REPORTERS_PER_LEG = 32
# Packets a second from unknown addresses that may turn out not to be anybody's.
STRANGERS_PER_SECOND = 200
# Goodbyes of closed associations that may be in flight at shutdown.
CLOSE_TIMEOUT_S = 2.0
# A thread that computes may hold the interpreter this long before the media loop gets its turn;
# Python's own 5 ms would be felt in every call (docs/decisions/0004-the-media-plane.md).
SWITCH_INTERVAL_S = 0.0005


def be_prompt() -> None:
    """Make this whole process one that packets need not wait for. Called once, when it has started.

    What has been loaded by then stays until the end, so the collector need not walk it again and
    again in the middle of calls. Nor now: a thousand objects are garbage, and to find them takes a
    tenth of the time for which talks wait for a killed server.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()


class MediaNode:
    """The media plane of one process. Made by `start`, ended by `aclose`."""

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        self._clock = clock
        self._socket = MediaSocket(host, port, self._datagrams)
        self.port = self._socket.port
        self.addresses: Sequence[tuple[str, int]] = ()
        self.video_codecs: Sequence[CodecInfo] = tuple(VIDEO_CODECS.values())
        self._certificate = new_certificate()
        self.fingerprint = fingerprint_of(self._certificate)
        self.drops: Counter[str] = Counter()
        self._strangers_left = STRANGERS_PER_SECOND
        # ICE name → where its media has come from since, unless a check has said so already.
        self._strays: dict[str, Address] = {}
        self._legs_by_ufrag: dict[str, Leg] = {}
        self._dtls_by_ufrag: dict[str, DtlsAssociation] = {}
        self._book: AddressBook[Leg] = AddressBook()
        self._rooms: dict[RoomId, MediaRoom] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.feedback = Feedback(self._send_rtcp, self._send_repair, self._wake)
        self._router = Router(self._socket.outbox, self.feedback)
        self._poll_handle: asyncio.TimerHandle | None = None
        self.rota: Rota[Peer] = Rota(TURNS, together=PEERS_TOGETHER)
        self._caretaker: asyncio.Task[None] | None = None
        self.now_ns: Callable[[], int] = clock.monotonic_ns
        self.left_inflows = LeftInflows()
        # After a halt, until what had waited for us meanwhile is taken in.
        self.is_behind = False
        self._behind_since_ns = 0
        self._alive_ns = self.now_ns()
        # Whose next packet ends a silence, and is to be noted to the millisecond.
        self._silent: set[Leg] = set()
        # Looked up once per packet; the book keeps this very dict.
        self._by_address = self._book.by_address
        if self._router.lane is not None:
            self._router.lane.listen(
                fd=self._socket.fd,
                incoming=self._socket.messages_address,
                slots=RECEIVE_SLOTS,
                outgoing=self._socket.outbox.messages_address,
                most_bytes=MAX_PLAIN_BYTES,
                by_address=self._by_address,
            )
            self._socket.relay_with(self._relay)

    @classmethod
    async def start(
        cls,
        *,
        host: str,
        port: int,
        public_addresses: Sequence[str],
        clock: Clock,
        video_codecs: Sequence[str] = tuple(VIDEO_CODECS),
    ) -> "MediaNode":
        """Bind `host`:`port` (0 = any free port) and be ready.

        `public_addresses` are what clients should send to; empty means what the machine has, and
        127.0.0.1. `video_codecs`: keys of sdp.VIDEO_CODECS, preferred first; what is not named is
        not offered. Raises OSError if the port cannot be bound.
        """
        node = cls(host, port, clock)
        node.video_codecs = [VIDEO_CODECS[name] for name in video_codecs]
        addresses = list(public_addresses) or _local_addresses(host)
        node.addresses = [(address, node.port) for address in addresses]
        node._caretaker = asyncio.create_task(node._look_after_peers(), name="media rota")
        log.info("media_node_started", port=node.port, addresses=len(addresses))
        return node

    def open_room(self, room_id: RoomId) -> "MediaRoom":
        """The media of one room, empty and not live."""
        room = MediaRoom(self, room_id)
        self._rooms[room_id] = room
        return room

    async def aclose(self) -> None:
        """End every room, say goodbye to every client, free the port."""
        for room in list(self._rooms.values()):
            await room.end()
        if self._caretaker is not None:
            self._caretaker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._caretaker
        if self._poll_handle is not None:
            self._poll_handle.cancel()
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_TIMEOUT_S)
        self._socket.close()
        log.info("media_node_stopped", drops=dict(self.drops))

    def counters(self) -> dict[str, int]:
        """Everything that was not forwarded, by reason."""
        lane = self._router.lane
        return {
            **self.drops,
            "send": self._socket.sent_dropped + (lane.dropped if lane is not None else 0),
            "unprotectable": self._router.unprotectable,
            "unroutable": self._router.unroutable,
            "rtcp_malformed": self.feedback.malformed,
            "rtcp_excess": self.feedback.excess,
        }

    # -- The guard: once per datagram --------------------------------------------------------

    def _relay(self, others: int, timeout_s: float | None) -> tuple[int, int, int] | None:
        """Wait in C. The end of a halt, or of a silence, is Python's business."""
        lane = self._router.lane
        assert lane is not None
        timeout_ns = -1 if timeout_s is None else max(int(timeout_s * 1_000_000_000), 0)
        is_usual = not (self._silent or self.is_behind)
        return lane.relay(others, timeout_ns, self._alive_ns + HALT_NS if is_usual else 0)

    def _datagrams(self, count: int, at: int, now_ns: int) -> None:
        if now_ns - self._alive_ns > HALT_NS:
            self._fall_behind(now_ns)
        self._take_in(count, at, now_ns)
        if self._silent:
            self._note_signs(now_ns)
        if self.is_behind and count < RECEIVE_SLOTS:  # nothing waits any more
            self._go_on(now_ns)

    def _note_signs(self, now_ns: int) -> None:
        """Peers are looked at ten times a second at best: whose silence these datagrams ended is
        noted when they come, on the clock of the record."""
        back = [leg for leg in self._silent if leg.last_packet_ns == now_ns]
        for leg in back:
            leg.back_at_ns = now_ns
            self._silent.discard(leg)

    def _take_in(self, count: int, at: int, now_ns: int) -> None:
        """Media first. A report or a check takes as long as several pictures do, and the batch that
        it came with would be as late: what came of its media leaves before that is looked at."""
        lane = self._router.lane
        messages, by_address = self._socket.messages_address, self._by_address
        patient: list[int] = []
        while at < count:
            left = at
            if lane is not None:
                left = lane.forward_batch(messages, at, count, MAX_PLAIN_BYTES, by_address, now_ns)
            if left < count:
                if self._can_wait(left):
                    patient.append(left)
                else:
                    self._in_python(left, now_ns)
            at = left + 1
        if patient:
            self._socket.outbox.flush()
            for at in patient:
                self._in_python(at, now_ns)

    def _can_wait(self, at: int) -> bool:
        """Whether it is RTCP or STUN of a client whose media flows. While it is still connecting,
        what comes next may be understood only after this."""
        view = self._socket.received[at].view
        if 4 <= view[0] < 128 or (view[0] >= 128 and not 192 <= view[1] < 224):
            return False
        leg = self._by_address.get(self._socket.senders[at].tobytes())
        return leg is not None and leg.is_connected

    def _in_python(self, at: int, now_ns: int) -> None:
        """One datagram, whatever it is."""
        buffer = self._socket.received[at]
        length = buffer.length[0]
        if not MIN_RTCP_BYTES <= length < MAX_PLAIN_BYTES:
            self.drops["short" if length < MIN_RTCP_BYTES else "oversized"] += 1
            return
        view = buffer.view
        first = view[0]
        address = self._socket.senders[at].tobytes()
        if 128 <= first < 192:
            leg = self._by_address.get(address)
            if leg is None:
                self._stranger(buffer, length, address, now_ns)
            elif leg.rx is None or not leg.is_connected:
                self.drops["stranger"] += 1
            elif 192 <= view[1] < 224:  # RFC 5761 §4: RTCP on the same port
                self._rtcp(leg, buffer, now_ns)
            elif length < MIN_RTP_BYTES:
                self.drops["short"] += 1
            else:
                self._router.receive(leg, buffer, now_ns)
        elif first < 4:
            self._stun(bytes(view[:length]), address, now_ns)
        elif 20 <= first < 64:
            self._dtls(bytes(view[:length]), address, now_ns)
        else:
            self.drops["unknown_kind"] += 1

    def _stranger(self, buffer: PacketBuffer, length: int, address: Address, now_ns: int) -> None:
        """Media from an unknown address: taken if its keys prove whose it is, else dropped.

        A router that was restarted moves every flow to a new port without a word, and the client's
        next check may be 2.5 s away; until then its voice must not be lost. The address stays
        unknown: only a check makes it one that we send to, or speak DTLS with.
        """
        if length >= MIN_RTP_BYTES and self._strangers_left > 0:
            ssrc = int.from_bytes(buffer.view[8:12], "big")
            for leg in self._legs_by_ufrag.values():
                if ssrc in leg.sources and leg.is_connected:
                    rejected = leg.rejected
                    self._router.receive(leg, buffer, now_ns)
                    if leg.rejected == rejected:
                        self._strays[leg.credentials.ufrag] = address
                        return
                    break
            self._strangers_left -= 1
        self.drops["stranger"] += 1

    def _dtls(self, data: bytes, address: Address, now_ns: int) -> None:
        leg = self._by_address.get(address)
        if leg is None:
            self.drops["stranger"] += 1
            return
        leg.last_packet_ns = now_ns
        self._dtls_by_ufrag[leg.credentials.ufrag].feed(data)

    def _stun(self, data: bytes, address: Address, now_ns: int) -> None:
        check = answer_check(data, host_and_port(address), self._password_of)
        if check is None:
            self.drops["stun_refused"] += 1
            return
        leg = self._legs_by_ufrag[check.ufrag]
        if leg.remote_ufrag not in (None, check.remote_ufrag):
            self.drops["stun_refused"] += 1
            return
        if check.accepted:
            freshness = self._book.freshness(leg, check.transaction, address, now_ns)
            if freshness is Freshness.REPLAYED:
                self.drops["stun_replayed"] += 1
                return
            leg.last_packet_ns = leg.consent_at_ns = now_ns
            if freshness is Freshness.NEW:
                self._prove(leg, check, address, now_ns)
        self._socket.send(check.response, address)

    def _prove(self, leg: Leg, check: Check, address: Address, now_ns: int) -> None:
        # Not every client nominates again what it believes to be the same path.
        has_moved = self._strays.pop(check.ufrag, None) == address
        if self._book.prove(leg, address, nominated=check.nominated or has_moved):
            self._dtls_by_ufrag[check.ufrag].path_found()
            log.debug("media_address", participant_id=leg.participant_id, leg=leg.number)
            if leg.is_connected:
                self._renew_pictures(leg, now_ns)

    def _renew_pictures(self, leg: Leg, now_ns: int) -> None:
        """What went to the old address is lost, and more of it than repairs could bring back."""
        for subscription in leg.subscriptions.values():
            if subscription.publication.is_open:
                self.feedback.want_keyframe(subscription.publication, now_ns)

    def _password_of(self, ufrag: str) -> str | None:
        leg = self._legs_by_ufrag.get(ufrag)
        return leg.credentials.password if leg is not None else None

    def _rtcp(self, leg: Leg, buffer: PacketBuffer, now_ns: int) -> None:
        if unprotect_rtcp(leg.rx, buffer.cdata, buffer.length):
            leg.rejected += 1
            return
        reporter = int.from_bytes(buffer.view[4:8], "big")
        if reporter not in leg.reporters:
            if len(leg.reporters) >= MAX_REPORTERS_PER_LEG and reporter not in leg.sources:
                assert leg.inbound is not None
                leg.inbound.forget(reporter)
                leg.rejected += 1
                return
            leg.reporters.add(reporter)
        leg.last_packet_ns = now_ns
        if self.is_behind:
            return  # it tells of round trips that we made long, and asks for what is past
        self.feedback.receive(leg, bytes(buffer.view[: buffer.length[0]]), now_ns)

    # -- Sending -----------------------------------------------------------------------------

    def _send_rtcp(self, leg: Leg, data: bytes) -> None:
        self._send_protected(leg, data, protect_rtcp)

    def _send_repair(self, leg: Leg, data: bytes) -> None:
        leg.packets_out += 1
        leg.bytes_out += len(data)
        self._send_protected(leg, data, protect)

    def _send_protected(
        self, leg: Leg, data: bytes, encrypt: Callable[[object, object, object], int]
    ) -> None:
        address = leg.address
        if not leg.is_connected or address is None or len(data) > MAX_PLAIN_BYTES:
            return
        buffer = self._socket.outbox.room()
        buffer.view[: len(data)] = data
        buffer.length[0] = len(data)
        if encrypt(leg.tx, buffer.cdata, buffer.length):
            self._router.unprotectable += 1
            return
        self._socket.outbox.post(address)

    # -- Time --------------------------------------------------------------------------------

    async def _look_after_peers(self) -> None:
        """Silence, consent and reports, and how many strangers may still be heard this second."""
        loop = asyncio.get_running_loop()
        turn, due_s = 0, loop.time()
        while True:
            ahead = min(self.rota.wait(turn, LOOK_TURNS), LOOK_TURNS)
            turn = (turn + ahead) % TURNS
            due_s = max(due_s + ahead * TURN_S, loop.time() - MAX_LATE_S)
            await asyncio.sleep(due_s - loop.time())
            self._keep_alive(self.now_ns())
            if turn < ahead:  # a new second
                self._strangers_left = STRANGERS_PER_SECOND
            reporting = self.rota.whose(turn)
            for peer in self.rota.whose(turn, LOOK_TURNS):
                try:
                    peer.check(self.now_ns())
                    if peer in reporting:
                        peer.every_second(self.now_ns())
                except Exception:
                    # One peer's surprise must not end everybody's reports.
                    log.exception("media_peer_failed", participant_id=peer.participant_id)

    def _keep_alive(self, now_ns: int) -> None:
        """The loop runs. Did it stand still since the last time, and is that over?"""
        if now_ns - self._alive_ns > HALT_NS:
            self._fall_behind(now_ns)
        elif self.is_behind and now_ns - self._behind_since_ns > CATCH_UP_NS:
            self._go_on(now_ns)
        self._alive_ns = now_ns

    def _fall_behind(self, now_ns: int) -> None:
        """The process stood still (a stopped machine, a paused guest). Seconds of media wait in the
        socket: they belong into the record. To receivers they would come in one burst that fills
        their sockets, and show a picture of the past."""
        log.warning("media_stood_still", halted_ms=(now_ns - self._alive_ns) // 1_000_000)
        self._alive_ns = self._behind_since_ns = now_ns
        self.is_behind = True
        self._review_peers(now_ns)

    def _go_on(self, now_ns: int) -> None:
        self.is_behind = False
        self._review_peers(now_ns)

    def _review_peers(self, now_ns: int) -> None:
        for room in self._rooms.values():
            for peer in room.peers():
                peer.halt_noticed(now_ns)

    def _wake(self) -> None:
        if self._poll_handle is None:
            self._poll_handle = asyncio.get_running_loop().call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        self._poll_handle = None
        if self.feedback.poll(self.now_ns()):
            self._wake()

    # -- What peers need (peer.Transports) ---------------------------------------------------

    def attach(
        self,
        leg: Leg,
        on_connected: Callable[[SrtpSession, SrtpSession, str], None],
        on_closed: Callable[[str], None],
    ) -> DtlsAssociation:
        """Make `leg` reachable by its ICE name and give it a DTLS association."""

        def send(datagram: bytes) -> None:
            if leg.address is not None:
                self._socket.send(datagram, leg.address)

        dtls = DtlsAssociation(
            self._certificate, send=send, on_connected=on_connected, on_closed=on_closed
        )
        self._legs_by_ufrag[leg.credentials.ufrag] = leg
        self._dtls_by_ufrag[leg.credentials.ufrag] = dtls
        return dtls

    def detach(self, leg: Leg, dtls: DtlsAssociation) -> None:
        """Forget `leg`; its DTLS goodbye is sent in the background."""
        task = asyncio.create_task(self._close_leg(leg, dtls), name="dtls close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_leg(self, leg: Leg, dtls: DtlsAssociation) -> None:
        try:
            await dtls.aclose()
        finally:
            self._book.forget(leg)
            self._legs_by_ufrag.pop(leg.credentials.ufrag, None)
            self._dtls_by_ufrag.pop(leg.credentials.ufrag, None)
            self._strays.pop(leg.credentials.ufrag, None)
            self._silent.discard(leg)

    def rename(self, leg: Leg, credentials: Credentials) -> None:
        """An ICE restart: checks under the leg's old name are strangers' from now on, while media
        keeps flowing between the addresses that are proven."""
        old, new = leg.credentials.ufrag, credentials.ufrag
        self._legs_by_ufrag[new] = self._legs_by_ufrag.pop(old)
        self._dtls_by_ufrag[new] = self._dtls_by_ufrag.pop(old)
        leg.credentials = credentials

    def await_sign(self, leg: Leg) -> None:
        """Note in `leg.back_at_ns` when the next datagram of this client comes."""
        leg.back_at_ns = 0
        self._silent.add(leg)

    def open_track(self, publication: Publication) -> None:
        """Open the recorder's track for a publication that has begun to flow."""
        if publication.source is not None:
            self._router.open_track(publication.source)

    def forget_room(self, room_id: RoomId) -> None:
        self._rooms.pop(room_id, None)


class MediaRoom:
    """The media of one room: its peers, who publishes what, and whether it flows."""

    def __init__(self, node: MediaNode, room_id: RoomId) -> None:
        self.room_id = room_id
        self.is_live = False
        self.recorder: Recorder | None = None
        self._node = node
        self._peers: dict[ParticipantId, Peer] = {}
        self._mids: dict[tuple[ParticipantId, TrackName], str] = {}

    def add_peer(
        self,
        participant_id: ParticipantId,
        *,
        label: str,
        publishes: Sequence[TrackName],
        on_event: Callable[[MediaEvent], None],
        role: str = "",
    ) -> Peer:
        """A participant's media. Fetch its first `offer()`; the others are told by OfferNeeded.

        `label` and `role` go into the recording's header. One peer per participant: for a new
        transport of the same one there is `Peer.new_leg`.
        """
        assert participant_id not in self._peers, "one peer per participant"
        peer = Peer(
            self,
            self._node,
            participant_id,
            label=label,
            role=role,
            publishes=publishes,
            on_event=on_event,
            inflow=self._node.left_inflows.take(participant_id),
        )
        self._peers[participant_id] = peer
        self._node.rota.add(peer)
        if self.is_live:
            peer.go_live()
        self.publications_changed(peer)
        return peer

    def remove_peer(self, participant_id: ParticipantId) -> None:
        """The participant has left. Unknown ids are fine: leaving twice is leaving."""
        peer = self._peers.pop(participant_id, None)
        if peer is not None:
            self._node.rota.remove(peer)
            peer.leave()
            self._node.left_inflows.keep(participant_id, peer.inflow, self._node.now_ns())
            self.publications_changed(peer)

    def go_live(self, recorder: Recorder | None) -> None:
        """Open the gate: from now on packets are forwarded and, with a recorder, recorded."""
        if self.is_live:
            return
        self.is_live = True
        self.recorder = recorder
        for peer in self._peers.values():
            peer.go_live()

    def record(self, recorder: Recorder) -> None:
        """Record from now on a live room that had no recorder. What was before is not in the
        recording, and each journal says so. A room that has ended meanwhile takes none."""
        if not self.is_live:
            return
        self.recorder = recorder
        for peer in self._peers.values():
            peer.record_from_now()

    async def end(self) -> None:
        """Stop forwarding and recording and let every client go. Whoever made the recorder seals
        it, after this returns: no packet reaches it any more."""
        self.is_live = False
        for participant_id in list(self._peers):
            peer = self._peers.pop(participant_id)
            self._node.rota.remove(peer)
            peer.leave()
            self._node.left_inflows.keep(participant_id, peer.inflow, self._node.now_ns())
        self.recorder = None
        self._node.forget_room(self.room_id)

    def peers(self) -> list[Peer]:
        """Who is here, in the order in which they came."""
        return list(self._peers.values())

    def stats(self) -> list[PeerStats]:
        return [peer.stats() for peer in self._peers.values()]

    # -- What peers and the node need --------------------------------------------------------

    def publications(self) -> Sequence[Publication]:
        """Every live track of the room, in the order in which participants came."""
        return [p for peer in self._peers.values() for p in peer.published.values()]

    def role_of(self, participant_id: ParticipantId) -> str:
        peer = self._peers.get(participant_id)
        return peer.role if peer is not None else ""

    def mid_of(self, participant_id: ParticipantId, name: TrackName) -> str:
        """The track's mid, the same in every description and for the room's whole life."""
        return self._mids.setdefault((participant_id, name), f"m{len(self._mids)}")

    def publications_changed(self, by: Peer) -> None:
        for peer in self._peers.values():
            if peer is not by:
                peer.offer_needed()

    def takers(self, of: Peer) -> Sequence[frozenset[int]]:
        """What each of the others can show, of those about whom it is known."""
        return [peer.takes for peer in self._peers.values() if peer is not of and peer.takes]

    def abilities_changed(self, by: Peer) -> None:
        for peer in self._peers.values():
            if peer is not by:
                peer.review_codecs()


def _local_addresses(host: str) -> list[str]:
    """Where a client may find a socket bound to `host`, best first."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104 — compared, not bound
        return [host]
    return [*get_host_addresses(use_ipv4=host != "::", use_ipv6=host == "::"), "127.0.0.1"]
