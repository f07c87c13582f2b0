"""A client of the relay in Python: aiortc's RTCPeerConnection, answering our offers.

For the self-test in `doctor`, for the seed's scripted calls, and for integration tests. It decodes
and encodes, so it is no load generator (bench/media_load.py is). Nothing of the server imports it.
"""

import asyncio
import contextlib
import fractions
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aioice.ice
import av
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.contrib.media import MediaPlayer
from aiortc.mediastreams import MediaStreamError

from core.ids import ParticipantId
from media.peer import Offer, OfferedTrack
from media.sdp import CODECS, RTX_OF
from media.tracks import TrackName

AUDIO_RATE = 48_000
AUDIO_SAMPLES = 960  # 20 ms
VIDEO_FPS = 30
FLASH_S = 0.1  # the first tenth of every second is white, and beeps
WHITE_LUMA = 235
BEEP_HZ = 1000


@contextlib.contextmanager
def loopback_gathering() -> Iterator[None]:
    """While this block lasts, ICE clients made in this process gather 127.0.0.1 and nothing else.

    aioice leaves the loopback out on purpose; a self-test has nowhere else to go that is certain to
    exist. (aioice 0.13: `get_host_addresses` is looked up in its module at each gathering.)
    """
    module: Any = aioice.ice
    original = module.get_host_addresses
    module.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    try:
        yield
    finally:
        module.get_host_addresses = original


class _PacedTrack(MediaStreamTrack):
    """Frames at their own time: frame n is due n * interval after the first was asked for.

    `zero` is shared by a picture and its sound, so flash and beep begin together.
    """

    interval_s: float

    def __init__(self, zero: "Zero") -> None:
        super().__init__()
        self._zero = zero
        self._count = 0

    async def _next(self) -> int:
        if self.readyState != "live":
            raise MediaStreamError
        count = self._count
        self._count += 1
        delay_s = self._zero.at() + count * self.interval_s - time.monotonic()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        return count


class Zero:
    """The instant from which a set of tracks counts: set when the first of them is asked."""

    def __init__(self) -> None:
        self._at: float | None = None

    def at(self) -> float:
        if self._at is None:
            self._at = time.monotonic()
        return self._at


class FlashTrack(_PacedTrack):
    """A grey picture that flashes white every second; `luma` tells parties apart."""

    kind = "video"
    interval_s = 1 / VIDEO_FPS

    def __init__(self, zero: Zero, *, luma: int = 80, width: int = 320, height: int = 240) -> None:
        super().__init__(zero)
        self._grey = _plain_picture(luma, width, height)
        self._white = _plain_picture(WHITE_LUMA, width, height)
        self.flashes_at: list[float] = []  # time.monotonic() of each flash's first frame

    async def recv(self) -> av.VideoFrame:
        count = await self._next()
        in_second = count % VIDEO_FPS
        if in_second == 0:
            self.flashes_at.append(time.monotonic())
        frame = self._white if in_second < VIDEO_FPS * FLASH_S else self._grey
        frame.pts = count * 90_000 // VIDEO_FPS
        frame.time_base = fractions.Fraction(1, 90_000)
        return frame


