"""The server's side of a network drill: MediaNode and Recorder in a process on the lab's server.

Reads one JSON order per line on standard input and answers each with one line. What a call left in
the journals is judged here, from the journals alone: of the sound that a party sent, how much is in
the recording, and how late did it come.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.link import percentile
from core.clock import SystemClock
from core.ids import ParticipantId, RoomId, SessionId, new_id
from core.log import configure_logging
from media import loop
from media.journal import RecordType, journals_in, open_journal, parse_track
from media.node import MediaNode, MediaRoom
from media.recorder import Recorder
from media.rtp import HEADER, seq_distance
from media.timing import Unwrapper
from media.tracks import TrackName

PARTIES: Final = ("hall", "office")
SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Arrived:
    """One recorded packet: its number without wrap-around, when it came, when it was captured
    (both nanoseconds, on clocks of their own)."""

    number: int
    at_ns: int
    captured_ns: int
    size_bytes: int


def recorded_packets(directory: Path, label: str, name: TrackName) -> list[Arrived]:
    """What the journals hold of one party's track (one leg), in order of arrival."""
    found: list[Arrived] = []
    for path in journals_in(directory):
        with open_journal(path) as reader:
            if reader.header.label != label:
                continue
            track, clock_rate, times, newest = -1, 1, Unwrapper(32), -1
            for record in reader.records():
                if record.type is RecordType.TRACK and parse_track(record).name is name:
                    track, clock_rate = record.track, parse_track(record).codec.clock_rate
                elif record.type is RecordType.RTP and record.track == track:
                    _, _, seq, rtp_time, _ = HEADER.unpack_from(record.payload)
                    number = seq if newest < 0 else newest + seq_distance(seq, newest & 0xFFFF)
                    newest = max(newest, number)
                    captured_ns = times.near(rtp_time) * SECOND_NS // clock_rate
                    if number == newest:
                        times(rtp_time)
                    size = len(record.payload)
                    found.append(Arrived(number, record.at_ns, captured_ns, size))
    return found


def judge_sound(packets: list[Arrived], from_ns: int, to_ns: int) -> dict[str, Any]:
    """How much of the sound sent between two instants is recorded, and how late it came.

    `share` counts numbers: those of [first, last] in the window that ever arrived, repairs
    included. Delay is against the least delayed packet of the call.
    """
    inside = [p for p in packets if from_ns <= p.at_ns <= to_ns]
    if not inside:
        return {"share": 0.0, "sent": 0, "recorded": 0, "delay_p50_ms": None, "delay_p95_ms": None}
    newest, edge = -1, []
    for packet in inside:  # a repair of something older must not stretch the window
        if packet.number > newest:
            newest = packet.number
            edge.append(packet.number)
    first, last = min(edge), max(edge)
    sent = last - first + 1
    recorded = len({p.number for p in packets if first <= p.number <= last})
    base_ns = min(p.at_ns - p.captured_ns for p in packets)
    late_ms = [(p.at_ns - p.captured_ns - base_ns) / 1e6 for p in inside]
    p50, p95 = percentile(late_ms, 0.5), percentile(late_ms, 0.95)
    return {
        "share": round(recorded / sent, 4),
        "sent": sent,
        "recorded": recorded,
        "delay_p50_ms": None if p50 is None else round(p50, 1),
        "delay_p95_ms": None if p95 is None else round(p95, 1),
    }


class DrillServer:
    """One call at a time, recorded into a directory of its own."""

    def __init__(self, node: MediaNode, directory: Path) -> None:
        self._node = node
        self._directory = directory
        self._calls = 0
        self._room: MediaRoom | None = None
        self._recorder: Recorder | None = None

    @property
    def room(self) -> MediaRoom:
        assert self._room is not None, "no call is open"
        return self._room

    async def open(self) -> dict[str, Any]:
        """A new call; the offers for both parties."""
        self._calls += 1
        self._room = self._node.open_room(RoomId(f"call{self._calls}"))
        peers = [
            self._room.add_peer(
                ParticipantId(new_id()),
                label=party,
                role=party,
                publishes=[TrackName.CAMERA, TrackName.MICROPHONE],
                on_event=lambda event: None,
            )
            for party in PARTIES
        ]
        return {"offers": [asdict(peer.offer()) for peer in peers]}

    async def answer(self, party: int, revision: int, sdp: str) -> dict[str, Any]:
        self.room.peers()[party].answer(revision, sdp)
        return {}

    async def connected(self) -> dict[str, Any]:
        """How many transports stand."""
        return {"connected": sum(s.state == "connected" for s in self.room.stats())}

    async def live(self) -> dict[str, Any]:
        self._recorder = Recorder.open(
            self._directory / str(self._calls),
            session_id=SessionId(new_id()),
            started_at=datetime.now(UTC),
            clock=SystemClock(),
            reserve_bytes=0,
        )
        self.room.go_live(self._recorder)
        return {}

    async def state(self) -> dict[str, Any]:
        """What the relay itself counts, by party, and the monotonic time it counted at."""
        return {
            "at_ns": time.monotonic_ns(),
            "parties": [self._party_state(index) for index in range(len(PARTIES))],
        }

    def _party_state(self, index: int) -> dict[str, Any]:
        peer = self.room.peers()[index]
        sources = [s for s in peer.leg.sources.values() if s.publication.source is s]
        return {
            **asdict(peer.stats()),
            "recovered": {s.publication.name.name: s.recovered for s in sources},
            "unrecovered": {s.publication.name.name: s.unrecovered for s in sources},
            "resent": sum(s.resent for s in peer.leg.subscriptions.values()),
            "allowed_bps": peer.leg.uplink.rate_bps,
            "uplink_queue_ms": round(peer.leg.uplink.queue_ms),
            "downlink_queue_ms": round(peer.leg.downlink.queue_ms),
            "limit_bps": peer.leg.downlink.limit_bps(time.monotonic_ns()),
        }

    async def end(self, windows: dict[str, tuple[int, int]]) -> dict[str, Any]:
        """Seal, and judge each party's sound in every window: {party: {window: …}}."""
        await self.room.end()
        assert self._recorder is not None, "the call was never live"
        await self._recorder.seal()
        directory = self._directory / str(self._calls)
        answer: dict[str, Any] = {}
        for party in PARTIES:
            sound = recorded_packets(directory, party, TrackName.MICROPHONE)
            answer[party] = {name: judge_sound(sound, *span) for name, span in windows.items()}
        self._room = self._recorder = None
        shutil.rmtree(directory, ignore_errors=True)
        return answer


async def _serve(address: str) -> None:
    node = await MediaNode.start(
        host="0.0.0.0", port=0, public_addresses=[address], clock=SystemClock()
    )
    directory = Path(tempfile.mkdtemp(prefix="reception-network-"))
    server = DrillServer(node, directory)
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        while line := await reader.readline():
            order = json.loads(line)
            answer = await getattr(server, order.pop("verb"))(**order)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        await node.aclose()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    configure_logging(level="WARNING")
    loop.run(_serve(sys.argv[1]))
