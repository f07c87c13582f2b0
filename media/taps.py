"""What the router needs of a recorder, as protocols: live media runs and is tested without a disk.

The one implementation is `media/party_tap.py`. A tap is called in the hot loop for every packet: it
must be cheap, must never block and must never raise. A room without a recorder has no taps.
"""

from typing import Protocol

from core.ids import ParticipantId
from media.journal import MarkKind
from media.tracks import CodecInfo, TrackName

__all__ = ["MarkKind", "PartyTap", "Recorder"]


class PartyTap(Protocol):
    """The recording of one participant's one leg. Times are `CLOCK_MONOTONIC` nanoseconds."""

    def open_track(self, ssrc: int, name: TrackName, codec: CodecInfo) -> int:
        """The index under which packets of this SSRC arrive; asked again when the codec changes."""
        ...

    def rtp(self, track_index: int, packet: bytes, arrival_ns: int) -> None:
        """One decrypted RTP packet as received."""
        ...

    def rtcp_sr(self, track_index: int, ntp_time: int, rtp_time: int, arrival_ns: int) -> None:
        """A sender report: which RTP timestamp the sender's clock called which NTP time."""
        ...

    def mark(
        self, kind: MarkKind, at_ns: int, track_index: int | None = None, detail: str = ""
    ) -> None:
        """Note that `kind` happened at `at_ns`, to one track or (None) to the party."""
        ...

    def end(self) -> None:
        """This leg is over: what it has said is closed as soon as it is written. What still comes
        is not recorded."""
        ...


class Recorder(Protocol):
    """Hands out one tap per participant and leg. Sealing is the business of whoever opened it."""

    def party(self, participant_id: ParticipantId, leg: int, label: str, role: str) -> PartyTap: ...
