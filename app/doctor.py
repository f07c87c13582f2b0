"""`reception doctor`: is this machine fit to serve? Each finding in words, with what to do.

Every check does the real thing: binds the ports, writes and syncs to the disk, runs the ffmpeg that
will be run, opens the database and the store, and holds a short call between two aiortc clients
through a relay of its own on the loopback.
"""

import asyncio
import base64
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app import storage
from app.database import newest_revision, reached_revision
from core.clock import SystemClock
from core.db import Database
from core.settings import Settings
from core.store import open_store, use_once
from media.fastlane import built_as
from media.ffmpeg import ffmpeg_path
from media.selftest import loopback_call
from media.signing import KeyUnusable, Signer

CHECK_TIMEOUT_S = 60
DISK_PROBE_MIB = 32
ENOUGH_MIB_PER_S = 5
"""Ten recorded calls write about 2 MiB a second; half of that again for everything else."""
CLOCK_SLACK_S = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked thing. `remedy` is empty when all is well."""

    name: str
    is_well: bool
    words: str
    remedy: str = ""

    def in_words(self) -> str:
        line = f"{'ok  ' if self.is_well else 'FAIL'} {self.name}: {self.words}"
        return f"{line}\n     → {self.remedy}" if self.remedy else line

    def as_dict(self) -> dict[str, Any]:  # JSON
        return asdict(self)


Check = Callable[[Settings], Awaitable[Finding]]


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which a technician would put things right."""
    return [await _guarded(name, check, settings) for name, check in CHECKS]


async def _guarded(name: str, check: Check, settings: Settings) -> Finding:
    try:
        return await asyncio.wait_for(check(settings), CHECK_TIMEOUT_S)
    except Exception as error:  # whatever a check meets is its finding
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return Finding(name, False, words, "Put this right first; the words above say what failed.")


async def check_directory(settings: Settings) -> Finding:
    free = await asyncio.to_thread(storage.free_disk_mib, settings)
    well = free >= settings.min_free_disk_mib
    words = (
        f"{free} MiB free under {settings.var_dir}; "
        f"recordings begin down to {settings.min_free_disk_mib} MiB"
    )
    remedy = "" if well else "Make room, or set RECEPTION_VAR_DIR to a larger disk."
    return Finding("space", well, words, remedy)


async def check_storage(settings: Settings) -> Finding:
    """Whether what is booked will fit; asks the database, so it comes after that was found well."""
    database = Database(settings.database)
    try:
        if await reached_revision(database) is None:
            return Finding("days ahead", True, "nothing is booked yet")
        async with database.reading() as tx:
            found = await storage.look(tx, settings, datetime.now(UTC))
    finally:
        await database.close()
    remedy = (
        ""
        if found.is_enough
        else "Enlarge the disk before that day, or let recordings that are due be deleted."
    )
    return Finding("days ahead", found.is_enough, found.in_words(), remedy)


async def check_disk_speed(settings: Settings) -> Finding:
    speed, slowest_ms = await asyncio.to_thread(_probe_disk, settings.var_dir)
    well = speed > ENOUGH_MIB_PER_S
    remedy = "" if well else "Recordings need a faster disk; move RECEPTION_VAR_DIR."
    words = f"{speed:.0f} MiB/s written and synced, slowest sync {slowest_ms:.0f} ms"
    return Finding("disk", well, words, remedy)


def _probe_disk(folder: Path) -> tuple[float, float]:
    """Write as a journal does: a mebibyte, fdatasync, again. MiB/s and the slowest sync in ms."""
    probe = folder / f".doctor-{os.getpid()}"
    block, slowest_s = os.urandom(1024 * 1024), 0.0
    begun = time.monotonic()
    try:
        with probe.open("wb", buffering=0) as file:
            for _ in range(DISK_PROBE_MIB):
                file.write(block)
                before = time.monotonic()
                os.fdatasync(file.fileno())
                slowest_s = max(slowest_s, time.monotonic() - before)
    finally:
        probe.unlink(missing_ok=True)
    return DISK_PROBE_MIB / (time.monotonic() - begun), slowest_s * 1000


async def check_pages(settings: Settings) -> Finding:
    built = (settings.web_dir / "index.html").is_file()
    words = f"built, in {settings.web_dir}" if built else f"missing from {settings.web_dir}"
    return Finding("pages", built, words, "" if built else "Run: make setup")


