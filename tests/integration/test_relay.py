"""Two real WebRTC clients through a real MediaNode: real UDP, ICE, DTLS, SRTP and codecs."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from core.clock import SystemClock
from core.errors import ReceptionError
from core.ids import ParticipantId, RoomId
from media.events import PeerConnected, PeerLost, PeerSilent, TrackStarted
from media.journal import MarkKind
from media.node import MediaNode
from media.sdp import SdpRefused, StaleAnswer
from media.selftest import call_myself
from media.tracks import TrackName
from tests.support.relay import ListeningTap
from tests.support.rtc_client import (
    FlashTrack,
    LoopbackCall,
    RtcClient,
    Zero,
    flash_and_beep,
)

CAMERA, MICROPHONE, DOCUMENT = TrackName.CAMERA, TrackName.MICROPHONE, TrackName.DOCUMENT


@pytest.fixture
async def node() -> AsyncIterator[MediaNode]:
    started = await MediaNode.start(
        host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock()
    )
    yield started
    await started.aclose()


def two_parties() -> dict[str, RtcClient]:
    return {
        "villager": RtcClient(flash_and_beep(luma=60)),
        "official": RtcClient(flash_and_beep(luma=120)),
    }


class ListeningRecorder:
    """A recorder that keeps what it is given, by (participant, leg)."""

    def __init__(self) -> None:
        self.taps: dict[tuple[str, int], ListeningTap] = {}

    def party(self, participant_id: str, leg: int, label: str, role: str) -> ListeningTap:
        return self.taps.setdefault((participant_id, leg), ListeningTap())


async def test_each_party_gets_the_others_picture_and_sound(node: MediaNode) -> None:
    async with LoopbackCall(node, two_parties()) as call:
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 45)
        await call.until(lambda: call.received("villager", "official", CAMERA).frames > 45)
        await call.until(lambda: call.received("villager", "official", MICROPHONE).frames > 60)
        await call.until(lambda: call.received("official", "villager", MICROPHONE).frames > 60)
        seen = call.received("official", "villager", CAMERA)
        other = call.received("villager", "official", CAMERA)
        heard = call.received("villager", "official", MICROPHONE)
        # Sent with luma 60 and 120; decoders may shift the range, but not the order.
        assert seen.darkest_luma + 25 < other.darkest_luma
        assert seen.flashes_at
        assert heard.beeps_at
        stats = {s.participant_id: s for s in call.room.stats()}
        assert {s.state for s in stats.values()} == {"connected"}
        assert {s.srtp_profile for s in stats.values()} == {"SRTP_AEAD_AES_128_GCM"}
        assert TrackStarted(CAMERA) in call.events["villager"]


async def test_nothing_flows_before_the_room_is_live(node: MediaNode) -> None:
    recorder = ListeningRecorder()
    async with LoopbackCall(node, two_parties(), is_live=False) as call:
        await call.until(lambda: TrackStarted(CAMERA) in call.events["villager"])
        await asyncio.sleep(1)
        assert all(peer.leg.packets_in > 30 for peer in call.peers.values())
        assert [s.packets_out for s in call.room.stats()] == [0, 0]
        assert call.received("official", "villager", CAMERA).frames == 0
        call.room.go_live(recorder)
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 10)
    tap = recorder.taps["villager", 1]
    assert tap.marks[0] is MarkKind.JOIN
    assert tap.marks[-1] is MarkKind.LEAVE
    assert {name for _, name, _ in tap.tracks} == {CAMERA, MICROPHONE}
    assert len(tap.packets) > 20


async def test_strangers_datagrams_are_counted_and_harm_nothing(node: MediaNode) -> None:
    async with LoopbackCall(node, two_parties()) as call:
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 10)
        before = call.received("official", "villager", CAMERA).frames
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect(("127.0.0.1", node.port))
            stranger.setblocking(False)
            sent = 0
            for first in [0, 1, 16, 20, 22, 63, 64, 127, 128, 144, 191, 192, 255] * 40:
                for size in (1, 11, 40, 1400, 2040):
                    stranger.send(bytes([first]) + os.urandom(size - 1))
                    sent += 1
                await asyncio.sleep(0)
            await call.until(lambda: sum(node.counters().values()) >= sent)
            with pytest.raises(BlockingIOError):  # not one byte in answer
                stranger.recv(100)
        counters = node.counters()
        assert counters["stranger"] > 0
        assert counters["stun_refused"] > 0
        assert counters["unknown_kind"] > 0
        assert counters["short"] > 0
        assert counters["oversized"] > 0
        assert all(peer.leg.rejected == 0 for peer in call.peers.values())
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > before + 30)


async def test_a_late_joiner_gets_a_picture_at_once(node: MediaNode) -> None:
    clients = two_parties()
    async with LoopbackCall(node, clients) as call:
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 10)
        clients["desk"] = RtcClient({})
        await call.join("desk")
        await call.until(lambda: call.received("desk", "villager", CAMERA).frames > 0, timeout_s=3)


async def test_muted_means_not_forwarded_and_unmuted_goes_on(node: MediaNode) -> None:
    async with LoopbackCall(node, two_parties()) as call:
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 10)
        call.peers["villager"].set_muted(CAMERA, True)
        await asyncio.sleep(0.5)
        frozen = call.received("official", "villager", CAMERA).frames
        heard = call.received("official", "villager", MICROPHONE).frames
        await asyncio.sleep(0.7)
        assert call.received("official", "villager", CAMERA).frames == frozen
        assert call.received("official", "villager", MICROPHONE).frames > heard + 10
        call.peers["villager"].set_muted(CAMERA, False)
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > frozen + 10)


async def test_a_new_leg_keeps_the_publication_and_the_others_connection(node: MediaNode) -> None:
    recorder = ListeningRecorder()
    async with LoopbackCall(node, two_parties(), is_live=False) as call:
        call.room.go_live(recorder)
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 10)
        publication = call.peers["villager"].published[CAMERA]
        before = call.received("official", "villager", CAMERA).frames
        call.peers["villager"].new_leg()
        await call.negotiate("villager")
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > before + 20)
        assert call.peers["villager"].published[CAMERA] is publication
        assert PeerConnected(2, "SRTP_AEAD_AES_128_GCM") in call.events["villager"]
        assert call.peers["official"].leg.number == 1
        await call.until(lambda: call.received("villager", "official", CAMERA).frames > 10)
    assert {leg for who, leg in recorder.taps if who == "villager"} == {1, 2}
    assert recorder.taps["villager", 2].packets


async def test_a_second_camera_switched_on_later_is_its_own_track(node: MediaNode) -> None:
    clients = two_parties()
    async with LoopbackCall(node, clients) as call:
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 5)
        clients["villager"].tracks[DOCUMENT] = FlashTrack(Zero(), luma=160)
        call.peers["villager"].set_publishes([CAMERA, MICROPHONE, DOCUMENT])
        await call.until(lambda: call.received("official", "villager", DOCUMENT).frames > 10)
        await call.until(lambda: call.received("official", "villager", DOCUMENT).flashes_at != [])
        document = call.received("official", "villager", DOCUMENT)
        face = call.received("official", "villager", CAMERA)
        assert document.darkest_luma > face.darkest_luma + 50


async def test_a_client_that_hangs_up_is_lost_at_once(node: MediaNode) -> None:
    clients = two_parties()
    async with LoopbackCall(node, clients) as call:
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 5)
        await clients["villager"].aclose()
        await call.until(lambda: PeerLost("closed") in call.events["villager"], timeout_s=5)
        call.room.remove_peer(call.peers["villager"].participant_id)
        await call.until(
            lambda: (
                "inactive"
                in {str(t.currentDirection) for t in clients["official"].pc.getTransceivers()}
            )
        )


async def test_a_client_that_vanishes_is_silent_within_two_seconds(node: MediaNode) -> None:
    clients = two_parties()
    async with LoopbackCall(node, clients) as call:
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 5)
        transport = clients["villager"].pc.getTransceivers()[0].sender.transport.transport
        await transport.stop()  # the network is gone: no goodbye
        await call.until(
            lambda: any(isinstance(e, PeerSilent) for e in call.events["villager"]), timeout_s=5
        )
        silent = next(e for e in call.events["villager"] if isinstance(e, PeerSilent))
        assert 1500 <= silent.silent_ms < 3000


async def test_answers_out_of_turn_are_refused_in_words(node: MediaNode) -> None:
    async with LoopbackCall(node, two_parties()) as call:
        peer = call.peers["villager"]
        first = peer.offer()
        second = peer.offer()
        with pytest.raises(StaleAnswer):
            peer.answer(first.revision, "v=0")
        with pytest.raises(SdpRefused) as refusal:
            peer.answer(second.revision, "v=0")
        assert isinstance(refusal.value, ReceptionError)
        await call.negotiate("villager")  # and nothing is broken by it


async def test_the_self_test_passes_both_codecs() -> None:
    results = await call_myself(SystemClock())
    assert [(r.codec, r.works, r.problem) for r in results] == [
        ("video/VP8", True, ""),
        ("video/H264", True, ""),
    ]
    assert all(r.flash_delay_ms is not None and r.flash_delay_ms < 1000 for r in results)


@pytest.mark.slow
def test_the_load_generator_finds_every_packet_again() -> None:
    from bench.media_load import run

    result = run(calls=1, seconds=2)
    assert result["lost"] == 0
    assert result["packets_out"] >= result["packets_in"] * 0.9 > 200
    assert result["cpu_s_per_call_min"] > 0
    assert result["delay_ms"]["p50"] is not None
    assert result["srtp_profile"] == "SRTP_AEAD_AES_128_GCM"


async def test_who_leaves_and_enters_anew_brings_along_what_came_too_much(node: MediaNode) -> None:
    room, who = node.open_room(RoomId("r")), ParticipantId("villager")
    peer = room.add_peer(who, label="v", publishes=(), on_event=lambda _: None)
    peer.leg.bytes_in += 5_000_000
    room.remove_peer(who)
    again = room.add_peer(who, label="v", publishes=(), on_event=lambda _: None)
    assert again.inflow is peer.inflow and again.inflow.ahead_bytes > 2_000_000
    other = room.add_peer(ParticipantId("o"), label="o", publishes=(), on_event=lambda _: None)
    assert other.inflow is not peer.inflow
