"""What stands in a recording's directory, beside what its manifest and its signature vouch for.

Reads everything again and changes nothing: for the console, the court, the nightly look and the
last step of finishing. Whether the house's order of manifests holds is `media/chain.py`'s to say.
"""

import base64
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors import Malformed
from media import journal, scan, signing
from media.journal import JournalDamaged, JournalReader, JournalUnreadable
from media.manifest import FILE_NAME, JournalEntry, digests, read_manifest
from media.signing import Signature

RESTORED: Final = "restored"
"""`Problem.code` of what is none any more: unread when the book was closed, and proven since."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing `verify` found. `code` is stable; `words` are for the person at the console."""

    path: str
    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Verification:
    directory: str
    journals: int
    bytes: int
    problems: tuple[Problem, ...]
    signed_by: str | None
    """The public key (base64) whose signature holds; None if there is none that does."""

    @property
    def is_intact(self) -> bool:
        """Whether nothing that was sealed has changed. A journal that was never readable (its
        writer died while making it) is told of, but is no change; nor is a hole that a power cut
        has left in front of what the disk did keep, nor what the disk did not give then."""
        return not self.changes

    @property
    def changes(self) -> tuple[Problem, ...]:
        """The problems for which it is not intact."""
        return tuple(problem for problem in self.problems if problem.code not in _NO_CHANGE)


_NO_CHANGE: Final = ("unreadable", "damaged", "unread", RESTORED)


def verify(directory: Path) -> Verification:
    """Read everything again and compare it with the manifest. Changes nothing."""
    problems: list[Problem] = []
    try:
        book = read_manifest(directory)
    except JournalDamaged as damaged:
        book = None
        problems.append(Problem(FILE_NAME, "manifest_damaged", damaged.message))
    if book is None:
        if not problems:
            problems.append(
                Problem(FILE_NAME, "not_sealed", "The recording has no manifest: recover it first.")
            )
        return Verification(str(directory), 0, 0, tuple(problems), None)
    key = signed_by(directory, problems)
    known: set[str] = set()
    for entry in book.journals:
        problems.extend(_verify_entry(directory, entry))
        if entry.path in known:
            problems.append(Problem(entry.path, "twice", "This journal is in the manifest twice."))
        known.add(entry.path)
    known.update(book.unreadable)
    for path in journal.journals_in(directory):
        if path.name not in known:
            problems.append(
                Problem(path.name, "not_in_manifest", "This journal is not in the manifest.")
            )
    for name in book.unreadable:
        words = "This journal's header could not be read, or not be trusted."
        problems.append(Problem(name, "unreadable", words))
    total = sum(entry.bytes for entry in book.journals)
    return Verification(str(directory), len(book.journals), total, tuple(problems), key)


def signed_by(directory: Path, problems: list[Problem]) -> str | None:
    """The public key (base64) whose signature over the manifest holds, or None. What is wrong with
    the signature goes to `problems`."""
    try:
        signature = Signature.decode((directory / signing.FILE_NAME).read_bytes())
    except FileNotFoundError:
        return None
    except Malformed as damaged:
        problems.append(Problem(signing.FILE_NAME, "signature_damaged", damaged.message))
        return None
    if not signature.is_over((directory / FILE_NAME).read_bytes()):
        words = "The manifest is not the one that was signed."
        problems.append(Problem(signing.FILE_NAME, "signature", words))
        return None
    return base64.b64encode(signature.public_key).decode()


def _verify_entry(directory: Path, entry: JournalEntry) -> Iterator[Problem]:
    path = directory / entry.path
    if not path.is_file():
        yield Problem(entry.path, "missing", "This journal is gone.")
        return
    if path.stat().st_size != entry.bytes:
        yield Problem(entry.path, "size", "This journal does not have its recorded length.")
        if entry.unread:
            return  # which bytes were left out of its digest then means nothing any more
    try:
        sha256, sm3 = digests(path, entry.blanks)
    except OSError as problem:
        words = f"The disk does not give this journal back: {os.strerror(problem.errno or 0)}."
        yield Problem(entry.path, "disk", words)
        return
    if sha256 != entry.sha256:
        yield Problem(entry.path, "sha256", "The SHA-256 of this journal does not match.")
    if sm3 != entry.sm3:
        yield Problem(entry.path, "sm3", "The SM3 of this journal does not match.")
    try:
        with journal.open_journal(path, leaving_out=bool(entry.unread)) as reader:
            if entry.unread:
                yield from _verify_unread(entry, reader)
                return
            records = sum(1 for _ in scan.spans(reader))
            bad = reader.damaged_bytes + reader.torn_bytes
            if bad != entry.damaged_bytes or records != entry.records:
                yield Problem(entry.path, "records", f"{bad} bytes hold no valid record.")
            elif bad:
                yield Problem(entry.path, "damaged", f"{bad} bytes were damaged before the seal.")
    except JournalDamaged as damaged:
        yield Problem(entry.path, "header", damaged.message)
    except JournalUnreadable as refused:
        yield Problem(entry.path, "disk", refused.message)


def _verify_unread(entry: JournalEntry, reader: JournalReader) -> Iterator[Problem]:
    """What has become of the stretches that were left out. All the rest was compared before."""
    where = ", ".join(stretch.words for stretch in entry.unread)
    scan.note_still_unread(reader, entry.blanks)
    if reader.unread:
        words = f"{where}: the disk did not give this when the book was closed; missing still."
        yield Problem(entry.path, "unread", words)
    elif _is_what_was_sealed(reader):
        words = f"{where}: missing when the book was closed, there again now, as first sealed."
        yield Problem(entry.path, RESTORED, words)
    else:
        words = f"{where}: missing when the book was closed, there again, and no seal proves it."
        yield Problem(entry.path, "unread", words)


def _is_what_was_sealed(reader: JournalReader) -> bool:
    """Whether the journal's own last record vouches for all that stands before it."""
    seal = scan.final_seal(reader)
    if seal is None or not 0 < seal.bytes <= reader.size_bytes:
        return False
    before = memoryview(reader.data)[: seal.bytes]
    try:
        return hashlib.sha256(before).hexdigest() == seal.sha256
    finally:
        before.release()