async def check_http_port(settings: Settings) -> Finding:
    return _check_port("http port", settings.host, settings.port, socket.SOCK_STREAM)


async def check_media_port(settings: Settings) -> Finding:
    return _check_port("media port", settings.media_host, settings.media_port, socket.SOCK_DGRAM)


def _check_port(name: str, host: str, port: int, kind: socket.SocketKind) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    label = "tcp" if kind is socket.SOCK_STREAM else "udp"
    with socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            words = f"{host}:{port}/{label} cannot be bound: {error.strerror}"
            remedy = "If Remote Reception is running here already, this is as it should be."
            return Finding(name, False, words, remedy)
    return Finding(name, True, f"{host}:{port}/{label} is free")


async def check_ffmpeg(settings: Settings) -> Finding:
    path = ffmpeg_path(settings.ffmpeg)
    process = await asyncio.create_subprocess_exec(
        path, "-hide_banner", "-version", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    words = out.decode(errors="replace").split("\n", 1)[0]
    return Finding("ffmpeg", process.returncode == 0, f"{words} ({path})")


async def check_database(settings: Settings) -> Finding:
    database = Database(settings.database)
    try:
        await database.ping()
        newest = newest_revision()
        present = await reached_revision(database)
    finally:
        await database.close()
    engine = "SQLite" if database.is_sqlite else "PostgreSQL"
    if present == newest:
        return Finding("database", True, f"{engine} answers, schema {present}")
    if present is None:
        return Finding("database", True, f"{engine} answers, empty; the first start fills it")
    remedy = "Run: reception migrate"
    return Finding("database", False, f"{engine} has schema {present}, newest is {newest}", remedy)


async def check_store(settings: Settings) -> Finding:
    store = open_store(settings.redis_url)
    try:
        key = f"doctor:{os.getpid()}:{time.monotonic_ns()}"
        ttl = datetime.resolution * 10_000_000
        works = await use_once(store, key, ttl) and not await use_once(store, key, ttl)
    finally:
        await store.aclose()
    kind = "Redis" if settings.redis_url else "in-process store"
    return Finding("store", works, f"{kind} answers and keeps its word")


async def check_signing_key(settings: Settings) -> Finding:
    """The public key stands here so that it can be copied to where the archive keeps it."""
    try:
        signer = await asyncio.to_thread(Signer.at, settings.signing_key_file)
    except (KeyUnusable, OSError) as problem:
        return Finding("signing key", False, str(problem), "See docs/recording.md, “Signature”.")
    public = base64.b64encode(signer.public_key).decode()
    return Finding("signing key", True, f"recordings are signed by Ed25519 {public}")


async def check_clock(settings: Settings) -> Finding:
    wall, steady = time.time(), time.monotonic()
    await asyncio.sleep(0.3)
    drift_s = abs((time.time() - wall) - (time.monotonic() - steady))
    now = datetime.now(UTC)
    newest = max(
        (f.stat().st_mtime for f in settings.var_dir.glob("*") if f.is_file()), default=0.0
    )
    is_behind = newest - now.timestamp() > 60  # files from the future: the clock was set back
    well = drift_s < CLOCK_SLACK_S and not is_behind
    remedy = "" if well else "Check the time service (chrony or systemd-timesyncd) of this machine."
    return Finding("clock", well, f"{now:%Y-%m-%d %H:%M:%S} UTC, steady", remedy)


async def check_call(settings: Settings) -> Finding:
    result = await loopback_call(SystemClock())
    relay = "with its common case in C" if built_as() else "all in Python (no compiler at setup)"
    codecs = ", ".join(result.codecs)
    words = f"codecs {codecs}; sound and picture both ways; the relay runs {relay}"
    return Finding("call", result.is_well, words if result.is_well else result.words)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("space", check_directory),
    ("disk", check_disk_speed),
    ("signing key", check_signing_key),
    ("clock", check_clock),
    ("http port", check_http_port),
    ("media port", check_media_port),
    ("database", check_database),
    ("days ahead", check_storage),
    ("store", check_store),
    ("ffmpeg", check_ffmpeg),
    ("pages", check_pages),
    ("call", check_call),
)
