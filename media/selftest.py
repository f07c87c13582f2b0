"""Does media work on this machine? A short call between two aiortc clients through a MediaNode.

`reception doctor` runs it: real UDP on the loopback, real ICE, DTLS and SRTP, real codecs at both
ends. It answers which codecs pass and how long a flash of light takes from one client's encoder to
the other's decoder (the relay's own share is below a millisecond; see `bench media`).
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from core.clock import Clock
from core.ids import ParticipantId, RoomId
from media.client import FlashTrack, ReceivedTrack, RtcClient, flash_and_beep, loopback_gathering
from media.events import MediaEvent, OfferNeeded, PeerConnected
from media.node import MediaNode, Peer
from media.tracks import TrackName

CODECS: Final = ("video/VP8", "video/H264")
CALL_S: Final = 3.0
SETUP_TIMEOUT_S: Final = 10.0
# A call of three seconds has ninety frames; a third of them is proof, not luck.
ENOUGH_FRAMES: Final = 30


@dataclass(frozen=True, slots=True)
class CodecResult:
    """One call with one video codec. `flash_delay_ms` is None if no flash was seen twice."""

    codec: str
    works: bool
    srtp_profile: str
    setup_ms: float
    video_frames: int
    audio_frames: int
    flash_delay_ms: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CallResult:
    """All codecs together: `codecs` are those that work, `words` is a sentence about the rest."""

    is_well: bool
    codecs: tuple[str, ...]
    words: str
    details: tuple[CodecResult, ...]


class LoopbackCall:
    """Two clients in a live room of `node`, for self-tests, seeds and integration tests.

    `async with` joins both; inside, `clients` and `peers` are by name ("one", "other").
    """

    def __init__(
        self, node: MediaNode, clients: dict[str, RtcClient], *, is_live: bool = True
    ) -> None:
        self.node = node
        self.room = node.open_room(RoomId("selftest"))
        self.clients = clients
        self.peers: dict[str, Peer] = {}
        self.events: dict[str, list[MediaEvent]] = {name: [] for name in clients}
        self._is_live = is_live
        self._negotiations: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def __aenter__(self) -> "LoopbackCall":
        for name in self.clients:
            await self.join(name)
        if self._is_live:
            self.room.go_live(None)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in list(self._negotiations):
            task.cancel()
        await asyncio.gather(*self._negotiations, return_exceptions=True)
        await asyncio.gather(*(client.aclose() for client in self.clients.values()))
        await self.room.end()

    async def join(self, name: str) -> None:
        """Add the client of that name to the room and wait until it is connected."""
        self._locks[name] = asyncio.Lock()
        self.events.setdefault(name, [])
        self.peers[name] = self.room.add_peer(
            ParticipantId(name),
            label=name,
            publishes=list(self.clients[name].tracks),
            on_event=lambda event: self._event(name, event),
        )
        await self.negotiate(name)
        await self.until(lambda: self._is_connected(name))

    async def negotiate(self, name: str) -> None:
        """One offer and its answer."""
        async with self._locks[name]:
            with loopback_gathering():
                offer = self.peers[name].offer()
                answer = await self.clients[name].accept(offer)
                self.peers[name].answer(offer.revision, answer)

    async def until(
        self, condition: Callable[[], bool], timeout_s: float = SETUP_TIMEOUT_S
    ) -> None:
        """Wait for `condition()` to become true. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 — conditions read counters that no event covers
                await asyncio.sleep(0.02)

    def received(self, by: str, of: str, name: TrackName) -> ReceivedTrack:
        """What one client has decoded of another's track; empty if nothing was offered."""
        got = self.clients[by].of(ParticipantId(of), name)
        return got if got is not None else ReceivedTrack(ParticipantId(of), name)

    def _event(self, name: str, event: MediaEvent) -> None:
        self.events[name].append(event)
        if isinstance(event, OfferNeeded):
            task = asyncio.create_task(self.negotiate(name), name=f"negotiate {name}")
            self._negotiations.add(task)
            task.add_done_callback(self._negotiations.discard)

    def _is_connected(self, name: str) -> bool:
        leg = self.peers[name].leg.number
        return any(isinstance(e, PeerConnected) and e.leg == leg for e in self.events[name])


async def loopback_call(clock: Clock) -> CallResult:
    """`call_myself`, summed up for `doctor`."""
    details = tuple(await call_myself(clock))
    problems = [f"{result.codec}: {result.problem}" for result in details if not result.works]
    return CallResult(
        is_well=not problems,
        codecs=tuple(result.codec for result in details if result.works),
        words=" ".join(problems) or "Sound and picture pass both ways.",
        details=details,
    )


async def call_myself(clock: Clock) -> list[CodecResult]:
    """One call per codec. Never raises for a codec that fails: that is the result."""
    node = await MediaNode.start(host="127.0.0.1", port=0, public_addresses=[], clock=clock)
    try:
        return [await _try(node, codec) for codec in CODECS]
    finally:
        await node.aclose()


async def _try(node: MediaNode, codec: str) -> CodecResult:
    clients = {
        "one": RtcClient(flash_and_beep(luma=60), codec=codec),
        "other": RtcClient(flash_and_beep(luma=120), codec=codec),
    }
    began = time.monotonic()
    try:
        async with LoopbackCall(node, clients) as call:
            setup_ms = (time.monotonic() - began) * 1000
            await asyncio.sleep(CALL_S)
            return _judge(call, codec, setup_ms)
    except TimeoutError:
        return CodecResult(codec, False, "", 0, 0, 0, None, "No connection within 10 seconds.")


def _judge(call: LoopbackCall, codec: str, setup_ms: float) -> CodecResult:
    pictures = [
        call.received("one", "other", TrackName.CAMERA),
        call.received("other", "one", TrackName.CAMERA),
    ]
    sounds = [
        call.received("one", "other", TrackName.MICROPHONE),
        call.received("other", "one", TrackName.MICROPHONE),
    ]
    video_frames = min(track.frames for track in pictures)
    audio_frames = min(track.frames for track in sounds)
    used = {
        source.codec.mime
        for peer in call.peers.values()
        for source in peer.leg.sources.values()
        if source.publication.name is TrackName.CAMERA
    }
    problem = ""
    if used != {codec}:
        problem = f"The clients used {', '.join(sorted(used)) or 'no codec'} instead."
    elif video_frames < ENOUGH_FRAMES or audio_frames < ENOUGH_FRAMES:
        problem = "Too little picture or sound arrived."
    sender = call.clients["one"].tracks[TrackName.CAMERA]
    assert isinstance(sender, FlashTrack)
    return CodecResult(
        codec=codec,
        works=not problem,
        srtp_profile=call.peers["one"].leg.srtp_profile,
        setup_ms=round(setup_ms, 1),
        video_frames=video_frames,
        audio_frames=audio_frames,
        flash_delay_ms=_delay_ms(sender.flashes_at, pictures[1].flashes_at),
        problem=problem,
    )


def _delay_ms(sent: list[float], seen: list[float]) -> float | None:
    """The median time from a flash to its sight; flashes come a second apart, delays are less."""
    delays = [
        min(at - flash for flash in sent if flash <= at)
        for at in seen
        if any(flash <= at for flash in sent)
    ]
    return round(statistics.median(delays) * 1000, 1) if delays else None
