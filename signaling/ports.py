"""What signaling asks of the media plane and of a recorder, as protocols.

The real ones are media/node.py and media/recorder.py; tests stand in small ones of their own. All
calls happen on the event loop; only the `async` ones may take time.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from core.ids import ParticipantId, RoomId, SessionId
from media import taps
from media.events import MediaEvent
from media.offers import ClientOffer
from media.recorder import RecordingStatus
from media.stats import PeerStats
from media.tracks import TrackName


class OfferedTrack(Protocol):
    """One m-section of an offer, as the client sees it."""

    @property
    def mid(self) -> str: ...
    @property
    def participant_id(self) -> ParticipantId: ...
    @property
    def name(self) -> TrackName: ...
    @property
    def direction(self) -> Literal["send", "receive"]: ...


class MediaOffer(Protocol):
    @property
    def revision(self) -> int: ...
    @property
    def sdp(self) -> str: ...
    @property
    def tracks(self) -> Sequence[OfferedTrack]: ...


class MediaPeer(Protocol):
    """One participant's transport."""

    def offer(self) -> MediaOffer: ...

    def answer(self, revision: int, sdp: str) -> None:
        """Raises a `core.errors.ReceptionError` with code and words for an SDP it refuses."""
        ...

    @property
    def ice_name(self) -> str: ...

    def accept(self, offer: ClientOffer, *, watch: Sequence[str] = ()) -> str:
        """The answer to a checked offer of the client; instead of `offer` and `answer`."""
        ...

    def restart_ice(self, remote_ufrag: str) -> str:
        """The fragment that tells the client our new names."""
        ...

    def set_publishes(self, names: Sequence[TrackName]) -> None: ...
    def set_muted(self, name: TrackName, muted: bool) -> None: ...
    def new_leg(self) -> None: ...


class LiveRecorder(taps.Recorder, Protocol):
    """A recording while it grows. Whoever opened it closes it."""

    def status(self) -> RecordingStatus: ...

    async def close(self) -> None:
        """Write and sync everything and let go of the directory; others close the book."""
        ...


class MediaRoom(Protocol):
    def add_peer(
        self,
        participant_id: ParticipantId,
        *,
        label: str,
        publishes: Sequence[TrackName],
        on_event: Callable[[MediaEvent], None],
        role: str = "",
    ) -> MediaPeer: ...
    def remove_peer(self, participant_id: ParticipantId) -> None: ...
    def go_live(self, recorder: taps.Recorder | None) -> None: ...

    def record(self, recorder: taps.Recorder) -> None:
        """The live room is given its recorder only now."""
        ...

    async def end(self) -> None: ...
    def stats(self) -> Sequence[PeerStats]: ...


class MediaNode(Protocol):
    def open_room(self, room_id: RoomId) -> MediaRoom: ...


class OpenRecorder(Protocol):
    """Begins a recording, or goes on with one that stands in `directory`. Blocks on the disk.

    `started_at` and `t0_mono_ns`: the session's time 0, on the wall and the monotonic clock.
    """

    def __call__(
        self, directory: Path, *, session_id: SessionId, started_at: datetime, t0_mono_ns: int
    ) -> LiveRecorder: ...
