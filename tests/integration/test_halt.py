"""The relay's process stands still in mid-call: what arrives meanwhile is recorded, and is past."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from core.clock import SystemClock
from media.events import PeerBack, PeerSilent
from media.journal import MarkKind
from media.node import HALT_NS, MediaNode
from media.tracks import TrackName
from tests.integration.test_rebinding import BehindNat, Nat
from tests.integration.test_relay import ListeningRecorder
from tests.support.rtc_client import LoopbackCall, RtcClient, flash_and_beep

CAMERA = TrackName.CAMERA


class HoldingNat(Nat):
    """A router that can keep what a client sends, and deliver it all at once."""

    def __init__(self, node_port: int) -> None:
        super().__init__(node_port)
        self.held: list[bytes] | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.held is None:
            super().datagram_received(data, addr)
        else:
            self.held.append(data)

    def deliver(self) -> None:
        assert self._outside is not None
        for data in self.held or ():
            self._outside.sendto(data, self._node)


@pytest.fixture
async def node() -> AsyncIterator[MediaNode]:
    started = await MediaNode.start(
        host="127.0.0.1", port=0, public_addresses=["127.0.0.1"], clock=SystemClock()
    )
    yield started
    await started.aclose()


async def test_what_waited_is_recorded_and_goes_to_nobody_and_the_call_goes_on(
    node: MediaNode,
) -> None:
    nat, recorder = HoldingNat(node.port), ListeningRecorder()
    await nat.open()
    clients = {"villager": BehindNat(nat, node.port), "official": RtcClient(flash_and_beep())}
    async with LoopbackCall(node, clients, is_live=False) as call:
        call.room.go_live(recorder)
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 10)
        camera, tap = call.peers["villager"].published[CAMERA], recorder.taps["villager", 1]
        (target,) = camera.targets
        nat.held = []
        await asyncio.sleep(0.6)
        recorded, sent, asked_ns = len(tap.packets), target.packets, camera.keyframe_asked_ns
        nat.deliver()
        time.sleep(HALT_NS / 1e9 + 0.3)
        await call.until(lambda: len(tap.packets) > recorded + 20 and not node.is_behind)
        assert target.packets == sent
        assert camera.targets == (target,)
        assert camera.keyframe_asked_ns > asked_ns
        assert not any(isinstance(e, PeerSilent) for e in call.events["villager"])
        nat.deliver()
        nat.held = None
        seen = call.received("official", "villager", CAMERA).frames
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > seen + 10)
        assert call.peers["villager"].leg.number == 1
    nat.close()


async def test_the_first_datagram_after_a_silence_is_noted_when_it_comes(node: MediaNode) -> None:
    nat, recorder = HoldingNat(node.port), ListeningRecorder()
    await nat.open()
    clients = {"villager": BehindNat(nat, node.port), "official": RtcClient(flash_and_beep())}
    async with LoopbackCall(node, clients, is_live=False) as call:
        call.room.go_live(recorder)
        await call.until(lambda: call.received("official", "villager", CAMERA).frames > 10)
        events, leg = call.events["villager"], call.peers["villager"].leg
        nat.held = []
        await call.until(lambda: any(isinstance(e, PeerSilent) for e in events))
        assert leg.back_at_ns == 0
        nat.held = None
        await call.until(lambda: any(isinstance(e, PeerBack) for e in events))
        tap = recorder.taps["villager", 1]
        assert tap.marks_ns[tap.marks.index(MarkKind.BACK)] == leg.back_at_ns > 0
    nat.close()
