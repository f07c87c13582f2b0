"""What does a recorded two-party call cost the server, and how late are its packets?

The server (MediaNode with the real Recorder) is a child process; the callers are others. A caller
speaks real ICE, DTLS and SRTP and sends what a VGA call sends: VP8 of 0.8 Mbit/s at 30 frames a
second in packets of about 1,100 bytes, Opus at 50 packets a second, sender reports, ICE consent.
It neither encodes nor decodes: each payload ends with the time it was sent, and whoever receives it
on the same machine subtracts. CPU is the server process's own, over the measured window.

    run(calls, seconds) -> {"calls", "cpu_s_per_call_min", "packets_in", "packets_out", "lost",
                            "delay_ms": {"p50", "p99"}, …}
"""

import asyncio
import gc
import heapq
import json
import math
import platform
import random
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aioice import stun

from core.clock import SystemClock
from core.ids import ParticipantId, RoomId, SessionId, new_id
from media.dtls import DtlsAssociation, fingerprint_of, new_certificate
from media.node import MediaNode, MediaRoom
from media.recorder import Recorder
from media.rtp import HEADER, build_sender_report
from media.sdp import ABS_SEND_TIME_EXTENSION, AUDIO_LEVEL_EXTENSION, OPUS, VP8
from media.srtp import PacketBuffer, SrtpSession, protect, protect_rtcp, unprotect
from media.tracks import TrackName

CALLS_PER_LOAD_PROCESS: Final = 20
WARM_UP_S: Final = 1.0
DRAIN_S: Final = 0.5
FRAME_NS: Final = 33_333_333
SOUND_NS: Final = 20_000_000
REPORT_NS: Final = 1_000_000_000
CONSENT_NS: Final = 2_500_000_000
PACKET_PAYLOAD_BYTES: Final = 1100
FRAME_BYTES: Final = (3300, 900)  # mean and deviation: 30 a second are 0.8 Mbit/s
SOUND_BYTES: Final = 80  # 32 kbit/s
STAMP: Final = struct.Struct("!Q")
PICTURES: Final = memoryview(random.Random(1).randbytes(4 * PACKET_PAYLOAD_BYTES))


def run(calls: int, seconds: int) -> dict[str, Any]:
    """Measure `calls` two-party calls for `seconds`, after a second of warm-up.

    Raises RuntimeError if a child fails; its own words are on stderr.
    """
    shares = [
        min(CALLS_PER_LOAD_PROCESS, calls - at) for at in range(0, calls, CALLS_PER_LOAD_PROCESS)
    ]
    server = _Child("server")
    loads: list[_Child] = []
    try:
        offers = server.ask("open", calls=calls)["offers"]
        at = 0
        for share in shares:
            load = _Child("load")
            loads.append(load)
            answers = load.ask("join", offers=offers[2 * at : 2 * (at + share)])["answers"]
            server.ask("answer", first=2 * at, answers=answers)
            at += share
        for load in loads:
            load.ask("connected")
        server.ask("live")
        for load in loads:
            load.tell("drive", seconds=WARM_UP_S + seconds + DRAIN_S)
        time.sleep(WARM_UP_S)
        before = server.ask("count")
        time.sleep(seconds)
        after = server.ask("count")
        results = [load.hear() for load in loads]
        return _summary(calls, seconds, before, after, results)
    finally:
        for child in [*loads, server]:
            child.close()


