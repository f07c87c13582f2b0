"""What is left of a recording when the power fails? Every moment is tried, several ways each.

A real recording is made under strace (bench/powerloss_talk.py: the recorder, the closing of the
book, its signature). Its system calls are a log; each prefix of it is a moment at which the power
could have failed. What a disk then holds is built anew from the log, for what was not synced may be
there or not:

    kept       everything had reached the disk
    dropped    nothing had that no sync had asked for; names too: a file whose directory was not
               synced is missing
    torn       the last write of every file stops at a sector of 512 bytes
    hollow     the files have their lengths and the unsynced bytes are zeros
    reordered  any sectors are there and any are not, names as well
    mixed      each file fares in its own way

Then the book is closed as after a restart, twice, and the result is compared with what was sent.
"""

import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import av

from bench.circumstances import circumstances
from bench.clip import make_clip, read_clip
from bench.powerloss_disk import TRACED, Call, Disk, Fate, read_log
from bench.powerloss_talk import PARTIES, Scenario, packets
from core.errors import ReceptionError
from media import journal, manifest, mux, scan, signing
from media.journal import JournalDamaged, RecordType
from media.signing import Signer
from media.verification import verify

PROMISED_MS: Final = 1000
PLAYS_FROM_PACKETS: Final = 100
"""A party of whom so much is recovered, about a second, must have a file that plays."""
FULL_FOR_MS: Final = 1500
HOUSE: Final = Path(__file__).resolve().parent.parent


class ToolMissing(Exception):
    """Something this drill needs is not installed here."""


# --- judging what is left -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What is recorded, and where the power is cut: at every `every`-th call."""

    scenario: Scenario
    seconds: float
    clip: Path
    seed: int = 1
    every: int = 1
    play_every: int = 101
    """Of how many states one is made into files that must play."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A packet: whose, and its bytes' digest."""

    who: str
    digest: bytes


@dataclass(slots=True)
class _Tally:
    """What one scenario has shown."""

    cuts: int = 0
    states: int = 0
    lost_ms: list[int] = field(default_factory=list)
    synced_lost: int = 0
    invented: int = 0
    recovery_failed: int = 0
    not_intact: int = 0
    not_idempotent: int = 0
    finalised_changed: int = 0
    played: int = 0
    unplayable: int = 0
    first_fault: str = ""

    def fault(self, name: str, words: str) -> None:
        setattr(self, name, getattr(self, name) + 1)
        self.first_fault = self.first_fault or f"{name}: {words}"


FAULTS: Final = (
    "synced_lost", "invented", "recovery_failed", "not_intact", "not_idempotent",
    "finalised_changed", "unplayable",
)  # fmt: skip


def _key(who: str, packet: bytes) -> _Key:
    return _Key(who, hashlib.blake2b(packet, digest_size=12).digest())


def packets_in(directory: Path) -> set[_Key]:
    """Every packet that the journals here hold, of those that can be read."""
    found: set[_Key] = set()
    for path in journal.journals_in(directory):
        try:
            with journal.open_journal(path) as reader:
                who = reader.header.participant_id
                for kind, _, _, at, size in scan.spans(reader):
                    if kind == RecordType.RTP:
                        found.add(_key(who, bytes(reader.data[at : at + size])))
        except JournalDamaged:
            continue  # its header is not there; nothing in it was synced, or that is found below
    return found


