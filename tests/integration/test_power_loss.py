"""A few cuts of `reception drill powerloss`, and that its judge sees a recorder without syncs."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.clip import make_clip
from bench.powerloss import FAULTS, PROMISED_MS, Plan, judge, record
from bench.powerloss_disk import Call, Disk, Fate, read_log
from bench.powerloss_talk import Scenario

SECONDS = 4.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    make_clip(path)
    yield path


@pytest.mark.parametrize("scenario", list(Scenario))
def test_a_power_cut_costs_less_than_a_second_and_nothing_that_was_synced(
    scenario: Scenario, clip: Path, tmp_path: Path
) -> None:
    plan = Plan(scenario, SECONDS, clip, every=13, play_every=15)
    calls, refused = record(plan, tmp_path)
    found = judge(plan, calls, tmp_path)
    assert {name: found[name] for name in FAULTS if found[name]} == {}, found["first_fault"]
    assert found["lost_ms"]["max"] <= PROMISED_MS
    assert found["states"] >= 60 and found["played"] > 0
    # The cuts took away what no sync had asked for, in every way; else nothing has been tried.
    assert all(found["took_away"][fate] > 0 for fate in ("dropped", "torn", "hollow", "reordered"))
    assert (refused > 0) == (scenario in (Scenario.SYNC_FAILS, Scenario.DISK_FULL))


def test_a_talk_that_died_before_its_first_sync_is_closed_with_all_its_files(
    clip: Path, tmp_path: Path
) -> None:
    """Then nobody has synced the journals' names but whoever closes the book."""
    calls, _ = record(Plan(Scenario.TORN, 0.3, clip), tmp_path)
    found = judge(Plan(Scenario.TORN, 0.3, clip, play_every=10_000), calls, tmp_path)
    assert found["states"] >= 60
    assert {name: found[name] for name in FAULTS if found[name]} == {}, found["first_fault"]


def test_the_judge_sees_a_recorder_that_never_syncs(clip: Path, tmp_path: Path) -> None:
    plan = Plan(Scenario.PLAIN, SECONDS, clip, every=25)
    calls, _ = record(plan, tmp_path)
    found = judge(plan, [call for call in calls if call.name != "fdatasync"], tmp_path)
    assert found["lost_ms"]["max"] > PROMISED_MS


def test_the_judge_sees_a_manifest_before_its_journals(clip: Path, tmp_path: Path) -> None:
    plan = Plan(Scenario.PLAIN, SECONDS, clip, every=1)
    calls, _ = record(plan, tmp_path)
    begun = next(i for i, call in enumerate(calls) if call.name.startswith("rename"))
    # The book as it would be if nothing had been synced before it was closed.
    unsynced = [c for i, c in enumerate(calls) if c.name != "fdatasync" or i > begun]
    found = judge(Plan(Scenario.PLAIN, SECONDS, clip, every=7), unsynced, tmp_path)
    assert found["not_intact"] > 0 or found["synced_lost"] > 0


# --- the disk's own rules ------------------------------------------------------------------------


class Log:
    """Calls as strace would tell them, one after the other."""

    def __init__(self) -> None:
        self.disk = Disk("/r")
        self._number = 0

    def do(self, name: str, *arguments: str, result: int = 0) -> None:
        self._number += 1
        self.disk.perform(Call(name, arguments, result, self._number))

    def write(self, fd: int, data: str) -> None:
        self.do("write", str(fd), data, str(len(data)), result=len(data))


def test_a_synced_file_is_missing_while_its_directory_is_not_synced() -> None:
    log = Log()
    log.do("openat", "AT_FDCWD", "/r/a", "O_WRONLY|O_CREAT|O_APPEND", "0640", result=5)
    log.write(5, "one")
    log.do("fdatasync", "5")
    assert log.disk.surely() == {}
    log.do("openat", "AT_FDCWD", "/r", "O_RDONLY|O_DIRECTORY", result=6)
    log.do("fsync", "6")
    log.write(5, "two")
    assert log.disk.surely() == {"/r/a": b"one"}
    assert log.disk.now() == {"/r/a": b"onetwo"}


def test_a_rename_is_old_or_new_until_the_directory_is_synced() -> None:
    log = Log()
    log.do("openat", "AT_FDCWD", "/r", "O_RDONLY|O_DIRECTORY", result=6)
    log.do("openat", "AT_FDCWD", "/r/m.part", "O_WRONLY|O_CREAT|O_TRUNC", "0640", result=5)
    log.write(5, "book")
    log.do("fsync", "5")
    log.do("fsync", "6")
    log.do("rename", "/r/m.part", "/r/m")
    dice = random.Random(1)
    assert log.disk.after(Fate.DROPPED, dice)[0] == {"/r/m.part": b"book"}
    assert log.disk.after(Fate.KEPT, dice)[0] == {"/r/m": b"book"}
    log.do("fsync", "6")
    assert log.disk.after(Fate.DROPPED, dice)[0] == {"/r/m": b"book"}


def test_a_write_that_began_before_a_sync_ended_is_not_covered_by_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    a, r = (r"\x2f\x72\x2f\x61", r"\x2f\x72")
    lines = [
        f'7 openat(AT_FDCWD, "{r}", O_RDONLY|O_DIRECTORY) = 6',
        f'7 openat(AT_FDCWD, "{a}", O_WRONLY|O_CREAT|O_APPEND, 0640) = 5',
        "7 fsync(6) = 0",
        r'7 write(5, "\x31", 1) = 1',
        "8 fdatasync(5 <unfinished ...>",
        r'7 write(5, "\x32", 1) = 1',
        "8 <... fdatasync resumed>) = 0",
        "7 fdatasync(5) = -1 EIO (Input/output error)",
    ]
    path.write_text("\n".join(lines))
    disk = Disk("/r")
    for call in read_log(path):
        disk.perform(call)
    assert disk.surely() == {"/r/a": b"1"}
    assert disk.now() == {"/r/a": b"12"}
