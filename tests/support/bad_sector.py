"""A small ext4 disk with a block that cannot be read: the kernel's own EIO, and its SIGBUS.

The block of a file that is to fail is moved to the end of the disk's image, and the image is cut
there once it is mounted. To be used below `unshare --mount`, so that nothing stays mounted.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.sick_disk import CannotInject

BLOCK_BYTES = 4096
_DISK_BLOCKS = 16_384
_DIRECT_BLOCKS = 12  # an inode names so many itself
_PLAIN = "^extent,^64bit,^metadata_csum,^has_journal"


@dataclass(frozen=True)
class SickDisk:
    image: Path
    content: bytes
    """What stands in the block, for a disk that is well again."""

    def sicken(self) -> None:
        with self.image.open("r+b") as file:
            file.truncate((_DISK_BLOCKS - 1) * BLOCK_BYTES)

    def heal(self) -> None:
        with self.image.open("r+b") as file:
            file.seek((_DISK_BLOCKS - 1) * BLOCK_BYTES)
            file.write(self.content)


@contextmanager
def mounted_over(directory: Path, name: str, block: int, scratch: Path) -> Iterator[SickDisk]:
    """Put a disk in place of `directory`, with all that is in it; `sicken` takes block `block` of
    its file `name` away. Raises `CannotInject` where nobody may mount."""
    assert block < _DIRECT_BLOCKS
    for tool in ("mkfs.ext4", "debugfs", "mount", "umount"):
        if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            raise CannotInject(f"This needs {tool}.")
    image = scratch / "disk.img"
    with image.open("wb") as file:
        file.truncate(_DISK_BLOCKS * BLOCK_BYTES)
    _run(
        "mkfs.ext4", "-q", "-F", "-b", str(BLOCK_BYTES), "-O", _PLAIN, "-d", str(directory),
        str(image),
    )  # fmt: skip
    last = _DISK_BLOCKS - 1
    _run("debugfs", "-w", str(image), "-R", f"sif {name} block[{block}] {last}")
    content = (directory / name).read_bytes()[block * BLOCK_BYTES :][:BLOCK_BYTES]
    disk = SickDisk(image, content)
    disk.heal()
    _run("mount", "-o", "loop,errors=continue", str(image), str(directory))
    try:
        yield disk
    finally:
        _run("umount", "--lazy", str(directory))


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    )
    if done.returncode or "File not found" in done.stderr:
        raise CannotInject(f"{command[0]}: {done.stderr.strip()}")
