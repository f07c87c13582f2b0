"""Does the scrub find a flipped bit, wherever it is? One in each of a thousand files.

Small recordings, closed, signed and chained as a house does it, each with a finished file that the
database vouches for. First everything is looked at untouched, which must raise nothing; then one
bit is flipped in one file of each recording (journal, manifest, signature, finished file in turn)
and the round is run again, by the real child.

    run(files, seed) -> rows, the last the result
"""

import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event, func, select

from app.database import upgrade
from app.scrubbing import scrub_round
from bench.circumstances import circumstances
from bench.recorded import STARTED
from core.audit import AuditLine
from core.blobs import DirectoryBlobs
from core.clock import SystemClock
from core.db import Database
from core.ids import ParticipantId, SessionId
from core.settings import Settings
from media import journal, manifest, signing
from media.chain import Chain
from media.journal import JournalHeader, Seal, SealReason, TrackRecord
from media.model import FileKind, Recording, RecordingFile, RecordingState
from media.scrub import Look
from media.sdp import OPUS
from media.signing import Signer
from media.tracks import TrackName

PACKETS: Final = 20
KINDS: Final = ("journal", "manifest", "signature", "finished")
_T0_NS: Final = 77_000_000_000
_RTP: Final = int(journal.RecordType.RTP)


@dataclass(frozen=True, slots=True)
class _House:
    settings: Settings
    database: Database
    blobs: DirectoryBlobs
    clock: SystemClock


async def run(files: int, seed: int) -> AsyncIterator[dict[str, Any]]:
    """A row for each round, then the result; `ok` if every flip was found where it was made, and
    nothing before."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="reception-bitrot-") as scratch:
        house = await _house(Path(scratch))
        try:
            names = [await _recording(house, number, chance) for number in range(files)]
            untouched = await _round(house)
            yield {"round": "untouched", "recordings": len(untouched), "found": _found(untouched)}
            flipped = {name: _flip(house, name, index, chance) for index, name in enumerate(names)}
            looks = await _round(house)
            hits: Counter[str] = Counter()
            for name, (kind, path) in flipped.items():
                hits[kind] += any(problem.path == path for problem in looks[name].problems)
            yield {"round": "one bit flipped in each", "recordings": len(looks), **hits}
            found = sum(hits.values())
            async with house.database.reading() as tx:
                audited = await tx.scalar(
                    select(func.count()).where(AuditLine.action == "scrub_found_damage")
                )
        finally:
            await house.database.close()
    yield {
        "files": files, "found": found, "missed": files - found,
        "false_alarms": _found(untouched), "audit_lines": audited, "seed": seed,
        "ok": found == files == audited and not _found(untouched),
        **circumstances(),
    }  # fmt: skip


def in_words(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    return "  ".join(f"{name}: {value}" for name, value in row.items())


async def _house(var_dir: Path) -> _House:
    settings = Settings(var_dir=var_dir, scrub_mib_per_s=1000)
    database = Database(settings.database)

    @event.listens_for(database.engine.sync_engine, "connect")
    def _alone(connection: Any, _record: Any) -> None:  # the DBAPI's connections have no type
        # A recording stands here without its session, appointment, official and county.
        connection.execute("PRAGMA foreign_keys=OFF")

    await upgrade(settings.database)
    return _House(settings, database, DirectoryBlobs(settings.blobs_dir), SystemClock())


async def _recording(house: _House, number: int, chance: random.Random) -> str:
    """Make one; its name."""
    name = f"{number:032x}"
    directory = house.settings.recordings_dir / name
    directory.mkdir(parents=True)
    _journal(directory, number, chance)
    manifest.recover(
        directory,
        signer=Signer.at(house.settings.signing_key_file),
        succession=Chain(house.settings.recordings_dir),
    )
    draft = directory / "draft"
    draft.write_bytes(chance.randbytes(3000))
    sha256 = manifest.digests(draft)[0]
    key = f"recordings/{name}/party.webm"
    house.blobs.put_file(key, draft)
    draft.unlink()
    async with house.database.transaction() as tx:
        tx.add(Recording(id=name, session_id=name, state=RecordingState.READY, started_at=STARTED))
        tx.add(
            RecordingFile(
                id=name, recording_id=name, position=1, kind=FileKind.PARTY, label="",
                blob_key=key, mime="video/webm", size_bytes=3000, sha256=sha256, duration_ms=1,
                offset_ms=0, has_audio=True, has_video=False,
            )
        )  # fmt: skip
    return name


def _journal(directory: Path, number: int, chance: random.Random) -> None:
    header = JournalHeader(
        session_id=SessionId(f"{number:032x}"), participant_id=ParticipantId("a" * 32), leg=1,
        segment=0, role="petitioner", label="", t0_mono_ns=_T0_NS, t0_wall_ns=10**18,
        boot_id="bitrot",
    )  # fmt: skip
    seed = header.crc_seed
    data = header.encode()
    data += journal.encode_track(seed, _T0_NS, TrackRecord(0, 1, TrackName.MICROPHONE, OPUS))
    for index in range(PACKETS):
        at_ns = _T0_NS + index * 20_000_000
        data += journal.encode_record(seed, _RTP, 0, at_ns, chance.randbytes(100))
    seal = Seal(SealReason.ENDED, PACKETS + 1, len(data), "")
    (directory / header.file_name).write_bytes(data + journal.encode_seal(seed, _T0_NS, seal))


async def _round(house: _House) -> dict[str, Look]:
    looks: dict[str, Look] = {}
    await scrub_round(
        house, everything=True, tell=lambda look: looks.update({look.recording: look})
    )
    return looks


def _found(looks: dict[str, Look]) -> int:
    return sum(bool(look.problems) for look in looks.values())


def _flip(house: _House, name: str, index: int, chance: random.Random) -> tuple[str, str]:
    """Flip one bit of one file of a recording. Which kind it is of, and what a look calls it."""
    directory = house.settings.recordings_dir / name
    kind = KINDS[index % len(KINDS)]
    if kind == "journal":
        [path] = journal.journals_in(directory)
    elif kind == "manifest":
        path = directory / manifest.FILE_NAME
    elif kind == "signature":
        path = directory / signing.FILE_NAME
    else:
        path = house.blobs.local_path(f"recordings/{name}/party.webm")
    data = bytearray(path.read_bytes())
    bit = chance.randrange(len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    if kind == "manifest" and not _is_readable(directory):
        return kind, manifest.FILE_NAME
    return kind, signing.FILE_NAME if kind == "manifest" else path.name


def _is_readable(directory: Path) -> bool:
    try:
        return manifest.read_manifest(directory) is not None
    except journal.JournalDamaged:
        return False