class _Judge:
    """Knows what was sent, and what the disk surely has; says what is wrong with a state."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self._plan = plan
        self._root = str(scratch / "root")
        self._recording = f"{self._root}/recordings/rec"
        self._stage = scratch / "stage"
        self._signer = Signer.at(scratch / "judge-key")
        self._arrived: dict[_Key, int] = {}
        for sent in packets(read_clip(plan.clip), plan.seconds):
            self._arrived.setdefault(_key(PARTIES[sent.party], sent.packet), sent.at_ms)
        self._surely: set[_Key] = set()
        self._surely_bytes: dict[str, int] = {}
        self.tally = _Tally()

    def learn(self, disk: Disk) -> None:
        """Something was synced: from now on these packets may never be missing."""
        held = {path: data for path, data in disk.surely().items() if path.endswith(journal.SUFFIX)}
        sizes = {path: len(data) for path, data in held.items()}
        if sizes == self._surely_bytes:
            return
        self._surely_bytes = sizes
        with tempfile.TemporaryDirectory(dir=self._stage.parent) as place:
            _lay_out(held, [], self._root, Path(place))
            directory = Path(place) / "recordings/rec"
            if directory.is_dir():
                self._surely |= packets_in(directory)

    def judge(self, disk: Disk, fate: Fate, dice: random.Random) -> None:
        self.tally.states += 1
        files, directories = disk.after(fate, dice)
        shutil.rmtree(self._stage, ignore_errors=True)
        self._stage.mkdir()
        _lay_out(files, directories, self._root, self._stage)
        directory = self._stage / "recordings/rec"
        where = f"{self._plan.scenario} at {disk.at_ms} ms, {fate}"
        self._check_finished(disk, files, where)
        if not self._recovers(directory, where):
            return
        kept = packets_in(directory) if directory.is_dir() else set()
        if missing := self._surely - kept:
            self.tally.fault("synced_lost", f"{where}: {len(missing)} packets")
        if kept - self._arrived.keys():
            self.tally.fault("invented", where)
        self.tally.lost_ms.append(self._lost_ms(kept, disk.at_ms))
        if self.tally.states % self._plan.play_every == 0:
            self._play(directory, kept, where)

    def _check_finished(self, disk: Disk, files: dict[str, bytes], where: str) -> None:
        """A manifest that was on the disk is there, with the words that it had."""
        for name in (manifest.FILE_NAME, signing.FILE_NAME):
            path = f"{self._recording}/{name}"
            surely = disk.surely().get(path)
            if surely is not None and files.get(path) != surely:
                self.tally.fault("finalised_changed", f"{where}: {name}")

    def _recovers(self, directory: Path, where: str) -> bool:
        try:
            manifest.recover(directory, patience_s=0, signer=self._signer)
            before = _contents(directory)
            manifest.recover(directory, patience_s=0, signer=self._signer)
        except manifest.RecordingMissing:
            if self._surely:
                self.tally.fault("recovery_failed", f"{where}: no recording")
            return not self._surely
        except (ReceptionError, OSError, ValueError) as problem:
            self.tally.fault("recovery_failed", f"{where}: {problem!r}")
            return False
        if _contents(directory) != before:
            self.tally.fault("not_idempotent", where)
        found = verify(directory)
        if not found.is_intact or found.signed_by is None:
            self.tally.fault("not_intact", f"{where}: {found.problems[:1]}")
        return True

    def _lost_ms(self, kept: set[_Key], at_ms: int) -> int:
        """How long before the cut the first packet had arrived that is not there any more."""
        missing = [
            arrived
            for key, arrived in self._arrived.items()
            if arrived < at_ms and key not in kept and not self._is_excused(at_ms)
        ]
        return at_ms - min(missing) if missing else 0

    def _is_excused(self, at_ms: int) -> bool:
        """While a disk takes nothing, nothing can be promised of what waits; nor for as long as it
        takes, afterwards, until the first sync."""
        since_ms = at_ms - self._plan.seconds * 1000 / 2
        return (
            self._plan.scenario is Scenario.DISK_FULL and 0 <= since_ms < FULL_FOR_MS + PROMISED_MS
        )

    def _play(self, directory: Path, kept: set[_Key], where: str) -> None:
        if not directory.is_dir():
            return
        packets_of = Counter(key.who for key in kept)
        must_play = {who for who, count in packets_of.items() if count >= PLAYS_FROM_PACKETS}
        if not must_play:
            return
        work = directory / "work"
        work.mkdir(exist_ok=True)
        try:
            files = mux.mux(directory, work).files
            for file in files:
                _decode(work / file.path)
        except (ReceptionError, OSError, ValueError, av.FFmpegError) as problem:
            self.tally.fault("unplayable", f"{where}: {problem!r}")
            return
        self.tally.played += len(files)
        if silent := must_play - {file.participant_id for file in files}:
            self.tally.fault("unplayable", f"{where}: no file of {len(silent)} parties")


def _lay_out(files: dict[str, bytes], directories: Sequence[str], root: str, place: Path) -> None:
    for path in directories:
        (place / path.removeprefix(root + "/")).mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        target = place / path.removeprefix(root + "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _contents(directory: Path) -> dict[str, bytes]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).digest()
        for path in directory.iterdir()
        if path.is_file()
    }


def _decode(path: Path) -> None:
    with av.open(str(path)) as container:
        decoded = sum(1 for _ in container.decode(container.streams[0]))
    if not decoded:
        raise ValueError(f"{path.name} holds nothing that can be decoded")


# --- the drill ------------------------------------------------------------------------------------


def run(
    seconds: float, seed: int, *, every: int = 1, scenarios: Sequence[Scenario] = tuple(Scenario)
) -> Iterator[dict[str, Any]]:
    """Cut the power at every `every`-th call of a recording of each scenario; the last row sums up.

    Raises `ToolMissing` without strace, `RuntimeError` if a recording cannot be made.
    """
    if shutil.which("strace") is None:
        raise ToolMissing("This drill needs strace: apt install strace")
    rows = []
    with tempfile.TemporaryDirectory(prefix="reception-powerloss-") as place:
        clip = Path(place) / "clip.mkv"
        make_clip(clip)
        for scenario in scenarios:
            plan = Plan(scenario, seconds, clip, seed, every)
            with tempfile.TemporaryDirectory(
                prefix="reception-powerloss-", dir=_quick()
            ) as scratch:
                calls, refused = record(plan, Path(scratch))
                row = {**judge(plan, calls, Path(scratch)), "refused_calls": refused}
            rows.append(row)
            yield row
    yield _sum_up(rows, seconds, seed)


def _quick() -> str | None:
    """Memory, where there is some: states are laid out by the thousand, and none is kept."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def judge(plan: Plan, calls: Sequence[Call], scratch: Path) -> dict[str, Any]:
    """Replay `calls`, which `record` has made in `scratch`, and cut the power at each of them.

    Raises RuntimeError if the log's disk and the real one differ in the end.
    """
    began = time.monotonic()
    root = str(scratch / "root")
    found = _Judge(plan, scratch)
    disk, dice, matter = Disk(root), random.Random(f"{plan.seed}/{plan.scenario}"), 0
    for call in calls:
        mattered = disk.perform(call)
        matter += mattered
        if call.name in ("fsync", "fdatasync"):
            found.learn(disk)
        if not mattered or matter % plan.every:
            continue
        found.tally.cuts += 1
        for fate in Fate:
            found.judge(disk, fate, dice)
    _must_equal(disk.now(), Path(root))
    tally = found.tally
    lost = sorted(tally.lost_ms)
    return {
        "scenario": plan.scenario.value,
        "calls": matter,
        "cuts": tally.cuts,
        "states": tally.states,
        "lost_ms": {"p50": _part(lost, 0.5), "p99": _part(lost, 0.99), "max": _part(lost, 1)},
        **{name: getattr(tally, name) for name in FAULTS},
        "played": tally.played,
        "first_fault": tally.first_fault,
        "took_away": dict(disk.changed),
        "seconds": round(time.monotonic() - began, 1),
        **circumstances(),
    }


