"""A recording is deleted whole, and what must stay stays, wherever the process was killed."""

import hashlib
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.blobs import DirectoryBlobs
from media import erasure, manifest
from media.signing import Signer

PREFIX = "recordings/r1"
NOISE = bytes(range(256)) * 40


class Killed(BaseException):
    """The process ends here: nothing that comes after happens."""


class Bomb:
    """Ends the process before its nth change of a directory or opened file."""

    EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"})

    def __init__(self) -> None:
        self.left: int | None = None
        self.place = ""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left is None or event not in self.EVENTS:
            return
        self.left -= 1
        if self.left == 0:
            self.left = None
            raise Killed(event)


BOMB = Bomb()


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "blobs")


@pytest.fixture(autouse=True)
def defused() -> Iterator[None]:
    yield
    BOMB.left = None


def make_recording(root: Path, blobs: DirectoryBlobs) -> Path:
    """A closed, signed recording with one journal, a file under way and two finished files."""
    directory = root / "recordings" / "r1"
    (directory / "work").mkdir(parents=True)
    (directory / "work" / "party-a.webm").write_bytes(b"half")
    manifest.close_book(
        directory, sealed_at=datetime(2026, 5, 25, tzinfo=UTC), signer=Signer.at(root / "key")
    )
    (directory / "a.l0001.s0000.rrj").write_bytes(NOISE)
    for name in ("party-a.webm", "poster.jpg"):
        source = root / name
        source.write_bytes(name.encode())
        blobs.put_file(f"{PREFIX}/{name}", source)
        source.unlink()
    return directory


def files_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_everything_goes_but_the_book_and_the_list_of_what_went(
    tmp_path: Path, blobs: DirectoryBlobs
) -> None:
    directory = make_recording(tmp_path, blobs)
    book = (directory / "manifest.json").read_bytes()
    assert not erasure.is_erased(directory)
    gone = erasure.erase(directory, blobs, PREFIX)
    assert files_below(tmp_path) == {
        "key", "recordings/r1/manifest.json", "recordings/r1/manifest.sig",
        "recordings/r1/erased.json",
    }  # fmt: skip
    assert (directory / "manifest.json").read_bytes() == book
    assert gone.manifest_sha256 == hashlib.sha256(book).hexdigest()
    assert gone.signed_by is not None
    assert [(file.path, file.bytes) for file in gone.files] == [
        ("a.l0001.s0000.rrj", len(NOISE)),
        ("work/party-a.webm", 4),
        (f"blobs/{PREFIX}/party-a.webm", 12),
        (f"blobs/{PREFIX}/poster.jpg", 10),
    ]
    assert gone.files[0].sha256 == hashlib.sha256(NOISE).hexdigest()
    assert erasure.is_erased(directory)


def test_deleting_twice_tells_the_same(tmp_path: Path, blobs: DirectoryBlobs) -> None:
    directory = make_recording(tmp_path, blobs)
    first = erasure.erase(directory, blobs, PREFIX)
    erasure.write_certificate(directory, b"{}", b"{}")
    assert erasure.erase(directory, blobs, PREFIX) == first
    assert (directory / "certificate.json").read_bytes() == b"{}"


def test_killed_anywhere_and_run_again_it_ends_the_same(tmp_path: Path) -> None:
    """Before every change in turn. Until the list is final no file may have gone."""
    blobs = DirectoryBlobs(tmp_path / "whole" / "blobs")
    directory = make_recording(tmp_path / "whole", blobs)
    whole = erasure.erase(directory, blobs, PREFIX)
    end = files_below(tmp_path / "whole")
    kills = 0
    for nth in range(1, 400):
        root = tmp_path / str(nth)
        blobs = DirectoryBlobs(root / "blobs")
        directory = make_recording(root, blobs)
        BOMB.left = nth
        try:
            erasure.erase(directory, blobs, PREFIX)
        except Killed:
            kills += 1
        else:
            BOMB.left = None
            break
        again = erasure.erase(directory, blobs, PREFIX)
        assert again.files == whole.files
        assert files_below(root) == end
        assert manifest.read_manifest(directory) is not None
    assert kills > 20


def test_a_recording_that_someone_writes_is_not_touched(
    tmp_path: Path, blobs: DirectoryBlobs
) -> None:
    directory = make_recording(tmp_path, blobs)
    with manifest.locked(directory, patience_s=0), pytest.raises(manifest.RecordingBusy):
        erasure.erase(directory, blobs, PREFIX, patience_s=0)
    assert (directory / "a.l0001.s0000.rrj").is_file()


def test_a_recording_of_which_files_are_made_is_not_touched(
    tmp_path: Path, blobs: DirectoryBlobs
) -> None:
    directory = make_recording(tmp_path, blobs)
    maker = manifest.lock_directory(directory, manifest.FINISHING_LOCK)
    assert maker is not None
    with pytest.raises(manifest.RecordingBusy):
        erasure.erase(directory, blobs, PREFIX, patience_s=0)
    assert (directory / "a.l0001.s0000.rrj").is_file()
    os.close(maker)
    assert len(erasure.erase(directory, blobs, PREFIX).files) == 4


def test_what_others_note_beside_the_book_later_changes_nothing(
    tmp_path: Path, blobs: DirectoryBlobs
) -> None:
    directory = make_recording(tmp_path, blobs)
    gone = erasure.erase(directory, blobs, PREFIX)
    (directory / "note.json").write_bytes(b"{}")
    assert erasure.is_erased(directory)
    assert erasure.erase(directory, blobs, PREFIX) == gone


def test_a_recording_of_which_nothing_is_left_can_be_deleted(
    tmp_path: Path, blobs: DirectoryBlobs
) -> None:
    gone = erasure.erase(tmp_path / "recordings" / "never", blobs, PREFIX)
    assert (gone.manifest_sha256, gone.files) == (None, ())


def test_a_file_that_cannot_be_read_goes_all_the_same(
    tmp_path: Path, blobs: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_recording(tmp_path, blobs)

    def refuse(path: Path) -> tuple[str, str]:
        raise OSError(5, "Input/output error")

    (directory / "manifest.json").unlink()
    monkeypatch.setattr(manifest, "digests", refuse)
    gone = erasure.erase(directory, blobs, PREFIX)
    assert {file.sha256 for file in gone.files} == {None}
    assert "recordings/r1/a.l0001.s0000.rrj" not in files_below(tmp_path)
