"""Deleting a recording for good, after cases/retention.py has allowed it. Knows only files.

What goes: journals, files under way, everything made from them. What stays in the recording's
directory: the manifest with its signature, the list of what was deleted (`erased.json`), and the
certificate that is written afterwards. The directory is first renamed to a tomb, so that nobody
finds half a recording; then the tomb is emptied. Killed at any point and run again, it ends the
same.

Unlinking returns space, it does not scrub a disk: whoever may lose a disk encrypts it.
"""

import base64
import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from core.blobs import BlobStore
from core.errors import Malformed
from media import manifest, signing
from media.signing import Signature

LIST_NAME: Final = "erased.json"
_DRAFT_NAME: Final = "erasing.json"
"""The list while everything is still there; it gets its name in the cleared place."""
CERTIFICATE_NAME: Final = "certificate.json"
CERTIFICATE_SIGNATURE_NAME: Final = "certificate.sig"
_KEPT: Final = (manifest.FILE_NAME, signing.FILE_NAME)
_SCRUB_STATE: Final = "scrub.json"  # the nightly look at the book that stays (media/scrub.py)
_LEFT: Final = frozenset(
    {*_KEPT, _DRAFT_NAME, LIST_NAME, CERTIFICATE_NAME, CERTIFICATE_SIGNATURE_NAME, _SCRUB_STATE}
)
"""What stands in the directory of a deleted recording; beside it drafts of these, empty locks."""
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ErasedFile:
    """One file as it was before it went. Digests are None where the disk did not give it back."""

    path: str
    """In the recording's directory, or for finished files `blobs/` and the key."""
    bytes: int
    sha256: str | None
    sm3: str | None


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was deleted. The manifest, if there is one, stands beside it still."""

    manifest_sha256: str | None
    signed_by: str | None
    """The public key (base64) whose signature over the manifest held before the deletion."""
    files: tuple[ErasedFile, ...]


def is_erased(directory: Path) -> bool:
    """Whether the recording that was here has been deleted: its journals must not be missed."""
    return (directory / LIST_NAME).is_file()


def erase(
    directory: Path, blobs: BlobStore, prefix: str, *, patience_s: float = PATIENCE_S
) -> Erasure:
    """Delete the recording in `directory` and its finished files, `blobs` below `prefix`.

    Nobody may be able to add to either any more: see to that first. Repeatable; returns the same
    list every time once the first file has gone. Raises `RecordingBusy` if someone holds the
    recording's lock for longer than `patience_s`, `OSError`.
    """
    tomb = directory.with_name(f".{directory.name}.tomb")
    if not tomb.is_dir():
        _bury(directory, tomb, blobs, prefix, patience_s)
    if tomb.is_dir():
        _keep_the_book(tomb, directory)
        shutil.rmtree(tomb)
        manifest.sync_directory(directory.parent)
    blobs.delete_below(prefix)
    return _read_list(directory)


def write_certificate(directory: Path, body: bytes, signature: bytes) -> None:
    """Put the certificate beside the manifest. Repeatable with the same bytes."""
    manifest.write_durably(directory / CERTIFICATE_SIGNATURE_NAME, signature)
    manifest.write_durably(directory / CERTIFICATE_NAME, body)


def _bury(directory: Path, tomb: Path, blobs: BlobStore, prefix: str, patience_s: float) -> None:
    """List what is there, then rename all of it out of sight. Nothing, if that was done before."""
    directory.mkdir(parents=True, exist_ok=True)
    if is_erased(directory):
        return
    with (
        # In this order, as finishing takes them: nobody makes files of what is being buried.
        manifest.locked(directory, patience_s=patience_s, name=manifest.FINISHING_LOCK),
        manifest.locked(directory, patience_s=patience_s),
    ):
        found = _take_list(directory, blobs, prefix)
        text = json.dumps(asdict(found), ensure_ascii=False, indent=1, sort_keys=True)
        manifest.write_durably(directory / _DRAFT_NAME, text.encode() + b"\n")
        directory.rename(tomb)
        manifest.sync_directory(directory.parent)


def _keep_the_book(tomb: Path, directory: Path) -> None:
    """Give the recording's place back to what stays, before the tomb is emptied."""
    directory.mkdir(exist_ok=True)
    # The list last: with it the recording counts as deleted. What is not in the tomb any more was
    # copied before its removal began.
    for name, kept_as in (*((name, name) for name in _KEPT), (_DRAFT_NAME, LIST_NAME)):
        with contextlib.suppress(FileNotFoundError):
            manifest.write_durably(directory / kept_as, (tomb / name).read_bytes())
    manifest.sync_directory(directory)
    manifest.sync_directory(directory.parent)


def _take_list(directory: Path, blobs: BlobStore, prefix: str) -> Erasure:
    book = directory / manifest.FILE_NAME
    files = [
        _described(path, path.relative_to(directory).as_posix()) for path in _doomed(directory)
    ]
    files += [_described(blobs.local_path(key), f"blobs/{key}") for key in blobs.keys_below(prefix)]
    return Erasure(
        manifest_sha256=manifest.digests(book)[0] if book.is_file() else None,
        signed_by=_signed_by(directory),
        files=tuple(files),
    )


def _signed_by(directory: Path) -> str | None:
    try:
        signature = Signature.decode((directory / signing.FILE_NAME).read_bytes())
        holds = signature.is_over((directory / manifest.FILE_NAME).read_bytes())
    except (FileNotFoundError, Malformed):
        return None
    return base64.b64encode(signature.public_key).decode() if holds else None


def _doomed(directory: Path) -> Iterator[Path]:
    """Every file that does not stay, in order."""
    for root, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            is_left = name.removesuffix(".part") in _LEFT or name.endswith(".lock")
            if path.parent != directory or not is_left:
                yield path


def _described(path: Path, name: str) -> ErasedFile:
    size = path.lstat().st_size
    try:
        sha256, sm3 = manifest.digests(path)
    except OSError:  # a dying disk must not make its content undeletable
        return ErasedFile(name, size, None, None)
    return ErasedFile(name, size, sha256, sm3)


def _read_list(directory: Path) -> Erasure:
    value: dict[str, Any] = json.loads((directory / LIST_NAME).read_bytes())
    files = tuple(ErasedFile(**file) for file in value.pop("files"))
    return Erasure(files=files, **value)
