"""The book of a finished recording: which journals it has, how long they are, what they hash to.

`close_book` seals what is unsealed, hashes every journal and writes `manifest.json` by rename, so a
recording is either finished or it is not. `recover` is the same act after a crash; comparing is
`media/verification.py`'s. One lock file per directory keeps two closers, or a closer and a writer,
apart; the kernel frees it when its owner dies.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives import hashes

from core.errors import Conflict, NotFound
from media import journal, scan, signing, unread
from media.journal import (
    JournalDamaged,
    JournalReader,
    JournalUnreadable,
    RecordType,
    Seal,
    SealReason,
)
from media.signing import Signer
from media.unread import Stretch

FILE_NAME: Final = "manifest.json"
FORMAT: Final = "reception-recording"
VERSION: Final = 1
_LOCK_NAME: Final = "recording.lock"
FINISHING_LOCK: Final = "finishing.lock"
"""Held by whoever makes the files (media/jobs.py), longer than the book takes to close."""
_CHUNK_BYTES: Final = 1024 * 1024


class RecordingBusy(Conflict):
    """The recording is still being written, or someone else is closing it."""

    code = "recording_busy"


class RecordingMissing(NotFound):
    """There is no recording in this directory."""

    code = "recording_missing"


class SealedBy(StrEnum):
    """Whether the journals were all ended by whoever wrote them."""

    RECORDER = "recorder"
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class Unread:
    """What the disk did not give of a journal when its book was closed: from which byte to before
    which one, and when on the session's timeline the records before and after it were made (None:
    there is none)."""

    start: int
    end: int
    from_ms: int | None
    to_ms: int | None

    @property
    def words(self) -> str:
        """Where it lies, for people."""
        times = ("…" if ms is None else f"{ms / 1000:.1f}" for ms in (self.from_ms, self.to_ms))
        return f"bytes {self.start}–{self.end} ({'–'.join(times)} s)"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One journal as the manifest vouches for it. Times are on the session's timeline. The digests
    are over the file with zeros for what is `unread`."""

    path: str
    participant_id: str
    leg: int
    segment: int
    role: str
    label: str
    bytes: int
    records: int
    first_ms: int | None
    last_ms: int | None
    sealed: str
    damaged_bytes: int
    sha256: str
    sm3: str
    unread: tuple[Unread, ...] = ()
    """Not in manifests of earlier days, which were not written where a disk gave not everything."""

    @property
    def blanks(self) -> tuple[Stretch, ...]:
        return tuple((stretch.start, stretch.end) for stretch in self.unread)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says. A signature, when there is one, is over the file's exact bytes and
    stands beside it, so this shape need not change for it."""

    session_id: str
    t0_wall_ns: int
    sealed_at: str
    sealed_by: str
    duration_ms: int
    journals: tuple[JournalEntry, ...]
    unreadable: tuple[str, ...]
    """Journals whose header cannot be trusted, or read: kept, never used."""
    previous_sha256: str | None
    """The manifest that the house closed before this one (media/chain.py); None for the first, and
    for a book that was closed outside of any house."""


class Succession(Protocol):
    """What puts the house's manifests in an order; `media.chain.Chain` is the one."""

    def publish(self, directory: Path, encode: Callable[[str | None], bytes]) -> None:
        """Make `encode(previous_sha256)` the directory's manifest, unless it has got one by then.
        Raises `OSError`."""
        ...


def close_book(
    directory: Path,
    *,
    sealed_at: datetime,
    signer: Signer | None = None,
    succession: Succession | None = None,
    leaving_out: bool = False,
) -> Manifest:
    """Seal, hash, write the manifest, sign it. The caller holds the directory's lock.

    An existing manifest is returned as it is: a finished recording is never changed; at most it
    gets the signature that it has not got yet. `leaving_out`: what the disk does not give is named
    in the manifest, for ever; for whoever has tried without before. Raises `JournalUnreadable`,
    `OSError`.
    """
    book = read_manifest(directory)
    if book is None:
        book = _write_book(directory, sealed_at, succession, leaving_out=leaving_out)
    else:
        sync_directory(directory)  # whoever wrote it may have died before its name was on disk
    if signer is not None and not (directory / signing.FILE_NAME).exists():
        signature = signer.sign((directory / FILE_NAME).read_bytes())
        write_durably(directory / signing.FILE_NAME, signature.encode())
    return book


