"""Clients with payload types of their own: renumbered on arrival, renumbered on the way out, and a
screen's section that shows one publication after another as a single unbroken stream.
"""

from itertools import pairwise

from aiortc.rtp import RTCP_RTPFB_NACK, RtcpRtpfbPacket, RtcpSrPacket

from media.offers import OfferedSection, PairedCodec
from media.outlets import Outlet, is_below_floor
from media.rtp import HEADER, build_sender_report, wrap_rtx
from media.sdp import H264, MID_EXTENSION, OPUS, VP8
from media.tables import Publication, Subscription
from tests.support.relay import MS, SECOND, Relay, rtp

THEIR_H264, THEIR_RTX, THEIR_VP8 = 96, 105, 120
MID = bytes([MID_EXTENSION << 4]) + b"z"


def plug_in_encoder(relay: Relay) -> None:
    """alice is an encoder that was told to send H.264 under the number that is VP8's here."""
    relay.alice.leg.numbers = {THEIR_H264: 102, THEIR_RTX: 103, 111: 111}
    relay.to_bob.payload_types = frozenset({102, 103})


def picture_section(*, has_rtx: bool = True) -> OfferedSection:
    rtx = THEIR_RTX if has_rtx else None
    codec = PairedCodec(VP8, THEIR_VP8, rtx, "", ("nack",))
    return OfferedSection("0", "video", False, True, (codec,), (THEIR_VP8,), ())


def show(relay: Relay, outlet: Outlet, publication: Publication, now_ns: int = 0) -> Subscription:
    """bob is a screen: `outlet` is bound to `publication`, which flows."""
    bound = outlet.bind(publication, relay.bob.leg, now_ns)
    bound.is_started = True
    bound.resend_budget = 10
    publication.targets = ()
    publication.translated = (bound,)
    return bound


def kinds(packets: list[bytes]) -> list[int]:
    return [packet[1] & 0x7F for packet in packets]


def test_an_encoder_s_numbers_become_ours_for_receivers_and_for_the_record() -> None:
    relay = Relay()
    plug_in_encoder(relay)
    tap = relay.record()
    for seq in range(3):
        relay.receive(relay.alice, rtp(seq, payload_type=THEIR_H264), seq * MS)
    assert kinds(relay.delivered(relay.bob)) == [102, 102, 102]
    assert kinds(tap.packets) == [102, 102, 102]
    assert tap.tracks[0][2] is H264


def test_header_extensions_that_nobody_agreed_on_go_no_further() -> None:
    relay = Relay()
    plug_in_encoder(relay)
    relay.receive(relay.alice, rtp(1, payload_type=THEIR_H264, extension=MID, payload=b"whole"))
    (packet,) = relay.delivered(relay.bob)
    assert packet[0] == 0x80
    assert packet[12:] == b"whole"


def test_what_was_not_agreed_on_is_not_routed() -> None:
    relay = Relay()
    plug_in_encoder(relay)
    relay.receive(relay.alice, rtp(1, payload_type=98))
    relay.receive(relay.alice, rtp(2, payload_type=THEIR_H264))
    relay.receive(relay.alice, rtp(3, payload_type=98))
    assert len(relay.delivered(relay.bob)) == 1
    assert relay.router.unroutable == 2


def test_an_encoder_s_repair_fills_its_hole() -> None:
    relay = Relay()
    plug_in_encoder(relay)
    relay.receive(relay.alice, rtp(1, payload_type=THEIR_H264))
    relay.receive(relay.alice, rtp(3, payload_type=THEIR_H264))
    lost = rtp(2, payload_type=THEIR_H264, payload=b"late")
    repair = wrap_rtx(lost, payload_type=THEIR_RTX, ssrc=1112, sequence=1, original=2, timestamp=0)
    relay.receive(relay.alice, repair)
    packets = relay.delivered(relay.bob)
    assert kinds(packets) == [102, 102, 102]
    assert packets[2][12:] == b"late"


def test_a_screen_gets_packets_under_its_own_numbers() -> None:
    relay = Relay()
    outlet = Outlet(picture_section())
    show(relay, outlet, relay.camera)
    relay.receive(relay.alice, rtp(1, extension=MID))
    (packet,) = relay.delivered(relay.bob)
    assert kinds([packet]) == [THEIR_VP8]
    assert packet[0] == 0x80
    assert HEADER.unpack_from(packet)[4] == outlet.ssrc


