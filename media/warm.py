"""Asking for a child that finishes one recording, forked from a process that is warm already.

`WarmParent.fork` gives a `Child` in a few milliseconds. The process it is forked from
(media/warm_parent.py) is executed afresh, so that nothing of the server's is in it: no secret of
the environment, no socket, no thread. It is started when the first child is wanted and again
whenever it is found dead; it goes by itself when it was not wanted for `IDLE_S`, and when the
server is gone. A child lives as long as somebody holds it: `end` it, or lose it, and it is killed
with all that it started.

Not the standard library's forkserver: that one imports the server's main module again in every
child, starts a second Python to watch over semaphores, keeps its caller waiting while it imports,
and stays for ever.
"""

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

IDLE_S: Final = 300.0
"""After so long without a child the warm parent gives its memory back, 60 MB of it."""
START_PATIENCE_S: Final = 60.0
"""For a child to begin, and the warm parent to import what it needs before, beside live rooms."""
END_PATIENCE_S: Final = 20.0
"""For the warm parent to say that a child is gone; it takes 5 s for one that does not listen."""
_TRIES: Final = 3
"""The warm parent may go in the very moment in which it is asked, or be found dead."""
_LONGEST_LINE_BYTES: Final = 4 * 1024 * 1024  # a mux result with thousands of gaps
_KEPT_BYTES: Final = 2000
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV")
_ENVIRONMENT_PREFIXES: Final = ("LC_", "LD_", "PYTHON")
"""What an interpreter and ffmpeg may need to run at all. Everything else might be a secret."""


@dataclass(slots=True)
class _Living:
    """A warm parent that was started, and may have ended since."""

    process: "subprocess.Popen[bytes]"
    control: socket.socket
    waiting: threading.Thread
    """Waits for the process, so that it is no zombie however long nobody asks."""
    ended_cpu_s: float = 0.0

    @property
    def cpu_s(self) -> float:
        # The kernel's clock of another process: CPUCLOCK_SCHED of linux/posix-timers.h.
        with contextlib.suppress(OSError):
            return self.ended_cpu_s + time.clock_gettime((~self.process.pid << 3) | 2)
        return 0.0


class Child:
    """One process at work on one recording. Whoever has it must `end` it."""

    def __init__(
        self, pid: int, living: _Living, ends: Sequence["_Ends"], stack: AsyncExitStack
    ) -> None:
        self.pid = pid
        self._living = living
        # All of them: a socket is closed as soon as nobody has its writer.
        self._tether, self._talk, self._errors = ends
        self._stack = stack
        self._code: int | None = None
        self._words = asyncio.create_task(
            _last_of(self._errors.reader), name="read a child's stderr"
        )

    @property
    def lines(self) -> asyncio.StreamReader:
        """What it says on standard output."""
        return self._talk.reader

    def give(self, job: bytes) -> None:
        """All of its standard input; it does nothing before it has it."""
        self._talk.writer.write(job)
        self._talk.writer.write_eof()

    async def ended(self) -> int:
        """Its exit code once it is over, or the negative number of the signal that ended it."""
        if self._code is None:
            said = await _hear(self._tether.reader)
            if said is None:
                # The warm parent was killed, and with it what was forked from it: gone, once
                # nobody has the other end of its standard error.
                await asyncio.wait((self._words,))
            else:
                self._living.ended_cpu_s += said["cpu_s"]
            self._code = int(said["ended"]) if said else -signal.SIGKILL
        return self._code

    async def last_words(self) -> str:
        """The end of what it wrote to standard error, once it is over."""
        return await self._words

    async def end(self) -> None:
        """Make sure that it is gone, and what it started. Asked first, then not. Repeatable."""
        try:
            if self._code is None:
                with contextlib.suppress(OSError, RuntimeError):  # closed from the other side
                    self._tether.writer.write_eof()
                try:
                    async with asyncio.timeout(END_PATIENCE_S):
                        await self.ended()
                except TimeoutError:
                    # The warm parent itself hangs; all of its children go with it.
                    self._living.process.kill()
                    await self.ended()
        finally:
            self._words.cancel()
            await self._stack.aclose()


