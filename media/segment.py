"""One open journal file: what was written to it, what is booked ahead, what is surely on the disk.

A segment whose write or sync fails is never trusted again: the next one repeats everything that was
not known to be on disk. So each keeps what no sync has covered yet, within bounds, and knows of
what it had to forget at least how much it was.

Each books space ahead of what it has written, the more the longer it has grown, so that a disk that
others fill still takes what a running talk sends for minutes. What is booked lies beyond the file's
end: the file's length stays what was written, and whoever copies it copies no emptiness.
"""

import contextlib
import errno
import hashlib
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from media import journal
from media.disk import CANNOT_BOOK, Disk
from media.journal import JournalHeader, Seal, SealReason

FIRST_BOOKED_BYTES: Final = 1024 * 1024
MOST_BOOKED_BYTES: Final = 32 * 1024 * 1024
"""A journal books as much as it has, between these two: a talk of minutes has three minutes or more
ahead of it, and a leg that was lost at once holds no more than the first."""
HASH_AT_BYTES: Final = 64 * 1024
"""To hash a pass's few thousand bytes by themselves costs more in giving up the interpreter and
getting it back than in hashing."""
HASH_AT_PIECES: Final = 64
BOOK_AGAIN_NS: Final = 5_000_000_000
"""A full disk is not asked at every pass: some file systems search long before they refuse."""


class Chunk(NamedTuple):
    """Encoded records that were taken together."""

    data: bytes
    records: int
    packets: int = 0
    from_ns: int = 0
    to_ns: int = 0


def _together(first: Chunk | None, then: Chunk | None) -> Chunk | None:
    """Counts and times of two that follow each other."""
    if first is None or then is None:
        return first or then
    return Chunk(b"", 0, first.packets + then.packets, first.from_ns, then.to_ns)


