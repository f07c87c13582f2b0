"""Can two of them do it twice? Eight processes close and finish the same crashed recordings.

Each closing round is a recording whose writer died in mid-record: journals with torn tails, no
manifest. All racers recover it at the same moment; in every fifth round one of them does it first,
is killed with SIGKILL at one of its syncs or renames, the lock in its hands, while the others wait.
A watcher reads the manifest all the while. Each finishing round is one with real sound and picture,
which all racers take through every step to the composed picture, sharing a database; in every
second one the first is killed at a random moment.

    run(rounds, processes, finish_rounds, seed) -> rows, the last the result
"""

import asyncio
import hashlib
import multiprocessing
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event, select

from app.database import upgrade
from bench import race_worker
from bench.circumstances import circumstances
from bench.recorded import STARTED, make_recording
from core.blobs import DirectoryBlobs
from core.db import Database
from core.ids import ParticipantId, RecordingId, SessionId
from core.settings import Settings
from media import journal, manifest
from media.chain import Chain
from media.journal import JournalHeader, TrackRecord
from media.model import Recording, RecordingFile, RecordingState
from media.sdp import OPUS
from media.signing import Signer
from media.tracks import TrackName
from media.verification import verify

KILL_EVERY: Final = 5
LATEST_KILL: Final = 14
"""A closing has a dozen syncs and renames; some victims come through, and are counted apart."""
TELL_EVERY: Final = 1000
TALK_S: Final = 3
_T0_NS: Final = 77_000_000_000
_RTP: Final = int(journal.RecordType.RTP)
_FAULTS: Final = (
    "errors", "answers_differ", "not_intact", "half_written", "originals_touched", "left_over",
    "locks_left", "chain_problems", "not_ready", "steps_doubled", "files_differ",
)  # fmt: skip

Row = dict[str, Any]


def run(rounds: int, processes: int, finish_rounds: int, seed: int) -> Iterator[Row]:
    """Rows as they come. `rounds` of closing, then `finish_rounds` of finishing; the result's `ok`
    says whether every fault is zero and every kind of kill has happened."""
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="reception-race-") as scratch:
        var_dir = Path(scratch)
        with _racers(processes) as (racers, watcher):
            for number in range(1, rounds + 1):
                found += _close_round(number, var_dir, racers, watcher, chance)
                if number % TELL_EVERY == 0:
                    yield {"closing_rounds": number, **found}
        chain = Chain(var_dir / "recordings").verify()
        found["chain_problems"] += len(chain.problems) + abs(chain.links - rounds)
    if finish_rounds:
        for number, result in enumerate(_finishing(finish_rounds, processes, chance), 1):
            found += result
            yield {"finishing_round": number, **result}
    faults = {name: found.pop(name, 0) for name in _FAULTS}
    tried = rounds + finish_rounds
    is_proven = rounds < 2 * KILL_EVERY or found["killed_closing"] > 0
    yield {
        "rounds": rounds, "finish_rounds": finish_rounds, "processes": processes, "seed": seed,
        **found, **faults,
        "share_below": round(3 / max(tried, 1), 6),
        "ok": is_proven and not any(faults.values()),
        **circumstances(),
    }  # fmt: skip


def in_words(row: Row) -> str:
    """A row as a line for people."""
    return "  ".join(f"{name}: {value}" for name, value in row.items())


def _finishing(rounds: int, processes: int, chance: random.Random) -> Iterator[Counter[str]]:
    with (
        tempfile.TemporaryDirectory(prefix="reception-race-") as scratch,
        _racers(processes) as (racers, _),
    ):
        field = _Field(Path(scratch))
        for number in range(1, rounds + 1):
            yield field.finish_round(number, racers, chance)


