"""RTCP both ways: repairs, keyframes, reports and how fast a sender may send.

    from receivers   NACK → answered here from the publication's cache; PLI, FIR → one request to
                     the publisher per 500 ms; RR → loss and round trip; REMB → its share
    to publishers    NACK for our own holes, PLI, RR once a second, REMB
    from publishers  SR → to the recorder, and to every receiver under its own SSRC

Nothing here is per packet. Each answer that a client could provoke without end has a budget per
second; beyond it the request is ignored, as if the datagram had been lost. `poll` does what is due
by now; the node calls it every few milliseconds while there is something to wait for.
"""

from collections.abc import Callable
from typing import Final

import structlog
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
    clamp_packets_lost,
)

from media.bitrate import Downlink, Uplink, share_bps, slowest_bps
from media.keyframes import has_keyframe, newest_keyframe
from media.outlets import in_their_numbers, is_below_floor
from media.rtp import (
    HEADER,
    abs_send_time,
    build_nack,
    build_pli,
    build_receiver_report,
    build_remb,
    build_sender_report,
    find_extension,
    ntp_middle,
    parse_rtcp,
    read_remb,
    wrap_rtx,
)
from media.sdp import ABS_SEND_TIME_EXTENSION, RTX_OF
from media.tables import RTCP_BYTES_PER_SECOND, Leg, Publication, Source, Subscription
from media.taps import MarkKind

log = structlog.get_logger(__name__)

MS: Final = 1_000_000  # nanoseconds
SECOND: Final = 1_000_000_000

SEEKABLE_EVERY_NS: Final = 10 * SECOND
# On a thin line a keyframe is a fifth of a second of queue, in which the sound stands.
SEEKABLE_THIN_EVERY_NS: Final = 30 * SECOND
# A keyframe is ten times a delta frame: at most two a second per publication, whoever asks.
KEYFRAME_INTERVAL_NS: Final = 500 * MS
# A keyframe that was asked for and is not there by then is asked for again.
KEYFRAME_PATIENCE_NS: Final = 1 * SECOND
# One that begins sooner after we asked is the answer. It is not looked for after a longer time.
KEYFRAME_ANSWER_NS: Final = 5 * SECOND
# While one comes in: how soon we look again, and after how long without a packet it is given up.
KEYFRAME_COMING_NS: Final = 50 * MS
KEYFRAME_STUCK_NS: Final = 300 * MS
# Reordering on real lines is a few milliseconds; asking sooner asks for what is on its way.
NACK_PATIENCE_NS: Final = 8 * MS
NACK_RETRY_NS: Final = 40 * MS
NACK_TRIES: Final = 10
NACK_GIVE_UP_NS: Final = 1 * SECOND
# Per source and second. Under CPU starvation NACKs storm; beyond this we rather lose a frame.
NACKS_PER_SECOND: Final = 300
# Per subscription and second: 500 packets of 1,200 bytes are 4.8 Mbit/s, twice a good picture.
RESENDS_PER_SECOND: Final = 500
# Between two reports a client is told of a lower rate at once, but not more often than this.
ALLOW_EVERY_NS: Final = 200 * MS
# Clients report every second or so. One datagram holds 65 reports, each of which would go on to
# every receiver and into the journal: what comes sooner than this says nothing new.
REPORT_SPACING_NS: Final = 100 * MS
# What is older is past for whoever listens. A browser that gets old sound plays all that follows as
# late as that, in case more should come, and its picture with it.
PAST_S: Final = 1
# While the line is full, repairs of the picture would only make it fuller.
NACKS_WHEN_CONGESTED: Final = 20