def _write_book(
    directory: Path, sealed_at: datetime, succession: Succession | None, *, leaving_out: bool
) -> Manifest:
    unreadable: list[str] = []
    session_id = ""
    t0_wall_ns = 0
    by = SealedBy.RECORDER
    closed: list[Path] = []
    for path in journal.journals_in(directory):
        try:
            _settle(path)
            _seal_if_open(path, leaving_out=leaving_out)
            _give_back(path)
            with journal.open_journal(path, leaving_out=leaving_out) as reader:
                seal = scan.final_seal(reader)
                if seal is None or seal.reason is SealReason.RECOVERED:
                    by = SealedBy.RECOVERY
                session_id = reader.header.session_id
                t0_wall_ns = reader.header.t0_wall_ns
            closed.append(path)
        except JournalDamaged:
            # A file that was created but whose header never reached the disk, or one that was
            # destroyed: nothing can be read from it, and nothing is thrown away.
            unreadable.append(path.name)
            by = SealedBy.RECOVERY
        except JournalUnreadable:
            if not leaving_out:
                raise
            unreadable.append(path.name)
            by = SealedBy.RECOVERY
    processors = (os.cpu_count() or 1) if _takes_long(closed) else 1
    # Reading and hashing leave the interpreter free.
    with ThreadPoolExecutor(max(1, min(len(closed), processors))) as readers:
        entries = list(readers.map(lambda path: _entry(path, leaving_out=leaving_out), closed))
    # The names of the journals, too: their writer may have died before it had them synced.
    sync_directory(directory)
    book = Manifest(
        session_id=session_id,
        t0_wall_ns=t0_wall_ns,
        sealed_at=sealed_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        sealed_by=by.value,
        duration_ms=max((entry.last_ms or 0 for entry in entries), default=0),
        journals=tuple(entries),
        unreadable=tuple(unreadable),
        previous_sha256=None,
    )
    if succession is None:
        write_durably(directory / FILE_NAME, _encode(book))
        return book
    succession.publish(directory, lambda previous: _encode(replace(book, previous_sha256=previous)))
    # Read again: it may be what a closer who died had written whole already.
    return read_manifest(directory) or book


_LONG_BOOK_BYTES: Final = 256 * 1024 * 1024
"""About a second of hashing, twenty minutes of talk."""


def _takes_long(journals: Sequence[Path]) -> bool:
    """Whether people would notice how long these take to hash. Shorter ones leave the other
    processors to the calls that go on: two that hash side by side on one core's halves cost up to
    twice as much (docs/decisions/0016-relayed-while-waiting.md)."""
    return sum(path.stat().st_size for path in journals) > _LONG_BOOK_BYTES


def _encode(book: Manifest) -> bytes:
    text = json.dumps(
        {"format": FORMAT, "version": VERSION, **asdict(book)},
        ensure_ascii=False,
        indent=1,
        sort_keys=True,
    )
    return text.encode() + b"\n"


def recover(
    directory: Path,
    *,
    patience_s: float = 10.0,
    signer: Signer | None = None,
    succession: Succession | None = None,
    leaving_out: bool = False,
) -> Manifest:
    """Close the book of a recording, and first mend it if its writer died: cut torn tails, seal.
    Idempotent.

    Several may try at once: one works, the others wait and read its result. Raises `RecordingBusy`
    if the lock is not free in time (the recording is live), `RecordingMissing`, or what
    `close_book` does, for which `leaving_out` is.
    """
    if not directory.is_dir():
        raise RecordingMissing("There is no recording in this place.")
    with locked(directory, patience_s=patience_s):
        if read_manifest(directory) is None and not journal.journals_in(directory):
            raise RecordingMissing("There is no recording in this place.")
        return close_book(
            directory,
            sealed_at=datetime.now(UTC),
            signer=signer,
            succession=succession,
            leaving_out=leaving_out,
        )


