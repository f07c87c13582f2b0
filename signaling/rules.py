"""What a room goes by: what the house has set, what it is given after a restart, and the words with
which it refuses. Pure values; room.py decides with them."""

from dataclasses import dataclass
from datetime import datetime

from core.errors import Conflict, Gone, TooMany
from core.ids import ParticipantId, SessionId

MAX_SEATS = 12
"""A reception, not a hall; every seat costs forwarding to every other."""
LEG_SPACING_MS = 1_000
BARRED_MS = 30_000
"""How long a device that sent too much stays outside: it tries again by itself, and for ever."""
FIRST_ENTRY_MS = 10_000
"""How long a new room waits for the one who had it opened."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the house has set, in milliseconds."""

    grace_ms: int
    countdown_ms: int
    party_patience_ms: int = 5_000
    """How long a countdown that has run out waits for a party whose media is silent just then."""
    answer_timeout_ms: int = 10_000
    first_leg: int = 1
    """Legs count from here; a restarted node begins higher, so that no client mistakes its legs."""


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that outlived its node: what the table still knows."""

    session_id: SessionId
    started_at: datetime
    elapsed_ms: int
    slot_ends_at: datetime | None
    participants: frozenset[ParticipantId]
    """Who was in it; they may resume. Everyone else needs a Grant, as always."""


class RoomNotOpen(Conflict):
    """Nobody is in the room. Devices do not hold rooms open; people do."""

    code = "room_not_open"

    def __init__(self) -> None:
        words = "Nobody is in this room yet. Try again when the talk is prepared."
        super().__init__(words, retry_after_s=5)


class RoomFull(Conflict):
    code = "room_full"


class DeviceBusy(Conflict):
    """This seat's device is connected: a Grant serves one session at a time."""

    code = "device_busy"


class TooMuchSent(TooMany):
    """This device's last session was ended because it sent far too much."""

    code = "too_much_sent"


class TalkOver(Gone):
    code = "session_ended"
