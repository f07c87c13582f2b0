"""One party of an alignment drill: a real sender with clocks of its own, on a host of the lab.

It flashes and beeps by true time (alignment_script.py), encodes as it goes, and stamps what it
sends by clocks that run wrong. Lost packets are sent again when the server asks: pictures as RTX,
sound byte for byte. It reads what the server says and never decodes what it is shown.

`python -m bench.alignment_party PARTY ADDRESS SKEW_PPM` takes a JSON line per verb on standard
input and answers each with one.
"""

import asyncio
import random
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from aiortc.rtp import (
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRtpfbPacket,
    RtcpSrPacket,
)

from bench.alignment_clip import Camera, Voice
from bench.alignment_script import (
    CAMERA_FPS,
    DOCUMENT_EVERY,
    FLASH_TICKS,
    SAMPLE_RATE,
    SECOND_NS,
    SOUND_SAMPLES,
    clocks_of,
    flash_ticks,
    tick_ns,
)
from bench.media_caller import Line, messages, replying
from media.rtp import (
    HEADER,
    build_receiver_report,
    build_sender_report,
    ntp_middle,
    parse_rtcp,
    wrap_rtx,
)
from media.sdp import H264, OPUS, RTX_OF, VP8
from media.srtp import protect, protect_rtcp, unprotect_rtcp
from media.tracks import CodecInfo

CACHE_PACKETS: Final = 400
REPORT_EVERY_S: Final = 1.0
CONSENT_EVERY_S: Final = 2.5
PIPELINE_S: Final = 0.045
"""From a picture to its packets: sensor, buffers, encoder. Sound waits for its 20 ms alone."""
REPORT_ERROR_S: Final = 0.004
"""A sound card's count is known at the edges of its buffers only."""


# -- What is sent --------------------------------------------------------------------------------


@dataclass
class Stream:
    """One track on one leg: its numbers begin anywhere, and its last packets are kept."""

    name: str
    codec: CodecInfo
    ssrc: int = field(default_factory=lambda: random.getrandbits(32) or 1)
    rtx_ssrc: int = field(default_factory=lambda: random.getrandbits(32) or 1)
    base: int = field(default_factory=lambda: random.getrandbits(32))
    seq: int = field(default_factory=lambda: random.getrandbits(15))
    rtx_seq: int = field(default_factory=lambda: random.getrandbits(15))
    packets: int = 0
    octets: int = 0
    kept: "OrderedDict[int, bytes]" = field(default_factory=OrderedDict)


@dataclass
class Counts:
    """What a party has done, over all its legs."""

    sent: int = 0
    resent: int = 0
    asked_again: int = 0
    keyframes_asked: int = 0
    received: int = 0
    reports: int = 0


# -- The line ------------------------------------------------------------------------------------


class BadLine(Line):
    """A transport that hears what the server says about it."""

    def __init__(self, host: str, on_rtcp: Callable[[bytes], None], on_rtp: Callable[[], None]):
        super().__init__(f"party{random.getrandbits(32):08x}", host)
        self._on_rtcp = on_rtcp
        self._on_rtp = on_rtp

    def meet(self, sdp: str, *, is_controlling: bool) -> None:
        """The server has one address, which is not ours."""
        self._is_controlling = is_controlling
        patterns = (r"a=ice-ufrag:(\S+)", r"a=ice-pwd:(\S+)", r"a=fingerprint:sha-256 (\S+)")
        ufrag, password, fingerprint = (_first(pattern, sdp)[0] for pattern in patterns)
        self._remote = (ufrag, password.encode(), fingerprint)
        address, port = _first(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", sdp)
        self.socket.connect((address, int(port)))

    def listen(self) -> None:
        """From now on everything that arrives is read."""
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket.fileno())
        self.socket.close()

    def send_rtp(self, packet: bytes) -> bytes:
        """Encrypt and send; what went out."""
        return self._send(packet, protect)

    def send_rtcp(self, packet: bytes) -> None:
        self._send(packet, protect_rtcp)

    def repeat(self, datagram: bytes) -> None:
        """Send again what `send_rtp` returned."""
        self.buffer.view[: len(datagram)] = datagram
        self.buffer.length[0] = len(datagram)
        self.hand_over()

    def _send(self, packet: bytes, encrypt: Callable[..., int]) -> bytes:
        buffer = self.buffer
        buffer.view[: len(packet)] = packet
        buffer.length[0] = len(packet)
        if encrypt(self.tx, buffer.cdata, buffer.length):
            raise RuntimeError("libsrtp refuses to encrypt.")
        self.hand_over()
        return bytes(buffer.view[: buffer.length[0]])

    def _readable(self) -> None:
        buffer = self.buffer
        try:
            length = self.socket.recv_into(buffer.view)
        except OSError:
            return
        first, second = buffer.view[0], buffer.view[1]
        if first < 4:
            self._answer_check(bytes(buffer.view[:length]))
        elif 20 <= first < 64:
            self._dtls.feed(bytes(buffer.view[:length]))  # the server's last flight, again
        elif 192 <= second < 224:
            buffer.length[0] = length
            if unprotect_rtcp(self._rx, buffer.cdata, buffer.length) == 0:
                self._on_rtcp(bytes(buffer.view[: buffer.length[0]]))
        else:
            self._on_rtp()


