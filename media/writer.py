"""The process's one writer thread, and the few that wait for disks.

Every 60 ms the writer gives what has arrived to the kernel, so a killed process loses less than 100
ms. Recordings take turns within these 60 ms: a pass over many files at once holds up every call for
as long as it takes. What a disk may take long for, syncing, is done beside it, so that a power cut
costs less than a second and one tired disk delays nobody's writing.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import structlog

from media.party_tap import DueSync
from media.rota import Rota

log = structlog.get_logger(__name__)

WRITE_EVERY_S: Final = 0.06
"""With the pass itself and a late wake-up this stays under the promised 100 ms. A file's share of a
pass costs the same whatever it carries, so shorter passes cost more."""
TURNS: Final = 12
TURN_S: Final = WRITE_EVERY_S / TURNS
RECORDINGS_TOGETHER: Final = 4
"""Of two parties each: a fifth of a millisecond, which is what a packet waits that comes just then.
With twelve the slowest hundredth of a house of ten calls waited nearly twice as long
(docs/decisions/0010-nobody-at-once.md)."""


class Written(Protocol):
    """A recording as the writer sees it; `media.recorder.Recorder` is one."""

    def __hash__(self) -> int: ...
    @property
    def directory(self) -> Path: ...
    def monotonic_ns(self) -> int: ...
    def write_through(self) -> None: ...
    def sync_due(self) -> Sequence[DueSync]: ...


class Writer:
    """The process's one writer thread and its few syncing ones; runs while recorders are open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rota: Rota[Written] = Rota(TURNS, together=RECORDINGS_TOGETHER)
        self._newcomers: list[Written] = []  # their first pass waits for no turn
        self._thread: threading.Thread | None = None
        # A sync may take seconds on a tired disk; four at a time keep the others' promise.
        self._syncing = ThreadPoolExecutor(max_workers=4, thread_name_prefix="journal-sync")

    def add(self, recorder: Written) -> None:
        """From now on it is written. Raises `RuntimeError` where no thread can be started."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="journal", daemon=True)
                thread.start()
                self._thread = thread
            self._rota.add(recorder)
            self._newcomers.append(recorder)

    def remove(self, recorder: Written) -> None:
        """The recorder's files are the caller's from here on, except for a running sync."""
        with self._lock:
            self._rota.remove(recorder)
            if recorder in self._newcomers:
                self._newcomers.remove(recorder)

    def _run(self) -> None:
        turn, due_s = 0, time.monotonic()
        while True:
            with self._lock:
                ahead = self._rota.wait(turn)
            turn = (turn + ahead) % TURNS
            due_s = max(due_s + ahead * TURN_S, time.monotonic())
            # Not an event's wait: eighty times a second at twenty calls, that is a lot of Python.
            time.sleep(max(due_s - time.monotonic(), 0.0))
            with self._lock:
                if not len(self._rota):
                    self._thread = None
                    return
                now = self._rota.whose(turn)
                recorders = now + [one for one in self._newcomers if one not in now]
                self._newcomers = []
            for recorder in recorders:
                try:
                    recorder.write_through()
                    due = recorder.sync_due()
                    if due:
                        self._submit(due, recorder.monotonic_ns())
                except Exception:
                    # One recording's surprise must not stop the others'.
                    log.exception("journal_writer_failed", directory=recorder.directory.name)

    def _submit(self, due: Sequence[DueSync], now_ns: int) -> None:
        """One job for a recording's files: half as many to hand over as with one for each."""
        try:
            self._syncing.submit(_sync, due, now_ns)
        except RuntimeError as problem:
            # No thread could be started. It waits in the pool's line for one that is there.
            log.warning("journal_sync_delayed", reason=str(problem))


def _sync(due: Sequence[DueSync], now_ns: int) -> None:
    for one in due:
        one.sync(now_ns)


WRITER: Final = Writer()
"""The one of this process: more of them would only wait for each other's disk."""
