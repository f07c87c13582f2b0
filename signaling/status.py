"""What a room is told about itself while it is live: how the recording is, how the lines are, who
is missing; and what of it the county desk is shown. Asked once a second, answered from facts."""

import errno
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from core.clock import Clock
from core.ids import ParticipantId
from media.events import Quality as LineWord
from media.recorder import RecordingState as WrittenState
from media.recorder import RecordingStatus as WrittenStatus
from media.stats import PeerStats
from signaling.ports import MediaRoom
from signaling.presence import Presence, RecordingAlarm, TooMuchSent, UnheardSince
from signaling.protocol import (
    LineQuality,
    ParticipantRole,
    Quality,
    RecordingState,
    RecordingStatus,
    RecordingTrouble,
    RoomState,
    ServerMessage,
    Track,
    TrackWritten,
    UnheardTrack,
)
from signaling.recording import TalkRecorder
from signaling.room import Room
from signaling.seat import Media
from signaling.unheard import TrackKey

log = structlog.get_logger(__name__)

AWAY_AFTER_MS: Final = {ParticipantRole.PETITIONER: 60_000, ParticipantRole.OFFICIAL: 30_000}
"""Who is away for so long is shown to the county desk: it can walk over to the kiosk and look, or
ring the official and meanwhile come into the talk itself."""
EXCESS_SHOWN_MS: Final = 60_000
"""How long the desk is shown that somebody's line was closed for sending too much."""

_WORDS: Final = {LineWord.GOOD: "good", LineWord.FAIR: "poor", LineWord.POOR: "bad"}