def record(plan: Plan, scratch: Path) -> tuple[list[Call], int]:
    """Make the recording under strace; its calls, and how many the talk's own disk refused."""
    root, log = scratch / "root", scratch / "calls"
    root.mkdir()
    made = subprocess.run(
        [
            *("strace", "-f", "-qq", "-xx", "-s", "1000000", "--signal=none", "--seccomp-bpf"),
            *("-e", f"trace={TRACED}", "-o", str(log)),
            *(sys.executable, "-m", "bench.powerloss_talk"),
            *(str(plan.clip), str(root / "recordings/rec"), plan.scenario.value, str(plan.seconds)),
        ],
        cwd=HOUSE, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    if made.returncode:
        raise RuntimeError(f"The recording could not be made: {made.stderr[-2000:]}")
    refused = int(made.stdout.splitlines()[-1].split()[1])
    return read_log(log), refused


def _must_equal(model: dict[str, bytes], root: Path) -> None:
    """If the log's disk and the real one differ at the end, nothing above has proved anything."""
    real = {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    if model != real:
        differ = sorted(set(model) ^ set(real)) or [p for p in real if model[p] != real[p]]
        raise RuntimeError(f"The log does not tell what happened to {differ[:3]}.")


def _sum_up(rows: list[dict[str, Any]], seconds: float, seed: int) -> dict[str, Any]:
    took_away: Counter[str] = Counter()
    for row in rows:
        took_away.update(row["took_away"])
    states = sum(row["states"] for row in rows)
    faults = {name: sum(row[name] for row in rows) for name in FAULTS}
    most = max(row["lost_ms"]["max"] for row in rows)
    needed = {
        Scenario.SYNC_FAILS.value, Scenario.DISK_FULL.value
    } & {row["scenario"] for row in rows}  # fmt: skip
    happened = all(row["refused_calls"] for row in rows if row["scenario"] in needed) and all(
        took_away[fate.value] for fate in Fate if fate not in (Fate.KEPT, Fate.MIXED)
    )
    return {
        "cuts": sum(row["cuts"] for row in rows),
        "states": states,
        "lost_ms": {"p99": max(row["lost_ms"]["p99"] for row in rows), "max": most},
        **faults,
        "played": sum(row["played"] for row in rows),
        "took_away": dict(took_away),
        "below": f"0 in {states} means fewer than {3 / max(1, states):.1e} of such cuts",
        "talk_s": seconds,
        "seed": seed,
        **circumstances(),
        "ok": happened and most <= PROMISED_MS and not any(faults.values()),
    }


def in_words(row: dict[str, Any]) -> str:
    """A row in a line, for people."""
    name = row.get("scenario", "all")
    faults = ", ".join(f"{row[each]} {each}" for each in FAULTS if row[each]) or "no fault"
    return (
        f"{name}: {row['cuts']} cuts, {row['states']} states, at most "
        f"{row['lost_ms']['max']} ms lost, {faults}"
    )


def _part(ordered: list[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0
