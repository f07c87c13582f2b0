"""A participant with keys who sends what no client would: everyone else's packets go on."""

import struct

from aiortc.rtp import RtcpSrPacket

from bench.fuzz_net import CAMERA_SSRC, rtp
from bench.fuzz_relay import FORM_PLAIN, FORM_RTCP, FORM_RTP, NOBODY, Guarded
from media.feedback import REPORT_SPACING_NS
from media.node import MAX_REPORTERS_PER_LEG, STRANGERS_PER_SECOND
from media.rtp import build_nack, build_pli, build_sender_report
from media.tables import RTCP_BYTES_PER_SECOND
from tests.support.relay import MS, Relay
from tests.support.relay import rtp as packet_of


def a_report(ntp: int = 123 << 32) -> bytes:
    return build_sender_report(1111, ntp_time=ntp, rtp_time=0, packets=1, octets=1, cname="a")


def test_an_ssrc_of_no_section_is_not_remembered() -> None:
    relay = Relay()
    stranger = relay.alice.encrypt.protect(packet_of(1, ssrc=99, payload_type=5))
    relay.receive_encrypted(relay.alice, stranger)
    relay.receive_encrypted(relay.alice, stranger)
    assert relay.router.unroutable == 2  # remembered, it would have been a replay
    assert relay.alice.leg.rejected == 0


def test_what_is_routed_is_remembered_and_cannot_be_replayed() -> None:
    relay = Relay()
    mine = relay.alice.encrypt.protect(packet_of(1))
    relay.receive_encrypted(relay.alice, mine)
    relay.receive_encrypted(relay.alice, mine)
    assert relay.alice.leg.rejected == 1
    assert len(relay.delivered(relay.bob)) == 1


def test_reports_under_ever_new_names_are_refused_and_the_known_ones_heard() -> None:
    guarded = Guarded()
    leg = guarded.room.peers()[0].leg
    for ssrc in range(1, 2 * MAX_REPORTERS_PER_LEG + 1):
        guarded.lay(FORM_RTCP, 0, build_pli(ssrc, 1), 0)
        guarded.take(1)
    assert len(leg.reporters) == MAX_REPORTERS_PER_LEG
    assert leg.rejected == MAX_REPORTERS_PER_LEG
    guarded.lay(FORM_RTP, 0, rtp(1, extension=b"\x11m0"), 0)
    guarded.take(1)
    rejected = leg.rejected
    assert CAMERA_SSRC in leg.sources
    guarded.lay(FORM_RTCP, 0, build_pli(CAMERA_SSRC, 1), 0)
    guarded.lay(FORM_RTCP, 0, build_pli(1, 1), 1)
    guarded.take(2)
    assert leg.rejected == rejected
    guarded.close()


def test_media_from_an_unknown_address_is_tried_a_few_times_a_second_and_counted() -> None:
    guarded = Guarded()
    leg = guarded.room.peers()[0].leg
    guarded.lay(FORM_RTP, 0, rtp(1, extension=b"\x11m0"), 0)
    guarded.take(1)
    for _ in range(2 * STRANGERS_PER_SECOND):
        guarded.lay(FORM_PLAIN, 2, rtp(2) + bytes(40), 0)
        guarded.take(1)
    assert leg.rejected == STRANGERS_PER_SECOND  # so many were tried with the leg's keys
    assert guarded.node.drops["stranger"] == 2 * STRANGERS_PER_SECOND
    assert NOBODY not in guarded.node._by_address
    assert not guarded.node._strays
    guarded.close()


def test_a_datagram_full_of_reports_is_relayed_as_one() -> None:
    relay = Relay()
    tap = relay.record()
    relay.receive(relay.alice, packet_of(1), 0)
    relay.feedback.receive(relay.alice.leg, a_report() * 20, 5 * MS)
    told = [packet for packet in relay.asked(relay.bob) if isinstance(packet, RtcpSrPacket)]
    assert len(told) == 1
    assert len(tap.reports) <= 1
    relay.feedback.receive(relay.alice.leg, a_report(124 << 32), 5 * MS + REPORT_SPACING_NS)
    assert len([p for p in relay.asked(relay.bob) if isinstance(p, RtcpSrPacket)]) == 1


def test_a_flood_of_feedback_is_ignored_until_the_next_second() -> None:
    relay = Relay()
    relay.receive(relay.alice, packet_of(1), 0)
    words = 450
    flood = struct.pack("!BBHII", 0x81, 205, 2 + words, 9, 1) + b"\0\1\xff\xff" * words
    for _ in range(RTCP_BYTES_PER_SECOND // len(flood) + 10):
        relay.feedback.receive(relay.bob.leg, flood, 0)
    assert relay.feedback.excess == 10
    lost = build_nack(1, relay.to_bob.ssrc, [relay.camera.next_seq - 1 + 100 & 0xFFFF])
    relay.feedback.receive(relay.bob.leg, lost, 0)
    assert not relay.repairs
    relay.feedback.report(relay.bob.leg, 1000 * MS)
    relay.feedback.receive(relay.bob.leg, lost, 1000 * MS)
    assert len(relay.repairs) == 1
