"""A house's manifests name each other in order: what is gone, changed or moved shows."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from media import chain, manifest
from media.chain import Chain
from media.verification import verify
from tests.support.journals import small_journal

AT = datetime(2026, 3, 2, tzinfo=UTC)
KILLED = 9


def close(recordings: Path, name: str) -> manifest.Manifest:
    directory = recordings / name
    if not directory.is_dir():
        directory.mkdir()
        small_journal(directory, name)
    return manifest.recover(directory, succession=Chain(recordings))


def sha256(recordings: Path, name: str) -> str:
    return manifest.digests(recordings / name / manifest.FILE_NAME)[0]


def codes(recordings: Path) -> list[tuple[str, str]]:
    return [(problem.path, problem.code) for problem in Chain(recordings).verify().problems]


def test_each_manifest_names_the_one_before_it(tmp_path: Path) -> None:
    books = [close(tmp_path, name) for name in ("a", "b", "c")]
    assert books[0].previous_sha256 is None
    assert [book.previous_sha256 for book in books[1:]] == [sha256(tmp_path, n) for n in "ab"]
    found = Chain(tmp_path).verify()
    assert (found.links, found.head_sha256, found.problems) == (3, sha256(tmp_path, "c"), ())


def test_a_recording_that_is_closed_again_keeps_its_place(tmp_path: Path) -> None:
    first = close(tmp_path, "a")
    close(tmp_path, "b")
    assert close(tmp_path, "a") == first
    assert Chain(tmp_path).verify().links == 2


def test_a_recording_taken_away_whole_leaves_a_hole(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        close(tmp_path, name)
    shutil.rmtree(tmp_path / "b")
    assert codes(tmp_path) == [("b", "gone")]
    # Whoever mends the list too leaves the hole in the next manifest, which is signed.
    ledger = tmp_path / chain.LEDGER_NAME
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(lines[0] + lines[2].replace(b'"number": 3', b'"number": 2'))
    assert codes(tmp_path) == [("c", "order")]


def test_a_list_cut_short_and_a_manifest_exchanged_are_told(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        close(tmp_path, name)
    ledger = tmp_path / chain.LEDGER_NAME
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:2]))
    assert codes(tmp_path) == [("c", "not_in_list")]
    ledger.write_bytes(b"".join(lines))
    path = tmp_path / "a" / manifest.FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'"session_id": "s"', b'"session_id": "t"'))
    assert codes(tmp_path) == [("a", "changed")]


def test_recordings_from_before_the_chain_are_counted_and_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    small_journal(tmp_path / "old", "old")
    manifest.recover(tmp_path / "old")
    close(tmp_path, "new")
    found = Chain(tmp_path).verify()
    assert (found.links, found.unchained, found.problems) == (1, 1, ())


def test_a_list_that_cannot_be_read_keeps_no_recording_open(tmp_path: Path) -> None:
    close(tmp_path, "a")
    ledger = tmp_path / chain.LEDGER_NAME
    good = ledger.read_bytes()
    ledger.write_bytes(good + b'{"number": 2, "recording": "../x", "sha256": ""}\n{"numb')
    assert close(tmp_path, "b").previous_sha256 == sha256(tmp_path, "a")
    last = json.loads(ledger.read_bytes().splitlines()[-1])
    assert (last["number"], last["recording"]) == (3, "b")
    assert codes(tmp_path) == [(chain.LEDGER_NAME, "list_damaged")]


def _killed_at(number: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that dies before its `number`th sync or rename. Whether it did."""
    pid = os.fork()
    if pid == 0:
        left = number

        def dying(real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(KILLED)
                return real(*arguments)

            return call

        for owner, name in ((os, "fsync"), (os, "fdatasync"), (os, "rename"), (os, "replace")):
            setattr(owner, name, dying(getattr(owner, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == KILLED


def test_a_closer_killed_at_any_sync_or_rename_neither_forks_the_chain_nor_is_lost(
    tmp_path: Path,
) -> None:
    kills = 0
    for number in range(1, 30):
        recordings = tmp_path / str(number)
        recordings.mkdir()
        close(recordings, "a")
        (recordings / "b").mkdir()
        small_journal(recordings / "b", "b")
        if not _killed_at(number, lambda place=recordings: close(place, "b")):  # type: ignore[misc]
            break
        kills += 1
        # Another recording is closed first: it must not take b's place.
        close(recordings, "c")
        close(recordings, "b")
        found = Chain(recordings).verify()
        assert (found.links, found.problems, found.unchained) == (3, (), 0), f"killed at {number}"
        assert all(verify(recordings / name).is_intact for name in "abc")
        follows = {n: manifest.read_manifest(recordings / n) for n in "abc"}
        assert len({book.previous_sha256 for book in follows.values() if book}) == 3
    assert kills >= 6


class Watched:
    """Syncs and renames of this process by the names of what they are done to, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self.refused = ""
        """The sync that fails, when it has been seen so often."""
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        self.seen.append(Path(path).name)
        if self.refused == f"{self.seen[-1]} {self.seen.count(self.seen[-1])}":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._fsync(fd)

    def replace(self, old: Path, new: Path) -> None:
        self.seen.append(f"{new.parent.name}/{new.name}")
        self._replace(old, new)


def _die_closing_b(place: Path, *, has_manifest: bool) -> Path:
    """Recordings of whose second the line is written, at the first moment after it with or without
    its manifest; nothing of that is known to be on the disk."""
    for number in range(1, 30):
        recordings = place / str(number)
        recordings.mkdir()
        close(recordings, "a")
        (recordings / "b").mkdir()
        small_journal(recordings / "b", "b")
        assert _killed_at(number, lambda: close(recordings, "b"))  # noqa: B023
        is_listed = b'"b"' in (recordings / chain.LEDGER_NAME).read_bytes()
        if is_listed and (recordings / "b" / manifest.FILE_NAME).exists() == has_manifest:
            return recordings
    pytest.fail("the closer did not die where it was to")


def test_a_dead_closer_s_line_is_on_the_disk_before_its_manifest_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = _die_closing_b(tmp_path, has_manifest=False)
    watched = Watched(monkeypatch)
    close(recordings, "c")
    before = watched.seen[: watched.seen.index(f"b/{manifest.FILE_NAME}")]
    assert chain.LEDGER_NAME in before and recordings.name in before
    assert Chain(recordings).verify().problems == ()


def test_a_dead_closer_s_manifest_is_on_the_disk_before_another_line_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = _die_closing_b(tmp_path, has_manifest=True)
    watched = Watched(monkeypatch)
    close(recordings, "c")
    last_line = max(i for i, one in enumerate(watched.seen) if one == chain.LEDGER_NAME)
    assert "b" in watched.seen[:last_line]


def test_a_line_whose_sync_failed_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(tmp_path, "a")
    ledger = (tmp_path / chain.LEDGER_NAME).read_bytes()
    watched = Watched(monkeypatch)
    watched.refused = f"{chain.LEDGER_NAME} 2"  # the first is for what a predecessor left
    with pytest.raises(OSError, match="Input/output"):
        close(tmp_path, "b")
    assert (tmp_path / chain.LEDGER_NAME).read_bytes() == ledger
    close(tmp_path, "c")
    close(tmp_path, "b")
    found = Chain(tmp_path).verify()
    assert (found.links, found.problems) == (3, ())


class Forgetful:
    """What the disk has of one file, with a first sync that fails. As under Linux, what that was to
    write counts as written from then on: the next sync succeeds, and writes what was changed since.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, kept: bytes) -> None:
        self.kept = kept
        self.kept_at: dict[str, bytes] = {}
        """What it had when a name was given, by that name."""
        self._path = path
        self._has_failed = False
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, fd: int) -> None:
        self._fsync(fd)
        if not self._path.samefile(f"/proc/self/fd/{fd}"):
            return
        if not self._has_failed:
            self._has_failed = True
            os.utime(self._path, ns=(0, 0))  # nothing was changed since
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._path.stat().st_mtime_ns:
            self.kept = self._path.read_bytes()

    def replace(self, old: Path, new: Path) -> None:
        self._replace(old, new)
        self.kept_at[f"{new.parent.name}/{new.name}"] = self.kept


def test_a_dead_closer_s_line_is_on_the_disk_though_a_sync_failed_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = _die_closing_b(tmp_path, has_manifest=False)
    ledger = recordings / chain.LEDGER_NAME
    disk = Forgetful(monkeypatch, ledger, kept=ledger.read_bytes().split(b"\n")[0] + b"\n")
    with pytest.raises(OSError, match="Input/output"):
        close(recordings, "c")
    close(recordings, "c")
    assert b'"b"' in disk.kept_at[f"b/{manifest.FILE_NAME}"]
    assert disk.kept == ledger.read_bytes()
    assert Chain(recordings).verify().problems == ()


def test_a_list_without_a_whole_line_is_left_as_it_is_but_for_what_is_torn(
    tmp_path: Path,
) -> None:
    ledger = tmp_path / chain.LEDGER_NAME
    for torn in (b"", b'{"numb', b"x" * 5_000):
        ledger.write_bytes(torn)
        Chain(tmp_path)._mended()
        assert torn.startswith(ledger.read_bytes())


@pytest.mark.parametrize("name", ["closed.lock", "closed.jsonl"])
def test_the_chain_s_own_files_are_no_recordings(tmp_path: Path, name: str) -> None:
    close(tmp_path, "a")
    assert (tmp_path / name).is_file()
    assert Chain(tmp_path).verify().unchained == 0
