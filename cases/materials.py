"""Pages shown or handed in (材料): JPEG or PNG, re-made before anyone sees them, kept with a hash.

Bytes from outside are decoded in a child process with bounded memory and time (cases/picture.py).
A file reaches the blob store whole before its row is written; if the row is not, it is removed.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cases import ledger, picture
from cases.ledger import EventWord
from cases.model import Case, Material
from cases.picture import MAX_PIXELS
from cases.schemas import MaterialView
from core.blobs import BlobStore
from core.errors import NotFound, Refused, TooLarge, Unavailable
from core.ids import CaseId, MaterialId, new_id

log = structlog.get_logger()

MAX_BYTES = 20 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
PATIENCE_S = 30
# One at a time: a decoder takes a core and some 400 MiB, and rooms live on this machine.
_decoding = asyncio.Semaphore(1)


class NotAPicture(Refused):
    code = "not_a_picture"


class NoSuchMaterial(NotFound):
    code = "no_such_material"


@dataclass(frozen=True, slots=True)
class RemadePicture:
    """A harmless picture in a temporary file that its maker will remove."""

    path: Path
    suffix: str
    mime: str
    width: int
    height: int
    size_bytes: int
    sha256: str


Read = Callable[[int], Awaitable[bytes]]
"""Reads at most so many bytes of the upload; empty at its end."""


async def remake(read: Read, directory: Path) -> RemadePicture:
    """Take an upload and make it harmless; both files lie in `directory`, the caller's to remove.

    Raises `TooLarge` beyond 20 MiB or 50 megapixels, `NotAPicture` for anything but a whole JPEG or
    PNG, `Unavailable` if decoding takes too long.
    """
    source, target = directory / "upload", directory / "picture"
    await _receive(read, source)
    async with _decoding:
        answer = await _decode(source, target)
    fault = answer.get("fault")
    if fault == "too_large":
        raise TooLarge(
            f"This picture has more than {MAX_PIXELS // 1_000_000} megapixels. Send a smaller one.",
            limit_pixels=MAX_PIXELS,
        )
    if fault is not None:
        raise NotAPicture("This is not a whole JPEG or PNG picture. Choose another file.")
    size_bytes, sha256 = await asyncio.to_thread(_measure, target)
    return RemadePicture(
        target, str(answer["suffix"]), str(answer["mime"]), int(answer["width"]),
        int(answer["height"]), size_bytes, sha256,
    )  # fmt: skip


async def _receive(read: Read, target: Path) -> None:
    size_bytes = 0
    with await asyncio.to_thread(target.open, "wb") as file:
        while chunk := await read(CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > MAX_BYTES:
                raise TooLarge(
                    "This file is larger than 20 MiB. Send a smaller one.", limit_bytes=MAX_BYTES
                )
            await asyncio.to_thread(file.write, chunk)


async def _decode(source: Path, target: Path) -> dict[str, str | int]:
    # -I: the child believes neither the environment nor the working directory.
    process = await asyncio.create_subprocess_exec(
        "nice", "-n", "10", sys.executable, "-I", picture.__file__, str(source), str(target),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, env={"LANG": "C.UTF-8", "PATH": os.defpath},
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
    except TimeoutError as error:
        log.warning("picture_decoder_too_slow", patience_s=PATIENCE_S)
        raise Unavailable("This picture took too long to read. Try a smaller one.") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        # Killed by its own limits, or by a decoder that crashed: the bytes were not a fair picture.
        log.warning("picture_decoder_died", code=process.returncode)
        return {"fault": "not_a_picture"}
    answer: dict[str, str | int] = json.loads(said)
    return answer


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    """Where one upload is worked on."""
    return tempfile.TemporaryDirectory(prefix="reception-upload-")


async def add_material(
    tx: AsyncSession,
    session_id: str,
    made: RemadePicture,
    blob_key: str,
    *,
    material_id: MaterialId,
    title: str,
    marked_at_ms: int | None,
    now: datetime,
    actor: str,
) -> Material:
    """Write down a picture that lies in the blob store under `blob_key`."""
    material = Material(
        id=material_id, session_id=session_id, title=title, marked_at_ms=marked_at_ms,
        mime=made.mime, size_bytes=made.size_bytes, sha256=made.sha256,
        width=made.width, height=made.height, blob_key=blob_key, added_at=now,
        added_by=actor,
    )  # fmt: skip
    tx.add(material)
    await tx.flush()
    case_id = await tx.scalar(select(Case.id).where(Case.session_id == session_id))
    if case_id is not None:
        await ledger.append(
            tx, CaseId(case_id), now=now, kind=EventWord.MATERIAL_ADDED, actor=actor,
            words=f"{title} · sha256 {made.sha256}", is_public=False,
        )  # fmt: skip
    return material


def new_material(session_id: str, made: RemadePicture) -> tuple[MaterialId, str]:
    """A fresh id and the blob key that goes with it."""
    material_id = MaterialId(new_id())
    return material_id, f"materials/{session_id}/{material_id}.{made.suffix}"


async def put(blobs: BlobStore, key: str, made: RemadePicture) -> None:
    await asyncio.to_thread(blobs.put_file, key, made.path)


async def material(tx: AsyncSession, material_id: str) -> Material:
    """The material, or `NoSuchMaterial`."""
    row = await tx.get(Material, material_id)
    if row is None:
        raise NoSuchMaterial("There is no such page. Reload the case.")
    return row


async def materials(tx: AsyncSession, session_id: str) -> list[Material]:
    """The session's materials in the order in which they came."""
    rows = await tx.scalars(
        select(Material)
        .where(Material.session_id == session_id)
        .order_by(Material.added_at, Material.id)
    )
    return list(rows)


def material_view(row: Material) -> MaterialView:
    return MaterialView(
        id=row.id, title=row.title, marked_at_ms=row.marked_at_ms, mime=row.mime,
        size_bytes=row.size_bytes, sha256=row.sha256, width=row.width, height=row.height,
        url=f"/api/materials/{row.id}",
    )  # fmt: skip
