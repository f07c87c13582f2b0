"""Who is there and is not being recorded: a rule over tracks that ought to be arriving. Pure.

A line that falls silent altogether is another matter, seen within seconds (media/peer.py). Here
somebody is connected, means to be seen or heard, and yet nothing of one track reaches the disk: a
camera that has stopped, a microphone that a program took away. The talk would end without it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.ids import ParticipantId
from signaling.protocol import Track
from signaling.seat import Media, Seat

UNHEARD_AFTER_MS = 20_000
"""Longer than any honest pause: who says nothing still sends sound, and the thinnest picture is
one a second (web/src/rtc/thin.ts)."""

TrackKey = tuple[ParticipantId, Track]


@dataclass(frozen=True, slots=True)
class Unheard:
    """A track that ought to be recorded, and for how long nothing of it has been."""

    participant_id: ParticipantId
    track: Track
    for_ms: int


class Expected:
    """Which tracks ought to be arriving in a live room, and since when."""

    def __init__(self) -> None:
        self._since_ms: dict[TrackKey, int] = {}

    def look(self, seats: Iterable[Seat], now_ms: int) -> None:
        """How the seats of the live room are now. No seats: nothing is expected."""
        keys = [
            (seat.participant_id, track)
            for seat in seats
            if seat.media is Media.CONNECTED and not seat.has_left
            for track in seat.publishing
            if track not in seat.muted
        ]
        # Who comes back, or unmutes, has the whole time again.
        self._since_ms = {key: self._since_ms.get(key, now_ms) for key in keys}

    def unheard(self, ages_ms: Mapping[TrackKey, int | None], now_ms: int) -> tuple[Unheard, ...]:
        """The tracks that are missed. `ages_ms`: how long ago each was last written; None or
        absent if it never was."""
        missed: list[Unheard] = []
        for key, since_ms in self._since_ms.items():
            age_ms = ages_ms.get(key)
            for_ms = now_ms - since_ms if age_ms is None else min(age_ms, now_ms - since_ms)
            if for_ms >= UNHEARD_AFTER_MS:
                missed.append(Unheard(*key, for_ms))
        return tuple(missed)
