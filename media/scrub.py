"""The nightly look at everything that was finished: has a bit flipped?

`python -m media.scrub` reads its round as JSON from standard input and answers with one JSON line a
recording: journals and finished files against their digests, the manifest against its signature.
It changes nothing. It reads slower than it could, at the lowest priority, and leaves the page cache
to others, because rooms may be live beside it. When a recording was last looked at stands in its
own directory (`scrub.json`), so a round that was cut short goes on where it stopped.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from media import erasure, ffmpeg, manifest, unread
from media.journal import JournalDamaged
from media.unread import Stretch
from media.verification import Problem, signed_by

STATE_NAME: Final = "scrub.json"
DUE_AFTER: Final = timedelta(days=6)
"""With a round every night nothing goes unlooked at for longer than the seven days promised."""
OVERDUE_AFTER: Final = timedelta(days=7)
_CHUNK_BYTES: Final = 256 * 1024
_NICENESS: Final = 19
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}
_IDLE_CLASS: Final = 3 << 13  # ioprio_set(2): served only when nobody else asks for the disk


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A playable file as the database vouches for it; `path` is where it lies."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """One recording to look at."""

    directory: str
    finished: tuple[FinishedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """What a child is to look at. `public_key` (base64): whose signatures are right; empty: any."""

    wanted: tuple[Wanted, ...]
    bytes_per_s: int
    public_key: str = ""

    @classmethod
    def decode(cls, text: str) -> "Round":
        """What `json.dumps(asdict(round))` wrote. Raises ValueError, KeyError or TypeError."""
        value = json.loads(text)
        wanted = tuple(
            Wanted(each["directory"], tuple(FinishedFile(**file) for file in each["finished"]))
            for each in value["wanted"]
        )
        return cls(wanted, value["bytes_per_s"], value["public_key"])


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in one recording, as a line of the child says it."""

    recording: str
    size_bytes: int
    problems: tuple[Problem, ...]

    @classmethod
    def decode(cls, line: bytes) -> "Look":
        """Raises ValueError, KeyError or TypeError."""
        value = json.loads(line)
        problems = tuple(Problem(**problem) for problem in value["problems"])
        return cls(value["recording"], value["size_bytes"], problems)


@dataclass(frozen=True, slots=True)
class State:
    """What `scrub.json` says: when the recording was last looked at, and last found whole."""

    looked_at: datetime
    whole_at: datetime | None
    problems: tuple[Problem, ...]

    def after(self, look: Look, now: datetime) -> "State":
        return State(now, self.whole_at if look.problems else now, look.problems)


