"""What a room asks for and what it is told: the values between room.py (pure) and host.py (acts).

An effect is an order; the host performs effects in the order given. A fact is something that
happened outside: a message, a socket, a media event, the result of an earlier effect. `FetchOffer`,
`TakeAnswer`, `StartSession` and `EndSession` are each answered by exactly one fact.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from core.errors import ReceptionError
from core.grants import Grant
from core.ids import ParticipantId, SessionId
from media.offers import ClientOffer
from signaling.protocol import (
    Admit,
    Answer,
    CloseCode,
    Countdown,
    End,
    Ended,
    EndReason,
    Leave,
    MediaLost,
    Mute,
    OfferedTrack,
    ParticipantChanged,
    Publish,
    RoomChanged,
    ServerMessage,
    Track,
)

SocketId = NewType("SocketId", int)
"""One accepted WebSocket; never reused within a process."""

RoomMessage = Answer | Publish | Mute | MediaLost | Admit | Leave | End
"""What a participant may say once it is in a room."""

SequencedMessage = ParticipantChanged | RoomChanged | Countdown | Ended

# ── facts ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Entered:
    """A verified, unused Grant arrived on a new socket."""

    grant: Grant
    socket_id: SocketId
    request_id: str
    resume_token: str


@dataclass(frozen=True, slots=True)
class Returned:
    """A verified resume token arrived on a new socket.

    `missed` are the kept messages after `last_seq`, oldest first; None if they cannot be had.
    """

    grant: Grant
    socket_id: SocketId
    request_id: str
    resume_token: str
    last_seq: int
    missed: tuple[SequencedMessage, ...] | None


@dataclass(frozen=True, slots=True)
class Said:
    participant_id: ParticipantId
    socket_id: SocketId
    message: RoomMessage


@dataclass(frozen=True, slots=True)
class PluggedIn:
    """A device brought a verified Grant and an offer of its own over HTTP. It has no socket.

    Answered by exactly one `AnswerOffer` or `RefuseOffer`.
    """

    grant: Grant
    publishes: tuple[Track, ...]
    offer: ClientOffer


@dataclass(frozen=True, slots=True)
class Unplugged:
    """A device, or its operator, ended what began with `leg`."""

    participant_id: ParticipantId
    leg: int


@dataclass(frozen=True, slots=True)
class SocketGone:
    participant_id: ParticipantId
    socket_id: SocketId


@dataclass(frozen=True, slots=True)
class MediaConnected:
    participant_id: ParticipantId


@dataclass(frozen=True, slots=True)
class MediaSilent:
    """Nothing arrives from the peer just now; it may come back on the same leg."""

    participant_id: ParticipantId


@dataclass(frozen=True, slots=True)
class MediaGone:
    """This leg is over; we may have closed it because it sent too much."""

    participant_id: ParticipantId
    has_sent_too_much: bool = False


@dataclass(frozen=True, slots=True)
class OfferWanted:
    participant_id: ParticipantId


@dataclass(frozen=True, slots=True)
class Spoke:
    participant_id: ParticipantId
    speaking: bool


@dataclass(frozen=True, slots=True)
class OfferMade:
    participant_id: ParticipantId
    revision: int
    sdp: str
    tracks: tuple[OfferedTrack, ...]


@dataclass(frozen=True, slots=True)
class OfferFailed:
    participant_id: ParticipantId


@dataclass(frozen=True, slots=True)
class AnswerTaken:
    participant_id: ParticipantId
    socket_id: SocketId
    request_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class AnswerRefused:
    participant_id: ParticipantId
    socket_id: SocketId
    request_id: str
    code: str
    words: str


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The Session is committed. `elapsed_ms` is its timeline's present value."""

    session_id: SessionId
    started_at: datetime
    elapsed_ms: int


@dataclass(frozen=True, slots=True)
class SessionRefused:
    code: str
    words: str


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The end is committed, or the hub has waited for the database long enough to tell people."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; `Room.due_ms` says when one is worth sending."""


Fact = (
    Entered
    | Returned
    | Said
    | PluggedIn
    | Unplugged
    | SocketGone
    | MediaConnected
    | MediaSilent
    | MediaGone
    | OfferWanted
    | Spoke
    | OfferMade
    | OfferFailed
    | AnswerTaken
    | AnswerRefused
    | SessionStarted
    | SessionRefused
    | SessionClosed
    | Tick
)

# ── effects ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Send:
    """One message to one socket, if it is still there. Not kept for resume."""

    socket_id: SocketId
    message: ServerMessage


@dataclass(frozen=True, slots=True)
class Post:
    """A sequenced message: kept for resume, and sent now if there is a socket."""

    participant_id: ParticipantId
    socket_id: SocketId | None
    message: SequencedMessage


@dataclass(frozen=True, slots=True)
class CloseSocket:
    socket_id: SocketId
    code: CloseCode


@dataclass(frozen=True, slots=True)
class OpenPeer:
    """The participant's media begins; `muted` tracks are to start muted."""

    grant: Grant
    publishes: tuple[Track, ...]
    muted: tuple[Track, ...]


@dataclass(frozen=True, slots=True)
class ClosePeer:
    participant_id: ParticipantId


@dataclass(frozen=True, slots=True)
class NewLeg:
    participant_id: ParticipantId


@dataclass(frozen=True, slots=True)
class FetchOffer:
    participant_id: ParticipantId


@dataclass(frozen=True, slots=True)
class TakeAnswer:
    participant_id: ParticipantId
    socket_id: SocketId
    request_id: str
    revision: int
    sdp: str


@dataclass(frozen=True, slots=True)
class AnswerOffer:
    """A device has its seat; what began with this is called `leg`."""

    grant: Grant
    offer: ClientOffer
    leg: int


@dataclass(frozen=True, slots=True)
class RefuseOffer:
    refusal: ReceptionError


@dataclass(frozen=True, slots=True)
class SetPublishes:
    participant_id: ParticipantId
    tracks: tuple[Track, ...]


@dataclass(frozen=True, slots=True)
class SetMuted:
    participant_id: ParticipantId
    track: Track
    muted: bool


@dataclass(frozen=True, slots=True)
class StartSession:
    """Commit the Session with these people in it."""

    present: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class GoLive:
    """Forward and record from now on."""

    session_id: SessionId


@dataclass(frozen=True, slots=True)
class NoteArrival:
    grant: Grant


@dataclass(frozen=True, slots=True)
class NoteDeparture:
    participant_id: ParticipantId


@dataclass(frozen=True, slots=True)
class EndSession:
    """Stop media, seal, commit the end."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class Dispose:
    """Nobody needs this room any more. Always the last effect."""


Effect = (
    Send
    | Post
    | CloseSocket
    | OpenPeer
    | ClosePeer
    | NewLeg
    | FetchOffer
    | TakeAnswer
    | AnswerOffer
    | RefuseOffer
    | SetPublishes
    | SetMuted
    | StartSession
    | GoLive
    | NoteArrival
    | NoteDeparture
    | EndSession
    | Dispose
)
