"""What the router needs of a recorder, as protocols: live media runs and is tested without a disk.

The one implementation is `media/party_tap.py`. A tap is called in the hot loop for every packet: it
must be cheap, must never block and must never raise. A room without a recorder has no taps.
"""

import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from core.ids import ParticipantId
from media.journal import (
    MAX_PAYLOAD_BYTES,
    OVERHEAD_BYTES,
    ArrivedPacket,
    MarkKind,
    TrackCounts,
    encode_batch,
)
from media.tracks import CodecInfo, TrackName

__all__ = ["Intake", "MarkKind", "PartyTap", "Recorder"]

Taken = tuple[bytes, int, int, int, int, TrackCounts]
"""The records, how many they are, how many of them packets; when the first packet among them
arrived and when the last (0: there is none); and what there is of each track."""


class Intake:
    """Where a leg's packets wait for the writer, and how many bytes of them may.

    Loop and writer share it without a lock of ours: the loop only adds, the writer only takes, and
    what is added while it takes is there for the next time. `limit_bytes` is the writer's, all else
    the loop's: each changes only its own, and reads the other's as it stands.

    Where it could be built, this is the class of that name in `media/_fastlane.c`, which encodes
    each packet as it comes.
    """

    __slots__ = ("_pending", "_seed", "accepted_bytes", "is_open", "limit_bytes", "tracks")

    def __init__(self, limit_bytes: int, crc_seed: int = 0) -> None:
        self._seed = crc_seed
        self._pending: list[ArrivedPacket | bytes] = []
        self.accepted_bytes = 0
        """All that was ever put here; who keeps or adds something counts it himself."""
        self.limit_bytes = limit_bytes
        """How much that may become as long as the writer takes nothing more."""
        self.tracks = 0
        """Track indices below this are known."""
        self.is_open = True
        """No packet is being lost, and the leg is not over."""

    @property
    def waiting(self) -> int:
        """How many records wait."""
        return len(self._pending)

    @property
    def packets(self) -> int:
        """How many of them are packets."""
        return sum(not isinstance(item, bytes) for item in self._pending)

    def put(self, track_index: int, packet: bytes, arrival_ns: int, /) -> bool:
        """The usual case of `PartyTap.rtp`; False, and nothing done, if this is another."""
        accepted_bytes = self.accepted_bytes + len(packet) + OVERHEAD_BYTES
        if (
            not self.is_open
            or not 0 <= track_index < self.tracks
            or accepted_bytes > self.limit_bytes
            or len(packet) > MAX_PAYLOAD_BYTES
        ):
            return False
        self.accepted_bytes = accepted_bytes
        self.keep(track_index, packet, arrival_ns)
        return True

    def keep(self, track_index: int, packet: bytes, arrival_ns: int, /) -> None:
        """A packet of at most 65,535 bytes, whatever may wait. Times are monotonic nanoseconds."""
        self._pending.append((track_index, arrival_ns, packet))

    def add(self, record: bytes, /) -> None:
        """A record that is encoded already."""
        self._pending.append(record)

    def take(self) -> Taken | None:
        """Everything that waits, encoded; None if nothing does. If it raises (there may be no
        memory) everything waits on."""
        taken = self._pending[:]
        if not taken:
            return None
        data, from_ns, to_ns, counts = encode_batch(self._seed, taken)
        del self._pending[: len(taken)]
        return data, len(taken), sum(packets for _, packets, _ in counts), from_ns, to_ns, counts


InPython: Final = Intake
"""As it is where nothing was built."""

if not TYPE_CHECKING:
    with contextlib.suppress(ImportError):  # not built, or a processor without the instruction
        from media._fastlane import Intake


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
