"""The callers of a benchmark: a process that speaks real ICE, DTLS and SRTP to any relay.

A caller sends what a VGA call sends (bench/clip.py), sender reports, ICE consent, and a keyframe
when asked for one; it counts what arrives and never decodes. Each packet carries the time it was
sent in its RTP padding, which relays pass on and players ignore; whoever receives it on the same
machine subtracts.

Relays differ in how a call is set up, not in what a call is. Two dialects, one timed loop:

    whole    one transport for everything, offered by the server      (ours)
    halves   one that we offer, to send; one offered to us, to receive (Janus's VideoRoom)

`python -m bench.media_caller CLIP HEARERS` takes a JSON line per verb on standard input and answers
each with one: `whole`, `publish`, `accept`, `subscribe`, `connected`, `drive`.
"""

import asyncio
import gc
import heapq
import json
import random
import re
import select
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aioice import stun

from bench.clip import FRAMES_PER_S, SOUNDS_PER_S, Clip, read_clip
from media.dtls import DtlsAssociation, fingerprint_of, new_certificate
from media.rtp import HEADER, build_sender_report
from media.sdp import ABS_SEND_TIME_EXTENSION, AUDIO_LEVEL_EXTENSION, EXTENSIONS, OPUS, VP8
from media.srtp import (
    PacketBuffer,
    SrtpSession,
    protect,
    protect_rtcp,
    unprotect,
    unprotect_rtcp,
)

FRAME_NS: Final = 1_000_000_000 // FRAMES_PER_S
SOUND_NS: Final = 1_000_000_000 // SOUNDS_PER_S
REPORT_NS: Final = 1_000_000_000
CONSENT_NS: Final = 2_500_000_000
KEYFRAME_EVERY_NS: Final = 1_000_000_000
"""A keyframe that is asked for sooner than this after the last is the last one asked for again."""
JOIN_TIMEOUT_S: Final = 20
LOOPBACK: Final = "127.0.0.1"
# The stamp (when it was sent, wall clock in ns), and the padding's own length behind it (RFC 3550
# §5.1).
STAMP: Final = struct.Struct("!QB")
# The kernel's own stamp of what arrives, beside the packet: a `struct timespec`, wall clock.
SO_TIMESTAMPNS: Final = 35
TIMESPEC: Final = struct.Struct("=qq")
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(TIMESPEC.size)
# VP8's payload descriptor: start of a picture or not, and a 15-bit picture id (RFC 7741 §4.2).
DESCRIPTOR: Final = struct.Struct("!BBH")
EXTENSION_HEAD: Final = b"\xbe\xde\x00\x01"
_FEEDBACK: Final = ("goog-remb", "ccm fir", "nack", "nack pli")


@dataclass
class _Stream:
    """One track that a caller sends."""

    ssrc: int
    payload_type: int
    clock_rate: int
    extension: bytes
    at: int = 0
    """Which picture or sound of the clip is next."""
    picture_id: int = 0
    seq: int = 0
    packets: int = 0
    octets: int = 0


@dataclass
class Counts:
    """What all callers of this process have seen."""

    sent: int = 0
    expected: int = 0
    received: int = 0
    unsent: int = 0
    """What our own full socket buffer refused: not the server's loss."""
    delays_us: list[int] = field(default_factory=list)
    late_us: list[int] = field(default_factory=list)
    """How late our own timetable was."""


# -- Transports ----------------------------------------------------------------------------------