class Segment:
    """One open journal file. Used with the tap's disk lock held."""

    def __init__(self, disk: Disk, path: Path, header: JournalHeader) -> None:
        self.disk = disk
        self.path = path
        self.header = header
        self.fd = disk.create(path)
        self.is_named = False  # whether its name is known to be on the disk
        self.size_bytes = 0
        self.records = 0
        self._digest = hashlib.sha256()
        self._unhashed: list[bytes] = []  # written, and not yet in the digest
        self._unhashed_bytes = 0
        self.booked_to = 0
        self.can_book = True
        self.is_short = False
        self.book_again_ns = 0
        # What the next segment must repeat if a sync fails. When that is too much the oldest are
        # forgotten, for the kernel has them, and told of as lost if the disk has not.
        self.unsynced: deque[Chunk] = deque()
        self.unsynced_bytes = 0
        self.unsynced_from = 0  # how many chunks were there before the first of these
        # Counts and times only: what a sync will cover, and what the one under way does not.
        self._forgotten: Chunk | None = None
        self._forgotten_since: Chunk | None = None
        self._covered = 0  # how many chunks were there when the last sync began
        self.sync_began_ns: int | None = None
        self.is_sealed = False
        self.given_up = False

    @property
    def syncing(self) -> bool:
        return self.sync_began_ns is not None

    def append(self, data: bytes, records: int) -> None:
        """All or nothing as far as the file system allows; raises `OSError` after undoing."""
        if self._unhashed_bytes >= HASH_AT_BYTES or len(self._unhashed) >= HASH_AT_PIECES:
            # Before anything is written: without memory nothing has happened.
            self._hash([b"".join(self._unhashed)])
        done = 0
        try:
            while done < len(data):
                taken = self.disk.write(self.fd, memoryview(data)[done:] if done else data)
                if not taken:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += taken
        except OSError:
            # A torn tail is harmless, but a whole one is tidier; never mind if even this fails.
            with contextlib.suppress(OSError):
                self.disk.truncate(self.fd, self.size_bytes)
            raise
        self.size_bytes += len(data)
        self.records += records
        self._unhashed.append(data)
        self._unhashed_bytes += len(data)

    def _hash(self, pieces: Sequence[bytes]) -> None:
        """These are all that is unhashed, in order."""
        for piece in pieces:
            self._digest.update(piece)
        self._unhashed.clear()
        self._unhashed_bytes = 0

    def book(self, size_bytes: int) -> None:
        """Set `size_bytes` aside behind what is written. Raises `OSError` if they are not there."""
        if not self.can_book:
            return
        try:
            self.disk.book(self.fd, self.size_bytes, size_bytes)
        except OSError as problem:
            if problem.errno not in CANNOT_BOOK:
                raise
            self.can_book = False
        else:
            self.booked_to = self.size_bytes + size_bytes

    def book_ahead(self, now_ns: int) -> None:
        """Book again when half is used up. A refusal harms nothing yet: it is only noted."""
        wanted = min(max(self.size_bytes, FIRST_BOOKED_BYTES), MOST_BOOKED_BYTES)
        if self.booked_to - self.size_bytes >= wanted // 2 or now_ns < self.book_again_ns:
            return
        for size_bytes in (wanted, FIRST_BOOKED_BYTES):
            try:
                self.book(size_bytes)
            except OSError:
                self.is_short, self.book_again_ns = True, now_ns + BOOK_AGAIN_NS
            else:
                self.is_short = size_bytes < wanted
                return

    def sync(self) -> None:
        """Have the disk keep what was written, and, the first time, the name that it stands under.

        Not at creation: that is the one writer's turn, and a tired disk takes its time for a name.
        Raises `OSError`.
        """
        self.disk.sync(self.fd)
        if not self.is_named:
            self.disk.sync_names(self.path.parent)
            self.is_named = True

    def give_back(self) -> None:
        """Let go of what is booked and not written."""
        if self.booked_to > self.size_bytes:
            with contextlib.suppress(OSError):
                self.disk.truncate(self.fd, self.size_bytes)
        self.booked_to = 0

    def begin(self, head: bytes, records: int) -> None:
        """Write the header and what describes the tracks, if there is room for more than that.
        Raises `OSError`."""
        self.book(len(head) + FIRST_BOOKED_BYTES)
        self.append(head, records)

    def keep_for_repeat(self, chunk: Chunk, at_most_bytes: int) -> None:
        """Keep what was just appended until a sync has covered it, the latest `at_most_bytes`."""
        self.unsynced.append(chunk)
        self.unsynced_bytes += len(chunk.data)
        while self.unsynced_bytes > at_most_bytes:
            is_covered = self.unsynced_from < self._covered
            oldest = self._drop_oldest()._replace(data=b"")
            if is_covered:
                self._forgotten = _together(self._forgotten, oldest)
            else:
                self._forgotten_since = _together(self._forgotten_since, oldest)

    @property
    def forgotten(self) -> Chunk | None:
        """What cannot be repeated, and is not known to be on the disk."""
        return _together(self._forgotten, self._forgotten_since)

    def begin_sync(self) -> None:
        """A sync is about to be asked for; it covers what has been written until now."""
        self._covered = self.unsynced_from + len(self.unsynced)
        self._forgotten, self._forgotten_since = self.forgotten, None

    def end_sync(self) -> None:
        """The sync that was begun last has worked."""
        self._forgotten = None
        while self.unsynced and self.unsynced_from < self._covered:
            self._drop_oldest()

    def _drop_oldest(self) -> Chunk:
        oldest = self.unsynced.popleft()
        self.unsynced_bytes -= len(oldest.data)
        self.unsynced_from += 1
        return oldest

    def seal(self, reason: SealReason, at_ns: int) -> None:
        self._hash(self._unhashed)
        seal = Seal(reason, self.records, self.size_bytes, self._digest.hexdigest())
        self.append(journal.encode_seal(self.header.crc_seed, at_ns, seal), 1)
        self.is_sealed = True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.disk.close(self.fd)
