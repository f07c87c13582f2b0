"""The system calls a journal needs, behind one name: rehearsals and tests make each of them fail.

Nothing here decides anything. What a refusal means is `media/segment.py`'s and
`media/party_tap.py`'s business.
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final, Protocol

from media import manifest


class Disk(Protocol):
    """The system calls a journal needs. Each may raise `OSError`."""

    def create(self, path: Path) -> int: ...
    def write(self, fd: int, data: bytes | memoryview) -> int: ...
    def book(self, fd: int, offset: int, size_bytes: int) -> None: ...
    def sync(self, fd: int) -> None: ...
    def sync_names(self, directory: Path) -> None: ...
    def truncate(self, fd: int, size_bytes: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def space(self, directory: Path) -> tuple[int, int]: ...


class OsDisk:
    """The real one."""

    def create(self, path: Path) -> int:
        """A new file; its name is on disk after `sync_names` only. Refuses an existing one."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        return os.open(path, flags, 0o640)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def book(self, fd: int, offset: int, size_bytes: int) -> None:
        """Set space aside; the file's length stays. `EOPNOTSUPP` where a file system cannot.

        Not `posix_fallocate`: where a file system cannot, that writes zeros behind the end instead.
        """
        if _fallocate is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if _fallocate(fd, _FALLOC_FL_KEEP_SIZE, offset, size_bytes):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_names(self, directory: Path) -> None:
        manifest.sync_directory(directory)

    def truncate(self, fd: int, size_bytes: int) -> None:
        os.ftruncate(fd, size_bytes)

    def close(self, fd: int) -> None:
        os.close(fd)

    def space(self, directory: Path) -> tuple[int, int]:
        """Bytes free for us, and the size of the file system."""
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


_FALLOC_FL_KEEP_SIZE: Final = 1
_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)  # Linux only
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
CANNOT_BOOK: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What `book` says where a file system sets nothing aside, and never will."""
