"""Does a call notice when strangers shout at its port?

A live, recorded call of two (real node, real ICE, DTLS and SRTP; bench/media_load.py); beside it a
storm of datagrams at the same port: nonsense of every class of RFC 7983, forged STUN that knows a
name, DTLS from strangers and in the callers' own addresses, media under their SSRCs, and their own
packets once more. What the storm knows it has overheard on the line, as root may; what comes in a
caller's name is sent through a raw socket. All of it stays on loopback.

    run(datagrams, per_second) -> rows {"phase": "calm" | "storm", …}, and last the result
"""

import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aioice import stun

from bench.circumstances import circumstances
from bench.media_load import Child, Load, Reception, clip_file, resident_kib, socket_drops
from bench.storm_caller import LONG_US
from media import journal, scan
from media.journal import RecordType

LOOPBACK: Final = "127.0.0.1"
STRANGERS: Final = 64
"""Sockets of our own, each from another port, over several addresses."""
CALM_S: Final = 8.0
OVERHEARD_MOST: Final = 4_000
LEAD_S: Final = 1.0
"""Between the call's first packet and the storm's."""
BATCH: Final = 20
READY: Final = 256
"""Datagrams of each kind that lie ready; one in eight is used for the last time. Making one takes
longer than sending it, and the storm must not lack wind."""
FRESH_SHARE: Final = 1 / 8
GOAL_GAP_MS: Final = 100
NICENESS: Final = 10
"""A storm comes from elsewhere: it fills the line, not the processors of those whom it strikes."""
MOST_GROWTH_PERCENT: Final = 5
ETH_P_IP: Final = 0x0800
Row = dict[str, Any]


class StormUnavailable(RuntimeError):
    """Raw sockets are root's."""


@dataclass
class Overheard:
    """What went to the node's port while somebody listened."""

    datagrams: list[tuple[tuple[str, int], bytes]] = field(default_factory=list)

    @property
    def sources(self) -> list[tuple[str, int]]:
        return sorted({source for source, _ in self.datagrams})

    def of(self, low: int, high: int) -> list[bytes]:
        """Payloads whose first byte lies in that class."""
        return [data for _, data in self.datagrams if low <= data[0] < high]

    @property
    def names(self) -> list[str]:
        """The USERNAMEs of the callers' checks."""
        found = set()
        for data in self.of(0, 4):
            with suppress(ValueError):
                found.add(stun.parse_message(data).attributes.get("USERNAME", ""))
        return sorted(name for name in found if name)


def listen(port: int, seconds: float) -> Overheard:
    """Everything that goes to `port` on loopback for so long."""
    try:
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    except PermissionError as error:
        raise StormUnavailable("Listening on loopback and raw sockets need root.") from error
    heard = Overheard()
    with ear:
        ear.bind(("lo", ETH_P_IP))
        ear.settimeout(0.1)
        until = time.monotonic() + seconds
        while time.monotonic() < until and len(heard.datagrams) < OVERHEARD_MOST:
            try:
                packet = ear.recv(65_535)
            except TimeoutError:
                continue
            start = 4 * (packet[0] & 15)
            if packet[9] != socket.IPPROTO_UDP or len(packet) <= start + 8:
                continue
            source, target = struct.unpack_from("!HH", packet, start)
            if target == port:
                address = (socket.inet_ntoa(packet[12:16]), source)
                item = (address, packet[start + 8 :])
                if item not in heard.datagrams[-2:]:  # loopback shows some datagrams twice
                    heard.datagrams.append(item)
    return heard


