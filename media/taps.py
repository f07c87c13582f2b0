"""What the router needs of a recorder, as protocols: live media runs and is tested without a disk.

The one implementation is `media/party_tap.py`. A tap is called in the hot loop for every packet: it
must be cheap, must never block and must never raise. A room without a recorder has no taps.
"""

from typing import Protocol

from core.ids import ParticipantId
from media.journal import OVERHEAD_BYTES, ArrivedPacket, MarkKind
from media.tracks import CodecInfo, TrackName

__all__ = ["Intake", "MarkKind", "PartyTap", "Recorder"]


class Intake:
    """Where packets wait for the writer, and how many bytes of them may.

    Loop and writer share it without a lock of ours. `pending` is a queue of the two: the loop only
    appends, the writer copies a beginning of it and then cuts that off; under the interpreter lock
    each of these is atomic. `limit_bytes` is the writer's, all else the loop's: each changes only
    its own, and reads the other's as it stands. `pending` also takes records encoded already.

    `media/_fastlane.c` does what `put` does.
    """

    __slots__ = ("accepted_bytes", "is_open", "limit_bytes", "pending", "tracks")

    def __init__(self, limit_bytes: int) -> None:
        self.pending: list[ArrivedPacket | bytes] = []
        self.accepted_bytes = 0
        """All that was ever put here."""
        self.limit_bytes = limit_bytes
        """How much that may become as long as the writer takes nothing more."""
        self.tracks = 0
        """Track indices below this are known."""
        self.is_open = True
        """No packet is being lost, and the leg is not over."""

    def put(self, track_index: int, packet: bytes, arrival_ns: int) -> bool:
        """The usual case of `PartyTap.rtp`; False, and nothing done, if this is another."""
        accepted_bytes = self.accepted_bytes + len(packet) + OVERHEAD_BYTES
        if (
            not self.is_open
            or not 0 <= track_index < self.tracks
            or accepted_bytes > self.limit_bytes
        ):
            return False
        self.accepted_bytes = accepted_bytes
        self.pending.append((track_index, arrival_ns, packet))
        return True


class PartyTap(Protocol):
    """The recording of one participant's one leg. Times are `CLOCK_MONOTONIC` nanoseconds."""

    @property
    def intake(self) -> Intake | None:
        """Where the usual packet may be put instead of calling `rtp`; None: call it for each."""
        ...

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