class Feedback:
    """Reads and writes RTCP for every leg of a node.

    `send_rtcp(leg, data)` encrypts and sends; `send_rtp(leg, data)` does that for a repair;
    `wake()` asks for `poll` to be called soon.
    """

    def __init__(
        self,
        send_rtcp: Callable[[Leg, bytes], None],
        send_rtp: Callable[[Leg, bytes], None],
        wake: Callable[[], None],
    ) -> None:
        self._send_rtcp = send_rtcp
        self._send_rtp = send_rtp
        self._wake = wake
        self._sources_with_holes: dict[int, Source] = {}  # by id(); bounded by the sources alive
        self._waiting_for_keyframe: dict[int, Publication] = {}
        self.malformed = 0
        self.excess = 0  # ignored unread: beyond the second's budget

    # -- Incoming ----------------------------------------------------------------------------

    def receive(self, leg: Leg, data: bytes, arrival_ns: int) -> None:
        """One decrypted RTCP datagram. Malformed ones are counted and ignored whole."""
        leg.rtcp_budget -= len(data)
        if leg.rtcp_budget < 0:
            self.excess += 1
            return
        try:
            packets = parse_rtcp(data)
        except ValueError:
            self.malformed += 1
            return
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                source = leg.sources.get(packet.ssrc)
                if source is not None:
                    self._relay_sender_report(source, packet.sender_info, arrival_ns)
                self._note_reports(leg, packet.reports, arrival_ns)
            elif isinstance(packet, RtcpRrPacket):
                self._note_reports(leg, packet.reports, arrival_ns)
            elif isinstance(packet, RtcpRtpfbPacket):
                if packet.fmt == RTCP_RTPFB_NACK:
                    self._resend(leg, packet, arrival_ns)
            elif isinstance(packet, RtcpPsfbPacket):
                self._payload_feedback(leg, packet, arrival_ns)
            # SDES and BYE say nothing that signaling does not say with authority.

    def _relay_sender_report(self, source: Source, info: RtcpSenderInfo, now_ns: int) -> None:
        publication = source.publication
        if source.report_ntp and now_ns - source.report_arrival_ns < REPORT_SPACING_NS:
            return
        source.report_ntp = info.ntp_timestamp
        source.report_arrival_ns = now_ns
        if not publication.is_open:
            return
        tap = source.leg.tap
        if tap is not None and source.track_index >= 0:
            tap.rtcp_sr(source.track_index, info.ntp_timestamp, info.rtp_timestamp, now_ns)
        if not source.is_anchored or publication.source is not source:
            return
        rtp_time = (info.rtp_timestamp + source.timestamp_offset) & 0xFFFFFFFF
        for target in (*publication.targets, *publication.translated):
            report = build_sender_report(
                target.ssrc,
                ntp_time=info.ntp_timestamp,
                rtp_time=(rtp_time + target.timestamp_offset) & 0xFFFFFFFF,
                packets=target.packets,
                octets=target.octets,
                cname=publication.participant_id,
            )
            target.report_ntp_middle = ntp_middle(info.ntp_timestamp)
            target.report_sent_ns = now_ns
            self._send_rtcp(target.leg, report)

    def _note_reports(self, leg: Leg, reports: list[RtcpReceiverInfo], now_ns: int) -> None:
        for report in reports:
            target = leg.subscriptions.get(report.ssrc)
            if target is None or report.ssrc != target.ssrc:
                continue
            # It tells of the time since the one before. Of sound that may be seven seconds.
            reaches_back = leg.downlink.is_excused(target.reported_ns)
            target.loss = 0.0 if reaches_back else report.fraction_lost / 256
            target.reported_ns = now_ns
            if report.lsr and report.lsr == target.report_ntp_middle:
                target.report_ntp_middle = 0  # named again it would tell of the same, past moment
                held_ns = report.dlsr * SECOND >> 16
                round_trip_ns = now_ns - target.report_sent_ns - held_ns
                if 0 <= round_trip_ns < 10 * SECOND:
                    leg.round_trip_ns = round_trip_ns
                    leg.downlink.round_trip(round_trip_ns / MS, leg.uplink.queue_ms, now_ns)

    def _payload_feedback(self, leg: Leg, packet: RtcpPsfbPacket, now_ns: int) -> None:
        if packet.fmt == RTCP_PSFB_PLI:
            self._keyframe_for(leg, packet.media_ssrc, now_ns)
        elif packet.fmt == RTCP_PSFB_FIR:  # RFC 5104 §4.3.1: the streams stand in the entries
            for at in range(0, len(packet.fci) - 7, 8):
                self._keyframe_for(leg, int.from_bytes(packet.fci[at : at + 4], "big"), now_ns)
        elif packet.fmt == RTCP_PSFB_APP:
            estimate_bps = read_remb(packet)
            if estimate_bps is not None and leg.downlink.estimated(estimate_bps, now_ns):
                self._slow_senders_to(leg, now_ns)

    def _keyframe_for(self, leg: Leg, ssrc: int, now_ns: int) -> None:
        target = leg.subscriptions.get(ssrc)
        if target is None:
            return
        if target.is_resumed:
            target.is_resumed = False  # it saw the numbers jump; the keyframe is asked for already
        else:
            target.publication.keyframe_missed_seq = target.publication.next_seq
            self._request(target.publication, now_ns)

    def _resend(self, leg: Leg, nack: RtcpRtpfbPacket, now_ns: int) -> None:
        target = leg.subscriptions.get(nack.media_ssrc)
        if target is None or nack.media_ssrc != target.ssrc:
            return
        publication = target.publication
        for lost in nack.lost[: len(publication.cache)]:
            if target.resend_budget <= 0:
                return
            wanted = (lost - target.seq_offset) & 0xFFFF
            kept = publication.cache[wanted & publication.cache_mask]
            # What we miss ourselves is on its way from the publisher, if it comes at all.
            if kept is None or kept[0] != wanted or not publication.is_open:
                continue
            if is_below_floor(target, wanted) or is_past(publication, kept[1]):
                continue
            target.resend_budget -= 1
            target.resent += 1
            self._send_again(target, lost & 0xFFFF, kept[1], kept[2], now_ns)

    def _send_again(
        self, target: Subscription, seq: int, timestamp: int, packet: bytes, now_ns: int
    ) -> None:
        repair_type = RTX_OF.get(packet[1] & 0x7F, 0)
        if target.numbers is not None:
            translated = in_their_numbers(packet, target.numbers)
            if translated is None:
                return
            packet = translated
            repair_type = target.numbers.get(repair_type, 0)
            timestamp = (timestamp + target.timestamp_offset) & 0xFFFFFFFF
        if not target.rtx_ssrc:
            again = bytearray(packet)
            HEADER.pack_into(again, 0, packet[0], packet[1], seq, timestamp, target.ssrc)
            self._send_rtp(target.leg, bytes(again))
            return
        again = bytearray(
            wrap_rtx(
                packet,
                payload_type=repair_type,
                ssrc=target.rtx_ssrc,
                sequence=target.rtx_seq,
                original=seq,
                timestamp=timestamp,
            )
        )
        target.rtx_seq = (target.rtx_seq + 1) & 0xFFFF
        stamp = find_extension(packet, ABS_SEND_TIME_EXTENSION)
        if stamp is not None and stamp[1] == 3:
            again[stamp[0] : stamp[0] + 3] = abs_send_time(now_ns)
        self._send_rtp(target.leg, bytes(again))

    # -- Towards publishers ------------------------------------------------------------------

    def want_keyframe(self, publication: Publication, now_ns: int) -> None:
        """Someone needs a keyframe that begins from here on."""
        publication.keyframe_from_seq = publication.next_seq
        self._request(publication, now_ns)

    def ask_anew(self, publication: Publication) -> None:
        """What was asked for so far has come to nobody: the next request need not wait."""
        publication.keyframe_asked_ns = -(10**18)
        publication.keyframe_due_ns = min(publication.keyframe_due_ns, 1)

    def _request(self, publication: Publication, now_ns: int) -> None:
        """Ask for a keyframe now, or when 500 ms have passed since we last asked."""
        if publication.name.kind != "video" or publication.keyframe_due_ns:
            return
        publication.keyframe_due_ns = max(
            now_ns, publication.keyframe_asked_ns + KEYFRAME_INTERVAL_NS
        )
        self._waiting_for_keyframe[id(publication)] = publication
        self._ask_for_keyframe(publication, now_ns)
        if publication.keyframe_due_ns:
            self._wake()

    def _ask_for_keyframe(self, publication: Publication, now_ns: int) -> None:
        if now_ns < publication.keyframe_due_ns:
            return
        newest = None
        if now_ns - publication.keyframe_asked_ns < KEYFRAME_ANSWER_NS:
            newest = newest_keyframe(publication)
        if newest is not None and newest.is_coming:
            if now_ns - publication.last_arrival_ns < KEYFRAME_STUCK_NS:
                # Through a thin line it takes a second. Those who wait for the rest ask again and
                # again, and each further one would stand in its sender's queue before the pictures.
                publication.keyframe_due_ns = now_ns + KEYFRAME_COMING_NS
                return
        elif newest is not None and newest.will_do(publication):
            del self._waiting_for_keyframe[id(publication)]
            publication.keyframe_due_ns = 0
            return
        del self._waiting_for_keyframe[id(publication)]
        publication.keyframe_due_ns = 0
        source = publication.source
        if source is None or not source.leg.is_connected:
            return  # a stream begins with a keyframe by itself
        publication.keyframe_asked_ns = now_ns
        self._send_rtcp(source.leg, build_pli(source.leg.local_ssrc, source.ssrc))
        tap = source.leg.tap
        if tap is not None and source.track_index >= 0:
            tap.mark(MarkKind.KEYFRAME_REQUESTED, now_ns, source.track_index)

    def watch(self, source: Source) -> None:
        """`source` has holes; ask for them until they are filled or given up."""
        self._sources_with_holes[id(source)] = source
        self._wake()

    def poll(self, now_ns: int) -> bool:
        """Do what is due: NACKs, delayed keyframe requests. Whether there is more to wait for."""
        for source in list(self._sources_with_holes.values()):
            self._ask_for_holes(source, now_ns)
            if not source.holes:
                del self._sources_with_holes[id(source)]
        for publication in list(self._waiting_for_keyframe.values()):
            self._ask_for_keyframe(publication, now_ns)
        return bool(self._sources_with_holes or self._waiting_for_keyframe)

    def _ask_for_holes(self, source: Source, now_ns: int) -> None:
        publication = source.publication
        if publication.source is not source or not publication.is_open:
            source.holes.clear()
            return
        retry_ns = max(NACK_RETRY_NS, source.leg.round_trip_ns * 5 // 4)
        ask: list[int] = []
        given_up: list[int] = []
        for seq, hole in list(source.holes.items()):
            seen_ns, asked_ns, tries = hole
            if now_ns - seen_ns > NACK_GIVE_UP_NS or tries >= NACK_TRIES:
                del source.holes[seq]
                source.unrecovered += 1
                given_up.append((seq + source.seq_offset) & 0xFFFF)
            elif (
                source.nack_budget > 0
                and now_ns - seen_ns >= NACK_PATIENCE_NS
                and now_ns - asked_ns >= retry_ns
            ):
                hole[1], hole[2] = now_ns, tries + 1
                source.nack_budget -= 1
                ask.append(seq)
        if given_up and publication.name.kind == "video":
            self._give_up(source, given_up, now_ns)
        if ask and source.has_nack:
            # Sorted as plain numbers: the encoding packs neighbours and knows no wrap-around.
            self._send_rtcp(source.leg, build_nack(source.leg.local_ssrc, source.ssrc, sorted(ask)))

    def _give_up(self, source: Source, numbers: list[int], now_ns: int) -> None:
        """The recording as well as every receiver is stuck until the next whole picture, unless it
        has come meanwhile."""
        newest = newest_keyframe(source.publication)
        if newest is not None:
            overtaken = sum((newest.first_seq - seq) & 0xFFFF < 0x8000 for seq in numbers)
            source.overtaken += overtaken
            if overtaken == len(numbers):
                return
        self.want_keyframe(source.publication, now_ns)

    def _keep_seekable(self, source: Source, now_ns: int) -> None:
        """A reviewer's seek lands on a keyframe; without asking, Chromium sends one in minutes."""
        leg = source.leg
        is_recorded = leg.tap is not None and source.track_index >= 0
        every_ns = SEEKABLE_THIN_EVERY_NS if leg.uplink.is_thin(now_ns) else SEEKABLE_EVERY_NS
        if is_recorded and now_ns - source.publication.keyframe_asked_ns > every_ns:
            self.want_keyframe(source.publication, now_ns)

    # -- How fast ----------------------------------------------------------------------------

    def sample(self, leg: Leg, now_ns: int) -> None:
        """A few times a second: is a queue growing on the client's line to us, does a picture of
        its stand still?"""
        for publication in leg.publications.values():
            if publication.name.kind == "video":
                self._look_at(publication, now_ns)
        lost, transits_ms = 0, {}
        for source in leg.sources.values():
            if source.publication.source is source:
                lost += source.advanced - source.received
                if source.received != source.received_sampled:
                    source.received_sampled = source.received
                    transits_ms[source.ssrc] = source.transit * 1000 / source.clock_rate
        is_changed = leg.uplink.sample(
            now_ns,
            packets=leg.packets_in,
            octets=leg.bytes_in,
            lost=lost,
            transits_ms=transits_ms,
        )
        if not transits_ms:
            return
        if is_changed or not leg.allowed_at_ns:
            # The first word comes early: a browser believes it whole only in its first two seconds.
            self._allow(leg, now_ns)

    def _look_at(self, publication: Publication, now_ns: int) -> None:
        stillness, source = publication.stillness, publication.source
        if not publication.is_open or source is None or not publication.last_arrival_ns:
            stillness.pause(now_ns)
            return
        stillness.look(
            now_ns,
            stream=source.ssrc,
            unrecovered=source.unrecovered - source.overtaken,
            last_arrival_ns=publication.last_arrival_ns,
            has_keyframe=stillness.is_broken and has_keyframe(publication, publication.sought_seq),
        )
        publication.sought_seq = publication.next_seq
        if stillness.is_broken and now_ns - publication.keyframe_asked_ns > KEYFRAME_PATIENCE_NS:
            self.want_keyframe(publication, now_ns)  # the request or the picture was lost

    def _allow(self, leg: Leg, now_ns: int) -> None:
        """Tell the client how fast its pictures may be, between reports."""
        if now_ns - leg.allowed_at_ns >= ALLOW_EVERY_NS:
            allowance = _allowance(leg, now_ns)
            if allowance:
                leg.allowed_at_ns = now_ns
                self._send_rtcp(leg, allowance)

    def remind(self, leg: Leg, now_ns: int) -> None:
        """It sends more than anybody was allowed: say once more what that is."""
        self._allow(leg, now_ns)

    def _slow_senders_to(self, leg: Leg, now_ns: int) -> None:
        """The line to `leg` has become thinner: whoever it watches hears of it now."""
        repairs = leg.downlink.repairs(now_ns, RESENDS_PER_SECOND)
        for subscription in leg.subscriptions.values():
            if subscription.publication.name.kind == "video":
                subscription.resend_budget = min(subscription.resend_budget, repairs)
                source = subscription.publication.source
                if source is not None and source.leg.is_connected:
                    self._allow(source.leg, now_ns)

    def _review_downlink(self, leg: Leg, now_ns: int) -> None:
        """Once a second: hold pictures back from a line that cannot carry them beside the sound,
        or let them through again; and how many repairs it can take."""
        videos = [s for s in leg.subscriptions.values() if s.publication.name.kind == "video"]
        has_changed = leg.downlink.second(
            now_ns,
            video_octets=sum(s.octets for s in videos),
            loss=max((s.loss for s in leg.subscriptions.values()), default=0.0),
        )
        repairs = leg.downlink.repairs(now_ns, RESENDS_PER_SECOND)
        for subscription in leg.subscriptions.values():
            is_picture = subscription.publication.name.kind == "video"
            subscription.resend_budget = repairs if is_picture else RESENDS_PER_SECOND
        if has_changed:
            log.info(
                "media_picture_held" if leg.downlink.is_held else "media_picture_resumed",
                participant_id=leg.participant_id,
            )
            for subscription in videos:
                leg.refresh(subscription.publication)

    # -- Once a second -----------------------------------------------------------------------

    def report(self, leg: Leg, now_ns: int) -> None:
        """The second's report to one client: what arrived of its streams, how fast it may send."""
        leg.rtcp_budget = RTCP_BYTES_PER_SECOND
        self._review_downlink(leg, now_ns)
        current = [s for s in leg.sources.values() if s.publication.source is s]
        expected = sum(s.advanced - s.advanced_reported for s in current)
        received = sum(s.received - s.received_reported for s in current)
        leg.loss_in = max(0.0, 1 - received / expected) if expected else 0.0
        reports = [_receiver_report(source, now_ns) for source in current]
        for source in current:
            is_full = leg.uplink.is_congested and source.publication.name.kind == "video"
            source.nack_budget = NACKS_WHEN_CONGESTED if is_full else NACKS_PER_SECOND
            source.advanced_reported = source.advanced
            source.received_reported = source.received
            self._keep_seekable(source, now_ns)
        if not reports:
            return
        leg.uplink.second(now_ns, leg.loss_in)
        data = build_receiver_report(leg.local_ssrc, reports, "reception")
        allowance = _allowance(leg, now_ns)
        if allowance:
            leg.allowed_at_ns = now_ns
        self._send_rtcp(leg, data + allowance)

    def forgive(self, leg: Leg) -> None:
        """What the next report would call lost on the way to us was lost here: we stood still, and
        our socket was full. Reported it would halve the sender's rate; the numbers begin anew."""
        for source in leg.sources.values():
            expected = source.advanced - source.advanced_reported
            lost = expected - (source.received - source.received_reported)
            if lost > 0:
                source.first_seq += lost
                source.advanced -= lost

    def allow_start(self, leg: Leg) -> None:
        """A client has just connected: nothing is known of its line yet."""
        leg.uplink, leg.downlink = Uplink(), Downlink()


def is_past(publication: Publication, timestamp: int) -> bool:
    """Whether that moment of the stream is too long ago for anybody to hear or see it."""
    if publication.source is None:
        return False
    behind = (publication.next_timestamp - timestamp) & 0xFFFFFFFF
    return PAST_S * publication.source.clock_rate < behind < 0x80000000


def _allowance(leg: Leg, now_ns: int) -> bytes:
    """The REMB for a client's pictures: what its line carries, and what its receivers can take."""
    videos = [
        s
        for s in leg.sources.values()
        if s.publication.source is s and s.publication.name.kind == "video"
    ]
    if not videos:
        return b""
    taken_bps = sum(_receivers_limit(source.publication, now_ns) for source in videos)
    ssrcs = [source.ssrc for source in videos]
    return build_remb(leg.local_ssrc, min(leg.uplink.rate_bps, taken_bps), ssrcs)


def _receivers_limit(publication: Publication, now_ns: int) -> int:
    """What the slowest receiver of this video can take, its line shared evenly by its videos."""
    limits = []
    for subscription in publication.subscriptions:
        leg = subscription.leg
        if subscription.is_wanted and leg.is_connected and leg.downlink.is_asking(now_ns):
            videos = [
                s
                for s in leg.subscriptions.values()
                if s.is_wanted and s.publication.name.kind == "video" and s.publication.is_open
            ]
            limits.append(share_bps(leg.downlink.limit_bps(now_ns), len(videos)))
    return slowest_bps(limits)


def _receiver_report(source: Source, now_ns: int) -> RtcpReceiverInfo:
    """RFC 3550 §6.4.1 for one source, since the last report."""
    expected = source.advanced - source.advanced_reported
    lost = expected - (source.received - source.received_reported)
    fraction = min(255, max(0, lost * 256 // expected)) if expected > 0 else 0
    since_ns = now_ns - source.report_arrival_ns
    return RtcpReceiverInfo(
        ssrc=source.ssrc,
        fraction_lost=fraction,
        packets_lost=clamp_packets_lost(source.advanced - source.received),
        highest_sequence=(source.first_seq + source.advanced - 1) & 0xFFFFFFFF,
        jitter=int(source.jitter) & 0xFFFFFFFF,
        lsr=ntp_middle(source.report_ntp),
        dlsr=min((since_ns << 16) // SECOND, 0xFFFFFFFF) if source.report_ntp else 0,
    )
