"""Who did what to which object, when, with what result: appended, chained, never changed.

Each line carries the SHA-256 of the line before it, so removing, changing or reordering one breaks
every later digest; `verify` finds the first break. Lines name principals and objects by id, never a
petitioner by name.
"""

import hashlib
import json
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Integer, String, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base

GENESIS = "0" * 64
# One writer at a time appends to the chain; on PostgreSQL this advisory lock says so (SQLite has
# one writer by nature). The number is arbitrary and ours.
_CHAIN_LOCK = 5_133_001


class AuditLine(Base):
    __tablename__ = "audit_lines"

    position: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(40))
    object_kind: Mapped[str] = mapped_column(String(24))
    object_id: Mapped[str] = mapped_column(String(64), index=True)
    result: Mapped[str] = mapped_column(String(16))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)  # JSON values of the action's own shape
    previous_digest: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))


async def record(
    tx: AsyncSession,
    *,
    now: datetime,
    actor: str,
    action: str,
    object_kind: str,
    object_id: str,
    result: str = "ok",
    **details: str | int | bool | None,
) -> AuditLine:
    """Append one line, in the caller's transaction: what is not committed has not happened."""
    if tx.get_bind().dialect.name == "postgresql":
        await tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHAIN_LOCK})
    last = await tx.scalar(select(AuditLine).order_by(AuditLine.position.desc()).limit(1))
    line = AuditLine(
        position=last.position + 1 if last else 1, at=now, actor=actor, action=action,
        object_kind=object_kind, object_id=object_id, result=result, details=details,
        previous_digest=last.digest if last else GENESIS, digest="",
    )  # fmt: skip
    line.digest = line_digest(line)
    tx.add(line)
    await tx.flush()
    return line


async def verify(tx: AsyncSession) -> int | None:
    """The position of the first line that does not fit the chain, or None if all do."""
    expected_position, previous = 1, GENESIS
    lines = await tx.stream_scalars(select(AuditLine).order_by(AuditLine.position))
    async for line in lines:
        fits = line.position == expected_position and line.previous_digest == previous
        if not fits or line.digest != line_digest(line):
            return line.position
        expected_position, previous = line.position + 1, line.digest
    return None


def line_digest(line: AuditLine) -> str:
    """SHA-256 over the line's content and the digest before it, as canonical JSON."""
    content = [
        line.position, line.at.isoformat(), line.actor, line.action, line.object_kind,
        line.object_id, line.result, line.details, line.previous_digest,
    ]  # fmt: skip
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