class _Racers:
    """Processes that begin together."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def race(self, tasks: list[Any]) -> list[Row]:
        for pipe, task in zip(self._pipes, tasks, strict=True):
            pipe.send(task)
        return [pipe.recv() for pipe in self._pipes]

    def __len__(self) -> int:
        return len(self._pipes)


@contextmanager
def _racers(processes: int) -> Iterator[tuple[_Racers, Connection]]:
    """Racers and a watcher, forked before this process has any thread."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes)
    pairs = [context.Pipe() for _ in range(processes)]
    watched = context.Pipe()
    started = [
        context.Process(target=race_worker.racer, args=(theirs, barrier)) for _, theirs in pairs
    ]
    started.append(context.Process(target=race_worker.watcher, args=(watched[1],)))
    for process in started:
        process.start()
    try:
        yield _Racers([ours for ours, _ in pairs]), watched[0]
        for pipe in (*(ours for ours, _ in pairs), watched[0]):
            pipe.send(None)
        for process in started:
            process.join(10)
    finally:
        for process in started:
            process.kill()


# --- closing -------------------------------------------------------------------------------------


def _close_round(
    number: int, var_dir: Path, racers: _Racers, watcher: Connection, chance: random.Random
) -> Counter[str]:
    directory = var_dir / "recordings" / f"{number:032x}"
    directory.mkdir(parents=True)
    whole = _crashed(directory, number, chance)
    victim = chance.randrange(len(racers)) if number % KILL_EVERY == 0 else None
    dies_at = chance.randint(1, LATEST_KILL)
    key = var_dir / "signing-key"
    watcher.send(directory)
    answers = racers.race(
        [
            race_worker.Close(directory, key, dies_at if index == victim else None)
            for index in range(len(racers))
        ]
    )
    watcher.send("over")
    looks = watcher.recv()
    found: Counter[str] = Counter(
        errors=sum("error" in answer for answer in answers),
        half_written=looks["half_written"] + looks["changed"],
        looks=looks["looks"],
        looks_before=looks["before"],
        answers_differ=len({(a.get("manifest"), a.get("signature")) for a in answers}) - 1,
        not_intact=not _is_intact(directory, key),
        originals_touched=sum(
            not _begins_with(directory / name, data) for name, data in whole.items()
        ),
        left_over=len(list(directory.glob("*.part")) + list(directory.glob("*.next"))),
        locks_left=_is_locked(directory),
    )
    if victim is not None:
        died = answers[victim].get("died")
        found["killed_closing" if died else "victims_through"] += 1
        if died:
            found[f"killed_at_sync_{dies_at}"] += 1
    return found


def _crashed(directory: Path, number: int, chance: random.Random) -> dict[str, bytes]:
    """Journals whose writer died; for each, its bytes up to the last whole record."""
    whole = {}
    for leg in range(1, 3):
        header = JournalHeader(
            session_id=SessionId(f"{number:032x}"), participant_id=ParticipantId("a" * 32), leg=leg,
            segment=0, role="petitioner", label="", t0_mono_ns=_T0_NS, t0_wall_ns=10**18,
            boot_id="race",
        )  # fmt: skip
        seed = header.crc_seed
        data = header.encode()
        data += journal.encode_track(seed, _T0_NS, TrackRecord(0, 1, TrackName.MICROPHONE, OPUS))
        for index in range(chance.randint(1, 12)):
            packet = chance.randbytes(chance.randint(12, 200))
            data += journal.encode_record(seed, _RTP, 0, _T0_NS + index * 20_000_000, packet)
        torn = journal.encode_record(seed, _RTP, 0, _T0_NS, chance.randbytes(100))
        (directory / header.file_name).write_bytes(data + torn[: chance.randrange(len(torn))])
        whole[header.file_name] = data
    return whole


def _begins_with(path: Path, data: bytes) -> bool:
    """Whether nothing but a seal has come to the journal."""
    found = path.read_bytes()
    with journal.open_journal(path) as reader:
        kinds = [record.type for record in reader.records() if record.offset >= len(data)]
    return found[: len(data)] == data and kinds == [journal.RecordType.SEAL]


def _is_intact(directory: Path, key: Path) -> bool:
    found = verify(directory)
    return found.is_intact and found.signed_by is not None and Signer.at(key) is not None


def _is_locked(directory: Path) -> bool:
    for name in ("recording.lock", manifest.FINISHING_LOCK):
        fd = manifest.lock_directory(directory, name)
        if fd is None:
            return True
        os.close(fd)
    return False


# --- finishing -----------------------------------------------------------------------------------


