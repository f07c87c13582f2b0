"""Journals of a few records, made in no time: for whatever is about files and not about media."""

from pathlib import Path

from core.ids import ParticipantId, SessionId
from media import journal
from media.journal import JournalHeader, Seal, SealReason, TrackRecord
from media.sdp import OPUS
from media.tracks import TrackName

T0_NS = 77_000_000_000
_RTP = int(journal.RecordType.RTP)


def small_journal(
    directory: Path, content: str, *, who: str = "a" * 32, packets: int = 5, is_sealed: bool = False
) -> Path:
    """One party's journal in `directory`, which exists; `content` makes its bytes its own."""
    header = JournalHeader(
        session_id=SessionId("s"), participant_id=ParticipantId(who), leg=1, segment=0,
        role="petitioner", label="", t0_mono_ns=T0_NS, t0_wall_ns=10**18, boot_id="b",
    )  # fmt: skip
    seed = header.crc_seed
    path = directory / header.file_name
    data = header.encode()
    data += journal.encode_track(seed, T0_NS, TrackRecord(0, 1, TrackName.MICROPHONE, OPUS))
    for number in range(packets):
        packet = bytes(12) + f"{content} {number}".encode()
        data += journal.encode_record(seed, _RTP, 0, T0_NS + number * 20_000_000, packet)
    if is_sealed:
        seal = Seal(SealReason.ENDED, packets + 1, len(data), "")
        data += journal.encode_seal(seed, T0_NS + packets * 20_000_000, seal)
    path.write_bytes(data)
    return path
