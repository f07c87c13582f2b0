"""The hot loop and its feedback: rewriting, continuity, repairs, the gate, coalesced requests."""

import pytest
from aiortc.rtp import (
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
)

from media.bitrate import VIDEO_CAP_BPS, VIDEO_FLOOR_BPS, Uplink
from media.events import SpeakingChanged, TrackStarted
from media.fastlane import built_as
from media.feedback import (
    KEYFRAME_INTERVAL_NS,
    NACK_GIVE_UP_NS,
    NACK_PATIENCE_NS,
    NACK_RETRY_NS,
    RESENDS_PER_SECOND,
)
from media.journal import MarkKind
from media.router import MAX_SOURCES_PER_LEG
from media.rtp import HEADER, build_nack, build_pli, build_remb, ntp_middle, read_remb, wrap_rtx
from media.sdp import H264, OPUS, VP8
from media.tracks import TrackName
from tests.support.relay import MS, SECOND, Client, Relay, rtp

LEVEL_ID, STAMP_ID = 2, 3
# VP8's descriptor, its frame tag and its start code, 320 x 240.
KEYFRAME_BEGINS = b"\x10" + bytes([0x10, 0, 0]) + b"\x9d\x01\x2a" + b"\x40\x01\xf0\x00"


@pytest.fixture(params=["python", "c"])
def relay(request: pytest.FixtureRequest) -> Relay:
    """The router alone, and with the lane in front of it that takes the common case."""
    if request.param == "c" and built_as() is None:
        pytest.skip("the lane in C is not built here")
    return Relay(is_in_c=request.param == "c")


def numbers(packet: bytes) -> tuple[int, int, int]:
    """(sequence, timestamp, ssrc)"""
    _, _, seq, timestamp, ssrc = HEADER.unpack_from(packet)
    return seq, timestamp, ssrc


def sequences(packets: list[bytes]) -> list[int]:
    return [numbers(packet)[0] for packet in packets]


def nacked(relay: Relay, client: Client) -> list[int]:
    """What `client` has been asked to send again."""
    return [
        number
        for packet in relay.asked(client)
        if isinstance(packet, RtcpRtpfbPacket)
        for number in packet.lost
    ]


def sound(seq: int, *, level: int = 127, timestamp: int = 0) -> bytes:
    extension = bytes([LEVEL_ID << 4, level])
    return rtp(
        seq,
        timestamp=timestamp,
        ssrc=2222,
        payload_type=OPUS.payload_type,
        payload=b"sound",
        extension=extension,
    )


# -- Forwarding ----------------------------------------------------------------------------------


def test_a_packet_keeps_all_but_its_numbers_and_ssrc(relay: Relay) -> None:
    packet = bytearray(rtp(500, timestamp=9000, payload=b"a picture"))
    packet[1] |= 0x80  # the marker of a frame's end
    relay.receive(relay.alice, bytes(packet))
    (forwarded,) = relay.delivered(relay.bob)
    assert forwarded[0:2] == packet[0:2]
    assert forwarded[12:] == b"a picture"
    assert numbers(forwarded)[2] == relay.to_bob.ssrc


def test_steps_of_sequence_and_timestamp_are_kept(relay: Relay) -> None:
    for seq, timestamp in [(65_534, 0xFFFFFF00), (65_535, 0xFFFFFF00), (0, 0x00000BB8)]:
        relay.receive(relay.alice, rtp(seq, timestamp=timestamp))
    first, second, third = map(numbers, relay.delivered(relay.bob))
    assert (second[0] - first[0], third[0] - second[0]) == (1, 1)
    assert second[1] == first[1]
    assert (third[1] - second[1]) & 0xFFFFFFFF == 0xCB8


