"""A recorded talk on a clock of its own, for strace to watch: every pass comes without waiting.

`python -m bench.powerloss_talk CLIP DIRECTORY SCENARIO SECONDS` records two parties, closes the
recording and its book. It writes `T <ms>` to standard output whenever its time moves, so that who
reads the system calls knows when each of them was made.
"""

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from bench.clip import FRAMES_PER_S, SOUNDS_PER_S, Clip, read_clip
from bench.media_caller import DESCRIPTOR
from core.clock import ManualClock
from core.ids import ParticipantId, SessionId
from media import journal, manifest
from media.disk import OsDisk
from media.journal import MarkKind
from media.party_tap import PartyTap
from media.recorder import Recorder
from media.rtp import HEADER
from media.sdp import OPUS, VP8
from media.signing import Signer
from media.tracks import TrackName
from media.writer import WRITE_EVERY_S

STARTED: Final = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
BEGAN_NS: Final = 50_000_000_000
SESSION: Final = SessionId("5" * 32)
PARTIES: Final = (ParticipantId("a" * 32), ParticipantId("b" * 32))
PASS_MS: Final = round(WRITE_EVERY_S * 1000)
CAMERA, MICROPHONE = 0, 1


class Scenario(StrEnum):
    """What else happens to the recording."""

    PLAIN = "plain"
    SYNC_FAILS = "sync_fails"  # one sync of each party is refused
    DISK_FULL = "disk_full"  # every write is refused for a while
    RESTART = "restart"  # the process dies in the middle, the next goes on
    TORN = "torn"  # the process dies at the end, in the middle of a write; recovery cuts that


@dataclass(frozen=True, slots=True)
class Sent:
    """One packet and when it arrives, in ms of the talk."""

    at_ms: int
    party: int
    track: int
    packet: bytes


def packets(clip: Clip, seconds: float) -> Iterator[Sent]:
    """Everything that both parties send, in order of arrival; the same for the same clip."""
    found: list[Sent] = []
    for party in range(len(PARTIES)):
        seqs = [0, 0]
        for index in range(int(seconds * FRAMES_PER_S)):
            at_ms = index * 1000 // FRAMES_PER_S
            pieces = clip.frames[index % len(clip.frames)]
            for number, piece in enumerate(pieces):
                last = number == len(pieces) - 1
                head = HEADER.pack(
                    0x80, VP8.payload_type | last << 7, seqs[CAMERA] & 0xFFFF,
                    index * VP8.clock_rate // FRAMES_PER_S, 2 * party + CAMERA,
                )  # fmt: skip
                seqs[CAMERA] += 1
                begins = 0x80 if number else 0x90
                described = DESCRIPTOR.pack(begins, 0x80, 0x8000 | index & 0x7FFF)
                found.append(Sent(at_ms, party, CAMERA, head + described + piece))
        for index in range(int(seconds * SOUNDS_PER_S)):
            head = HEADER.pack(
                0x80, OPUS.payload_type, seqs[MICROPHONE] & 0xFFFF,
                index * OPUS.clock_rate // SOUNDS_PER_S, 2 * party + MICROPHONE,
            )  # fmt: skip
            seqs[MICROPHONE] += 1
            sound = clip.sounds[index % len(clip.sounds)]
            found.append(Sent(index * 1000 // SOUNDS_PER_S, party, MICROPHONE, head + sound))
    return iter(sorted(found, key=lambda sent: sent.at_ms))


class _Disk(OsDisk):
    """The real one, with refusals; what is refused never reaches the kernel."""

    def __init__(self) -> None:
        self.is_full = False
        self.syncs_to_refuse = 0
        self.refused = 0

    def _refuse(self, code: int) -> None:
        self.refused += 1
        raise OSError(code, os.strerror(code))

    def create(self, path: Path) -> int:
        if self.is_full:
            self._refuse(errno.ENOSPC)
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.is_full:
            self._refuse(errno.ENOSPC)
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        if self.syncs_to_refuse:
            self.syncs_to_refuse -= 1
            self._refuse(errno.EIO)
        super().sync(fd)


class _Talk:
    def __init__(self, directory: Path, scenario: Scenario, seconds: float) -> None:
        self._directory = directory
        self._scenario = scenario
        self._middle_ms = seconds * 1000 / 2
        self._clock = ManualClock(STARTED, BEGAN_NS)
        self._disk = _Disk()
        self._dead: list[Recorder] = []  # what died; kept, so that nothing tidies up after it
        self._is_struck = False
        self._recorder, self._taps = self._open()

    def _open(self) -> tuple[Recorder, list[PartyTap]]:
        recorder = Recorder.open(
            self._directory, session_id=SESSION, started_at=STARTED, clock=self._clock,
            disk=self._disk, background=False,
        )  # fmt: skip
        taps = []
        for party, who in enumerate(PARTIES):
            tap = recorder.party(who, 1, "label", "official" if party else "petitioner")
            tap.mark(MarkKind.JOIN, self._clock.monotonic_ns())
            for track, (name, codec) in enumerate(
                ((TrackName.CAMERA, VP8), (TrackName.MICROPHONE, OPUS))
            ):
                tap.open_track(2 * party + track, name, codec)
            taps.append(tap)
        return recorder, taps

    def run(self, sent: Iterator[Sent]) -> None:
        passed_ms = 0
        for one in sent:
            while one.at_ms >= passed_ms + PASS_MS:
                passed_ms += PASS_MS
                self._pass(passed_ms)
            self._taps[one.party].rtp(one.track, one.packet, BEGAN_NS + one.at_ms * 1_000_000)
        self._pass(passed_ms + PASS_MS)
        self._end()

    def _pass(self, at_ms: int) -> None:
        self._tell(at_ms)
        self._strike(at_ms)
        self._recorder.write_through()
        for tap in self._recorder.sync_due():
            tap.sync(self._clock.monotonic_ns())

    def _tell(self, at_ms: int) -> None:
        passed = BEGAN_NS + at_ms * 1_000_000 - self._clock.monotonic_ns()
        self._clock.advance(timedelta(microseconds=passed // 1000))
        os.write(1, b"T %d\n" % at_ms)

    def _strike(self, at_ms: int) -> None:
        full_for_ms = 1500 if self._scenario is Scenario.DISK_FULL else 0
        self._disk.is_full = 0 <= at_ms - self._middle_ms < full_for_ms
        if self._is_struck or at_ms < self._middle_ms:
            return
        self._is_struck = True
        if self._scenario is Scenario.SYNC_FAILS:
            self._disk.syncs_to_refuse = len(PARTIES)
        elif self._scenario is Scenario.RESTART:
            # What the kernel does for a process that dies: the lock is free, files stay.
            self._recorder.write_through()
            os.close(self._recorder.lock_fd)
            self._dead.append(self._recorder)
            self._recorder, self._taps = self._open()

    def _end(self) -> None:
        if self._scenario is Scenario.TORN:
            os.close(self._recorder.lock_fd)
            self._dead.append(self._recorder)
            for path in journal.journals_in(self._directory):
                with path.open("ab") as file:
                    file.write(b"\x02\x00\x02\x00" + bytes(200))
        else:
            self._recorder.close_now(patience_s=0)
        manifest.recover(
            self._directory, signer=Signer.at(self._directory.parents[1] / "signing-key")
        )
        os.write(1, b"R %d\n" % self._disk.refused)


if __name__ == "__main__":
    _Talk(Path(sys.argv[2]), Scenario(sys.argv[3]), float(sys.argv[4])).run(
        packets(read_clip(Path(sys.argv[1])), float(sys.argv[4]))
    )
