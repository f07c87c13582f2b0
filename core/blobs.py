"""Finished files behind one seam: a local directory now, an S3-compatible store later.

Keys are made by us (`recordings/<id>/party-….webm`), never taken from a request. A file appears
under its key whole or not at all.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Protocol

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


class BlobStore(Protocol):
    """What the house asks of a place for finished files. Blocking: call off the event loop."""

    def put_file(self, key: str, source: Path) -> None:
        """Put `source` under `key`, durably; an earlier content of `key` is replaced at once.

        `source` stays where it is but may be shared with the store from now on: replace it or
        remove it, never write into it.
        """
        ...

    def local_path(self, key: str) -> Path:
        """A readable local file with the content of `key`. Raises FileNotFoundError."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is no error."""
        ...

    def keys_below(self, prefix: str) -> tuple[str, ...]:
        """Every key that begins with `prefix` and a slash, in order."""
        ...

    def delete_below(self, prefix: str) -> None:
        """Remove all of `keys_below`, and drafts of such, durably. Again after a crash: no harm."""
        ...


class DirectoryBlobs:
    """Blobs as files under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, key: str, source: Path) -> None:
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        try:
            # An hour of talk is a gigabyte: where a second name will do, nothing is copied.
            os.link(source, part, follow_symlinks=False)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
        part.unlink(missing_ok=True)  # a rename between two names of one file leaves both
        _sync_directory(target.parent)

    def local_path(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise FileNotFoundError(key)
        return path

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def keys_below(self, prefix: str) -> tuple[str, ...]:
        names = (
            path.relative_to(self.root).as_posix()
            for path in self._path(prefix).rglob("*")
            if path.is_file()
        )
        return tuple(sorted(name for name in names if _KEY.fullmatch(name)))

    def delete_below(self, prefix: str) -> None:
        folder = self._path(prefix)
        # Out of sight at once, then away: nobody finds half of what is being deleted.
        tomb = folder.with_name(f".{folder.name}.tomb")
        if tomb.is_dir():
            shutil.rmtree(tomb)
        if folder.is_dir():
            folder.rename(tomb)
            _sync_directory(folder.parent)
            shutil.rmtree(tomb)
        if folder.parent.is_dir():
            _sync_directory(folder.parent)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a blob key: {key!r}")
        return self.root / key


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
