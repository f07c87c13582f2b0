"""A seat: what a room knows of one participant, whichever sockets and media legs come and go.

Signaling state (the socket) and media state are two things: a lost socket leaves media running, and
a silent line leaves the socket. What others are told is derived from both, in one place.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from core.grants import Grant
from core.ids import ParticipantId
from signaling.effects import SocketId
from signaling.protocol import ParticipantInfo, ParticipantRole, ParticipantState, Track

FIRST_TRACKS = (Track.CAMERA, Track.MICROPHONE)
"""Published from the start if the Grant allows; the document camera and the screen are asked for
later, by a person's press."""


DEVICES = frozenset({ParticipantRole.DEVICE, ParticipantRole.DISPLAY})
"""Roles that come over HTTP with an offer of their own and never speak on a socket."""


class Media(StrEnum):
    NONE = "none"  # this leg has never been connected
    CONNECTED = "connected"
    SILENT = "silent"
    GONE = "gone"


@dataclass(slots=True)
class OfferTurn:
    """At most one offer is with the client; what changes meanwhile goes into the next."""

    wanted: bool = False
    asked: bool = False
    """The host has been told to fetch one and has not answered yet."""
    revision: int | None = None
    """The offer that is with the client."""
    due_ms: int | None = None
    unanswered: int = 0

    @property
    def is_free(self) -> bool:
        return not self.asked and self.revision is None

    def clear(self) -> None:
        """Whatever was with the client is void; a fresh offer is wanted."""
        self.wanted = True
        self.revision = None
        self.due_ms = None
        self.unanswered = 0


@dataclass(slots=True)
class Seat:
    grant: Grant
    resume_token: str
    leg: int
    leg_since_ms: int
    publishing: tuple[Track, ...]
    seq: int = 0
    socket_id: SocketId | None = None
    has_left: bool = False
    is_missing: bool = False
    """Left without a word: the grace time ran out."""
    media: Media = Media.NONE
    barred_until_ms: int = 0
    """A device that sent too much is not taken in again before."""
    gone_since_ms: int | None = None
    """Since when neither socket nor media is there."""
    muted: set[Track] = field(default_factory=set)
    speaking: bool = False
    offer: OfferTurn = field(default_factory=OfferTurn)
    shown: ParticipantInfo | None = None
    """What the others were last told."""

    @property
    def participant_id(self) -> ParticipantId:
        return ParticipantId(self.grant.participant_id)

    @property
    def role(self) -> ParticipantRole:
        return ParticipantRole(self.grant.role)

    @property
    def is_device(self) -> bool:
        return self.role in DEVICES

    @property
    def state(self) -> ParticipantState:
        if self.has_left:
            return ParticipantState.LEFT
        match self.media:
            case Media.CONNECTED:
                return ParticipantState.READY
            case Media.NONE:
                has_socket = self.socket_id is not None
                return ParticipantState.JOINING if has_socket else ParticipantState.SILENT
            case Media.SILENT | Media.GONE:
                return ParticipantState.SILENT

    @property
    def is_gone(self) -> bool:
        """Neither hears us nor is heard; kept for the grace time."""
        return self.socket_id is None and self.media is not Media.CONNECTED

    def may_publish(self, track: Track) -> bool:
        return track.value in self.grant.publish

    def rights(self) -> tuple[str, ...]:
        """The `may` of `joined`."""
        admit = ("admit",) if self.grant.may_admit else ()
        end = ("end",) if self.grant.may_end else ()
        return (*(f"publish:{track}" for track in self.grant.publish), *admit, *end)

    def info(self) -> ParticipantInfo:
        return ParticipantInfo(
            participant_id=self.participant_id, role=self.role, label_zh=self.grant.label_zh,
            label_bo=self.grant.label_bo, label_en=self.grant.label_en, state=self.state,
            muted=tuple(sorted(self.muted)), tracks=self.publishing, speaking=self.speaking,
        )  # fmt: skip


def first_tracks(grant: Grant) -> tuple[Track, ...]:
    """What a participant with this Grant publishes before it has asked for anything."""
    return tuple(track for track in FIRST_TRACKS if track.value in grant.publish)
