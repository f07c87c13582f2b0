"""kill -9 at an exact system call: a strace that attaches to a life and injects the signal.

The signal comes when the call is entered, so the call itself does not happen any more: the kill at
call n + 1 is the one right after call n. What strace wrote down is the proof that it happened.
"""

import contextlib
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ENDS_WITHIN_S: Final = 5.0
CALLS: Final = (
    *("openat", "write", "fdatasync", "fsync", "ftruncate", "fallocate"),
    *("rename", "unlink", "mkdir", "pwrite64"),
)
"""Everything by which a recording, or the database (pwrite64), changes on the disk."""
Point = tuple[str, int]
"""A call, and the how-manieth of the thread that makes it."""
_CALL: Final = re.compile(r"(\d+) +(\w+)\(")


@dataclass(slots=True)
class Traced:
    """What strace wrote down; there once the block of `traced` has been left."""

    lines: list[str] = field(default_factory=list)

    def points(self, where: Path) -> list[Point]:
        """Each call that any thread made to something below `where`."""
        made: Counter[tuple[str, str]] = Counter()
        found: set[Point] = set()
        for line in self.lines:
            call = _CALL.match(line)
            if call is not None:
                made[call[1], call[2]] += 1
                if str(where) in line:
                    found.add((call[2], made[call[1], call[2]]))
        return sorted(found)

    def was_killed(self) -> bool:
        """Whether strace saw someone killed. By whom is for those to know who kill too."""
        return any("killed by SIGKILL" in line for line in self.lines)


@contextmanager
def traced(pid: int, *, kill_at: Point | None = None) -> Iterator[Traced]:
    """Watch a process with all its threads and children from now on; kill the one that enters a
    call for the n-th time. Whatever is left at the end of the block is let go.

    Raises RuntimeError if this machine does not allow it.
    """
    with tempfile.TemporaryDirectory(prefix="reception-strace-") as folder:
        log = Path(folder) / "log"
        command = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}"]
        if kill_at is not None:
            command += ["-e", f"inject={kill_at[0]}:signal=KILL:when={kill_at[1]}"]
        process = subprocess.Popen(
            [*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True, bufsize=1
        )
        watched = Traced()
        try:
            _wait_attached(process)
            yield watched
            # By itself it ends when everybody it watches has, and has then written everything.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ENDS_WITHIN_S)
        finally:
            process.terminate()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
        watched.lines = log.read_text(errors="replace").splitlines()


def _wait_attached(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    line = process.stderr.readline()
    if "attached" not in line:
        raise RuntimeError(f"strace cannot attach here: {line.strip()}")
