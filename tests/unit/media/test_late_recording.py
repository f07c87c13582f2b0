"""A recording that begins late stands on the session's timeline, not on its own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.clock import ManualClock
from core.ids import ParticipantId, SessionId
from media import journal
from media.journal import RecordType
from media.recorder import Recorder
from media.tracks import CodecInfo, TrackName

STARTED = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
OPUS = CodecInfo("audio/opus", 111, 48_000, 2, "")


def test_a_recording_that_begins_late_counts_from_the_talks_beginning(tmp_path: Path) -> None:
    clock = ManualClock(STARTED, 1_000_000_000)
    began_ns = clock.monotonic_ns()
    clock.advance(timedelta(seconds=8))
    recorder = Recorder.open(
        tmp_path / "talk", session_id=SessionId("5" * 32), started_at=STARTED, clock=clock,
        background=False, t0_mono_ns=began_ns,
    )  # fmt: skip
    tap = recorder.party(ParticipantId("a" * 32), 1, "当事人", "petitioner")
    track = tap.open_track(77, TrackName.MICROPHONE, OPUS)
    tap.rtp(track, b"\x80\x6f" + bytes(20), clock.monotonic_ns())
    recorder.write_through()
    recorder.close_now()
    (path,) = journal.journals_in(tmp_path / "talk")
    with journal.open_journal(path) as reader:
        first = next(record for record in reader.records() if record.type is RecordType.RTP)
        assert first.at_ns - reader.header.t0_mono_ns == 8_000_000_000
        assert reader.header.t0_wall_ns == int(STARTED.timestamp() * 1e9)
