"""Grants for devices that were given and taken back, as the audit log has them.

A Grant for a device is good for a day's work and is typed into machines that anyone may walk up to,
so it must be possible to take one back. Whether it was is asked of the audit log itself, where both
deeds stand anyway: there is no second list that could say otherwise. Coming in is rare, the lines
of one appointment are few, and the log knows them by an index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.audit import AuditLine, record
from core.grants import Grant
from core.ids import AppointmentId, RoomId
from core.store import Store

GIVEN: Final = "device_granted"
TAKEN_BACK: Final = "device_revoked"
_OBJECT: Final = "appointment"
_HINT_FOR: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Given:
    """One Grant for a device. `taken_back_at` is None while it is good."""

    grant_id: str
    device: str
    given_at: datetime
    expires_at: datetime
    taken_back_at: datetime | None


async def note_given(
    tx: AsyncSession, grant: Grant, device: str, *, by: str, now: datetime
) -> None:
    """Write down that this Grant was made, and for which kind of device."""
    await record(
        tx, now=now, actor=by, action=GIVEN, object_kind=_OBJECT, object_id=grant.appointment_id,
        device=device, grant_id=grant.grant_id, expires_at=grant.expires_at.isoformat(),
    )  # fmt: skip


async def note_taken_back(
    tx: AsyncSession, appointment_id: AppointmentId, grant_id: str, *, by: str, now: datetime
) -> None:
    """From the commit on nothing new begins with this Grant."""
    await record(
        tx, now=now, actor=by, action=TAKEN_BACK, object_kind=_OBJECT, object_id=appointment_id,
        grant_id=grant_id,
    )  # fmt: skip


async def given_for(tx: AsyncSession, appointment_id: AppointmentId) -> list[Given]:
    """The Grants made for this appointment's devices, newest first."""
    lines = await _lines(tx, appointment_id)
    back = {line.details["grant_id"]: line.at for line in lines if line.action == TAKEN_BACK}
    return [
        Given(
            grant_id=line.details["grant_id"],
            device=line.details["device"],
            given_at=line.at,
            expires_at=datetime.fromisoformat(line.details["expires_at"]),
            taken_back_at=back.get(line.details["grant_id"]),
        )
        for line in reversed(lines)
        if line.action == GIVEN and "grant_id" in line.details
    ]


async def is_taken_back(tx: AsyncSession, grant: Grant) -> bool:
    lines = await _lines(tx, AppointmentId(grant.appointment_id))
    return any(
        line.action == TAKEN_BACK and line.details["grant_id"] == grant.grant_id for line in lines
    )


async def _lines(tx: AsyncSession, appointment_id: AppointmentId) -> Sequence[AuditLine]:
    found = await tx.scalars(
        select(AuditLine)
        .where(AuditLine.object_id == appointment_id, AuditLine.action.in_((GIVEN, TAKEN_BACK)))
        .order_by(AuditLine.position)
    )
    return found.all()


# ── telling the process that holds the room ──────────────────────────────────────────────────────


async def hint_taken_back(store: Store, room_id: RoomId, grant_id: str) -> None:
    """After the commit: the room lets go of what came in with this Grant, within two seconds."""
    key = _hint_key(room_id)
    await store.sadd(key, grant_id)
    await store.expire(key, int(_HINT_FOR.total_seconds()))


async def taken_back_in(store: Store, room_id: RoomId) -> frozenset[str]:
    """Ids of Grants whose devices the room is to let go of."""
    return frozenset(str(each) for each in await store.smembers(_hint_key(room_id)))


def _hint_key(room_id: RoomId) -> str:
    return f"room:{room_id}:taken-back"