def test_the_sender_does_not_hear_itself(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    assert relay.delivered(relay.alice) == []


def test_sound_and_picture_go_to_their_own_streams(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    relay.receive(relay.alice, sound(1))
    assert [numbers(p)[2] for p in relay.delivered(relay.bob)] == [
        relay.to_bob.ssrc,
        relay.sound_to_bob.ssrc,
    ]
    assert relay.alice.events == [
        TrackStarted(TrackName.CAMERA),
        TrackStarted(TrackName.MICROPHONE),
    ]


def test_a_new_ssrc_continues_the_same_numbers_and_clock(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(500, timestamp=9000), 0)
    relay.alice.leg.declared[3333] = "m0"
    relay.receive(relay.alice, rtp(60_000, timestamp=77, ssrc=3333), 2 * SECOND)
    before, after = map(numbers, relay.delivered(relay.bob))
    assert after[0] == (before[0] + 1) & 0xFFFF
    assert after[2] == before[2]
    assert (after[1] - before[1]) & 0xFFFFFFFF in (0, 2 * VP8.clock_rate)


def test_the_clock_of_a_new_leg_runs_on_by_the_time_that_passed(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(500, timestamp=9000), 1 * SECOND)
    relay.alice.leg.declared[3333] = "m0"
    relay.receive(relay.alice, rtp(60_000, timestamp=77, ssrc=3333), 3 * SECOND)
    before, after = map(numbers, relay.delivered(relay.bob))
    assert (after[1] - before[1]) & 0xFFFFFFFF == 2 * VP8.clock_rate


def test_a_replaced_ssrc_is_heard_no_more(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(500))
    relay.alice.leg.declared[3333] = "m0"
    relay.receive(relay.alice, rtp(1, ssrc=3333))
    relay.delivered(relay.bob)
    relay.receive(relay.alice, rtp(501))
    assert relay.delivered(relay.bob) == []


def test_a_stream_is_known_by_its_mid_when_the_answer_named_no_ssrc(relay: Relay) -> None:
    relay.alice.leg.declared.clear()
    relay.receive(relay.alice, rtp(1, ssrc=9, extension=b"\x11m0"))
    assert numbers(relay.delivered(relay.bob)[0])[2] == relay.to_bob.ssrc


def test_an_ssrc_of_no_section_is_not_routed(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1, ssrc=9, extension=b"\x11m7"))
    relay.receive(relay.alice, rtp(1, ssrc=1111, payload_type=0))
    assert relay.sent == []
    assert relay.router.unroutable == 2


def test_an_ssrc_storm_ends_at_the_limit(relay: Relay) -> None:
    for ssrc in range(5000, 5000 + 3 * MAX_SOURCES_PER_LEG):
        relay.receive(relay.alice, rtp(1, ssrc=ssrc, extension=b"\x11m0"))
    assert len(relay.alice.leg.sources) == MAX_SOURCES_PER_LEG


def test_a_codec_change_reopens_the_track_and_goes_on(relay: Relay) -> None:
    tap = relay.record()
    relay.receive(relay.alice, rtp(1))
    relay.receive(relay.alice, rtp(2, payload_type=H264.payload_type))
    assert [codec.mime for _, _, codec in tap.tracks] == ["video/VP8", "video/H264"]
    assert len(relay.delivered(relay.bob)) == 2


def test_a_late_packet_does_not_change_the_codec_back(relay: Relay) -> None:
    tap = relay.record()
    for seq, codec in [(1, VP8), (3, H264), (2, VP8), (4, H264)]:
        relay.receive(relay.alice, rtp(seq, payload_type=codec.payload_type))
    assert [codec.mime for _, _, codec in tap.tracks] == ["video/VP8", "video/H264"]
    assert [HEADER.unpack_from(p)[1] & 0x7F for p in relay.delivered(relay.bob)] == [
        codec.payload_type for codec in (VP8, H264, H264)
    ]


def test_forged_and_replayed_packets_are_counted_and_go_nowhere(relay: Relay) -> None:
    data = relay.alice.encrypt.protect(rtp(1))
    relay.receive_encrypted(relay.alice, data[:-1] + bytes([data[-1] ^ 1]))
    relay.receive_encrypted(relay.alice, data)
    relay.receive_encrypted(relay.alice, data)
    assert len(relay.delivered(relay.bob)) == 1
    assert relay.alice.leg.rejected == 2


def test_the_send_time_is_ours(relay: Relay) -> None:
    extension = bytes([STAMP_ID << 4 | 2, 1, 2, 3])
    for seq, now_ns in [(1, 1 * SECOND), (2, 3 * SECOND)]:
        relay.receive(relay.alice, rtp(seq, extension=extension), now_ns)
    stamps = [packet[17:20] for packet in relay.delivered(relay.bob)]
    assert stamps == [(1 << 18).to_bytes(3, "big"), (3 << 18).to_bytes(3, "big")]


# -- The gate ------------------------------------------------------------------------------------


def test_nothing_passes_a_shut_gate_nor_reaches_the_recorder(relay: Relay) -> None:
    tap = relay.record()
    relay.camera.is_open = False
    relay.receive(relay.alice, rtp(1))
    assert relay.sent == []
    assert tap.packets == []


def test_no_hole_is_left_where_the_gate_was_shut(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    relay.camera.is_open = False
    for seq in range(2, 400):
        relay.receive(relay.alice, rtp(seq), 0)
    relay.camera.is_open = True
    relay.alice.leg.sources[1111].is_anchored = False  # as Peer.refresh does
    relay.receive(relay.alice, rtp(400), 0)
    before, after = sequences(relay.delivered(relay.bob))
    assert after == before + 1
    relay.feedback.poll(SECOND)
    assert nacked(relay, relay.alice) == []


def test_a_straggler_from_before_the_gate_opened_stays_out(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    relay.camera.is_open = False
    relay.receive(relay.alice, rtp(3))
    relay.camera.is_open = True
    relay.alice.leg.sources[1111].is_anchored = False
    relay.receive(relay.alice, rtp(4))
    relay.delivered(relay.bob)
    relay.receive(relay.alice, rtp(2))
    assert relay.delivered(relay.bob) == []


# -- The recorder --------------------------------------------------------------------------------


def test_the_recorder_gets_packets_as_they_came(relay: Relay) -> None:
    tap = relay.record()
    packets = [rtp(1, timestamp=5), rtp(2, timestamp=5)]
    for packet in packets:
        relay.receive(relay.alice, packet)
    assert tap.packets == packets
    assert [(ssrc, name) for ssrc, name, _ in tap.tracks] == [(1111, TrackName.CAMERA)]


def test_the_recorder_gets_repairs_as_the_packets_they_repair(relay: Relay) -> None:
    tap = relay.record()
    lost = rtp(2, timestamp=5, payload=b"lost")
    relay.receive(relay.alice, rtp(1, timestamp=5))
    relay.receive(relay.alice, rtp(3, timestamp=5))
    relay.receive(relay.alice, repair(lost))
    assert tap.packets[-1] == lost


# -- Repairs -------------------------------------------------------------------------------------


def repair(packet: bytes, *, rtx_seq: int = 1) -> bytes:
    """What alice sends when asked for `packet` again."""
    seq, timestamp, _ = numbers(packet)
    return wrap_rtx(
        packet, payload_type=97, ssrc=1112, sequence=rtx_seq, original=seq, timestamp=timestamp
    )


def test_our_own_holes_are_asked_for_after_a_little_patience_and_again(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    relay.refill_budgets()
    relay.receive(relay.alice, rtp(4), 0)
    assert relay.wakes == 1
    assert relay.feedback.poll(NACK_PATIENCE_NS - 1)
    assert nacked(relay, relay.alice) == []
    relay.feedback.poll(NACK_RETRY_NS)
    assert nacked(relay, relay.alice) == [2, 3]
    relay.feedback.poll(NACK_RETRY_NS + 1 * MS)
    assert nacked(relay, relay.alice) == []
    relay.feedback.poll(2 * NACK_RETRY_NS)
    assert nacked(relay, relay.alice) == [2, 3]


def test_a_filled_hole_is_not_asked_for(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(65_535), 0)
    relay.refill_budgets()
    relay.receive(relay.alice, rtp(1), 0)
    relay.receive(relay.alice, rtp(0, payload=b"late"), 1 * MS)
    assert not relay.feedback.poll(SECOND // 2)
    assert nacked(relay, relay.alice) == []
    assert relay.alice.leg.sources[1111].recovered == 1
    assert relay.delivered(relay.bob)[-1][12:] == b"late"


def test_a_repair_takes_its_place_in_the_forwarded_stream(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    relay.receive(relay.alice, rtp(3))
    relay.receive(relay.alice, repair(rtp(2, payload=b"found")))
    first, third, second = relay.delivered(relay.bob)
    assert sequences([second, third]) == [
        (numbers(first)[0] + 1) & 0xFFFF,
        (numbers(first)[0] + 2) & 0xFFFF,
    ]
    assert second[12:] == b"found"


def test_a_repair_of_what_was_not_missing_is_dropped(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    relay.receive(relay.alice, repair(rtp(1)))
    relay.receive(relay.alice, repair(rtp(9), rtx_seq=2))  # from the future
    assert len(relay.delivered(relay.bob)) == 1


def test_a_hole_that_stays_costs_a_keyframe_request(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    relay.receive(relay.alice, rtp(3), 0)
    assert not relay.feedback.poll(NACK_GIVE_UP_NS + 1)
    assert any(isinstance(p, RtcpPsfbPacket) and p.fmt == 1 for p in relay.asked(relay.alice))
    assert relay.alice.leg.sources[1111].unrecovered == 1


def test_a_keyframe_that_does_not_come_is_asked_for_again_and_one_that_comes_thaws_the_picture(
    relay: Relay,
) -> None:
    relay.refill_budgets()
    relay.receive(relay.alice, rtp(1), MS)
    relay.receive(relay.alice, rtp(3), MS)
    stillness = relay.camera.stillness
    asked = []
    for at_ms in range(250, 4000, 250):
        relay.receive(relay.alice, rtp(3 + at_ms // 250), at_ms * MS)
        relay.feedback.poll(at_ms * MS)
        relay.feedback.sample(relay.alice.leg, at_ms * MS)
        asked += [at_ms for p in relay.asked(relay.alice) if isinstance(p, RtcpPsfbPacket)
                  and p.fmt == 1]  # fmt: skip
    assert stillness.is_broken
    assert len(asked) >= 2
    relay.receive(relay.alice, rtp(19, payload=KEYFRAME_BEGINS), 4000 * MS)
    relay.feedback.sample(relay.alice.leg, 4000 * MS)
    assert not stillness.is_broken
    assert stillness.freezes == 1
    assert stillness.frozen_ms > 1000


def reported_losses(relay: Relay) -> list[tuple[float, int]]:
    """(share of the last second, all in all) as the report tells alice about each stream."""
    relay.asked(relay.alice)
    relay.feedback.report(relay.alice.leg, 20 * SECOND)
    return [
        (about.fraction_lost / 256, about.packets_lost)
        for packet in relay.asked(relay.alice)
        if isinstance(packet, RtcpRrPacket)
        for about in packet.reports
    ]


def test_pictures_lost_in_a_silence_are_not_sent_again_before_the_keyframe(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1, timestamp=90_000), SECOND)
    relay.refill_budgets()
    relay.receive(relay.alice, rtp(150, timestamp=90_000 * 11), 11 * SECOND)
    relay.feedback.poll(12 * SECOND)
    asked = relay.asked(relay.alice)
    assert [type(packet) for packet in asked] == [RtcpPsfbPacket]
    assert relay.alice.leg.sources[1111].unrecovered == 148
    assert len(relay.delivered(relay.bob)) == 2


def test_what_a_silence_lost_is_not_reported_as_the_lines_loss(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(65_500, timestamp=90_000), SECOND)
    relay.receive(relay.alice, sound(1, timestamp=48_000), SECOND)
    relay.receive(relay.alice, rtp(200, timestamp=90_000 * 11), 11 * SECOND)
    relay.receive(relay.alice, sound(501, timestamp=48_000 * 11), 11 * SECOND)
    assert reported_losses(relay) == [(0, 0), (0, 0)]
    source = relay.alice.leg.sources[1111]
    assert source.first_seq + source.advanced - 1 == 65_536 + 200, "the highest number is told"
    relay.receive(relay.alice, rtp(204, timestamp=90_000 * 12), 12 * SECOND)
    assert reported_losses(relay)[0] == (0.75, 3)


def test_what_our_own_halt_lost_is_not_reported_as_the_lines_loss(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1, timestamp=90_000), SECOND)
    relay.receive(relay.alice, rtp(41, timestamp=180_000), 2 * SECOND)
    relay.feedback.forgive(relay.alice.leg)
    assert reported_losses(relay) == [(0, 0)]
    source = relay.alice.leg.sources[1111]
    assert source.first_seq + source.advanced - 1 == 41, "the highest number is told"
    relay.receive(relay.alice, rtp(45, timestamp=190_000), 2 * SECOND)
    assert reported_losses(relay) == [(0.75, 3)]


def test_a_report_that_reaches_back_into_a_silence_says_nothing_of_the_line(relay: Relay) -> None:
    relay.receive(relay.alice, sound(1), 0)
    bob, target = relay.bob.leg, relay.sound_to_bob
    about = RtcpReceiverInfo(
        ssrc=target.ssrc, fraction_lost=128, packets_lost=0, highest_sequence=0, jitter=0, lsr=0,
        dlsr=0,
    )  # fmt: skip
    report = bytes(RtcpRrPacket(ssrc=1, reports=[about]))
    relay.feedback.receive(bob, report, 2 * SECOND)
    assert target.loss == 0.5
    bob.downlink.excuse(9 * SECOND, 12 * SECOND)
    relay.feedback.receive(bob, report, 14 * SECOND)  # browsers report of sound this seldom
    assert target.loss == 0
    relay.feedback.receive(bob, report, 19 * SECOND)
    assert target.loss == 0.5


def test_sound_lost_in_a_short_silence_is_asked_for_all_the_same(relay: Relay) -> None:
    relay.receive(relay.alice, sound(1, timestamp=48_000), SECOND)
    relay.refill_budgets()
    relay.receive(relay.alice, sound(201, timestamp=48_000 * 5), 5 * SECOND)
    relay.feedback.poll(5 * SECOND + NACK_RETRY_NS)
    assert nacked(relay, relay.alice) == list(range(2, 201))


def test_sound_that_comes_seconds_late_is_recorded_but_not_sent_on(relay: Relay) -> None:
    tap = relay.record()
    relay.receive(relay.alice, sound(1, timestamp=48_000), SECOND)
    relay.router.open_track(relay.alice.leg.sources[2222])
    relay.receive(relay.alice, sound(101, timestamp=48_000 * 5), 5 * SECOND)
    newest = sequences(relay.delivered(relay.bob))[-1]
    relay.receive(relay.alice, sound(3, timestamp=48_000 + 1920), 5 * SECOND)
    relay.receive(relay.alice, sound(100, timestamp=48_000 * 5 - 960), 5 * SECOND)
    assert sequences(relay.delivered(relay.bob)) == [(newest - 1) & 0xFFFF], (
        "what is 20 ms late is heard"
    )
    assert len(tap.packets) == 3


def test_a_receiver_that_asks_for_what_is_past_gets_what_is_not(relay: Relay) -> None:
    for seq in range(1, 5):
        relay.receive(relay.alice, rtp(seq, timestamp=seq * 90_000 // 2), seq * SECOND // 2)
    sent = [numbers(packet) for packet in relay.delivered(relay.bob)]
    asked = build_nack(1, sent[0][2], [seq for seq, _, _ in sent])
    relay.feedback.receive(relay.bob.leg, asked, 2 * SECOND)
    assert len(relay.repairs) == 3
    assert relay.to_bob.resend_budget == RESENDS_PER_SECOND - 3


def test_a_frame_of_a_slide_show_is_asked_for(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1, timestamp=90_000), SECOND)
    relay.refill_budgets()
    relay.receive(relay.alice, rtp(3, timestamp=90_000 * 3), 3 * SECOND)
    relay.feedback.poll(3 * SECOND + NACK_RETRY_NS)
    assert nacked(relay, relay.alice) == [2]


def test_nacks_stop_at_the_budget(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    relay.alice.leg.sources[1111].nack_budget = 5
    relay.receive(relay.alice, rtp(100), 0)
    relay.feedback.poll(NACK_RETRY_NS)
    assert len(nacked(relay, relay.alice)) == 5


def test_a_receivers_nack_is_answered_from_the_cache_as_rtx(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(7, timestamp=5, payload=b"wanted"))
    (forwarded,) = relay.delivered(relay.bob)
    seq, timestamp, ssrc = numbers(forwarded)
    relay.feedback.receive(relay.bob.leg, build_nack(1, ssrc, [seq]), 0)
    (again,) = relay.repairs
    assert numbers(again)[1:] == (timestamp, relay.to_bob.rtx_ssrc)
    assert again[12:] == seq.to_bytes(2, "big") + b"wanted"


def test_sound_is_repeated_byte_for_byte_under_its_own_number(relay: Relay) -> None:
    relay.receive(relay.alice, sound(7))
    (forwarded,) = relay.delivered(relay.bob)
    seq, _, ssrc = numbers(forwarded)
    relay.feedback.receive(relay.bob.leg, build_nack(1, ssrc, [seq]), 5 * SECOND)
    assert relay.repairs == [forwarded]


def test_what_is_not_in_the_cache_is_not_answered(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(7))
    seq, _, ssrc = numbers(relay.delivered(relay.bob)[0])
    relay.feedback.receive(relay.bob.leg, build_nack(1, ssrc, [seq + 1]), 0)
    relay.feedback.receive(relay.bob.leg, build_nack(1, 0xDEAD, [seq]), 0)  # not our stream
    assert relay.repairs == []


def test_a_nack_storm_is_answered_up_to_the_budget(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(7))
    seq, _, ssrc = numbers(relay.delivered(relay.bob)[0])
    for _ in range(RESENDS_PER_SECOND + 100):
        relay.feedback.receive(relay.bob.leg, build_nack(1, ssrc, [seq]), 0)
    assert len(relay.repairs) == RESENDS_PER_SECOND


# -- Keyframes -----------------------------------------------------------------------------------


def keyframe_requests(relay: Relay) -> int:
    return sum(
        isinstance(packet, RtcpPsfbPacket) and packet.fmt == 1
        for packet in relay.asked(relay.alice)
    )


def test_many_keyframe_requests_become_two_a_second(relay: Relay) -> None:
    tap = relay.record()
    relay.receive(relay.alice, rtp(1), 0)
    pli = build_pli(1, relay.to_bob.ssrc)
    for now_ns in range(0, KEYFRAME_INTERVAL_NS, 10 * MS):
        relay.feedback.receive(relay.bob.leg, pli, now_ns)
        relay.feedback.poll(now_ns)
    assert keyframe_requests(relay) == 1
    assert not relay.feedback.poll(KEYFRAME_INTERVAL_NS)
    assert keyframe_requests(relay) == 1
    relay.feedback.poll(10 * KEYFRAME_INTERVAL_NS)
    assert keyframe_requests(relay) == 0
    assert tap.marks == [MarkKind.KEYFRAME_REQUESTED] * 2


def last_of_picture(packet: bytes) -> bytes:
    return packet[:1] + bytes([packet[1] | 0x80]) + packet[2:]


def picture(relay: Relay, seq: int, at_ms: int, *, packets: int, is_whole: bool = True) -> None:
    """A keyframe of so many packets from `seq` on, all at this time."""
    for number in range(packets):
        payload = KEYFRAME_BEGINS if number == 0 else b"\x00more of it"
        packet = rtp(seq + number, timestamp=90 * at_ms, payload=payload)
        is_last = is_whole and number == packets - 1
        relay.receive(relay.alice, last_of_picture(packet) if is_last else packet, at_ms * MS)


def asked_until(relay: Relay, from_ms: int, to_ms: int) -> int:
    """How often alice is asked for a keyframe from one time to the other."""
    for at_ms in range(from_ms, to_ms, 10):
        relay.feedback.poll(at_ms * MS)
    return keyframe_requests(relay)


def test_a_keyframe_that_came_meanwhile_is_not_asked_for_again(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    relay.feedback.want_keyframe(relay.camera, 0)
    relay.feedback.want_keyframe(relay.camera, 20 * MS)  # somebody else came in
    assert keyframe_requests(relay) == 1
    picture(relay, 2, 100, packets=4)
    assert asked_until(relay, 100, 2000) == 0
    assert not relay.camera.keyframe_due_ns


def test_who_came_into_the_middle_of_a_keyframe_gets_another(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    relay.feedback.want_keyframe(relay.camera, 0)
    picture(relay, 2, 100, packets=2, is_whole=False)
    relay.feedback.want_keyframe(relay.camera, 120 * MS)
    relay.receive(relay.alice, last_of_picture(rtp(4, timestamp=9000)), 140 * MS)
    assert keyframe_requests(relay) == 1
    assert asked_until(relay, 150, 2000) == 1


def test_a_keyframe_on_its_way_through_a_thin_line_is_not_followed_by_more(relay: Relay) -> None:
    pli = build_pli(1, relay.to_bob.ssrc)
    relay.receive(relay.alice, rtp(1), 0)
    relay.feedback.want_keyframe(relay.camera, 0)
    picture(relay, 2, 300, packets=1, is_whole=False)
    for at_ms in range(400, 2400, 100):  # a packet each, and bob is impatient
        relay.receive(relay.alice, rtp(at_ms // 100 - 1, timestamp=27_000), at_ms * MS)
        relay.feedback.receive(relay.bob.leg, pli, at_ms * MS)
        for poll_ms in range(at_ms, at_ms + 100, 10):
            relay.feedback.poll(poll_ms * MS)
    assert keyframe_requests(relay) == 1
    relay.receive(relay.alice, last_of_picture(rtp(23, timestamp=27_000)), 2400 * MS)
    assert asked_until(relay, 2400, 4000) == 0
    relay.feedback.receive(relay.bob.leg, pli, 4000 * MS)
    assert asked_until(relay, 4000, 5000) == 1, "what it lost of it was not repaired"


def test_a_keyframe_that_stops_half_way_is_asked_for_again(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    relay.feedback.want_keyframe(relay.camera, 0)
    picture(relay, 2, 300, packets=3, is_whole=False)
    relay.feedback.want_keyframe(relay.camera, 310 * MS)
    assert asked_until(relay, 310, 2000) == 2


def test_who_sees_the_numbers_jump_after_a_pause_need_not_be_given_another(relay: Relay) -> None:
    pli = build_pli(1, relay.to_bob.ssrc)
    relay.receive(relay.alice, rtp(1), 0)
    relay.to_bob.is_resumed = True
    relay.feedback.want_keyframe(relay.camera, 0)
    picture(relay, 2, 100, packets=4)
    relay.feedback.receive(relay.bob.leg, pli, 130 * MS)
    assert asked_until(relay, 130, 2000) == 1
    relay.feedback.receive(relay.bob.leg, pli, 2000 * MS)
    assert asked_until(relay, 2000, 2600) == 1, "that keyframe did not reach it whole"


def test_a_hole_before_a_keyframe_that_has_come_costs_no_other(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), MS)
    relay.receive(relay.alice, rtp(3), MS)
    relay.feedback.sample(relay.alice.leg, 2 * MS)
    picture(relay, 4, 300, packets=3)
    relay.feedback.sample(relay.alice.leg, 350 * MS)
    assert asked_until(relay, 400, 1100) == 0
    relay.feedback.sample(relay.alice.leg, 1100 * MS)
    assert relay.alice.leg.sources[1111].unrecovered == 1
    assert not relay.camera.stillness.is_broken


def test_what_was_asked_for_in_vain_is_asked_for_anew(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    relay.feedback.want_keyframe(relay.camera, 0)
    relay.feedback.want_keyframe(relay.camera, 10 * MS)
    relay.feedback.ask_anew(relay.camera)
    relay.feedback.poll(20 * MS)
    assert keyframe_requests(relay) == 2


def test_a_recorded_picture_can_be_sought_every_ten_seconds(relay: Relay) -> None:
    relay.record()
    relay.receive(relay.alice, rtp(1), 0)
    for second in range(1, 31):
        relay.feedback.report(relay.alice.leg, second * SECOND)
    assert keyframe_requests(relay) == 3  # at 1, 12 and 23 s


def test_on_a_thin_line_every_thirty_seconds(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Uplink, "is_thin", lambda *_: True)
    relay.record()
    relay.receive(relay.alice, rtp(1), 0)
    for second in range(1, 41):
        relay.feedback.report(relay.alice.leg, second * SECOND)
    assert keyframe_requests(relay) == 2  # at 1 and 32 s


def test_a_picture_that_nobody_records_is_not_asked_for_more(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1), 0)
    for second in range(1, 31):
        relay.feedback.report(relay.alice.leg, second * SECOND)
    assert keyframe_requests(relay) == 0


def test_a_full_intra_request_is_a_keyframe_request(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    fir = RtcpPsfbPacket(
        fmt=4, ssrc=1, media_ssrc=0, fci=relay.to_bob.ssrc.to_bytes(4, "big") + b"\x01\0\0\0"
    )
    relay.feedback.receive(relay.bob.leg, bytes(fir), 0)
    assert keyframe_requests(relay) == 1


def test_a_keyframe_request_for_sound_or_for_strangers_is_ignored(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    relay.receive(relay.alice, sound(1))
    relay.feedback.receive(relay.bob.leg, build_pli(1, relay.sound_to_bob.ssrc), 0)
    relay.feedback.receive(relay.bob.leg, build_pli(1, 0xDEAD), 0)
    assert keyframe_requests(relay) == 0


# -- Reports -------------------------------------------------------------------------------------


def test_a_sender_report_reaches_recorder_and_receivers_in_their_own_terms(relay: Relay) -> None:
    tap = relay.record()
    relay.receive(relay.alice, rtp(1, timestamp=9000))
    forwarded = numbers(relay.delivered(relay.bob)[0])
    report = RtcpSrPacket(1111, RtcpSenderInfo(123 << 32, 9000 + 450, 1, 7))
    relay.feedback.receive(relay.alice.leg, bytes(report), 5 * MS)
    assert tap.reports == [(123 << 32, 9450)]
    relayed = relay.asked(relay.bob)[0]
    assert isinstance(relayed, RtcpSrPacket)
    assert relayed.ssrc == relay.to_bob.ssrc
    assert relayed.sender_info.ntp_timestamp == 123 << 32
    assert relayed.sender_info.rtp_timestamp == (forwarded[1] + 450) & 0xFFFFFFFF
    assert relayed.sender_info.packet_count == 1


def test_round_trip_and_loss_are_read_from_a_receivers_report(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    ntp = 123 << 32
    report = RtcpSrPacket(1111, RtcpSenderInfo(ntp, 0, 1, 7))
    relay.feedback.receive(relay.alice.leg, bytes(report), 1 * SECOND)
    block = RtcpReceiverInfo(
        relay.to_bob.ssrc, 64, 5, 100, 0, lsr=ntp_middle(ntp), dlsr=65_536 // 2
    )
    relay.feedback.receive(
        relay.bob.leg, bytes(RtcpRrPacket(1, [block])), 1 * SECOND + 500 * MS + 40 * MS
    )
    assert relay.bob.leg.round_trip_ns == pytest.approx(40 * MS, abs=MS)
    assert relay.to_bob.loss == 0.25


def test_the_publisher_hears_every_second_what_arrived(relay: Relay) -> None:
    for seq in [1, 2, 3, 5, 6, 7, 8, 9, 10, 12]:
        relay.receive(relay.alice, rtp(seq))
    relay.asked(relay.alice)
    relay.feedback.report(relay.alice.leg, SECOND)
    receiver_report = relay.asked(relay.alice)[0]
    assert isinstance(receiver_report, RtcpRrPacket)
    (block,) = receiver_report.reports
    assert (block.ssrc, block.packets_lost, block.highest_sequence) == (1111, 2, 12)
    assert block.fraction_lost == 2 * 256 // 12
    assert relay.alice.leg.loss_in == pytest.approx(2 / 12)


def test_the_slowest_receiver_limits_the_sender(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    relay.alice.leg.uplink.rate_bps = VIDEO_CAP_BPS
    relay.feedback.receive(relay.bob.leg, build_remb(1, 700_000, [relay.to_bob.ssrc]), 0)
    relay.feedback.report(relay.alice.leg, SECOND)
    assert limits(relay)[-1] == pytest.approx(700_000, rel=0.01)
    relay.feedback.receive(relay.bob.leg, build_remb(1, 10, [relay.to_bob.ssrc]), SECOND)
    relay.feedback.report(relay.alice.leg, 2 * SECOND)
    assert limits(relay)[-1] == pytest.approx(VIDEO_FLOOR_BPS, rel=0.01)
    relay.feedback.report(relay.alice.leg, 60 * SECOND)  # an estimate grown old binds nobody
    assert limits(relay)[-1] == pytest.approx(VIDEO_CAP_BPS, rel=0.01)


def limits(relay: Relay) -> list[int]:
    found = [
        read_remb(packet)
        for packet in relay.asked(relay.alice)
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == 15
    ]
    return [limit for limit in found if limit is not None]


def test_a_receiver_whose_line_thins_slows_its_senders_at_once_and_not_too_often(
    relay: Relay,
) -> None:
    relay.receive(relay.alice, rtp(1))
    for at_ms, estimate_bps in ((1000, 900_000), (1300, 300_000), (1400, 200_000)):
        remb = build_remb(1, estimate_bps, [relay.to_bob.ssrc])
        relay.feedback.receive(relay.bob.leg, remb, at_ms * MS)
    assert limits(relay) == [pytest.approx(900_000, rel=0.01), pytest.approx(300_000, rel=0.01)]


def test_a_thin_line_is_not_filled_with_repairs(relay: Relay) -> None:
    for seq in range(1, 101):
        relay.receive(relay.alice, rtp(seq))
    remb = build_remb(1, 200_000, [relay.to_bob.ssrc])
    relay.feedback.receive(relay.bob.leg, remb, SECOND)
    first = relay.camera.next_seq - 100
    lost = [(first + n + relay.to_bob.seq_offset) & 0xFFFF for n in range(100)]
    relay.feedback.receive(relay.bob.leg, build_nack(1, relay.to_bob.ssrc, lost), SECOND)
    assert 0 < len(relay.repairs) < 40


def test_the_first_word_on_speed_comes_with_the_first_sample(relay: Relay) -> None:
    relay.receive(relay.alice, rtp(1))
    relay.feedback.sample(relay.alice.leg, SECOND)
    relay.feedback.sample(relay.alice.leg, SECOND + 250 * MS)
    assert limits(relay) == [pytest.approx(1_000_000, rel=0.01)]


def test_a_queue_on_the_way_to_us_slows_the_picture_at_once(relay: Relay) -> None:
    seq, told = 0, []
    for at_ms in range(0, 6000, 20):  # from the third second on every packet comes 2 ms later
        late_ms = max(0, at_ms - 3000) // 10
        stamp = at_ms * 48
        relay.receive(relay.alice, rtp(at_ms // 20, ssrc=2222, payload_type=111,
                                       timestamp=stamp), (at_ms + late_ms) * MS)  # fmt: skip
        for _ in range(2):
            picture = rtp(seq, timestamp=at_ms * 90, payload=bytes(1000))
            relay.receive(relay.alice, picture, (at_ms + late_ms) * MS)
            seq += 1
        if at_ms % 260 == 0:
            relay.feedback.sample(relay.alice.leg, (at_ms + late_ms) * MS)
            told += limits(relay)
    assert told[0] == pytest.approx(1_000_000, rel=0.01)
    assert told[-1] < 700_000


def test_malformed_rtcp_is_counted_and_ignored(relay: Relay) -> None:
    relay.feedback.receive(relay.bob.leg, b"\x81\xc9\x00\xff" + bytes(4), 0)
    assert relay.feedback.malformed == 1


# -- Who speaks ----------------------------------------------------------------------------------


def test_speech_is_noticed_after_a_tenth_of_a_second_and_outlasts_a_pause(relay: Relay) -> None:
    now_ns = 0
    for seq in range(200):
        is_loud = 50 <= seq < 80 or 90 <= seq < 110
        relay.receive(relay.alice, sound(seq, level=20 if is_loud else 90), now_ns)
        now_ns += 20 * MS
        if seq == 53:
            assert SpeakingChanged(True) not in relay.alice.events
    assert relay.alice.events[1:] == [SpeakingChanged(True), SpeakingChanged(False)]


def test_a_click_is_not_speech(relay: Relay) -> None:
    for seq in range(100):
        relay.receive(relay.alice, sound(seq, level=5 if seq == 50 else 127), seq * 20 * MS)
    assert relay.alice.events == [TrackStarted(TrackName.MICROPHONE)]