class Storm:
    """Sends hostile datagrams to one port, from many, and in the callers' own names."""

    def __init__(self, port: int, heard: Overheard, seed: int) -> None:
        self._port = port
        self._rng = random.Random(seed)
        self._heard = heard
        self._media = heard.of(128, 192)
        self._ssrcs = sorted({data[8:12] for data in self._media if not 192 <= data[1] < 224})
        self._sockets = []
        for number in range(STRANGERS):
            stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stranger.setblocking(False)
            stranger.bind((f"127.0.0.{1 + number % 8}", 0))
            self._sockets.append(stranger)
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._raw.setblocking(False)
        self.sent: Counter[str] = Counter()
        self.unsent = 0
        self._kinds: list[tuple[str, Callable[[], bytes], bool]] = [
            ("empty", lambda: b"", False),
            ("short", lambda: self._rng.randbytes(self._rng.randrange(1, 8)), False),
            ("oversized", lambda: self._rng.randbytes(self._rng.randrange(1_900, 9_000)), False),
            *((f"class_{low}", self._of_class(low, high), False) for low, high in _CLASSES),
            ("stun_forged", self._forged_check, False),
            ("stun_forged_in_a_callers_name", self._forged_check, True),
            ("stun_cut", self._cut_check, False),
            ("stun_overheard", lambda: self._rng.choice(heard.of(0, 4)), False),
            ("dtls_stranger", self._dtls, False),
            ("dtls_in_a_callers_name", self._dtls, True),
            ("rtp_known_ssrc", self._forged_media, False),
            ("rtp_in_a_callers_name", self._forged_media, True),
            ("replay_stranger", self._replay, False),
            ("replay_in_a_callers_name", self._replay, True),
            ("rtcp_forged_in_a_callers_name", self._forged_reports, True),
        ]
        self._ready = {kind: [make() for _ in range(READY)] for kind, make, _ in self._kinds}

    def blow(self, datagrams: int, per_second: float, seconds: float) -> None:
        """So many, evenly, in turns of every kind; what is not out after `seconds` stays."""
        begun = time.monotonic()
        done = 0
        while done < datagrams and (now := time.monotonic() - begun) < seconds:
            due = min(datagrams, int(now * per_second))
            if due - done < BATCH and due < datagrams:
                time.sleep(BATCH / per_second)
                continue
            for _ in range(min(due - done, 4 * BATCH)):
                self._one(done)
                done += 1

    def close(self) -> None:
        for each in (*self._sockets, self._raw):
            each.close()

    def _one(self, number: int) -> None:
        kind, make, is_in_a_name = self._kinds[number % len(self._kinds)]
        ready = self._ready[kind]
        at = self._rng.randrange(READY)
        data = ready[at]
        if self._rng.random() < FRESH_SHARE:
            ready[at] = make()
        try:
            if is_in_a_name:
                self._send_as(self._rng.choice(self._heard.sources), data)
            else:
                self._sockets[self._rng.randrange(STRANGERS)].sendto(data, (LOOPBACK, self._port))
        except OSError:
            self.unsent += 1  # our own buffer is full
        else:
            self.sent[kind] += 1

    def _send_as(self, source: tuple[str, int], data: bytes) -> None:
        """A whole IP packet with that source; the kernel fills in length and checksum of IP, and a
        UDP checksum of 0 says that there is none (RFC 768)."""
        from_, to = socket.inet_aton(source[0]), socket.inet_aton(LOOPBACK)
        udp = struct.pack("!HHHH", source[1], self._port, 8 + len(data), 0) + data
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, from_, to)
        self._raw.sendto(ip + udp, (LOOPBACK, 0))

    # What is sent.

    def _of_class(self, low: int, high: int) -> Callable[[], bytes]:
        rng = self._rng
        return lambda: bytes([rng.randrange(low, high)]) + rng.randbytes(rng.randrange(7, 200))

    def _forged_check(self) -> bytes:
        """A check under a name that exists, by somebody who does not know the password."""
        request = stun.Message(
            stun.Method.BINDING,
            stun.Class.REQUEST,
            attributes={
                "USERNAME": self._rng.choice(self._heard.names or ["a:b"]),
                "PRIORITY": 1,
                "ICE-CONTROLLING": 1,
                "USE-CANDIDATE": None,
            },
        )
        request.add_message_integrity(self._rng.randbytes(24))
        return bytes(request)

    def _cut_check(self) -> bytes:
        check = bytearray(self._rng.choice(self._heard.of(0, 4)))
        del check[self._rng.randrange(8, len(check)) :]
        check[self._rng.randrange(len(check))] ^= 1 << self._rng.randrange(8)
        return bytes(check)

    def _dtls(self) -> bytes:
        """Record headers that hold, around nonsense; alerts in clear; both epochs."""
        rng = self._rng
        kind = rng.choice((20, 21, 22, 23, 24))
        body = b"\1\0" if kind == 21 else rng.randbytes(rng.randrange(1, 400))
        head = bytes([kind]) + b"\xfe\xfd" + rng.choice((0, 1, 2)).to_bytes(2, "big")
        return head + rng.randrange(100).to_bytes(6, "big") + len(body).to_bytes(2, "big") + body

    def _forged_media(self) -> bytes:
        rng = self._rng
        head = struct.pack("!BBHI", 0x90, rng.choice((96, 111)), rng.getrandbits(16), 0)
        return head + rng.choice(self._ssrcs) + rng.randbytes(rng.randrange(20, 1_100))

    def _forged_reports(self) -> bytes:
        rng = self._rng
        head = bytes([0x81, rng.choice((200, 201, 205, 206))]) + b"\0\7"
        return head + rng.choice(self._ssrcs) + rng.randbytes(rng.randrange(20, 200))

    def _replay(self) -> bytes:
        return self._rng.choice(self._media)


_CLASSES: Final = ((0, 4), (4, 20), (20, 64), (64, 80), (80, 128), (128, 192), (192, 256))


