"""Identifiers are types: mixing up two of them is a type error, guessing one is 122 bits of work.

Every id is a random UUID as 32 lower-case hex digits. It says nothing about the person, the day or
the order of creation, so it may stand in a URL; numbers that people read live in
`cases/numbering.py`.
"""

import uuid
from typing import NewType

OrgUnitId = NewType("OrgUnitId", str)
AccountId = NewType("AccountId", str)
KioskId = NewType("KioskId", str)
OfficialId = NewType("OfficialId", str)
ReceptionDayId = NewType("ReceptionDayId", str)
SlotId = NewType("SlotId", str)
HoldId = NewType("HoldId", str)
AppointmentId = NewType("AppointmentId", str)
RoomId = NewType("RoomId", str)
ParticipantId = NewType("ParticipantId", str)
SessionId = NewType("SessionId", str)
RecordingId = NewType("RecordingId", str)
FileId = NewType("FileId", str)
DemandId = NewType("DemandId", str)
MaterialId = NewType("MaterialId", str)
CaseId = NewType("CaseId", str)
LegalHoldId = NewType("LegalHoldId", str)
DeletionId = NewType("DeletionId", str)


def new_id() -> str:
    """A fresh random id; wrap it in the type it stands for: `CaseId(new_id())`."""
    return uuid.uuid4().hex