class WarmParent:
    """One server process's warm parent: started lazily, replaced when it is dead."""

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._living: _Living | None = None
        self._turn = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    async def fork(self, steps: Sequence[str], *, lock_fd: int | None = None) -> Child:
        """A child that will run `media.finishing` with `steps` as soon as it is given its job.

        `lock_fd` stays the caller's; the child holds the same lock until it is gone. Raises
        `OSError` if the machine refuses.
        """
        for _ in range(_TRIES):
            child = await self._try_to_fork(steps, lock_fd)
            if child is not None:
                return child
        raise OSError(errno.ECHILD, "the process that starts children ended at once")

    async def _try_to_fork(self, steps: Sequence[str], lock_fd: int | None) -> Child | None:
        """None if the warm parent is found dead: ask again. Raises `OSError`."""
        async with AsyncExitStack() as stack:
            with ExitStack() as theirs:
                pairs = [socket.socketpair() for _ in range(3)]
                for ours, other in pairs:
                    theirs.enter_context(other)
                    stack.enter_context(ours)
                fds = [other.fileno() for _, other in pairs]
                if lock_fd is not None:
                    fds.append(lock_fd)
                living = self._ask("\n".join(steps).encode(), fds)
            if living is None:
                return None
            ends = [await _Ends.of(stack, ours) for ours, _ in pairs]
            try:
                async with asyncio.timeout(START_PATIENCE_S):
                    said = await _hear(ends[0].reader)
            except TimeoutError:
                living.process.kill()
                raise OSError(errno.ETIMEDOUT, "no child began") from None
            if said is None:
                self._let_go_of(living)
                return None
            if "refused" in said:
                raise OSError(said["refused"], os.strerror(said["refused"]))
            return Child(said["begun"], living, ends, stack.pop_all())

    def end(self) -> None:
        """End the warm parent if there is one, and wait for that. Children at work are killed."""
        with self._turn:
            living, self._living = self._living, None
        if living is not None:
            living.control.close()
            living.waiting.join(END_PATIENCE_S)
            living.process.kill()
            living.waiting.join()

    @property
    def pid(self) -> int | None:
        """Of the warm parent that was started last and not yet found dead."""
        return None if self._living is None else self._living.process.pid

    @property
    def cpu_s(self) -> float:
        """What the warm parent and those of its children that have ended took of a processor.

        0 when there is none: the kernel counts an ended one, and its children, among this
        process's own (RUSAGE_CHILDREN).
        """
        living = self._living
        return 0.0 if living is None or living.process.returncode is not None else living.cpu_s

    def _ask(self, message: bytes, fds: list[int]) -> _Living | None:
        """Send what asks for a child, to a new warm parent if there is none. None if it is dead."""
        with self._turn:
            living = self._living = self._living or self._start()
            try:
                # Without waiting: one that does not take a message out for long hangs.
                socket.send_fds(living.control, [message], fds, socket.MSG_DONTWAIT)
            except ConnectionError:
                living.control.close()
                self._living = None
                return None
            return living

    def _start(self) -> _Living:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: S603  our own module
                    [
                        *(sys.executable, "-m", "media.warm_parent"),
                        *(str(theirs.fileno()), str(self._idle_s)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env=lean(os.environ),
                )
            except BaseException:
                ours.close()
                raise
        waiting = threading.Thread(
            target=process.wait, name="wait for the warm parent", daemon=True
        )
        waiting.start()
        return _Living(process, ours, waiting)

    def _let_go_of(self, living: _Living) -> None:
        with self._turn:
            living.control.close()
            if self._living is living:
                self._living = None

    def _forget(self) -> None:
        """This process was forked: the warm parent is its parent's, who alone may keep it alive."""
        self._turn = threading.Lock()
        if self._living is not None:
            self._living.control.close()
            self._living = None


def lean(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the server's environment its children need: where programs are, and how to speak."""
    return {
        name: value
        for name, value in environment.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }


@dataclass(frozen=True, slots=True)
class _Ends:
    """Both directions of our end of a socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter = field(repr=False)

    @classmethod
    async def of(cls, stack: AsyncExitStack, ours: socket.socket) -> "_Ends":
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_LINE_BYTES)
        stack.callback(writer.transport.abort)
        return cls(reader, writer)


async def _hear(tether: asyncio.StreamReader) -> dict[str, Any] | None:
    """The warm parent's next word; None if it is dead."""
    try:
        line = await tether.readline()
    except ConnectionError:
        return None
    return json.loads(line) if line.endswith(b"\n") else None


async def _last_of(stream: asyncio.StreamReader) -> str:
    """The end of what is said there; the rest is thrown away."""
    kept = b""
    with contextlib.suppress(ConnectionError):
        while data := await stream.read(65536):
            kept = (kept + data)[-_KEPT_BYTES:]
    return kept.decode(errors="replace")