def test_a_screen_s_losses_are_answered_under_its_own_numbers() -> None:
    for has_rtx, kind in ((True, THEIR_RTX), (False, THEIR_VP8)):
        relay = Relay()
        outlet = Outlet(picture_section(has_rtx=has_rtx))
        show(relay, outlet, relay.camera)
        relay.receive(relay.alice, rtp(1, extension=MID))
        (packet,) = relay.delivered(relay.bob)
        lost = HEADER.unpack_from(packet)[2]
        nack = RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=outlet.ssrc, lost=[lost])
        relay.feedback.receive(relay.bob.leg, bytes(nack), 50 * MS)
        (again,) = relay.repairs
        assert kinds([again]) == [kind]
        if not has_rtx:  # the same number must mean the same bytes under one key
            assert again == packet


def test_a_section_goes_on_with_the_next_publication_as_one_stream() -> None:
    relay = Relay()
    outlet = Outlet(picture_section())
    first = show(relay, outlet, relay.camera)
    for seq in range(5):
        relay.receive(relay.alice, rtp(seq, timestamp=seq * 3600), seq * 40 * MS)
    before = relay.delivered(relay.bob)

    del relay.bob.leg.subscriptions[first.ssrc]
    assert outlet.is_free(relay.bob.leg)
    relay.camera.translated = ()
    other = relay._publish(relay.camera.name, "m9", 3333)
    second = show(relay, outlet, other, now_ns=SECOND)
    assert not outlet.is_free(relay.bob.leg)
    for seq in range(5):
        packet = rtp(seq, ssrc=3333, timestamp=77_000 + seq * 3600)
        relay.receive(relay.alice, packet, SECOND + seq * 40 * MS)
    after = relay.delivered(relay.bob)

    numbers = [HEADER.unpack_from(packet)[2] for packet in before + after]
    assert [(b - a) & 0xFFFF for a, b in pairwise(numbers)] == [1] * 9
    stamps = [HEADER.unpack_from(packet)[3] for packet in before + after]
    # The last picture of the one came at 160 ms, the first of the other at 1 s.
    assert (stamps[5] - stamps[4]) & 0xFFFFFFFF == 90 * 840
    assert {HEADER.unpack_from(packet)[4] for packet in before + after} == {outlet.ssrc}
    assert second.ssrc == first.ssrc


def test_nothing_from_before_it_was_bound_leaves_by_an_outlet() -> None:
    relay = Relay()
    outlet = Outlet(picture_section())
    target = outlet.bind(relay.camera, relay.bob.leg, 0)
    target.floor = 65_530
    assert is_below_floor(target, 65_529)
    assert not is_below_floor(target, 65_530)
    assert not is_below_floor(target, 4)
    assert is_below_floor(target, 65_000)
    assert not is_below_floor(target, 2_000)  # far ahead: the old numbers are nowhere any more
    assert not is_below_floor(target, 65_000)


def test_sender_reports_reach_a_screen_on_its_own_clock() -> None:
    relay = Relay()
    outlet = Outlet(picture_section())
    target = show(relay, outlet, relay.camera)
    target.timestamp_offset = 500
    relay.receive(relay.alice, rtp(1, timestamp=1000))
    (packet,) = relay.delivered(relay.bob)
    report = build_sender_report(
        1111, ntp_time=1 << 40, rtp_time=1000, packets=1, octets=7, cname="box"
    )
    relay.feedback.receive(relay.alice.leg, report, MS)
    (sent,) = [p for p in relay.asked(relay.bob) if isinstance(p, RtcpSrPacket)]
    assert sent.ssrc == outlet.ssrc
    assert sent.sender_info.rtp_timestamp == HEADER.unpack_from(packet)[3]


def test_sound_has_no_repairs_of_its_own() -> None:
    codec = PairedCodec(OPUS, 96, None, OPUS.fmtp, ())
    outlet = Outlet(OfferedSection("1", "audio", False, True, (codec,), (96,), ()))
    assert outlet.rtx_ssrc == 0
    assert outlet.numbers == {111: 96}
