"""The warm parent: a process that has imported what finishing needs and has done nothing, from
which each recording's child is forked.

`python -m media.warm_parent SOCKET IDLE_S` is started, and spoken to, by media/warm.py alone. To
start Python and import PyAV costs a child more of a processor than its work on a short talk; a fork
costs a hundredth of that. No threads, no event loop, no database, no journals: nothing is here that
a fork could tear in two, and nothing of the server's but its steps' names.

One message on SOCKET asks for one child: the steps, one in a line, with the child's ends of three
sockets and maybe the recording's lock: the tether; standard input and output; standard error. On
the tether comes `{"begun": pid}` or `{"refused": errno}`, later `{"ended": code, "cpu_s": …}`. Once
the other side has let go of the tether, the child is told to end, and then made to.

The warm parent ends when the server is gone, or when nobody has wanted it for IDLE_S, and whatever
was forked from it is killed with it.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from media import ffmpeg, finishing

KILL_AFTER_S: Final = 5.0
"""Between telling a child to end and ending it."""
_LONGEST_MESSAGE_BYTES: Final = 4096
_MOST_FDS: Final = 4
_COMPOSING: Final = frozenset({finishing.Step.POSTER, finishing.Step.COMPOSE})


@dataclass(slots=True)
class _Forked:
    """A child that has not been waited for: its pid is its own as long as it stands here."""

    pid: int
    tether: socket.socket
    kill_at_s: float | None = None
    """By `time.monotonic`; None until the other side lets go, infinite once it was killed."""

    def end(self, sign: signal.Signals) -> None:
        """Send `sign` to the child's group, or to the child if it has not come to have one."""
        try:
            os.killpg(self.pid, sign)
        except ProcessLookupError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sign)

    def tell(self, **values: float) -> None:
        # Whoever let go does not listen; a line finds room in an empty socket.
        with contextlib.suppress(OSError):
            self.tether.sendall(json.dumps(values).encode() + b"\n")


class _WarmParent:
    """The life of this process: children are asked for, end, and are told of."""

    def __init__(self, control: socket.socket, idle_s: float) -> None:
        self._control = control
        self._idle_s = idle_s
        self._children: dict[int, _Forked] = {}
        self._selector = selectors.DefaultSelector()
        self._deaths, self._death = socket.socketpair()
        for end in (self._deaths, self._death):
            end.setblocking(False)
        # The kernel's word that a child ended arrives as a byte that the selector sees.
        signal.set_wakeup_fd(self._death.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._deaths, selectors.EVENT_READ)

    def live(self) -> None:
        """Until the server is gone, or has wanted nothing for long."""
        while True:
            ready = self._selector.select(self._patience_s())
            if not ready and not self._children:
                return
            for key, _ in ready:
                if key.fileobj is self._deaths:
                    self._wait_for_the_dead()
                elif key.fileobj is self._control:
                    if not self._answer():
                        return
                elif key.data in self._children:
                    self._let_go(self._children[key.data])
            self._end_the_deaf()

    def _patience_s(self) -> float | None:
        if not self._children:
            return self._idle_s
        due_s = min(
            (child.kill_at_s for child in self._children.values() if child.kill_at_s is not None),
            default=float("inf"),
        )
        return None if due_s == float("inf") else max(0.0, due_s - time.monotonic())

    def _answer(self) -> bool:
        """Fork the child that is asked for. False if the server is gone."""
        try:
            # Not to be inherited by what a child starts.
            message, fds, _, _ = socket.recv_fds(
                self._control, _LONGEST_MESSAGE_BYTES, _MOST_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return False
        if not message:
            return False
        if len(fds) < 3:  # this process may open no more files; the server sees them closed
            _close(fds)
            return True
        steps = message.decode().split("\n")
        if not set(steps).isdisjoint(_COMPOSING):
            # Once for all children, and not before the first that needs it.
            from media import compose  # noqa: F401, PLC0415

        tether = socket.socket(fileno=fds[0])
        tether.setblocking(False)
        mine = os.getpid()
        try:
            pid = os.fork()
        except OSError as problem:
            _Forked(0, tether).tell(refused=problem.errno or 0)
            tether.close()
            _close(fds[1:])
            return True
        if pid == 0:
            self._become_a_child(mine, tether, fds[1], fds[2], steps)
        # The lock above all: it is the child's, and free when the child is gone.
        _close(fds[1:])
        child = _Forked(pid, tether)
        self._children[pid] = child
        self._selector.register(tether, selectors.EVENT_READ, pid)
        child.tell(begun=pid)
        return True

    def _let_go(self, child: _Forked) -> None:
        """The other side has no more use for this child: it says nothing, it only lets go."""
        self._selector.unregister(child.tether)
        child.kill_at_s = time.monotonic() + KILL_AFTER_S
        child.end(signal.SIGTERM)

    def _end_the_deaf(self) -> None:
        now_s = time.monotonic()
        for child in self._children.values():
            if child.kill_at_s is not None and child.kill_at_s <= now_s:
                child.kill_at_s = float("inf")
                child.end(signal.SIGKILL)

    def _wait_for_the_dead(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._deaths.recv(4096)
        for child in list(self._children.values()):
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid == 0:
                continue
            del self._children[pid]
            if child.kill_at_s is None:
                self._selector.unregister(child.tether)
            code = os.waitstatus_to_exitcode(status)
            child.tell(ended=code, cpu_s=usage.ru_utime + usage.ru_stime)
            child.tether.close()

    def _become_a_child(
        self, parent_pid: int, tether: socket.socket, talk: int, words: int, steps: Sequence[str]
    ) -> NoReturn:
        """A child's whole life. It keeps the lock, if there was one, by never closing it."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            ffmpeg.restrain()
            if os.getppid() != parent_pid:  # it died before it could be tied to
                os._exit(1)
            siblings = (child.tether for child in self._children.values())
            for ours in (self._control, self._deaths, self._death, tether, *siblings):
                ours.close()
            self._selector.close()
            for fd, standard in ((talk, 0), (talk, 1), (words, 2)):
                os.dup2(fd, standard)
            _close((talk, words))
            sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
            code = finishing.main(steps)
        except BaseException:  # as the interpreter ends with whatever nobody caught
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(code)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def main(argv: Sequence[str]) -> int:
    """Serve SOCKET (a file descriptor's number) until it is over."""
    control_fd, idle_s = argv
    ffmpeg.give_way()
    # What was imported stays as it is: forks share it as long as nobody writes to it.
    gc.collect()
    gc.freeze()
    _WarmParent(socket.socket(fileno=int(control_fd)), float(idle_s)).live()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