class BeepTrack(_PacedTrack):
    """Silence with a tone at the start of every second."""

    kind = "audio"
    interval_s = AUDIO_SAMPLES / AUDIO_RATE

    def __init__(self, zero: Zero) -> None:
        super().__init__(zero)
        half = AUDIO_RATE // BEEP_HZ // 2
        square = [9000] * half + [-9000] * half
        samples = (square * (AUDIO_SAMPLES // len(square) + 1))[:AUDIO_SAMPLES]
        self._tone = b"".join(s.to_bytes(2, "little", signed=True) for s in samples)

    async def recv(self) -> av.AudioFrame:
        count = await self._next()
        frame = av.AudioFrame(format="s16", layout="mono", samples=AUDIO_SAMPLES)
        is_loud = (count * self.interval_s) % 1.0 < FLASH_S
        frame.planes[0].update(self._tone if is_loud else bytes(AUDIO_SAMPLES * 2))
        frame.pts = count * AUDIO_SAMPLES
        frame.sample_rate = AUDIO_RATE
        frame.time_base = fractions.Fraction(1, AUDIO_RATE)
        return frame


def flash_and_beep(*, luma: int = 80) -> dict[TrackName, MediaStreamTrack]:
    """Camera and microphone that mark every second together."""
    zero = Zero()
    return {TrackName.CAMERA: FlashTrack(zero, luma=luma), TrackName.MICROPHONE: BeepTrack(zero)}


def tracks_of(path: Path, *, loop: bool = False) -> dict[TrackName, MediaStreamTrack]:
    """Camera and microphone that play a media file, in step; whichever of the two it has."""
    player = MediaPlayer(str(path), loop=loop)
    tracks: dict[TrackName, MediaStreamTrack] = {}
    if player.video is not None:
        tracks[TrackName.CAMERA] = player.video
    if player.audio is not None:
        tracks[TrackName.MICROPHONE] = player.audio
    return tracks


def _plain_picture(luma: int, width: int, height: int) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, value in zip(frame.planes, (luma, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def mean_luma(frame: av.VideoFrame) -> float:
    """The average brightness of a decoded picture (every 7th sample is plenty)."""
    samples = bytes(frame.planes[0])[::7]
    return sum(samples) / len(samples)


@dataclass
class ReceivedTrack:
    """What has been decoded of one forwarded track."""

    participant_id: ParticipantId
    name: TrackName
    frames: int = 0
    first_at: float | None = None  # time.monotonic()
    last_frame: av.VideoFrame | av.AudioFrame | None = None
    darkest_luma: float = 255.0  # of the picture between flashes: tells parties apart
    flashes_at: list[float] = field(default_factory=list)
    beeps_at: list[float] = field(default_factory=list)
    _was_marked: bool = False

    def take(self, frame: av.VideoFrame | av.AudioFrame) -> None:
        """Count a frame and note when flashes and beeps begin."""
        now = time.monotonic()
        self.frames += 1
        self.first_at = self.first_at or now
        self.last_frame = frame
        if isinstance(frame, av.VideoFrame):
            luma = mean_luma(frame)
            self.darkest_luma = min(self.darkest_luma, luma)
            is_marked, marks = luma > (self.darkest_luma + WHITE_LUMA) / 2, self.flashes_at
        else:
            is_marked, marks = _loudness(frame) > 2000, self.beeps_at
        if is_marked and not self._was_marked:
            marks.append(now)
        self._was_marked = is_marked


def _loudness(frame: av.AudioFrame) -> float:
    data = bytes(frame.planes[0])[: frame.samples * 2]
    samples = memoryview(data).cast("h")[::5]
    return sum(map(abs, samples)) / max(1, len(samples))


class _Lent(MediaStreamTrack):
    """A track for the time of one connection: aiortc stops what it was given when it closes, and
    ours has to go on in the next leg."""

    def __init__(self, owned: MediaStreamTrack) -> None:
        super().__init__()
        self.kind = owned.kind
        self.owned = owned

    async def recv(self) -> Any:  # Any: av.Frame or av.Packet, whatever the owned track gives
        return await self.owned.recv()


class RtcClient:
    """One participant: sends `tracks`, receives whatever it is offered.

    Use `answer = await client.accept(offer)` for every offer and hand the answer to the peer.
    `codec` ("video/VP8" or "video/H264") makes it a client that knows no other video codec.
    """

    def __init__(
        self, tracks: Mapping[TrackName, MediaStreamTrack], *, codec: str | None = None
    ) -> None:
        self.tracks = dict(tracks)
        self.received: dict[str, ReceivedTrack] = {}  # by mid
        self._codec = codec
        self._leg = 0
        self._pc: RTCPeerConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._offered: dict[str, OfferedTrack] = {}

    @property
    def pc(self) -> RTCPeerConnection:
        assert self._pc is not None, "no offer accepted yet"
        return self._pc

    async def accept(self, offer: Offer) -> str:
        """Apply an offer and return the answer's SDP. A new leg makes a new connection."""
        if self._pc is None or offer.leg != self._leg:
            await self._close_connection()
            # "balanced", aiortc's default, leaves the second section of a kind on a transport that
            # bundling has just discarded (aiortc 1.16).
            configuration = RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
            self._pc = RTCPeerConnection(configuration)
            self._pc.on("track", self._track_started)
            self._leg = offer.leg
        self._offered = {track.mid: track for track in offer.tracks}
        sdp = offer.sdp if self._codec is None else with_only(self._codec, offer.sdp)
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        for transceiver in self.pc.getTransceivers():
            track = self._offered.get(transceiver.mid or "")
            if track is not None and track.direction == "send" and track.name in self.tracks:
                self._send_on(transceiver, track.name)
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return str(self.pc.localDescription.sdp)

    def of(self, participant_id: ParticipantId, name: TrackName) -> ReceivedTrack | None:
        """What has arrived of someone's track, or None if nothing was offered yet."""
        for received in self.received.values():
            if received.participant_id == participant_id and received.name is name:
                return received
        return None

    async def aclose(self) -> None:
        """Hang up. The tracks end too."""
        await self._close_connection()
        for track in self.tracks.values():
            track.stop()

    def _send_on(self, transceiver: RTCRtpTransceiver, name: TrackName) -> None:
        present = transceiver.sender.track
        if not isinstance(present, _Lent) or present.owned is not self.tracks[name]:
            transceiver.sender.replaceTrack(_Lent(self.tracks[name]))
        transceiver.direction = "sendonly"

    def _track_started(self, track: MediaStreamTrack) -> None:
        for transceiver in self.pc.getTransceivers():
            if transceiver.receiver.track is track:
                offered = self._offered.get(transceiver.mid or "")
                if offered is not None and offered.direction == "receive":
                    received = ReceivedTrack(offered.participant_id, offered.name)
                    self.received[offered.mid] = received
                    self._spawn(_consume(track, received))

    def _spawn(self, work: Any) -> None:  # Any: a coroutine of any kind
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_connection(self) -> None:
        if self._pc is not None:
            await self._pc.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.received.clear()


def with_only(mime: str, sdp: str) -> str:
    """An offer or answer as a client sees it that knows but one video codec."""
    foreign = {
        str(number)
        for codec in CODECS.values()
        if codec.mime.startswith("video/") and codec.mime != mime
        for number in (codec.payload_type, RTX_OF[codec.payload_type])
    }
    kept = []
    for line in sdp.split("\r\n"):
        number = re.match(r"a=(?:rtpmap|fmtp|rtcp-fb):(\d+) ", line)
        if number is not None and number[1] in foreign:
            continue
        if line.startswith("m=video"):
            line = " ".join(word for word in line.split(" ") if word not in foreign)  # noqa: PLW2901
        kept.append(line)
    return "\r\n".join(kept)


async def _consume(track: MediaStreamTrack, received: ReceivedTrack) -> None:
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            assert isinstance(frame, av.VideoFrame | av.AudioFrame)
            received.take(frame)
