"""What is left after a kill: the journals against what had been sent, and whether files play.

Reads with the code that a court would use (media.journal, media.manifest) and judges by a book that
the callers kept, never by what the killed process believed.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.crash_call import Sent
from media import journal, manifest, signing
from media.journal import JournalDamaged, RecordType
from media.mux import MuxedFile

RtpKey = tuple[int, int]
"""SSRC and sequence number."""
_SEQ_AND_SSRC: Final = struct.Struct("!HxxxxI")


def recorded(recording: Path) -> set[RtpKey]:
    """Every packet that its journals hold. Journals without a readable header hold none."""
    found: set[RtpKey] = set()
    for path in journal.journals_in(recording):
        try:
            with journal.open_journal(path) as reader:
                for record in reader.records():
                    if record.type is RecordType.RTP:
                        seq, ssrc = _SEQ_AND_SSRC.unpack_from(record.payload, 2)
                        found.add((ssrc, seq))
        except JournalDamaged:
            continue
    return found


def lost_ms(sent: Sent, kept: set[RtpKey], killed_ns: int) -> float | None:
    """How much of what a party had sent is gone: from the oldest packet that is missing to the
    kill. 0 if none is; None if nothing had been sent yet."""
    if not sent.packets:
        return None
    missing = [at_ns for ssrc, seq, at_ns in sent.packets if (ssrc, seq) not in kept]
    return (killed_ns - min(missing)) / 1e6 if missing else 0.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What one party's files must have, going by its packets in the journals."""

    participant_id: str
    sound: bool
    picture: bool


def expected_of(sents: Iterable[Sent], kept: set[RtpKey]) -> list[Expected]:
    """One for each participant, over all lives: whoever is heard in the journals must be heard in
    the files, and seen if one whole keyframe was kept."""
    parties: dict[str, list[Sent]] = {}
    for sent in sents:
        parties.setdefault(sent.participant_id, []).append(sent)
    return [
        Expected(
            participant_id,
            sound=any(
                ssrc == one.sound_ssrc and (ssrc, seq) in kept
                for one in lives
                for ssrc, seq, _ in one.packets
            ),
            picture=any(kept.issuperset(frame) for one in lives for frame in one.keyframes),
        )
        for participant_id, lives in parties.items()
    ]


def unplayable(expected: Sequence[Expected], files: Sequence[MuxedFile]) -> list[str]:
    """The tracks that do not play, in words. `files`: of a mux result that VERIFY has decoded."""
    problems = []
    for party in expected:
        mine = [file for file in files if file.participant_id == party.participant_id]
        if party.sound and not any(file.has_audio for file in mine):
            problems.append(f"{party.participant_id} is not heard")
        if party.picture and not any(file.has_video for file in mine):
            problems.append(f"{party.participant_id} is not seen")
    return problems


def fingerprint(recording: Path) -> dict[str, str]:
    """SHA-256 of everything that a finalised recording consists of, by file name."""
    names = [path.name for path in journal.journals_in(recording)]
    paths = [recording / name for name in (*names, manifest.FILE_NAME, signing.FILE_NAME)]
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.exists()
    }


def changed(before: dict[str, str], recording: Path) -> list[str]:
    """Which of the files that were there before are gone or different. A signature that is added
    later is no change."""
    after = fingerprint(recording)
    return [name for name, digest in before.items() if after.get(name) != digest]
