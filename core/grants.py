"""The Grant: permission that travels.

Scheduling writes it, signaling reads it, neither imports the other. A Grant says who may join which
room as what, until when, once. It is a compact JWS (HS256, RFC 7515) under this installation's
secret. It names no person: labels are offices and roles.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import Unauthenticated
from core.ids import AppointmentId, ParticipantId, RoomId, new_id


class GrantRefused(Unauthenticated):
    code = "grant_refused"


class Grant(BaseModel):
    """What the bearer may do in one room. `expires_at` bounds joining, not staying."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grant_id: str
    room_id: str
    appointment_id: str
    participant_id: str
    role: str  # signaling.protocol.ParticipantRole
    label_zh: str
    label_bo: str | None
    label_en: str
    publish: tuple[str, ...]  # signaling.protocol.Track
    may_admit: bool
    may_end: bool
    slot_ends_at: datetime | None
    official_id: str
    county_id: str
    expires_at: datetime
    watch: tuple[str, ...] = ()
    """For a screen that cannot choose: whose tracks it shows first, by role."""


@dataclass(frozen=True, slots=True)
class GrantKey:
    """Signs and checks Grants and resume tokens; one kind never passes as the other."""

    secret: bytes

    def sign(self, grant: Grant) -> str:
        return self._serialize("grant", grant.model_dump_json().encode())

    def verify(self, token: str, *, now: datetime) -> Grant:
        """The Grant inside `token`. Raises `GrantRefused` if forged, garbled or expired."""
        try:
            grant = Grant.model_validate_json(self._deserialize("grant", token))
        except (JoseError, ValidationError, ValueError) as error:
            raise GrantRefused("This invitation is not valid. Please enter again.") from error
        if grant.expires_at <= now:
            raise GrantRefused("This invitation has expired. Please enter again.")
        return grant

    def sign_resume(self, grant: Grant) -> str:
        """A token with which a participant who has joined may come back, while the room lives."""
        return self._serialize("resume", grant.model_dump_json().encode())

    def verify_resume(self, token: str) -> Grant:
        """Raises `GrantRefused` if forged or garbled. The room decides whether it is too late."""
        try:
            return Grant.model_validate_json(self._deserialize("resume", token))
        except (JoseError, ValidationError, ValueError) as error:
            raise GrantRefused("This seat is no longer held. Please enter again.") from error

    def _serialize(self, purpose: str, payload: bytes) -> str:
        return jws.serialize_compact({"alg": "HS256", "typ": purpose}, payload, self._key())

    def _deserialize(self, purpose: str, token: str) -> bytes:
        signed = jws.deserialize_compact(token, self._key(), algorithms=["HS256"])
        if signed.headers().get("typ") != purpose:
            raise GrantRefused("This token is for something else.")
        return signed.payload

    def _key(self) -> OctKey:
        return OctKey.import_key(self.secret)


def new_grant(
    *,
    room_id: RoomId,
    appointment_id: AppointmentId,
    participant_id: ParticipantId,
    role: str,
    label_zh: str,
    label_bo: str | None,
    label_en: str,
    publish: tuple[str, ...],
    may_admit: bool,
    may_end: bool,
    slot_ends_at: datetime | None,
    official_id: str,
    county_id: str,
    now: datetime,
    ttl: timedelta,
    watch: tuple[str, ...] = (),
) -> Grant:
    """A fresh Grant with its own id, good for joining until `now + ttl`."""
    return Grant(
        grant_id=new_id(), room_id=room_id, appointment_id=appointment_id,
        participant_id=participant_id, role=role, label_zh=label_zh, label_bo=label_bo,
        label_en=label_en, publish=publish, may_admit=may_admit, may_end=may_end,
        slot_ends_at=slot_ends_at, official_id=official_id, county_id=county_id,
        expires_at=(now + ttl).astimezone(UTC), watch=watch,
    )  # fmt: skip