def read_state(directory: Path) -> State | None:
    """None if it was never looked at, or if nobody can tell."""
    try:
        value = json.loads((directory / STATE_NAME).read_bytes())
        whole_at = value["whole_at"]
        return State(
            datetime.fromisoformat(value["looked_at"]),
            None if whole_at is None else datetime.fromisoformat(whole_at),
            tuple(Problem(**problem) for problem in value["problems"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(directory: Path, state: State) -> None:
    """Durably. Raises `OSError`."""
    value = {
        "looked_at": state.looked_at.isoformat(),
        "whole_at": None if state.whole_at is None else state.whole_at.isoformat(),
        "problems": [asdict(problem) for problem in state.problems],
    }
    text = json.dumps(value, ensure_ascii=False, indent=1)
    manifest.write_durably(directory / STATE_NAME, text.encode() + b"\n")


def finalised(recordings: Path) -> list[Path]:
    """The directories of every recording whose book is, or was once, closed."""
    if not recordings.is_dir():
        return []
    return sorted(
        path
        for path in recordings.iterdir()
        # A book that is gone is a finding: where one was looked at, it is missed.
        if not path.name.startswith(".")  # what media/erasure.py buries is nobody's loss
        and ((path / manifest.FILE_NAME).is_file() or (path / STATE_NAME).is_file())
    )


def due(recordings: Path, now: datetime, *, everything: bool = False) -> list[Path]:
    """Those to look at now, the longest unseen first."""
    waiting = []
    for path in finalised(recordings):
        state = read_state(path)
        if everything or state is None or now - state.looked_at >= DUE_AFTER:
            waiting.append((0.0 if state is None else state.looked_at.timestamp(), path))
    return [path for _, path in sorted(waiting)]


def overdue(recordings: Path, now: datetime) -> int:
    """How many were looked at once, and not for longer than promised: the rate is set too low."""
    states = [read_state(path) for path in finalised(recordings)]
    return sum(state is not None and now - state.looked_at > OVERDUE_AFTER for state in states)


@dataclass(slots=True)
class Pace:
    """Holds a reader to a rate. Time spent elsewhere is not made up for by a burst."""

    bytes_per_s: int
    _due_s: float = field(default_factory=time.monotonic)

    def read(self, size_bytes: int) -> None:
        """So much was read: wait for as long as that should have taken."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - 1) + size_bytes / self.bytes_per_s
        if self._due_s > now_s:
            time.sleep(self._due_s - now_s)


def look(wanted: Wanted, pace: Pace, public_key: str = "") -> Look:
    """Read one recording again. Changes nothing; what the disk does not give back is a problem."""
    directory = Path(wanted.directory)
    problems: list[Problem] = []
    done = 0
    for path, name, sha256, blanks in _vouched_for(
        directory, wanted.finished, public_key, problems
    ):
        try:
            found, size = _digest(path, pace, blanks)
        except FileNotFoundError:
            problems.append(Problem(name, "missing", "This file is gone."))
            continue
        except OSError as problem:
            words = f"The disk does not give this file back: {problem.strerror}."
            problems.append(Problem(name, "unreadable", words))
            continue
        done += size
        if found != sha256:
            words = "The SHA-256 of this file does not match: it has changed."
            problems.append(Problem(name, "sha256", words))
    return Look(directory.name, done, tuple(problems))


def _vouched_for(
    directory: Path,
    finished: Iterable[FinishedFile],
    public_key: str,
    problems: list[Problem],
) -> Iterator[tuple[Path, str, str, tuple[Stretch, ...]]]:
    """Each file that somebody vouches for: its path, its name for people, its digest, and what was
    left out of that, because the disk did not give it when the book was closed."""
    try:
        book = manifest.read_manifest(directory)
    except (JournalDamaged, OSError) as damaged:
        words = damaged.message if isinstance(damaged, JournalDamaged) else str(damaged)
        problems.append(Problem(manifest.FILE_NAME, "manifest_damaged", words))
    else:
        if book is None:
            problems.append(Problem(manifest.FILE_NAME, "missing", "The manifest is gone."))
        else:
            key = signed_by(directory, problems)
            if public_key and key not in (None, public_key):
                words = "This recording is signed by another key than the house's."
                problems.append(Problem("manifest.sig", "other_key", words))
            # Of a recording that was deleted by the rules the book stays, and the journals do not.
            if not erasure.is_erased(directory):
                for entry in book.journals:
                    yield directory / entry.path, entry.path, entry.sha256, entry.blanks
    for file in finished:
        yield Path(file.path), Path(file.path).name, file.sha256, ()


def _digest(path: Path, pace: Pace, blanks: Sequence[Stretch]) -> tuple[str, int]:
    """SHA-256 and size of a file, read at `pace`; zeros stand in place of `blanks`."""
    sha256 = hashlib.sha256()
    size = 0
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        for chunk in unread.pieces(file, blanks, buffer):
            sha256.update(chunk)
            with contextlib.suppress(OSError):
                # From the disk again next time, and no page of a live journal pushed out for it.
                os.posix_fadvise(file.fileno(), size, len(chunk), os.POSIX_FADV_DONTNEED)
            size += len(chunk)
            pace.read(len(chunk))
    return sha256.hexdigest(), size


def _keep_out_of_the_way() -> None:
    ffmpeg.restrain(_NICENESS)
    call = _IOPRIO_SET.get(os.uname().machine)
    if call is not None:
        ctypes.CDLL(None, use_errno=True).syscall(call, 1, 0, _IDLE_CLASS)


def main() -> int:
    """The child's whole life."""
    asked = Round.decode(sys.stdin.read())
    pace = Pace(asked.bytes_per_s)
    for wanted in asked.wanted:
        found: dict[str, Any] = asdict(look(wanted, pace, asked.public_key))
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    _keep_out_of_the_way()
    sys.exit(main())
