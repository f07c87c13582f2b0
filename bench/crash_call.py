"""The callers of the crash campaign: real ICE, DTLS and SRTP, and a book of what they have sent.

All calls run in one loop in this process, which also decides when to kill. What a socket on the
loopback has taken stands in the relay's socket, so the book says what had arrived.
"""

import asyncio
import heapq
import random
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from bench.clip import Clip
from bench.crash_node import Life
from bench.media_caller import (
    CONSENT_NS,
    FRAME_NS,
    LOOPBACK,
    REPORT_NS,
    SOUND_NS,
    Caller,
    Counts,
)
from core.ids import new_id

PARTIES: Final = 2


@dataclass(slots=True)
class Sent:
    """What one party has sent in one life, from the moment recording was said to have begun."""

    participant_id: str
    packets: list[tuple[int, int, int]] = field(default_factory=list)
    """SSRC, sequence number, CLOCK_MONOTONIC ns before the socket was given it."""
    keyframes: list[list[tuple[int, int]]] = field(default_factory=list)
    """SSRC and sequence number of each packet of each keyframe."""
    sound_ssrc: int = 0


class Stream(Protocol):
    """What the book needs of a stream. Sequence numbers begin at 0 and never come round."""

    ssrc: int
    seq: int
    packets: int


class _Scribe(Caller):
    """A caller who keeps a book, once `sent.packets` counts."""

    def __init__(self, seed: int, clip: Clip, participant_id: str) -> None:
        self._heard = Counts()
        super().__init__(seed, LOOPBACK, clip, self._heard, PARTIES - 1)
        self.sent = Sent(participant_id, sound_ssrc=self.sound.ssrc)
        self.is_recorded = False

    def send_frame(self, now_ns: int) -> None:
        with self._noting(self.picture) as seqs:
            super().send_frame(now_ns)
        # The clip's only keyframe is its first picture; the next one is up when it has gone.
        if self.picture.at == 1 and seqs:
            self.sent.keyframes.append([(self.picture.ssrc, seq) for seq in seqs])

    def send_sound(self, now_ns: int) -> None:
        with self._noting(self.sound):
            super().send_sound(now_ns)

    def read(self) -> None:
        """Take what has arrived; nobody asks how much that is."""
        with suppress(ConnectionRefusedError):
            self.out.read(self._heard)

    def consent(self, now_ns: int) -> None:
        # The node may be dead already; that is noticed elsewhere.
        with suppress(ConnectionRefusedError):
            super().consent(now_ns)

    @contextmanager
    def _noting(self, stream: Stream) -> Iterator[list[int]]:
        """Enter into the book what is sent in the block, and yield its sequence numbers."""
        first, packets, at_ns = stream.seq, stream.packets, time.monotonic_ns()
        seqs: list[int] = []
        yield seqs
        numbers = range(first, stream.seq)
        # A socket that refused something belongs to a node that is dead: none of it had arrived.
        if self.is_recorded and stream.packets - packets == len(numbers):
            seqs.extend(numbers)
            self.sent.packets.extend((stream.ssrc, seq, at_ns) for seq in numbers)


class Talk:
    """Some calls at once, from their first offer until their node is killed."""

    def __init__(self, life: Life, clip: Clip, seed: random.Random) -> None:
        self._life = life
        self._clip = clip
        self._seed = seed
        self._callers: list[_Scribe] = []
        self.late_ms = 0.0
        """How late the callers' own timetable was at worst: how busy this machine is."""

    def connect(self, calls: dict[str, tuple[str, ...]]) -> None:
        """Bring every party of every session in. Raises TimeoutError."""
        asyncio.run(self._connect(calls))

    async def _connect(self, calls: dict[str, tuple[str, ...]]) -> None:
        offers = self._life.ask("open", calls=calls)["offers"]
        who = [participant for parties in calls.values() for participant in parties]
        answers = []
        for offer, participant in zip(offers, who, strict=True):
            caller = _Scribe(self._seed.randrange(1, 2**30), self._clip, participant)
            self._callers.append(caller)
            caller.out.meet(offer, is_controlling=True)
            answers.append(caller.answer(offer, caller.out))
        self._life.ask("answer", answers=answers)
        await asyncio.gather(*(caller.out.join() for caller in self._callers))

    def count(self) -> None:
        """From here on everything that is sent must be found again."""
        for caller in self._callers:
            caller.is_recorded = True

    def drive(self, seconds: float) -> None:
        """Talk, a plain loop over due times, until the time is over or the node's life is."""
        poller = select.epoll()
        by_fd = {caller.out.socket.fileno(): caller for caller in self._callers}
        for fd in by_fd:
            poller.register(fd, select.EPOLLIN)
        poller.register(self._life.end_fd, select.EPOLLIN)
        now_ns = time.monotonic_ns()
        until_ns = now_ns + int(seconds * 1e9)
        due = self._timetable(now_ns)
        lives = True
        while lives and (now_ns := time.monotonic_ns()) < until_ns:
            while due[0][0] <= now_ns:
                at_ns, number, period_ns, action = due[0]
                heapq.heapreplace(due, (at_ns + period_ns, number, period_ns, action))
                self.late_ms = max(self.late_ms, (now_ns - at_ns) / 1e6)
                action(at_ns)
            wait_s = max(0, min(due[0][0], until_ns) - time.monotonic_ns()) / 1e9
            for fd, _ in poller.poll(wait_s):
                if fd in by_fd:
                    by_fd[fd].read()
                else:
                    lives = False
        poller.close()

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
                phase_ns = self._seed.randrange(period_ns)
                due.append((begin_ns + phase_ns, len(due), period_ns, action))
        heapq.heapify(due)
        return due

    def sent(self) -> list[Sent]:
        return [caller.sent for caller in self._callers]

    def hang_up(self) -> None:
        for caller in self._callers:
            caller.out.socket.close()


def new_calls(count: int) -> dict[str, tuple[str, ...]]:
    """Fresh session ids, and the participants of each."""
    return {new_id(): tuple(new_id() for _ in range(PARTIES)) for _ in range(count)}