def _summary(
    calls: int,
    seconds: int,
    before: dict[str, Any],
    after: dict[str, Any],
    results: list[dict[str, Any]],
) -> dict[str, Any]:
    delays = sorted(delay for result in results for delay in result["delays_us"])
    cpu_s = after["cpu_s"] - before["cpu_s"]
    packets_in = after["packets_in"] - before["packets_in"]
    packets_out = after["packets_out"] - before["packets_out"]
    return {
        "calls": calls,
        "cpu_s_per_call_min": round(cpu_s / (calls * seconds / 60), 4),
        "packets_in": packets_in,
        "packets_out": packets_out,
        "lost": sum(r["sent"] - r["received"] for r in results),
        "delay_ms": {"p50": _quantile_ms(delays, 0.50), "p99": _quantile_ms(delays, 0.99)},
        "us_cpu_per_packet": round(cpu_s * 1e6 / packets_in, 2) if packets_in else None,
        "core_percent": round(100 * cpu_s / seconds, 1),
        "server_rss_mib": after["rss_mib"],
        "dropped": after["dropped"],
        "srtp_profile": after["srtp_profile"],
        "recorded": True,
        "seconds": seconds,
        "machine": f"{platform.machine()} {platform.system()} {platform.python_version()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _quantile_ms(ordered_us: list[int], fraction: float) -> float | None:
    if not ordered_us:
        return None
    at = min(len(ordered_us) - 1, math.ceil(fraction * len(ordered_us)) - 1)
    return round(ordered_us[at] / 1000, 3)


class _Child:
    """A child process of this module; one JSON line there, one back."""

    def __init__(self, role: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.media_load", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def tell(self, verb: str, **values: object) -> None:
        self._stdin.write(json.dumps({"verb": verb, **values}) + "\n")
        self._stdin.flush()

    def hear(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line:
            raise RuntimeError("A process of the load generator has ended early.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, verb: str, **values: object) -> dict[str, Any]:
        self.tell(verb, **values)
        return self.hear()

    def close(self) -> None:
        self._stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# -- The server's process ------------------------------------------------------------------------


class _Server:
    """Every call is a room of two, live and recorded into a directory of its own."""

    def __init__(self, node: MediaNode, directory: Path) -> None:
        self._node = node
        self._directory = directory
        self._rooms: list[MediaRoom] = []
        self._recorders: list[Recorder] = []

    def open(self, calls: int) -> dict[str, Any]:
        offers = []
        for number in range(calls):
            room = self._node.open_room(RoomId(f"call{number}"))
            self._rooms.append(room)
            peers = [
                room.add_peer(
                    ParticipantId(new_id()),
                    label=role,
                    role=role,
                    publishes=[TrackName.CAMERA, TrackName.MICROPHONE],
                    on_event=lambda event: None,
                )
                for role in ("petitioner", "official")
            ]
            offers += [peer.offer().sdp for peer in peers]
        return {"offers": offers}

    def answer(self, first: int, answers: list[str]) -> dict[str, Any]:
        peers = [peer for room in self._rooms for peer in room.peers()]
        for peer, sdp in zip(peers[first : first + len(answers)], answers, strict=True):
            peer.answer(1, sdp)
        return {}

    def live(self) -> dict[str, Any]:
        for number, room in enumerate(self._rooms):
            recorder = Recorder.open(
                self._directory / str(number),
                session_id=SessionId(new_id()),
                started_at=datetime.now(UTC),
                clock=SystemClock(),
                reserve_bytes=0,
            )
            self._recorders.append(recorder)
            room.go_live(recorder)
        gc.collect()
        return {}

    def count(self) -> dict[str, Any]:
        stats = [peer for room in self._rooms for peer in room.stats()]
        status = Path("/proc/self/status").read_text(encoding="ascii")
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        return {
            "cpu_s": time.process_time(),
            "packets_in": sum(s.packets_in for s in stats),
            "packets_out": sum(s.packets_out for s in stats),
            "dropped": {k: v for k, v in self._node.counters().items() if v},
            "srtp_profile": "/".join(sorted({s.srtp_profile for s in stats})),
            "rss_mib": int(resident[1]) // 1024 if resident else None,
        }

    async def aclose(self) -> None:
        for room in self._rooms:
            await room.end()
        for recorder in self._recorders:
            await recorder.seal()
        await self._node.aclose()


async def _serve(reply: Callable[[dict[str, Any]], None]) -> None:
    node = await MediaNode.start(host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock())
    directory = Path(tempfile.mkdtemp(prefix="reception-bench-"))
    server = _Server(node, directory)
    try:
        async for message in _messages():
            verb = message.pop("verb")
            reply(getattr(server, verb)(**message))
    finally:
        await server.aclose()
        shutil.rmtree(directory, ignore_errors=True)


async def _messages() -> Any:  # Any: an async generator of decoded lines
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield json.loads(line)


# -- The callers' process ------------------------------------------------------------------------


@dataclass
class _Stream:
    """One track that a caller sends."""

    ssrc: int
    payload_type: int
    clock_rate: int
    extension: bytes
    seq: int = 0
    packets: int = 0
    octets: int = 0


@dataclass
class _Counts:
    sent: int = 0
    received: int = 0
    delays_us: list[int] = field(default_factory=list)


class _Caller:
    """One participant: a socket, its keys, and the packets it owes the world."""

    def __init__(self, offer: str, seed: int, counts: _Counts) -> None:
        self._random = random.Random(seed)
        self._counts = counts
        self._offer = offer
        self._certificate = new_certificate()
        self._ufrag = f"load{seed:04d}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self.socket.bind(("127.0.0.1", 0))
        found = re.search(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", offer)
        assert found is not None
        self.socket.connect((found[1], int(found[2])))
        stamp = bytes([ABS_SEND_TIME_EXTENSION << 4 | 2, 0, 0, 0])
        level = bytes([AUDIO_LEVEL_EXTENSION << 4, 0x80 | 30, 0, 0])
        self.picture = _Stream(2 * seed + 1, VP8.payload_type, VP8.clock_rate, stamp)
        self.sound = _Stream(2 * seed + 2, OPUS.payload_type, OPUS.clock_rate, level)
        self._buffer = PacketBuffer()
        self._tx: Any = None
        self._rx: Any = None
        self._keys: tuple[SrtpSession, SrtpSession] | None = None
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_checked = False
        self._dtls = DtlsAssociation(
            self._certificate,
            send=self._send_datagram,
            on_connected=self._take_keys,
            on_closed=lambda reason: None,
            role="client",
        )

    # Joining, on the event loop.

    def answer(self) -> str:
        """The offer turned round: send where it receives, receive where it sends."""
        lines: list[str] = []
        stream = self.picture
        for line in self._offer.split("\r\n"):
            if line.startswith("m="):
                stream = self.sound if line.startswith("m=audio") else self.picture
            if line.startswith(("a=candidate", "a=end-of", "a=ssrc", "a=msid:", "a=ice-lite")):
                continue
            if line.startswith("a=ice-ufrag"):
                lines.append(f"a=ice-ufrag:{self._ufrag}")
            elif line.startswith("a=ice-pwd"):
                lines.append("a=ice-pwd:never-asked-for-by-a-lite-agent")
            elif line.startswith("a=fingerprint"):
                lines.append(f"a=fingerprint:sha-256 {fingerprint_of(self._certificate)}")
            elif line == "a=setup:actpass":
                lines.append("a=setup:active")
            elif line == "a=recvonly":
                lines += ["a=sendonly", f"a=ssrc:{stream.ssrc} cname:load"]
            elif line == "a=sendonly":
                lines.append("a=recvonly")
            else:
                lines.append(line)
        return "\r\n".join(lines)

    async def join(self) -> None:
        """Check, nominate, shake hands."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.socket.fileno(), self._setup_readable)
        try:
            async with asyncio.timeout(20):
                while not self._is_checked:
                    self.check()
                    await asyncio.sleep(0.05)
                fingerprint = re.search(r"a=fingerprint:sha-256 (\S+)", self._offer)
                assert fingerprint is not None
                self._dtls.start(fingerprint[1])
                await self.connected
        finally:
            loop.remove_reader(self.socket.fileno())

    def check(self) -> None:
        """An ICE check that nominates; repeated, it is our consent."""
        name = re.search(r"a=ice-ufrag:(\S+)", self._offer)
        password = re.search(r"a=ice-pwd:(\S+)", self._offer)
        assert name is not None
        assert password is not None
        request = stun.Message(
            stun.Method.BINDING,
            stun.Class.REQUEST,
            attributes={
                "USERNAME": f"{name[1]}:{self._ufrag}",
                "PRIORITY": 1,
                "ICE-CONTROLLING": 1,
                "USE-CANDIDATE": None,
            },
        )
        request.add_message_integrity(password[1].encode())
        self.socket.send(bytes(request))

    def _send_datagram(self, datagram: bytes) -> None:
        self.socket.send(datagram)

    def _setup_readable(self) -> None:
        try:
            data = self.socket.recv(2048)
        except BlockingIOError:
            return
        if data[0] < 4:
            self._is_checked = True
        elif 20 <= data[0] < 64:
            self._dtls.feed(data)

    def _take_keys(self, inbound: SrtpSession, outbound: SrtpSession, profile: str) -> None:
        self._keys = (inbound, outbound)
        self._rx, self._tx = inbound.context, outbound.context
        if not self.connected.done():
            self.connected.set_result(None)

    # Calling, in the timed loop: no event loop, no allocation worth mentioning.

    def send_frame(self, now_ns: int) -> None:
        size = min(max(int(self._random.gauss(*FRAME_BYTES)), 400), 3 * FRAME_BYTES[0])
        while size > 0:
            part = min(size, PACKET_PAYLOAD_BYTES)
            size -= part
            self._send(self.picture, part, now_ns, marker=size <= 0)

    def send_sound(self, now_ns: int) -> None:
        self._send(self.sound, SOUND_BYTES, now_ns, marker=False)

    def send_reports(self, now_ns: int) -> None:
        wall_ns = time.time_ns()
        ntp = ((wall_ns // 10**9 + 2_208_988_800) << 32) | ((wall_ns % 10**9 << 32) // 10**9)
        for stream in (self.picture, self.sound):
            data = build_sender_report(
                stream.ssrc,
                ntp_time=ntp,
                rtp_time=_timestamp(stream, now_ns),
                packets=stream.packets,
                octets=stream.octets,
                cname="load",
            )
            buffer = self._buffer
            buffer.view[: len(data)] = data
            buffer.length[0] = len(data)
            if protect_rtcp(self._tx, buffer.cdata, buffer.length) == 0:
                self._hand_over()

    def _send(self, stream: _Stream, payload_bytes: int, now_ns: int, *, marker: bool) -> None:
        buffer = self._buffer
        view = buffer.view
        second = stream.payload_type | (0x80 if marker else 0)
        HEADER.pack_into(view, 0, 0x90, second, stream.seq, _timestamp(stream, now_ns), stream.ssrc)
        view[12:16] = b"\xbe\xde\x00\x01"
        view[16:20] = stream.extension
        length = 20 + payload_bytes
        view[20:length] = PICTURES[:payload_bytes]
        STAMP.pack_into(view, length - STAMP.size, time.monotonic_ns())
        stream.seq = (stream.seq + 1) & 0xFFFF
        buffer.length[0] = length
        if protect(self._tx, buffer.cdata, buffer.length) == 0 and self._hand_over():
            stream.packets += 1
            stream.octets += payload_bytes
            self._counts.sent += 1

    def _hand_over(self) -> bool:
        try:
            self.socket.send(self._buffer.view[: self._buffer.length[0]])
        except OSError:  # our own full buffer is not the server's loss
            return False
        return True

    def read(self) -> None:
        """Count everything that has arrived."""
        buffer, counts = self._buffer, self._counts
        while True:
            try:
                length = self.socket.recv_into(buffer.view)
            except OSError:
                return
            now_ns = time.monotonic_ns()
            if not 128 <= buffer.view[0] < 192 or 192 <= buffer.view[1] < 224:
                continue  # consent, or RTCP
            buffer.length[0] = length
            if unprotect(self._rx, buffer.cdata, buffer.length) == 0:
                (sent_ns,) = STAMP.unpack_from(buffer.view, buffer.length[0] - STAMP.size)
                counts.received += 1
                counts.delays_us.append((now_ns - sent_ns) // 1000)


def _timestamp(stream: _Stream, now_ns: int) -> int:
    return (now_ns * stream.clock_rate // 1_000_000_000) & 0xFFFFFFFF


class _Load:
    """A share of the callers."""

    def __init__(self) -> None:
        self._counts = _Counts()
        self._callers: list[_Caller] = []
        self._joins: list[asyncio.Task[None]] = []

    async def join(self, offers: list[str]) -> dict[str, Any]:
        seed = random.SystemRandom().randrange(1, 2**30)
        self._callers = [
            _Caller(offer, seed + number, self._counts) for number, offer in enumerate(offers)
        ]
        answers = [caller.answer() for caller in self._callers]
        self._joins = [asyncio.create_task(caller.join()) for caller in self._callers]
        return {"answers": answers}

    async def connected(self) -> dict[str, Any]:
        await asyncio.gather(*self._joins)
        return {}

    async def drive(self, seconds: float) -> dict[str, Any]:
        """The call itself: a plain loop over due times, blocking this process's event loop."""
        gc.collect()
        gc.freeze()
        gc.disable()
        poller = select.epoll()
        by_fd = {caller.socket.fileno(): caller for caller in self._callers}
        for fd in by_fd:
            poller.register(fd, select.EPOLLIN)
        begin_ns = time.monotonic_ns()
        end_ns = begin_ns + int(seconds * 1e9)
        stop_sending_ns = end_ns - int(DRAIN_S * 1e9)
        due = self._timetable(begin_ns)
        while (now_ns := time.monotonic_ns()) < end_ns:
            while due[0][0] <= now_ns:
                at_ns, number, period_ns, action = due[0]
                heapq.heapreplace(due, (at_ns + period_ns, number, period_ns, action))
                if now_ns < stop_sending_ns:
                    action(at_ns)
            wait_s = max(0, due[0][0] - time.monotonic_ns()) / 1e9
            for fd, _ in poller.poll(wait_s):
                by_fd[fd].read()
        return {
            "sent": self._counts.sent,
            "received": self._counts.received,
            "delays_us": self._counts.delays_us,
        }

    def _timetable(self, begin_ns: int) -> list[tuple[int, int, int, Callable[[int], None]]]:
        """When everyone does what, each caller with a phase of its own."""
        due: list[tuple[int, int, int, Callable[[int], None]]] = []
        for caller in self._callers:
            for period_ns, action in (
                (FRAME_NS, caller.send_frame),
                (SOUND_NS, caller.send_sound),
                (REPORT_NS, caller.send_reports),
                (CONSENT_NS, lambda _, caller=caller: caller.check()),
            ):
                phase_ns = random.Random(len(due)).randrange(period_ns)
                due.append((begin_ns + phase_ns, len(due), period_ns, action))
        heapq.heapify(due)
        return due


async def _load(reply: Callable[[dict[str, Any]], None]) -> None:
    load = _Load()
    async for message in _messages():
        verb = message.pop("verb")
        reply(await getattr(load, verb)(**message))


def _child_main(role: str) -> None:
    # The pipe to the parent is stdout; whatever else is printed belongs on stderr.
    pipe, sys.stdout = sys.stdout, sys.stderr

    def reply(answer: dict[str, Any]) -> None:
        pipe.write(json.dumps(answer) + "\n")
        pipe.flush()

    asyncio.run(_serve(reply) if role == "server" else _load(reply))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _child_main(sys.argv[1])
    else:
        print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