class _Field:
    """A house in which the same talk is finished again and again."""

    def __init__(self, var_dir: Path) -> None:
        self._var_dir = var_dir
        self._settings = Settings(var_dir=var_dir)
        self._template = var_dir / "template"
        self._made: dict[str, str] = {}
        """What the first round made, by name: every other must make the same."""
        make_recording(self._template, TALK_S)
        (self._template / manifest.FILE_NAME).unlink()
        for path in journal.journals_in(self._template):
            path.write_bytes(path.read_bytes()[:-50])  # the seal, and some of a record: torn
        asyncio.run(upgrade(self._settings.database))

    def finish_round(self, number: int, racers: _Racers, chance: random.Random) -> Counter[str]:
        recording_id = RecordingId(f"{number:032x}")
        directory = self._settings.recordings_dir / recording_id
        shutil.copytree(self._template, directory)
        whole = {path.name: _valid(path) for path in journal.journals_in(directory)}
        asyncio.run(self._add(recording_id))
        victim = chance.randrange(len(racers)) if number % 2 == 0 else None
        dies_after_s = chance.uniform(0, 2.5)
        answers = racers.race(
            [
                race_worker.Finish(
                    recording_id, self._var_dir, self._settings.database,
                    dies_after_s if index == victim else None,
                )
                for index in range(len(racers))
            ]
        )  # fmt: skip
        steps: Counter[str] = Counter()
        for answer in answers:
            steps.update(answer.get("steps", {}))
        found: Counter[str] = Counter(
            errors=sum(answer.get("done") is not True for answer in answers),
            originals_touched=sum(
                not _begins_with(directory / name, data) for name, data in whole.items()
            ),
            left_over=(directory / "work").exists() + len(list(directory.glob("*.part"))),
            locks_left=_is_locked(directory),
            not_intact=not verify(directory).is_intact,
        )
        # Of a killed process nobody can ask what it had done: only that none is done too often.
        found["steps_doubled"] += sum(times > 1 for times in steps.values())
        if victim is None:
            found["steps_doubled"] += sum(times < 1 for times in steps.values()) or len(steps) < 5
        elif answers[victim].get("died"):
            found["killed_finishing"] += 1
        else:
            found["victims_through"] += 1
        found += asyncio.run(self._look(recording_id))
        shutil.rmtree(directory)
        shutil.rmtree(self._settings.blobs_dir / "recordings" / recording_id)
        return found

    async def _add(self, recording_id: RecordingId) -> None:
        database = self._database()
        try:
            async with database.transaction() as tx:
                tx.add(
                    Recording(
                        id=recording_id, session_id=recording_id, state=RecordingState.CAPTURED,
                        started_at=STARTED, captured_at=datetime.now(UTC),
                    )
                )  # fmt: skip
        finally:
            await database.close()

    async def _look(self, recording_id: RecordingId) -> Counter[str]:
        """Whether the recording is ready, and its files are those of every other round."""
        database = self._database()
        blobs = DirectoryBlobs(self._settings.blobs_dir)
        found: Counter[str] = Counter()
        try:
            async with database.reading() as tx:
                recording = await tx.get(Recording, recording_id)
                files = list(
                    await tx.scalars(
                        select(RecordingFile).where(RecordingFile.recording_id == recording_id)
                    )
                )
        finally:
            await database.close()
        assert recording is not None
        is_ready = recording.state == RecordingState.READY and recording.progress_percent == 100
        found["not_ready"] += not is_ready or len(files) != 4
        for file in files:
            data = blobs.local_path(file.blob_key).read_bytes()
            name = file.blob_key.rsplit("/", 1)[1]
            sha256 = hashlib.sha256(data).hexdigest()
            found["files_differ"] += sha256 != file.sha256
            found["files_differ"] += self._made.setdefault(name, sha256) != sha256
        return found

    def _database(self) -> Database:
        database = Database(self._settings.database)

        @event.listens_for(database.engine.sync_engine, "connect")
        def _alone(connection: Any, _record: Any) -> None:  # the DBAPI's connections have no type
            connection.execute("PRAGMA foreign_keys=OFF")  # as in race_worker

        return database


def _valid(path: Path) -> bytes:
    with journal.open_journal(path) as reader:
        for _ in reader.records():
            pass
        return path.read_bytes()[: reader.valid_end]
