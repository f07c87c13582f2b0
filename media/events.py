"""What the media plane tells the room: small facts about a peer, handed to its `on_event`.

The receiver must not block and must not call back into media from inside the callback; it puts the
event into its own bounded queue.
"""

from dataclasses import dataclass
from enum import StrEnum

from media.tracks import TrackName


class Quality(StrEnum):
    """How a participant's line is doing, in three words that a page can draw."""

    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"


TOO_MUCH = "too_much"


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """ICE and DTLS are through on this leg: media can flow both ways."""

    leg: int
    srtp_profile: str


@dataclass(frozen=True, slots=True)
class PeerSilent:
    """Nothing at all has arrived for `silent_ms`; said once per silence."""

    silent_ms: int


@dataclass(frozen=True, slots=True)
class PeerBack:
    """A silent peer is heard again, on the same leg."""


@dataclass(frozen=True, slots=True)
class PeerLost:
    """This leg is over: `closed` by the client, `no_consent` for 30 s, `never_connected`,
    `dtls_failed`, or `TOO_MUCH` was sent. The peer stays in the room; `new_leg()` starts it
    again."""

    reason: str


@dataclass(frozen=True, slots=True)
class OfferNeeded:
    """What this peer should send or receive has changed: fetch `Peer.offer()` and deliver it."""


@dataclass(frozen=True, slots=True)
class TrackStarted:
    """The first packet of a publication has arrived on the present leg."""

    name: TrackName


@dataclass(frozen=True, slots=True)
class SpeakingChanged:
    speaking: bool


@dataclass(frozen=True, slots=True)
class QualityChanged:
    quality: Quality


MediaEvent = (
    PeerConnected
    | PeerSilent
    | PeerBack
    | PeerLost
    | OfferNeeded
    | TrackStarted
    | SpeakingChanged
    | QualityChanged
)
