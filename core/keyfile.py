"""Files that hold a key: made once, by whoever comes first, whole and readable by us alone."""

import contextlib
import os
import secrets
from pathlib import Path


def make_once(path: Path, data: bytes) -> None:
    """Have `data` at `path`, mode 0600 and on the disk, unless something stands there already.

    Two processes that start at once must agree on one key: it is linked into place whole, and the
    second finds the first's. Its directory is made if need be, and its name is synced, because a
    power cut must not take a key away that has signed something. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # the other process was first: its key is ours
            os.link(draft, path)
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