def unread_in(reader: JournalReader) -> tuple[Unread, ...]:
    """What the disk does not give of a journal, by its bytes and on the session's timeline."""
    t0_ns = reader.header.t0_mono_ns
    return tuple(
        Unread(start, end, *(None if at is None else (at - t0_ns) // 1_000_000 for at in times))
        for (start, end), times in zip(reader.unread, scan.unread_times(reader), strict=True)
    )


def _entry(path: Path, *, leaving_out: bool) -> JournalEntry:
    """What the manifest says of one journal. Media and marks set the times; a seal does not."""
    with journal.open_journal(path, leaving_out=leaving_out) as reader:
        missing = unread_in(reader)
        records, first_ns, last_ns = scan.survey(reader)
        seal = scan.final_seal(reader)
        t0_ns = reader.header.t0_mono_ns
        sha256, sm3 = digests(path, reader.unread)
        return JournalEntry(
            path=path.name,
            participant_id=reader.header.participant_id,
            leg=reader.header.leg,
            segment=reader.header.segment,
            role=reader.header.role,
            label=reader.header.label,
            bytes=reader.size_bytes,
            records=records,
            first_ms=None if first_ns is None else (first_ns - t0_ns) // 1_000_000,
            last_ms=None if last_ns is None else (last_ns - t0_ns) // 1_000_000,
            sealed="" if seal is None else seal.reason.value,
            # What cannot be read is no torn tail that was cut, and is counted here.
            damaged_bytes=reader.damaged_bytes + reader.torn_bytes,
            sha256=sha256,
            sm3=sm3,
            unread=missing,
        )


def _seal_if_open(path: Path, *, leaving_out: bool) -> None:
    """Cut what follows the last valid record and append a seal, unless the last one is a seal.

    Safe to repeat after a crash at any point: each step leaves a journal that reads the same.
    Raises `JournalDamaged` for an untrustworthy header, `JournalUnreadable`, `OSError`.
    """
    with journal.open_journal(path, leaving_out=leaving_out) as reader:
        # Nobody can tell what is torn behind a stretch that cannot be read: it stays as it is.
        if reader.unread or scan.final_seal(reader) is not None:
            return
        last_type: RecordType | None = None
        last_ns = reader.header.t0_mono_ns
        records = 0
        for record in reader.records():
            last_type, last_ns, records = record.type, max(last_ns, record.at_ns), records + 1
        if last_type is RecordType.SEAL and not reader.torn_bytes:
            return
        end, seed = reader.valid_end, reader.header.crc_seed
        already_sealed = last_type is RecordType.SEAL
    with path.open("r+b") as file:
        file.truncate(end)
        if not already_sealed:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            seal = Seal(SealReason.RECOVERED, records, end, digest)
            file.seek(end)
            file.write(journal.encode_seal(seed, last_ns, seal))
        file.flush()
        os.fdatasync(file.fileno())


def _settle(path: Path) -> None:
    """Have on the disk what the book is about to vouch for: whoever wrote it may have died before
    its sync. After a sync that failed, memory can show what the disk has not got, and the failure
    is told only once; so it is read from the disk again. Raises `OSError`.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _give_back(path: Path) -> None:
    """Let go of space that a writer had set aside behind the end and died before giving back."""
    found = path.stat()
    if found.st_blocks * 512 > found.st_size + _SPARE_BYTES:
        os.truncate(path, found.st_size)


_SPARE_BYTES: Final = 256 * 1024
"""What a file system may use beside a file's bytes for reasons of its own."""


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest, or None if there is none. Raises `JournalDamaged` for one not understood."""
    try:
        return parse_manifest((directory / FILE_NAME).read_bytes())
    except FileNotFoundError:
        return None


def parse_manifest(data: bytes) -> Manifest:
    """What a manifest's bytes say. Raises `JournalDamaged` for what is not understood."""
    try:
        text = data.decode()
        value = json.loads(text)
        if "\\u" in text:  # half a surrogate pair is valid in JSON, and nowhere else
            json.dumps(value, ensure_ascii=False).encode()
        if value["format"] != FORMAT or value["version"] != VERSION:
            raise JournalDamaged("The manifest has a version this program does not read.")
        journals = tuple(_parse_entry(entry) for entry in value["journals"])
        rest = {name: value[name] for name in Manifest.__slots__ if name != "journals"}
        rest["unreadable"] = tuple(rest["unreadable"])
        book = Manifest(journals=journals, **rest)
        _check(book)
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise JournalDamaged("The manifest cannot be read.") from problem
    return book


def _parse_entry(value: object) -> JournalEntry:
    if not isinstance(value, dict):
        raise TypeError("journals")
    missing = value.get("unread", [])
    if type(missing) is not list:
        raise TypeError("unread")
    found = tuple(Unread(**{name: one[name] for name in Unread.__slots__}) for one in missing)
    rest = {name: value[name] for name in JournalEntry.__slots__ if name != "unread"}
    return JournalEntry(**rest, unread=found)


def _check(book: Manifest) -> None:
    """Raises TypeError or ValueError for what `close_book` does not write: other types, stretches
    that are none, and names of files that are not journals beside the manifest."""
    for entry in book.journals:
        _check_types(entry)
        after = 0
        for stretch in entry.unread:
            _check_types(stretch)
            if not after <= stretch.start < stretch.end <= entry.bytes:
                raise ValueError("unread")
            after = stretch.end
    _check_types(book)
    for name in (*(entry.path for entry in book.journals), *book.unreadable):
        if not journal.is_journal_name(name):
            raise ValueError("path")


def _check_types(value: Manifest | JournalEntry | Unread) -> None:
    for field in fields(value):
        found, wanted = getattr(value, field.name), _WRITTEN[field.type]
        if type(found) not in wanted:
            raise TypeError(field.name)


_WRITTEN: Final[dict[object, tuple[type, ...]]] = {
    str: (str,),
    int: (int,),
    int | None: (int, type(None)),
    str | None: (str, type(None)),
    tuple[str, ...]: (tuple,),
    tuple[JournalEntry, ...]: (tuple,),
    tuple[Unread, ...]: (tuple,),
}


# --- the disk ------------------------------------------------------------------------------------


def digests(path: Path, blanks: Sequence[Stretch] = ()) -> tuple[str, str]:
    """SHA-256 and SM3 (GB/T 32905) of a file in one pass, as hex; with zeros in place of `blanks`,
    which are not read."""
    sha256, sm3 = hashlib.sha256(), _sm3()
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        for piece in unread.pieces(file, blanks, chunk):
            sha256.update(piece)
            sm3.update(piece)
    digest = sm3.finalize() if isinstance(sm3, hashes.Hash) else sm3.digest()
    return sha256.hexdigest(), digest.hex()


def _sm3() -> "hashes.Hash | hashlib._Hash":
    """The interpreter's own where it has one: it needs a quarter less."""
    try:
        return hashlib.new("sm3", usedforsecurity=False)
    except ValueError:  # some distributions build their OpenSSL without it
        return hashes.Hash(hashes.SM3())


def write_durably(path: Path, data: bytes) -> None:
    """The file is there whole or not at all, also after a power cut."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    publish(part, path)


def publish(part: Path, path: Path) -> None:
    """Rename a synced file to its name, and make the name durable."""
    part.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def discard_if_empty(directory: Path) -> None:
    """Remove a recording's directory in which no journal was ever begun; any other stays as it is.
    For whoever held its lock until just now."""
    with contextlib.suppress(OSError):
        if not journal.journals_in(directory):
            (directory / _LOCK_NAME).unlink(missing_ok=True)
            directory.rmdir()


def lock_directory(directory: Path, name: str = _LOCK_NAME) -> int | None:
    """Take the recording's lock; None if someone else has it. The caller closes the descriptor.

    The lock is the descriptor's, so it ends with the last process that inherited it, however that
    process ends.
    """
    flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
    fd = os.open(directory / name, flags, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


@contextmanager
def locked(directory: Path, *, patience_s: float, name: str = _LOCK_NAME) -> Iterator[None]:
    """Hold one of the recording's locks. Raises `RecordingBusy` if it is not free in time."""
    until = time.monotonic() + patience_s
    while (fd := lock_directory(directory, name)) is None:
        if time.monotonic() >= until:
            raise RecordingBusy("This recording is still being written or closed.")
        time.sleep(0.01)
    try:
        yield
    finally:
        os.close(fd)


def boot_id() -> str:
    """Names this boot of the machine: monotonic times compare only within one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