def run(datagrams: int, per_second: float = 20_000, seed: int = 1) -> Iterator[Row]:
    """A calm phase, the storm, and what came of it. Raises `StormUnavailable` without root."""
    if not datagrams:
        raise ValueError("A storm has datagrams.")
    seconds = datagrams / per_second
    with (
        clip_file() as clip,
        Reception(rooms=1) as gateway,
        Child("bench.storm_caller", str(clip), "1") as callers,
    ):
        gateway.connect([Load(callers, 2)])
        port = _port_of(gateway.pid)
        callers.tell("drive", warm_up_s=1.0, seconds=CALM_S, drain_s=1.0)
        heard = listen(port, CALM_S)
        calm = _phase("calm", callers.hear(), gateway)
        yield calm
        storm = Storm(port, heard, seed)
        try:
            rss_before = resident_kib(gateway.pid)
            callers.tell("drive", warm_up_s=LEAD_S, seconds=1.2 * seconds + 2, drain_s=2.0)
            time.sleep(LEAD_S)
            begun = time.monotonic()
            with _humbly():
                storm.blow(datagrams, per_second, 1.2 * seconds)
            lasted = time.monotonic() - begun
            rss_after = resident_kib(gateway.pid)
            stormy = _phase("storm", callers.hear(), gateway)
        finally:
            storm.close()
        yield stormy
        gateway.hang_up()
        recorded = _recorded(gateway.directory)
    yield _result(
        storm,
        calm,
        stormy,
        wanted=datagrams,
        lasted_s=lasted,
        recorded=recorded,
        rss_kib=(rss_before, rss_after),
    )


@contextmanager
def _humbly() -> Iterator[None]:
    """This process gives way to every other."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _phase(name: str, answer: dict[str, Any], gateway: Reception) -> Row:
    delays = sorted(answer["delays_us"])
    return {
        "phase": name,
        "media_sent": answer["sent"],
        "media_lost": answer["expected"] - answer["received"],
        "media_gap_ms": {
            kind: max((gaps.get(kind, 0) for gaps in answer["gaps_us"]), default=0) / 1000
            for kind in ("sound", "picture")
        },
        "gaps_over_100_ms": answer["long_gaps"],
        "delay_ms": {
            "p50": delays[len(delays) // 2] / 1000 if delays else None,
            "p99": delays[int(len(delays) * 0.99)] / 1000 if delays else None,
        },
        "callers_late_ms_p99": answer["late_us_p99"] / 1000,
        "overflowed": socket_drops(gateway.pid),
        "addresses": gateway.addresses(),
        "dropped": gateway.count()["dropped"],
    }


def _result(
    storm: Storm,
    calm: Row,
    stormy: Row,
    *,
    wanted: int,
    lasted_s: float,
    recorded: int,
    rss_kib: tuple[int, int],
) -> Row:
    sent = sum(storm.sent.values())
    overflowed = stormy["overflowed"] - calm["overflowed"]
    gap_ms = max(stormy["media_gap_ms"].values())
    growth = 100 * (rss_kib[1] - rss_kib[0]) / rss_kib[0]
    media = calm["media_sent"] + stormy["media_sent"]
    return {
        "datagrams": sent,
        "wanted": wanted,
        "unsent": storm.unsent,
        "kinds": dict(storm.sent),
        "seconds": round(lasted_s, 1),
        "per_s": round(sent / lasted_s),
        "media_gap_ms_max": gap_ms,
        "gaps_over_100_ms": stormy["gaps_over_100_ms"],
        "media_lost": stormy["media_lost"],
        "overflowed": overflowed,
        "lost_by_the_node": max(0, stormy["media_lost"] - overflowed),
        "delay_ms": stormy["delay_ms"],
        "delay_ms_calm": calm["delay_ms"],
        "rss_mib": [round(kib / 1024, 1) for kib in rss_kib],
        "rss_growth_percent": round(growth, 2),
        "dropped": stormy["dropped"],
        "addresses": stormy["addresses"],
        "recorded_packets": recorded,
        "sent_packets": media,
        "foreign_recorded": max(0, recorded - media),
        "ok": bool(
            gap_ms * 1000 < LONG_US
            and stormy["addresses"] == calm["addresses"]
            and recorded <= media
            and stormy["media_lost"] <= overflowed
            and growth < MOST_GROWTH_PERCENT
        ),
        **circumstances(),
    }


def _port_of(pid: int) -> int:
    """The UDP port of a process that has one."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(link.readlink()))
    for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if f"socket:[{fields[9]}]" in inodes:
            return int(fields[1].rpartition(":")[2], 16)
    raise RuntimeError("The server has no UDP port.")


def _recorded(directory: Path) -> int:
    """RTP packets in the journals under `directory`."""
    count = 0
    for path in directory.rglob(f"*{journal.SUFFIX}"):
        with journal.open_journal(path) as reader:
            count += sum(kind == RecordType.RTP for kind, *_ in scan.spans(reader))
    return count


def in_words(row: Row) -> str:
    """A row in a line, for people."""
    gap = row["media_gap_ms"] if "phase" in row else row["media_gap_ms_max"]
    return f"{row.get('phase', 'result')}: longest gap {gap} ms, {row['media_lost']} packets lost"
