"""The server's side of an alignment drill: the real MediaNode and Recorder, told what people do.

`python -m bench.alignment_server ADDRESS DIRECTORY` takes a JSON line per verb on standard input
and answers each with one. The recording is left in DIRECTORY; making files of it is a step of its
own, as it is after a call.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.media_caller import messages, replying
from core.clock import SystemClock
from core.ids import ParticipantId, RoomId, SessionId, new_id
from core.log import configure_logging
from media import loop
from media.events import MediaEvent, OfferNeeded
from media.node import MediaNode, MediaRoom, be_prompt
from media.peer import Offer, Peer
from media.recorder import Recorder
from media.tracks import TrackName

PUBLISHES: Final = {
    "hall": (TrackName.CAMERA, TrackName.MICROPHONE, TrackName.DOCUMENT),
    "office": (TrackName.CAMERA, TrackName.MICROPHONE),
}


class DrillServer:
    """One room. Every public coroutine is a verb."""

    def __init__(self, room: MediaRoom, directory: Path) -> None:
        self._room = room
        self._directory = directory
        self._peers: dict[str, Peer] = {}
        self._wanting: set[str] = set()
        self._repaired = {"recovered": 0, "unrecovered": 0}

    async def live(self) -> dict[str, Any]:
        """Let the room live, and record it; when its timeline begins."""
        recorder = Recorder.open(
            self._directory,
            session_id=SessionId(new_id()),
            started_at=datetime.now(UTC),
            clock=SystemClock(),
            reserve_bytes=0,
        )
        self._room.go_live(recorder)
        return {"t0_ns": recorder.t0_mono_ns}

    async def enter(self, party: str) -> dict[str, Any]:
        """Someone comes in."""
        self._peers[party] = self._room.add_peer(
            ParticipantId(new_id()),
            label=party,
            role=party,
            publishes=PUBLISHES[party],
            on_event=self._listener(party),
        )
        return self._offer(party)

    async def rejoin(self, party: str) -> dict[str, Any]:
        """Someone who was cut off comes back, on a new leg."""
        self._note_repairs(party)
        self._peers[party].new_leg()
        return self._offer(party)

    async def wanting(self) -> dict[str, Any]:
        """The offers that are due because the room has changed."""
        due, self._wanting = self._wanting, set()
        return {"offers": {party: self._offer(party) for party in due}}

    async def answer(self, party: str, revision: int, sdp: str) -> dict[str, Any]:
        self._peers[party].answer(revision, sdp)
        return {}

    async def connected(self, party: str) -> dict[str, Any]:
        return {"is_connected": self._peers[party].leg.is_connected}

    async def mute(self, party: str, is_muted: bool) -> dict[str, Any]:
        self._peers[party].set_muted(TrackName.MICROPHONE, is_muted)
        return {"at_ns": time.monotonic_ns()}

    async def end(self) -> dict[str, Any]:
        """The call is over; what the relay counted."""
        stats = [asdict(peer.stats()) for peer in self._peers.values()]
        for party in self._peers:
            self._note_repairs(party)
        recorder = self._room.recorder
        await self._room.end()
        assert isinstance(recorder, Recorder)
        await recorder.seal()
        return {**self._repaired, "round_trip_ms": [s["round_trip_ms"] for s in stats]}

    def _listener(self, party: str) -> Callable[[MediaEvent], None]:
        def on_event(event: MediaEvent) -> None:
            if isinstance(event, OfferNeeded):
                self._wanting.add(party)

        return on_event

    def _offer(self, party: str) -> dict[str, Any]:
        peer = self._peers[party]
        offer: Offer = peer.offer()
        sends = {t.mid: t.name.value for t in offer.tracks if t.direction == "send"}
        return {"revision": offer.revision, "sdp": offer.sdp, "sends": sends}

    def _note_repairs(self, party: str) -> None:
        for source in self._peers[party].leg.sources.values():
            self._repaired["recovered"] += source.recovered
            self._repaired["unrecovered"] += source.unrecovered


async def _serve(address: str, directory: Path) -> None:
    reply = replying()
    node = await MediaNode.start(
        host="0.0.0.0", port=0, public_addresses=[address], clock=SystemClock()
    )
    be_prompt()
    server = DrillServer(node.open_room(RoomId("drill")), directory)
    try:
        async for message in messages():
            reply(await getattr(server, message.pop("verb"))(**message))
    finally:
        await node.aclose()


if __name__ == "__main__":
    configure_logging(level="WARNING")
    loop.run(_serve(sys.argv[1], Path(sys.argv[2])))
