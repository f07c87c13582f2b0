"""What the crash campaign kills: a node that records live calls, and the steps that finish them.

Each life is a process forked from one that has loaded everything (multiprocessing's fork server),
so a life costs milliseconds and a thousand of them fit into an hour. What runs in it is the real
thing: `MediaNode`, `Recorder`, and `media.finishing`'s own steps. The parent speaks through a pipe
and learns nothing else from a life than what stands on the disk afterwards.
"""

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

from core.clock import SystemClock
from core.errors import ReceptionError
from core.ids import ParticipantId, RoomId, SessionId
from core.log import configure_logging
from media import loop
from media.finishing import Job, Step, perform
from media.node import MediaNode, MediaRoom, be_prompt
from media.recorder import Recorder
from media.tracks import TrackName

NODE_NICE: Final = -10
"""The node goes before the campaign's own work, as it does before everything in a house."""
ANSWERS_WITHIN_S: Final = 60.0
ENDS_WITHIN_S: Final = 30.0


class Life:
    """One process of this module, from its fork to its end, and how it ended."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._pipe, theirs = context.Pipe()
        self._process: ForkServerProcess = context.Process(
            target=work, args=(theirs, *arguments), daemon=True
        )
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self.end_fd: int = self._process.sentinel
        """Becomes readable when the life ends."""

    def tell(self, verb: str, **values: object) -> None:
        """Say it; the answer comes later, or, if the life has ended, never."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send({"verb": verb, **values})

    def hear(self) -> dict[str, Any]:
        """Raises EOFError (or ConnectionError) if the life ended first, TimeoutError."""
        if not self._pipe.poll(ANSWERS_WITHIN_S):
            raise TimeoutError("A process of the drill does not answer.")
        answer: dict[str, Any] = self._pipe.recv()
        return answer

    def ask(self, verb: str, **values: object) -> dict[str, Any]:
        self.tell(verb, **values)
        return self.hear()

    def last_words(self) -> dict[str, Any] | None:
        """The answer, or None if the life ended before it could give one. Raises TimeoutError."""
        try:
            return self.hear()
        except (EOFError, ConnectionError):
            return None

    def is_over(self) -> bool:
        return bool(wait([self.end_fd], 0))

    def kill(self) -> None:
        """kill -9. Returns as soon as the kernel has been told."""
        self._process.kill()

    def ended(self) -> int:
        """Wait for the end; the exit code, or minus the signal that ended it."""
        self._process.join(ENDS_WITHIN_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError("A process of the drill does not end.")
        self._pipe.close()
        code = self._process.exitcode
        self._process.close()
        return code


# -- A node that records -------------------------------------------------------------------------


def record(pipe: Connection, root: Path) -> None:
    """A life: calls are opened, answered, recorded below `root` and ended as the parent says."""
    os.setpriority(os.PRIO_PROCESS, 0, NODE_NICE)
    configure_logging(level="ERROR")
    with contextlib.suppress(EOFError):
        loop.run(_record(pipe, root))


async def _record(pipe: Connection, root: Path) -> None:
    node = await MediaNode.start(host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock())
    calls = _Calls(node, root)
    be_prompt()
    try:
        while True:
            message = await asyncio.to_thread(pipe.recv)
            pipe.send(await getattr(calls, message.pop("verb"))(**message))
    finally:
        await node.aclose()


class _Calls:
    """The calls of one life. Every method is a verb of the parent's."""

    def __init__(self, node: MediaNode, root: Path) -> None:
        self._node = node
        self._root = root
        self._rooms: dict[str, MediaRoom] = {}
        self._recorders: dict[str, Recorder] = {}

    async def open(self, calls: dict[str, Sequence[str]]) -> dict[str, Any]:
        """A room for each session, and in it a seat for each of its participants."""
        offers = []
        for session_id, participants in calls.items():
            room = self._rooms[session_id] = self._node.open_room(RoomId(session_id))
            for place, participant_id in enumerate(participants):
                peer = room.add_peer(
                    ParticipantId(participant_id),
                    label=f"party {place}",
                    role="official" if place else "petitioner",
                    publishes=[TrackName.CAMERA, TrackName.MICROPHONE],
                    on_event=lambda event: None,
                )
                offers.append(peer.offer().sdp)
        return {"offers": offers}

    async def answer(self, answers: list[str]) -> dict[str, Any]:
        peers = [peer for room in self._rooms.values() for peer in room.peers()]
        for peer, sdp in zip(peers, answers, strict=True):
            peer.answer(1, sdp)
        return {}

    async def live(self) -> dict[str, Any]:
        """Record every call: begin, or go on with what an earlier life left."""
        for session_id, room in self._rooms.items():
            recorder = Recorder.open(
                self._root / session_id,
                session_id=SessionId(session_id),
                started_at=datetime.now(UTC),
                clock=SystemClock(),
                reserve_bytes=0,
            )
            self._recorders[session_id] = recorder
            room.go_live(recorder)
        return {}

    async def end(self) -> dict[str, Any]:
        for session_id, room in self._rooms.items():
            await room.end()
            await self._recorders[session_id].close()
        return {}


# -- The steps after a call ----------------------------------------------------------------------


def finish(pipe: Connection, job: Job, steps: Sequence[Step]) -> None:
    """A life: says that it is there; once told to go, performs the steps and tells what the last
    one made."""
    configure_logging(level="ERROR")
    with contextlib.suppress(EOFError):
        pipe.send({})
        pipe.recv()
        done: dict[str, Any] = {}
        try:
            for step in steps:
                done = perform(step, job, lambda percent: None)
        except (ReceptionError, OSError) as problem:
            pipe.send({"refused": f"{step}: {problem}"})
            return
        pipe.send({"done": done})