class Line:
    """One transport: a socket, its ICE names, its keys."""

    def __init__(self, ufrag: str, host: str) -> None:
        self._certificate = new_certificate()
        self._ufrag = ufrag
        self._password = f"{random.getrandbits(128):032x}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        # When a packet arrived is the kernel's word: we may be busy sending ourselves.
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind((host, 0))
        self.buffer = PacketBuffer()
        self.tx: Any = None
        self.srtp_profile = ""
        self.wants_keyframe = False
        self._rx: Any = None
        self._keys: tuple[SrtpSession, SrtpSession] | None = None
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._remote = ("", b"", "")  # ufrag, password, fingerprint
        self._is_controlling = True
        self._is_checked = False
        self._dtls = DtlsAssociation(
            self._certificate,
            send=self._send_datagram,
            on_connected=self._take_keys,
            on_closed=lambda reason: None,
            role="client",
        )

    def transport_lines(self) -> list[str]:
        """What our SDP says about this transport."""
        host, port = self.socket.getsockname()
        return [
            f"a=ice-ufrag:{self._ufrag}",
            f"a=ice-pwd:{self._password}",
            f"a=fingerprint:sha-256 {fingerprint_of(self._certificate)}",
            "a=setup:active",
            f"a=candidate:1 1 udp 2130706431 {host} {port} typ host",
            "a=end-of-candidates",
        ]

    def meet(self, sdp: str, *, is_controlling: bool) -> None:
        """Learn the other side from its description: names, fingerprint, and where it listens."""
        self._is_controlling = is_controlling
        self._remote = (
            _value(r"a=ice-ufrag:(\S+)", sdp),
            _value(r"a=ice-pwd:(\S+)", sdp).encode(),
            _value(r"a=fingerprint:sha-256 (\S+)", sdp),
        )
        host = self.socket.getsockname()[0]
        port = _value(rf"(?i)a=candidate:\S+ 1 udp \d+ {re.escape(host)} (\d+) typ host", sdp)
        self.socket.connect((host, int(port)))

    async def join(self) -> None:
        """Check, nominate, shake hands."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.socket.fileno(), self._setup_readable)
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                while not self._is_checked:
                    self.check()
                    await asyncio.sleep(0.05)
                self._dtls.start(self._remote[2])
                await self._connected
        finally:
            loop.remove_reader(self.socket.fileno())

    def check(self) -> None:
        """An ICE check, which nominates if we may; repeated, it is our consent."""
        attributes: dict[str, Any] = {"USERNAME": f"{self._remote[0]}:{self._ufrag}", "PRIORITY": 1}
        if self._is_controlling:
            attributes |= {"ICE-CONTROLLING": 1, "USE-CANDIDATE": None}
        else:
            attributes["ICE-CONTROLLED"] = 1
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes=attributes)
        request.add_message_integrity(self._remote[1])
        self._send_datagram(bytes(request))

    def _answer_check(self, data: bytes) -> None:
        """A full agent checks us too, and goes on doing so."""
        message = stun.parse_message(data)
        if message.message_class is stun.Class.RESPONSE:
            self._is_checked = True
        if message.message_class is not stun.Class.REQUEST:
            return
        response = stun.Message(
            stun.Method.BINDING,
            stun.Class.RESPONSE,
            transaction_id=message.transaction_id,
            attributes={"XOR-MAPPED-ADDRESS": self.socket.getpeername()},
        )
        response.add_message_integrity(self._password.encode())
        self._send_datagram(bytes(response))

    def _send_datagram(self, datagram: bytes) -> None:
        self.socket.send(datagram)

    def _setup_readable(self) -> None:
        try:
            data = self.socket.recv(2048)
        except BlockingIOError:
            return
        if data[0] < 4:
            self._answer_check(data)
        elif 20 <= data[0] < 64:
            self._dtls.feed(data)

    def _take_keys(self, inbound: SrtpSession, outbound: SrtpSession, profile: str) -> None:
        self._keys = (inbound, outbound)
        self._rx, self.tx = inbound.context, outbound.context
        self.srtp_profile = profile
        if not self._connected.done():
            self._connected.set_result(None)

    # In the timed loop: no event loop, no allocation worth mentioning.

    def hand_over(self) -> bool:
        """Send what lies in the buffer, encrypted. False if our own socket is full."""
        try:
            self.socket.send(self.buffer.view[: self.buffer.length[0]])
        except OSError:
            return False
        return True

    def read(self, counts: Counts) -> None:
        """Count everything that has arrived."""
        buffer = self.buffer
        while True:
            try:
                length, ancillary, _, _ = self.socket.recvmsg_into([buffer.view], ANCILLARY_BYTES)
            except OSError:
                return
            first, second = buffer.view[0], buffer.view[1]
            if first < 4:
                self._answer_check(bytes(buffer.view[:length]))
                continue
            if not 128 <= first < 192:
                continue
            buffer.length[0] = length
            if 192 <= second < 224:
                if unprotect_rtcp(self._rx, buffer.cdata, buffer.length) == 0:
                    self._hear(bytes(buffer.view[: buffer.length[0]]))
            elif unprotect(self._rx, buffer.cdata, buffer.length) == 0:
                sent_ns, _ = STAMP.unpack_from(buffer.view, buffer.length[0] - STAMP.size)
                counts.received += 1
                seconds, nanoseconds = TIMESPEC.unpack_from(ancillary[0][2])
                counts.delays_us.append((seconds * 10**9 + nanoseconds - sent_ns) // 1000)
                self.heard(second, time.monotonic_ns())

    def heard(self, second: int, now_ns: int) -> None:
        """A packet with this second byte has arrived; for those who keep books of their own."""

    def _hear(self, compound: bytes) -> None:
        """Whether a compound RTCP packet asks for a keyframe: PLI (RFC 4585) or FIR (RFC 5104)."""
        at = 0
        while at + 4 <= len(compound):
            if compound[at + 1] == 206 and compound[at] & 0x1F in (1, 4):
                self.wants_keyframe = True
            at += 4 + 4 * int.from_bytes(compound[at + 2 : at + 4], "big")


def _value(pattern: str, sdp: str) -> str:
    found = re.search(pattern, sdp)
    if found is None:
        raise ValueError(f"The other side's SDP has no {pattern}.")
    return found[1]


# -- Callers -------------------------------------------------------------------------------------


class Caller:
    """One participant: what it sends, and over which lines. `hears`: how many others get it."""

    def __init__(
        self,
        seed: int,
        host: str,
        clip: Clip,
        counts: Counts,
        hears: int,
        *,
        line: Callable[[str, str], Line] = Line,
    ) -> None:
        self._clip = clip
        self._counts = counts
        self._hears = hears
        self.out = line(f"load{seed:04d}", host)
        self.into = self.out
        stamp = bytes([ABS_SEND_TIME_EXTENSION << 4 | 2, 0, 0, 0])
        level = bytes([AUDIO_LEVEL_EXTENSION << 4, 0x80 | 30, 0, 0])
        self.picture = _Stream(2 * seed + 1, VP8.payload_type, VP8.clock_rate, stamp)
        self.sound = _Stream(2 * seed + 2, OPUS.payload_type, OPUS.clock_rate, level)
        self._keyframe_ns = 0

    # What is said before the call.

    def offer(self) -> str:
        """Our offer to send, for a relay that waits for one."""
        lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]
        for mid, (kind, codec, stream) in enumerate(
            (("audio", OPUS, self.sound), ("video", VP8, self.picture))
        ):
            encoding = codec.mime.split("/")[1] + f"/{codec.clock_rate}"
            number = codec.payload_type
            extension = stream.extension[0] >> 4
            lines += [
                f"m={kind} 9 UDP/TLS/RTP/SAVPF {number}",
                "c=IN IP4 0.0.0.0",
                *self.out.transport_lines(),
                f"a=mid:{mid}",
                "a=sendonly",
                "a=rtcp-mux",
                f"a=rtpmap:{number} {encoding}{'/2' if codec.channels == 2 else ''}",
                *(f"a=rtcp-fb:{number} {word}" for word in _FEEDBACK if kind == "video"),
                f"a=extmap:{extension} {EXTENSIONS[extension]}",
                f"a=ssrc:{stream.ssrc} cname:load",
            ]
        return "\r\n".join(lines) + "\r\n"

    def answer(self, offer: str, line: Line) -> str:
        """The offer turned round: send where it receives, receive where it sends."""
        lines: list[str] = []
        stream = self.picture
        for text in offer.split("\r\n"):
            if text.startswith("m="):
                stream = self.sound if text.startswith("m=audio") else self.picture
            if text.startswith(
                ("a=candidate", "a=end-of", "a=ssrc", "a=msid:", "a=ice-", "a=fingerprint")
            ):
                continue
            if text.startswith("a=setup:"):
                lines += line.transport_lines()
            elif text == "a=recvonly":
                lines += ["a=sendonly", f"a=ssrc:{stream.ssrc} cname:load"]
            elif text == "a=sendonly":
                lines.append("a=recvonly")
            else:
                lines.append(text)
        return "\r\n".join(lines)

    # Calling, in the timed loop.

    def send_frame(self, now_ns: int) -> None:
        """The next picture, or a keyframe if one was asked for."""
        stream, frames = self.picture, self._clip.frames
        if self.out.wants_keyframe:
            self.out.wants_keyframe = False
            if now_ns - self._keyframe_ns > KEYFRAME_EVERY_NS:
                stream.at = 0
        if stream.at == 0:
            self._keyframe_ns = now_ns
        pieces = frames[stream.at]
        stream.at = (stream.at + 1) % len(frames)
        stream.picture_id = (stream.picture_id + 1) & 0x7FFF
        head = 0x90
        for number, piece in enumerate(pieces, 1):
            DESCRIPTOR.pack_into(self.out.buffer.view, 20, head, 0x80, 0x8000 | stream.picture_id)
            self._send(stream, piece, 20 + DESCRIPTOR.size, now_ns, marker=number == len(pieces))
            head = 0x80

    def send_sound(self, now_ns: int) -> None:
        """The next 20 ms of sound."""
        stream, sounds = self.sound, self._clip.sounds
        self._send(stream, sounds[stream.at], 20, now_ns, marker=False)
        stream.at = (stream.at + 1) % len(sounds)

    def send_reports(self, now_ns: int) -> None:
        """Sender reports of both tracks."""
        wall_ns = time.time_ns()
        ntp = ((wall_ns // 10**9 + 2_208_988_800) << 32) | ((wall_ns % 10**9 << 32) // 10**9)
        line = self.out
        for stream in (self.picture, self.sound):
            data = build_sender_report(
                stream.ssrc,
                ntp_time=ntp,
                rtp_time=_timestamp(stream, now_ns),
                packets=stream.packets,
                octets=stream.octets,
                cname="load",
            )
            line.buffer.view[: len(data)] = data
            line.buffer.length[0] = len(data)
            if protect_rtcp(line.tx, line.buffer.cdata, line.buffer.length) == 0:
                line.hand_over()

    def consent(self, _now_ns: int) -> None:
        """Go on allowing the relay to send to us, on every line."""
        self.out.check()
        if self.into is not self.out:
            self.into.check()

    def _send(self, stream: _Stream, piece: bytes, at: int, now_ns: int, *, marker: bool) -> None:
        line, counts = self.out, self._counts
        buffer = line.buffer
        view = buffer.view
        second = stream.payload_type | (0x80 if marker else 0)
        # 0xB0: version 2, padded, extended.
        HEADER.pack_into(view, 0, 0xB0, second, stream.seq, _timestamp(stream, now_ns), stream.ssrc)
        view[12:16] = EXTENSION_HEAD
        view[16:20] = stream.extension
        end = at + len(piece)
        view[at:end] = piece
        STAMP.pack_into(view, end, time.time_ns(), STAMP.size)
        stream.seq = (stream.seq + 1) & 0xFFFF
        buffer.length[0] = end + STAMP.size
        if protect(line.tx, buffer.cdata, buffer.length) == 0 and line.hand_over():
            stream.packets += 1
            stream.octets += len(piece)
            counts.sent += 1
            counts.expected += self._hears
        else:
            counts.unsent += 1


def _timestamp(stream: _Stream, now_ns: int) -> int:
    return (now_ns * stream.clock_rate // 1_000_000_000) & 0xFFFFFFFF


# -- The process ---------------------------------------------------------------------------------


class Load:
    """A share of the callers. Every method is a verb of the parent's."""

    line: Callable[[str, str], Line] = Line

    def __init__(self, clip: Path, hears: int) -> None:
        self._clip = read_clip(clip)
        self._hears = hears
        self._host = LOOPBACK
        self._counts = Counts()
        self._callers: list[Caller] = []
        self._joins: list[asyncio.Task[None]] = []
        self._seed = random.SystemRandom().randrange(1, 2**30)

    async def whole(self, offers: list[str]) -> dict[str, Any]:
        """One caller for each offer, sending and receiving on one transport."""
        self._add(len(offers))
        answers = []
        for caller, offer in zip(self._callers, offers, strict=True):
            caller.out.meet(offer, is_controlling=True)
            answers.append(caller.answer(offer, caller.out))
        self._join([caller.out for caller in self._callers])
        return {"sdps": answers}

    async def publish(self, count: int, host: str) -> dict[str, Any]:
        """`count` callers who offer to send, at our address `host`, where the relay is too."""
        self._host = host
        self._add(count)
        return {"sdps": [caller.offer() for caller in self._callers]}

    async def accept(self, answers: list[str]) -> dict[str, Any]:
        """The relay's answers to what `publish` said."""
        for caller, answer in zip(self._callers, answers, strict=True):
            caller.out.meet(answer, is_controlling=True)
        self._join([caller.out for caller in self._callers])
        return {}

    async def subscribe(self, offers: list[str]) -> dict[str, Any]:
        """A second transport for each caller, to receive on."""
        answers: list[str] = []
        for caller, offer in zip(self._callers, offers, strict=True):
            caller.into = Line(f"into{self._seed + len(answers):04d}", self._host)
            caller.into.meet(offer, is_controlling=False)
            answers.append(caller.answer(offer, caller.into))
        self._join([caller.into for caller in self._callers])
        return {"sdps": answers}

    async def connected(self) -> dict[str, Any]:
        """Wait until everyone is. Raises TimeoutError if someone cannot."""
        await asyncio.gather(*self._joins)
        return {}

    async def drive(self, warm_up_s: float, seconds: float, drain_s: float) -> dict[str, Any]:
        """The call itself: a plain loop over due times, blocking this process's event loop.

        Delays and CPU are those of the middle part, loss is that of the whole. What is still under
        way at the end is waited for, `drain_s` at most.
        """
        gc.collect()
        gc.freeze()
        gc.disable()
        counts = self._counts
        poller = select.epoll()
        lines = {line for caller in self._callers for line in (caller.out, caller.into)}
        by_fd = {line.socket.fileno(): line for line in lines}
        for fd in by_fd:
            poller.register(fd, select.EPOLLIN)
        begin_ns = time.monotonic_ns()
        stop_sending_ns = begin_ns + int((warm_up_s + seconds) * 1e9)
        end_ns = stop_sending_ns + int(drain_s * 1e9)
        due = self._timetable(begin_ns)
        window: list[tuple[int, float]] = []

        def begin_counting(_now_ns: int) -> None:
            window.append((counts.sent, time.process_time()))
            counts.delays_us.clear()
            counts.late_us.clear()

        never_ns = end_ns
        heapq.heappush(due, (begin_ns + int(warm_up_s * 1e9), -1, never_ns, begin_counting))
        while (now_ns := time.monotonic_ns()) < stop_sending_ns:
            while due[0][0] <= now_ns:
                at_ns, number, period_ns, action = due[0]
                heapq.heapreplace(due, (at_ns + period_ns, number, period_ns, action))
                counts.late_us.append((now_ns - at_ns) // 1000)
                action(at_ns)
            wait_s = max(0, due[0][0] - time.monotonic_ns()) / 1e9
            for fd, _ in poller.poll(wait_s):
                by_fd[fd].read(counts)
        sent, cpu_s = counts.sent - window[0][0], time.process_time() - window[0][1]
        while (now_ns := time.monotonic_ns()) < end_ns and counts.received < counts.expected:
            for fd, _ in poller.poll((end_ns - now_ns) / 1e9):
                by_fd[fd].read(counts)
        return {
            "sent": counts.sent,
            "sent_in_window": sent,
            "expected": counts.expected,
            "received": counts.received,
            "unsent": counts.unsent,
            "delays_us": counts.delays_us,
            "late_us_p99": _p99(counts.late_us),
            "cpu_s": cpu_s,
            "srtp_profiles": sorted({line.srtp_profile for line in lines}),
        }

    def _add(self, count: int) -> None:
        self._callers = [
            Caller(
                self._seed + number,
                self._host,
                self._clip,
                self._counts,
                self._hears,
                line=self.line,
            )
            for number in range(count)
        ]

    def _join(self, lines: list[Line]) -> None:
        self._joins += [asyncio.create_task(line.join(), name="join") for line in lines]

    def _timetable(self, begin_ns: int) -> list[tuple[int, int, int, Callable[[int], None]]]:
        """When everyone does what, each caller with a phase of its own."""
        due: list[tuple[int, int, int, Callable[[int], None]]] = []
        for caller in self._callers:
            for period_ns, action in (
                (FRAME_NS, caller.send_frame),
                (SOUND_NS, caller.send_sound),
                (REPORT_NS, caller.send_reports),
                (CONSENT_NS, caller.consent),
            ):
                phase_ns = random.Random(len(due)).randrange(period_ns)
                due.append((begin_ns + phase_ns, len(due), period_ns, action))
        heapq.heapify(due)
        return due


def _p99(values: list[int]) -> int:
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else 0


async def messages() -> AsyncIterator[dict[str, Any]]:
    """The parent's messages, one JSON object a line, until it closes our standard input."""
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield json.loads(line)


async def serve(load: Load, reply: Callable[[dict[str, Any]], None]) -> None:
    async for message in messages():
        verb = message.pop("verb")
        reply(await getattr(load, verb)(**message))


def replying() -> Callable[[dict[str, Any]], None]:
    """How a child answers. The pipe to the parent was standard output; whatever else is printed
    from here on belongs on standard error."""
    pipe, sys.stdout = sys.stdout, sys.stderr

    def reply(answer: dict[str, Any]) -> None:
        pipe.write(json.dumps(answer) + "\n")
        pipe.flush()

    return reply


if __name__ == "__main__":
    asyncio.run(serve(Load(Path(sys.argv[1]), int(sys.argv[2])), replying()))
