"""The order in which a house closed its recordings, so that one taken away leaves a hole.

A manifest vouches for its own recording only: whoever removes the whole directory removes the
manifest with it. So every manifest also names the SHA-256 of the one that the house closed before
it, and the signature covers that too. `closed.jsonl`, beside the recordings, lists them in order,
one line each: `{"number", "recording", "sha256"}`. Why so: docs/decisions/0008-one-chain-a-house.md

A line is written before the manifest gets its name, and the manifest's bytes before the line. Who
takes the chain next completes what a dead closer began, so the chain never forks and no number is
given twice.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from core.errors import Malformed
from media import manifest
from media.journal import JournalDamaged
from media.manifest import RecordingBusy
from media.verification import Problem

LEDGER_NAME: Final = "closed.jsonl"
_LOCK_NAME: Final = "closed.lock"
_PART: Final = manifest.FILE_NAME + ".next"
"""A manifest that stands in the list and has not got its name yet."""
_TAIL_BYTES: Final = 4096  # a line has some 150
PATIENCE_S: Final = 60.0
"""Whoever holds the chain writes two small files; only a tired disk takes longer than moments."""


@dataclass(frozen=True, slots=True)
class Link:
    """One line of the list: `recording` is the name of its directory."""

    number: int
    recording: str
    sha256: str

    def encode(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Link":
        """Raises `Malformed` for anything that `encode` does not write."""
        try:
            link = cls(**json.loads(line))
            is_name = link.recording == Path(link.recording).name and link.recording
            if link.encode() != line or type(link.number) is not int or not is_name:
                raise ValueError("not as written")
        except (ValueError, TypeError, RecursionError) as problem:
            raise Malformed("A line of the list of closed recordings cannot be read.") from problem
        return link


@dataclass(frozen=True, slots=True)
class ChainVerification:
    """What walking the chain found. `unchained`: recordings with a manifest that claims no place in
    it, of days before there was a chain."""

    links: int
    head_sha256: str | None
    unchained: int
    problems: tuple[Problem, ...]


class Chain:
    """The chain of the recordings below one directory. Any number of processes may use it."""

    def __init__(self, recordings: Path) -> None:
        self._recordings = recordings
        self._ledger = recordings / LEDGER_NAME

    def publish(self, directory: Path, encode: Callable[[str | None], bytes]) -> None:
        """Make `encode(previous_sha256)` the manifest of `directory`, the newest in the chain.

        If a dead closer had come so far that its manifest stands in the list, that one is given its
        name instead. The caller holds the recording's lock. Raises `OSError`, `RecordingBusy`.
        """
        with self._held():
            last = self._mended()
            if (directory / manifest.FILE_NAME).exists():
                return
            data = encode(last.sha256 if last else None)
            manifest.write_durably(directory / _PART, data)
            number = last.number + 1 if last else 1
            link = Link(number, directory.name, hashlib.sha256(data).hexdigest())
            self._append(link)
            manifest.publish(directory / _PART, directory / manifest.FILE_NAME)

    @contextmanager
    def _held(self) -> Iterator[None]:
        fd = os.open(self._recordings / _LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        until = time.monotonic() + PATIENCE_S
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise RecordingBusy("Another recording is being closed.") from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(fd)

    def _mended(self) -> Link | None:
        """The last link, after completing what a closer who died left. Called with the chain held.

        A line without an end was never followed by anything: it is cut off. One that cannot be
        read is told of by `verify`; no recording stays open for that, the chain goes on from the
        last that can.
        """
        try:
            file = self._ledger.open("r+b")
        except FileNotFoundError:
            return None
        with file:
            size = file.seek(0, os.SEEK_END)
            begin = max(0, size - _TAIL_BYTES)
            file.seek(begin)
            whole, newline, torn = file.read().rpartition(b"\n")
            if torn:
                file.truncate(size - len(torn))
            # Its writer may have died before the line, or the list's name, was on the disk: then
            # the manifest that is completed below, or the next line, would stand before it. The
            # line is written again, since memory can show what the disk has not got: a sync that
            # failed is told once, whoever asked, and what was not changed since is not tried again.
            _write_again(file.fileno(), whole.rpartition(b"\n")[2] + newline, size - len(torn))
            os.fsync(file.fileno())
            manifest.sync_directory(self._recordings)
        for unreadable, line in enumerate(reversed(whole.split(b"\n"))):
            with contextlib.suppress(Malformed):
                link = Link.decode(line + b"\n")
                self._complete(link)
                return replace(link, number=link.number + unreadable)
        return None

    def _complete(self, link: Link) -> None:
        """Have the manifest of this line under its name on the disk, before another line follows:
        only the last line's is looked after."""
        directory = self._recordings / link.recording
        part = directory / _PART
        if (directory / manifest.FILE_NAME).exists():
            manifest.sync_directory(directory)
        elif part.is_file() and hashlib.sha256(part.read_bytes()).hexdigest() == link.sha256:
            manifest.publish(part, directory / manifest.FILE_NAME)

    def _append(self, link: Link) -> None:
        """Durably, or not at all: raises `OSError`, and then the list is as it was."""
        line, is_new = link.encode(), not self._ledger.exists()
        fd = os.open(self._ledger, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o640)
        with os.fdopen(fd, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                # A sync says once that it failed: whoever comes next would believe the line.
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise
        if is_new:
            manifest.sync_directory(self._recordings)

    def verify(self) -> ChainVerification:
        """Compare the list with the manifests, one by one. Changes nothing. Raises `OSError`."""
        problems: list[Problem] = []
        listed: set[str] = set()
        previous: str | None = None
        number = 0
        for number, line in enumerate(self._lines(), 1):
            try:
                link = Link.decode(line)
            except Malformed as damaged:
                problems.append(Problem(LEDGER_NAME, "list_damaged", damaged.message))
                continue
            problems += self._verify_link(number, link, previous)
            previous = link.sha256
            listed.add(link.recording)
        unchained = 0
        for name, follows in self._elsewhere(listed):
            if follows is None:
                unchained += 1
            else:
                words = "This recording claims a place in the chain, and the list does not have it."
                problems.append(Problem(name, "not_in_list", words))
        return ChainVerification(number, previous, unchained, tuple(problems))

    def _lines(self) -> list[bytes]:
        """Every whole line, first to last; what is torn was never followed by a manifest."""
        try:
            data = self._ledger.read_bytes()
        except FileNotFoundError:
            return []
        return [line + b"\n" for line in data.split(b"\n")[:-1]]

    def _verify_link(self, number: int, link: Link, previous: str | None) -> Iterator[Problem]:
        if link.number != number:
            yield Problem(link.recording, "number", f"Number {number} is missing from the list.")
        path = self._recordings / link.recording / manifest.FILE_NAME
        if not path.is_file():
            yield Problem(link.recording, "gone", "This recording was closed here and is gone.")
            return
        if manifest.digests(path)[0] != link.sha256:
            yield Problem(link.recording, "changed", "This manifest is not the one in the list.")
            return
        if (problem := self._follows(path.parent)) != previous:
            words = f"This manifest follows {problem}, and the list has {previous} before it."
            yield Problem(link.recording, "order", words)

    def _elsewhere(self, listed: set[str]) -> Iterator[tuple[str, str | None]]:
        """The recordings with a manifest that the list does not name, and what each follows."""
        for path in sorted(self._recordings.glob(f"*/{manifest.FILE_NAME}")):
            is_buried = path.parent.name.startswith(".")  # media/erasure.py is at it
            if path.parent.name not in listed and not is_buried:
                yield path.parent.name, self._follows(path.parent)

    @staticmethod
    def _follows(directory: Path) -> str | None:
        try:
            book = manifest.read_manifest(directory)
        except JournalDamaged:
            return None  # `verification.verify` says so of the recording itself
        return None if book is None else book.previous_sha256


def _write_again(fd: int, line: bytes, end: int) -> None:
    """Write `line` where it stands already, before `end`. Raises `OSError`."""
    if os.pwrite(fd, line, end - len(line)) != len(line):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
