"""Media of the common case goes through a node while its loop sleeps, and nothing waits for it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.clock import SystemClock
from media.fastlane import built_as
from media.node import HALT_NS, MediaNode
from media.tracks import TrackName
from tests.support.relay import ListeningTap
from tests.support.rtc_client import LoopbackCall, RtcClient, flash_and_beep

pytestmark = pytest.mark.skipif(built_as() is None, reason="the lane in C is not built here")

CAMERA = TrackName.CAMERA


class Watched:
    """A node, and what of its media was left to Python."""

    def __init__(self, node: MediaNode, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node = node
        self.in_python = 0
        usual = node._take_in

        def take_in(count: int, at: int, now_ns: int) -> None:
            self.in_python += sum(
                128 <= buffer.view[0] < 192 and not 192 <= buffer.view[1] < 224
                for buffer in node._socket.received[at:count]
            )
            usual(count, at, now_ns)

        monkeypatch.setattr(node, "_take_in", take_in)

    def came(self, call: LoopbackCall) -> int:
        return sum(peer.leg.packets_in for peer in call.peers.values())


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    node = await MediaNode.start(host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock())
    yield Watched(node, monkeypatch)
    await node.aclose()


def two_parties() -> dict[str, RtcClient]:
    return {"villager": RtcClient(flash_and_beep()), "official": RtcClient(flash_and_beep())}


async def flowing(call: LoopbackCall) -> None:
    await call.until(lambda: call.received("official", "villager", CAMERA).frames > 30)
    await call.until(lambda: call.received("villager", "official", CAMERA).frames > 30)


async def test_nearly_all_media_passes_without_python(watched: Watched) -> None:
    async with LoopbackCall(watched.node, two_parties()) as call:
        await flowing(call)
        came, in_python = watched.came(call), watched.in_python
        await call.until(lambda: watched.came(call) > came + 500)
        share = (watched.in_python - in_python) / (watched.came(call) - came)
        assert share < 0.25, "the rest of a batch that holds a report is Python's, no more"
        assert watched.node.counters()["send"] == 0


async def test_timers_and_others_sockets_get_their_turn_beside_media(watched: Watched) -> None:
    loop = asyncio.get_running_loop()
    async with LoopbackCall(watched.node, two_parties()) as call:
        await flowing(call)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            for number in range(50):
                before_s = time.monotonic()
                await asyncio.sleep(0.003)
                assert time.monotonic() - before_s < 0.5
                await asyncio.to_thread(theirs.send, bytes([number]))
                assert await loop.sock_recv(ours, 1) == bytes([number])


async def test_what_comes_after_a_halt_is_left_to_python(watched: Watched) -> None:
    node = watched.node
    async with LoopbackCall(node, two_parties()) as call:
        await flowing(call)
        assert node._caretaker is not None
        node._caretaker.cancel()  # it would notice as well
        node._alive_ns -= 2 * HALT_NS
        halted_ns = node._alive_ns
        await call.until(lambda: node._alive_ns > halted_ns and not node.is_behind)
        frames = call.received("official", "villager", CAMERA).frames
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > frames + 30)


async def test_what_the_kernel_refuses_within_the_wait_is_counted(watched: Watched) -> None:
    node = watched.node
    async with LoopbackCall(node, two_parties()) as call:
        await flowing(call)
        leg = call.peers["official"].leg
        assert leg.address is not None
        leg.address = leg.address[:2] + b"\0\0" + leg.address[4:]  # port 0 is nobody's
        await call.until(lambda: node._router.lane.dropped > 20)  # type: ignore[union-attr]
        assert node.counters()["send"] >= 20
        villager = call.received("villager", "official", CAMERA).frames
        await call.until(lambda: call.received("villager", "official", CAMERA).frames > villager)


class Startled(ListeningTap):
    """A tap that fails once, in the middle of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.is_startled = False

    def rtp(self, track_index: int, packet: bytes, arrival_ns: int) -> None:
        super().rtp(track_index, packet, arrival_ns)
        if len(self.packets) > 100 and not self.is_startled:
            self.is_startled = True
            raise RuntimeError("boo")


class StartledRecorder:
    def __init__(self) -> None:
        self.taps: list[Startled] = []

    def party(self, participant_id: str, leg: int, label: str, role: str) -> Startled:
        self.taps.append(Startled())
        return self.taps[-1]


async def test_a_surprise_within_the_wait_is_told_and_costs_no_more(watched: Watched) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    recorder = StartledRecorder()
    async with LoopbackCall(watched.node, two_parties(), is_live=False) as call:
        call.room.go_live(recorder)
        await call.until(lambda: len(told) == 2)
        assert all(tap.is_startled for tap in recorder.taps)
        assert {str(context["exception"]) for context in told} == {"boo"}
        await flowing(call)


async def test_the_second_node_of_a_loop_is_served_by_its_reader(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Watched(
        await MediaNode.start(host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock()),
        monkeypatch,
    )
    async with (
        LoopbackCall(watched.node, two_parties()) as call,
        LoopbackCall(second.node, two_parties()) as other,
    ):
        await flowing(call)
        await flowing(other)
        assert second.in_python >= second.came(other) > 60
        assert watched.in_python < watched.came(call)
    await second.node.aclose()