class RoomStatus:
    """Tells one room, through `broadcast`, and the county desk, through `presence`."""

    def __init__(
        self,
        room: Room,
        media: MediaRoom,
        recording: TalkRecorder,
        *,
        clock: Clock,
        presence: Presence,
        broadcast: Callable[[ServerMessage], None],
    ) -> None:
        self.qualities: dict[ParticipantId, LineWord] = {}
        """As media last called each line; the host keeps it."""
        self.late_ms = 0
        """How much of the talk was over when its recording began, or went on after a restart."""
        self._room = room
        self._media = media
        self._recording = recording
        self._clock = clock
        self._presence = presence
        self._broadcast = broadcast
        self._told: tuple[RecordingState, RecordingTrouble | None] | None = None
        self._alarm_since: datetime | None = None  # as shown to the desk; None: nothing is wrong
        self._missed: frozenset[TrackKey] = frozenset()
        self._away_shown: set[ParticipantRole] = set()
        self._excess: TooMuchSent | None = None
        self._log = log.bind(room_id=room.room_id)

    def report(self, second: int) -> None:
        """Once a second: what is written, how the lines are, who is there."""
        self._presence.show_roles(self._room.room_id, self._room.roles_present())
        self._show_away()
        self._show_excess()
        self._tell_recording()
        if second % 2 == 0 and (stats := self._media.stats()):
            self._broadcast(Quality(lines=self._lines(stats)))

    def watch(self) -> None:
        """Between reports: what people must not wait a second for."""
        if self._room.state is RoomState.LIVE and self._recording_word() != self._told:
            self._tell_recording()

    def note_excess(self, participant_id: ParticipantId) -> None:
        """Somebody's line was closed for sending too much."""
        seat = self._room.seats.get(participant_id)
        if seat is not None:
            self._excess = TooMuchSent(role=seat.role.value, since=self._clock.now())
            self._show_excess()

    # ── the recording ────────────────────────────────────────────────────────────────────────────

    def _tell_recording(self) -> None:
        """Tell everyone in the room how the recording is, and the county desk if it is not well."""
        if self._room.state is not RoomState.LIVE or self._room.is_waited_for:
            self._told = None
            self._show_recording(None)
            return
        status = self._recording_status()
        self._told = (status.state, status.trouble)
        self._broadcast(status)
        self._show_recording(status)

    def _recording_status(self) -> RecordingStatus:
        now_ms = self._clock.monotonic_ns() // 1_000_000
        elapsed_ms = self._room.elapsed_ms(now_ms)
        state, trouble = self._recording_word()
        recorder = self._recording.recorder
        if recorder is None:
            return RecordingStatus(state=state, tracks=(), elapsed_ms=elapsed_ms, trouble=trouble)
        written = recorder.status()
        tracks = _tracks_of(written)
        ages_ms = {
            (ParticipantId(each.participant_id), each.track): each.last_write_age_ms
            for each in tracks
        }
        # While nothing can be written everybody is missing from the recording, and nobody is to
        # blame but the disk.
        missed = () if trouble else self._room.unheard(ages_ms, now_ms)
        return RecordingStatus(
            state=state, tracks=tracks, elapsed_ms=elapsed_ms, trouble=trouble,
            lost_packets=written.lost_packets, late_ms=self.late_ms,
            unheard=tuple(
                UnheardTrack(participant_id=one.participant_id, track=one.track, for_ms=one.for_ms)
                for one in missed
            ),
        )  # fmt: skip

    def _recording_word(self) -> tuple[RecordingState, RecordingTrouble | None]:
        """The state in one word, and why it is trouble."""
        recorder = self._recording.recorder
        if recorder is None:
            if self._recording.is_awaited:
                return RecordingState.PREPARING, None
            is_known = self._recording.goes_on
            trouble = RecordingTrouble.NOT_RESUMED if is_known else RecordingTrouble.NOT_BEGUN
            return RecordingState.TROUBLE, trouble
        status = recorder.status()
        match status.state:
            case WrittenState.PREPARING:
                return RecordingState.PREPARING, None
            case WrittenState.RECORDING:
                return RecordingState.RECORDING, None
            case WrittenState.TROUBLE:
                return RecordingState.TROUBLE, _trouble_of(status.disk.error or "")
            case _:
                assert_never(status.state)

    # ── the county desk ──────────────────────────────────────────────────────────────────────────

    def _show_recording(self, status: RecordingStatus | None) -> None:
        room_id, session_id = self._room.room_id, self._room.session_id
        if status is None or not (status.trouble or status.unheard):
            if self._alarm_since is not None:
                self._presence.show_recording(room_id, None)
            self._alarm_since, self._missed = None, frozenset()
            return
        now = self._clock.now()
        self._alarm_since = self._alarm_since or now
        self._presence.show_recording(
            room_id,
            RecordingAlarm(
                since=self._alarm_since,
                trouble=status.trouble,
                unheard=tuple(
                    UnheardSince(
                        role=self._room.seats[ParticipantId(each.participant_id)].role.value,
                        track=each.track.value,
                        since=now - timedelta(milliseconds=each.for_ms),
                    )
                    for each in status.unheard
                ),
            ),
        )
        missed = frozenset((ParticipantId(one.participant_id), one.track) for one in status.unheard)
        for participant_id, track in sorted(missed - self._missed):
            self._log.warning(
                "track_not_recorded", session_id=session_id,
                participant_id=participant_id, track=track,
            )  # fmt: skip
        self._missed = missed

    def _show_away(self) -> None:
        for role, after_ms in AWAY_AFTER_MS.items():
            away_ms = self._room.away_ms(role, self._clock.monotonic_ns() // 1_000_000)
            if away_ms is not None and away_ms >= after_ms:
                since = self._clock.now() - timedelta(milliseconds=away_ms)
                self._presence.show_away(self._room.room_id, role, since)
                if role not in self._away_shown:
                    self._log.warning("away", role=role, session_id=self._room.session_id)
                self._away_shown.add(role)
            elif role in self._away_shown:
                self._presence.show_away(self._room.room_id, role, None)
                self._away_shown.discard(role)

    def _show_excess(self) -> None:
        if self._excess is None:
            return
        shown_for = self._clock.now() - self._excess.since
        if shown_for >= timedelta(milliseconds=EXCESS_SHOWN_MS):
            self._excess = None
        self._presence.show_excess(self._room.room_id, self._excess)

    # ── the lines ────────────────────────────────────────────────────────────────────────────────

    def _lines(self, peers: Sequence[PeerStats]) -> tuple[LineQuality, ...]:
        lines: list[LineQuality] = []
        for stats in peers:
            seat = self._room.seats.get(stats.participant_id)
            if seat is None or seat.has_left or seat.media is Media.NONE:
                continue  # nothing is known of a line that was never there
            is_up = seat.media is Media.CONNECTED
            word = _WORDS[self.qualities.get(stats.participant_id, LineWord.GOOD)]
            lines.append(
                LineQuality.model_validate(
                    {
                        "participant_id": stats.participant_id,
                        "rtt_ms": stats.round_trip_ms,
                        "loss_percent": round(100 * max(stats.loss_in, stats.loss_out), 1),
                        "quality": word if is_up else "lost",
                        "freezes": stats.freezes,
                        "frozen_ms": stats.frozen_ms,
                        "is_picture_held": stats.is_picture_held,
                    }
                )
            )
        return tuple(lines)


def _tracks_of(status: WrittenStatus) -> tuple[TrackWritten, ...]:
    return tuple(
        TrackWritten(
            participant_id=track.participant_id,
            track=Track(track.name.value),
            bytes_written=track.bytes_written,
            last_write_age_ms=track.last_write_age_ms,
        )
        for track in status.tracks
    )


def _trouble_of(error: str) -> RecordingTrouble:
    """What a recorder's words about its disk mean to people."""
    if any(os.strerror(number) in error for number in (errno.ENOSPC, errno.EDQUOT)):
        return RecordingTrouble.DISK_FULL
    return RecordingTrouble.DISK_SILENT if "answer" in error else RecordingTrouble.DISK_FAILED
