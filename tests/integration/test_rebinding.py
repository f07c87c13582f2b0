"""A router forgets its mapping in mid-call: the voice goes on before the client has noticed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.clock import SystemClock
from media.node import MediaNode
from media.peer import Offer
from media.tracks import TrackName
from tests.support.rtc_client import LoopbackCall, RtcClient, flash_and_beep

MICROPHONE = TrackName.MICROPHONE


class Nat(asyncio.DatagramProtocol):
    """A router on the loopback: what a client sends here leaves from another port."""

    def __init__(self, node_port: int) -> None:
        self.port = 0
        self._node = ("127.0.0.1", node_port)
        self._client: tuple[str, int] | None = None
        self._inside: asyncio.DatagramTransport | None = None
        self._outside: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._inside, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        self.port = self._inside.get_extra_info("sockname")[1]
        await self.rebind()

    async def rebind(self) -> None:
        """Forget the mapping; the next packet gets a new port."""
        before, loop = self._outside, asyncio.get_running_loop()
        self._outside, _ = await loop.create_datagram_endpoint(
            lambda: _Outside(self), local_addr=("127.0.0.1", 0)
        )
        if before is not None:
            before.close()

    def close(self) -> None:
        for transport in (self._inside, self._outside):
            assert transport is not None
            transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._client = addr
        assert self._outside is not None
        self._outside.sendto(data, self._node)

    def answered(self, data: bytes) -> None:
        assert self._inside is not None
        self._inside.sendto(data, self._client)


class _Outside(asyncio.DatagramProtocol):
    def __init__(self, nat: Nat) -> None:
        self._nat = nat

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._nat.answered(data)


class BehindNat(RtcClient):
    """A client that finds the node only through `nat`."""

    def __init__(self, nat: Nat, node_port: int) -> None:
        super().__init__(flash_and_beep(luma=60))
        self._change = (f" {node_port} typ ", f" {nat.port} typ ")

    async def accept(self, offer: Offer) -> str:
        return await super().accept(replace(offer, sdp=offer.sdp.replace(*self._change)))


@pytest.fixture
async def node() -> AsyncIterator[MediaNode]:
    started = await MediaNode.start(
        host="127.0.0.1", port=0, public_addresses=["127.0.0.1"], clock=SystemClock()
    )
    yield started
    await started.aclose()


async def test_a_voice_from_a_new_port_is_heard_before_the_next_check(node: MediaNode) -> None:
    nat = Nat(node.port)
    await nat.open()
    clients = {"villager": BehindNat(nat, node.port), "official": RtcClient(flash_and_beep())}
    async with LoopbackCall(node, clients) as call:
        await call.until(lambda: call.received("official", "villager", MICROPHONE).frames > 25)
        leg = call.peers["villager"].leg
        address, strangers = leg.address, node.counters().get("stranger", 0)
        await nat.rebind()
        before = leg.packets_in
        await asyncio.sleep(0.5)
        assert leg.packets_in > before + 15
        assert leg.address == address, "an address that was not checked is not sent to"
        assert node.counters().get("stranger", 0) - strangers < 5  # its RTCP, which can wait
        # Its next check names the new address, and the picture that it watches begins anew there.
        watched = call.peers["official"].published[TrackName.CAMERA]
        asked_ns = watched.keyframe_asked_ns
        await call.until(lambda: leg.address != address, timeout_s=15)
        await call.until(lambda: watched.keyframe_asked_ns > asked_ns)
        assert leg.number == 1
    nat.close()