def _first(pattern: str, sdp: str) -> tuple[str, ...]:
    found = re.search(pattern, sdp)
    if found is None:
        raise ValueError(f"The server's SDP has no {pattern}.")
    return found.groups()


# -- The party -----------------------------------------------------------------------------------


class Party:
    """Every public coroutine is a verb of the parent's."""

    def __init__(self, name: str, address: str, skew_ppm: float) -> None:
        self._clocks = clocks_of(name, skew_ppm)
        self._address = address
        self._counts = Counts()
        self._line: BadLine | None = None
        self._joining: asyncio.Task[None] | None = None
        self._streams: dict[str, Stream] = {}
        self._cameras: dict[str, Camera] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: dict[int, tuple[int, int]] = {}  # SSRC → its report's NTP middle, arrival
        self._began_ns = self._began_unix_ns = 0
        self._flashes: frozenset[int] = frozenset()
        self._instants_s: list[float] = []
        self._codec, self._size = VP8, (320, 240)
        self._is_pausing = False
        self._noise = random.Random(5)

    async def join(self, sdp: str, sends: dict[str, str]) -> dict[str, Any]:
        """Answer a new leg's offer; `sends` are names of our tracks by mid."""
        self._line = BadLine(self._address, self._hear, self._count)
        self._line.meet(sdp, is_controlling=True)
        codecs = {"microphone": OPUS, "camera": self._codec, "document": VP8}
        self._streams = {name: Stream(name, codecs[name]) for name in sends.values()}
        self._cameras.clear()  # a new connection has new encoders
        self._heard = {}
        answer = self._answer(sdp, sends)
        self._joining = asyncio.create_task(self._line.join(), name="join")
        return {"sdp": answer}

    async def again(self, sdp: str, sends: dict[str, str]) -> dict[str, Any]:
        """Answer another offer of the same leg."""
        return {"sdp": self._answer(sdp, sends)}

    async def connected(self) -> dict[str, Any]:
        """Wait until the transport stands."""
        assert self._joining is not None
        assert self._line is not None
        await self._joining
        self._line.listen()
        return {"srtp_profile": self._line.srtp_profile}

    async def start(self, began_ns: int, began_unix_ns: int, seconds: float) -> dict[str, Any]:
        """Begin to send; true time is counted from `began_ns`."""
        self._began_ns, self._began_unix_ns = began_ns, began_unix_ns
        ticks = flash_ticks(seconds)
        self._flashes = frozenset(tick + n for tick in ticks for n in range(FLASH_TICKS))
        self._instants_s = [tick_ns(tick) / SECOND_NS for tick in ticks]
        self._tasks = [
            asyncio.create_task(self._talk(self._streams["microphone"]), name="microphone"),
            asyncio.create_task(self._report(), name="report"),
            asyncio.create_task(self._consent(), name="consent"),
        ]
        for name in ("camera", "document"):
            if name in self._streams:
                task = self._film(self._streams[name], 1 if name == "camera" else DOCUMENT_EVERY)
                self._tasks.append(asyncio.create_task(task, name=name))
        return {"at_ns": time.monotonic_ns()}

    async def leave(self) -> dict[str, Any]:
        """Fall silent at once, as someone whose machine was switched off."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._line is not None:
            self._line.close()
            self._line = None
        failed = [e for e in ended if isinstance(e, Exception)]
        if failed:
            raise failed[0]
        return {"at_ns": time.monotonic_ns()}

    async def change(
        self, size: list[int] | None = None, codec: str = "", is_pausing: bool | None = None
    ) -> dict[str, Any]:
        """Change the camera's picture or codec, or leave out silent sound from now on."""
        if size is not None:
            self._size = (size[0], size[1])
        if codec:
            self._codec = {"vp8": VP8, "h264": H264}[codec]
        if is_pausing is not None:
            self._is_pausing = is_pausing
        if size is not None or codec:
            self._cameras.pop("camera", None)
        return {}

    async def counts(self) -> dict[str, Any]:
        return asdict(self._counts)

    # What is said.

    def _answer(self, offer: str, sends: dict[str, str]) -> str:
        """The offer turned round: send where we may, receive what is shown."""
        assert self._line is not None
        head, *sections = re.split(r"(?m)^(?=m=)", offer)
        lines = head.split("\r\n")
        for section in sections:
            name = sends.get(_first(r"(?m)^a=mid:(\S+)", section)[0])
            for text in section.split("\r\n"):
                if text.startswith(("a=candidate", "a=end-of", "a=ssrc", "a=msid", "a=ice-")):
                    continue
                if text.startswith("a=setup:"):
                    lines += self._line.transport_lines()
                elif text == "a=recvonly" and name is not None:
                    lines += ["a=sendonly", *_source_lines(self._streams[name])]
                elif text == "a=sendonly":
                    lines.append("a=recvonly")
                elif not text.startswith("a=fingerprint"):
                    lines.append(text)
        return "\r\n".join(line for line in lines if line) + "\r\n"

    # What is sent.

    async def _film(self, stream: Stream, every: int) -> None:
        tick = self._true_ns() * CAMERA_FPS // SECOND_NS + 1
        tick += -tick % every
        fps = CAMERA_FPS // every
        while True:
            await self._until(tick_ns(tick) / SECOND_NS + PIPELINE_S)
            camera = self._cameras.get(stream.name)
            if camera is None:
                # The document camera stays as it is.
                is_camera = stream.name == "camera"
                size = self._size if is_camera else (320, 240)
                camera = Camera(self._codec if is_camera else VP8, size, fps)
                self._cameras[stream.name] = camera
                stream.codec = camera.codec
            payloads = camera.take(is_white=tick in self._flashes)
            ticks = self._clocks.ticks(tick_ns(tick), stream.codec.clock_rate)
            for number, payload in enumerate(payloads, 1):
                self._send(stream, ticks, payload, marker=number == len(payloads))
            tick += every

    async def _talk(self, stream: Stream) -> None:
        voice = Voice(self._clocks, self._instants_s)
        ticks = self._clocks.ticks(self._true_ns(), SAMPLE_RATE)
        index = ticks // SOUND_SAMPLES + 1
        while True:
            # The packet is there when its last sample is.
            await self._until(self._clocks.sampled_s((index + 1) * SOUND_SAMPLES))
            payload = voice.take(index)
            if not (self._is_pausing and voice.is_quiet(index)):
                self._send(stream, index * SOUND_SAMPLES, payload, marker=False)
            index += 1

    def _send(self, stream: Stream, ticks: int, payload: bytes, *, marker: bool) -> None:
        if self._line is None:
            return
        number, timestamp = stream.codec.payload_type, (stream.base + ticks) & 0xFFFFFFFF
        second = number | (0x80 if marker else 0)
        packet = HEADER.pack(0x80, second, stream.seq, timestamp, stream.ssrc) + payload
        sent = self._line.send_rtp(packet)
        # Under one key a number means the same bytes: sound is repeated as it went out.
        stream.kept[stream.seq] = sent if stream.codec is OPUS else packet
        if len(stream.kept) > CACHE_PACKETS:
            stream.kept.popitem(last=False)
        stream.seq = (stream.seq + 1) & 0xFFFF
        stream.packets += 1
        stream.octets += len(payload)
        self._counts.sent += 1

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            if self._line is None:
                return
            for stream in self._streams.values():
                true_ns = self._true_ns()
                ticks = self._clocks.ticks(true_ns, stream.codec.clock_rate)
                if stream.codec is OPUS:
                    error_s = self._noise.uniform(-REPORT_ERROR_S, REPORT_ERROR_S)
                    ticks += round(error_s * SAMPLE_RATE)
                report = build_sender_report(
                    stream.ssrc,
                    ntp_time=self._clocks.ntp_time(true_ns, self._began_unix_ns),
                    rtp_time=(stream.base + ticks) & 0xFFFFFFFF,
                    packets=stream.packets,
                    octets=stream.octets,
                    cname="party",
                )
                self._line.send_rtcp(report)
                self._counts.reports += 1
            self._line.send_rtcp(self._what_we_heard())

    def _what_we_heard(self) -> bytes:
        """A receiver report: how the server learns the round trip."""
        now_ns = time.monotonic_ns()
        own = self._streams["microphone"].ssrc
        reports = [
            RtcpReceiverInfo(ssrc, 0, 0, 0, 0, middle, (now_ns - at_ns << 16) // SECOND_NS)
            for ssrc, (middle, at_ns) in self._heard.items()
        ]
        return build_receiver_report(own, reports, "party")

    async def _consent(self) -> None:
        while self._line is not None:
            self._line.check()
            await asyncio.sleep(CONSENT_EVERY_S)

    # What is heard.

    def _count(self) -> None:
        self._counts.received += 1

    def _hear(self, compound: bytes) -> None:
        by_ssrc = {stream.ssrc: stream for stream in self._streams.values()}
        for packet in parse_rtcp(compound):
            if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
                if (stream := by_ssrc.get(packet.media_ssrc)) is not None:
                    self._repair(stream, packet.lost)
            elif isinstance(packet, RtcpPsfbPacket) and packet.fmt in (
                RTCP_PSFB_PLI,
                RTCP_PSFB_FIR,
            ):
                self._counts.keyframes_asked += 1
                stream = by_ssrc.get(packet.media_ssrc)
                if stream is not None and stream.name in self._cameras:
                    self._cameras[stream.name].is_keyframe_due = True
            elif isinstance(packet, RtcpSrPacket):
                middle = ntp_middle(packet.sender_info.ntp_timestamp)
                self._heard[packet.ssrc] = (middle, time.monotonic_ns())

    def _repair(self, stream: Stream, lost: list[int]) -> None:
        for seq in lost:
            self._counts.asked_again += 1
            kept = stream.kept.get(seq & 0xFFFF)
            if kept is None or self._line is None:
                continue
            self._counts.resent += 1
            if stream.codec is OPUS:
                self._line.repeat(kept)
                continue
            _, second, original, timestamp, _ = HEADER.unpack_from(kept)
            again = wrap_rtx(
                kept,
                payload_type=RTX_OF[second & 0x7F],
                ssrc=stream.rtx_ssrc,
                sequence=stream.rtx_seq,
                original=original,
                timestamp=timestamp,
            )
            stream.rtx_seq = (stream.rtx_seq + 1) & 0xFFFF
            self._line.send_rtp(again)

    # True time.

    def _true_ns(self) -> int:
        return time.monotonic_ns() - self._began_ns

    async def _until(self, true_s: float) -> None:
        left_s = true_s - self._true_ns() / SECOND_NS
        await asyncio.sleep(max(0.0, left_s))


def _source_lines(stream: Stream) -> list[str]:
    if stream.codec is OPUS:
        return [f"a=ssrc:{stream.ssrc} cname:party"]
    return [
        f"a=ssrc-group:FID {stream.ssrc} {stream.rtx_ssrc}",
        f"a=ssrc:{stream.ssrc} cname:party",
        f"a=ssrc:{stream.rtx_ssrc} cname:party",
    ]


async def _serve(party: Party) -> None:
    reply = replying()
    async for message in messages():
        reply(await getattr(party, message.pop("verb"))(**message))


if __name__ == "__main__":
    asyncio.run(_serve(Party(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
