"""Builders and stand-ins for rooms: Grants, a media plane and a recorder that only remember."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from core.grants import Grant, new_grant
from core.ids import AppointmentId, ParticipantId, RoomId, SessionId
from media import taps
from media.events import MediaEvent
from media.offers import ClientOffer
from media.recorder import DiskStatus, RecordingState, RecordingStatus, TrackStatus
from media.stats import PeerStats
from media.tracks import TrackName

NOON = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)
ROOM = "a" * 32


def make_grant(
    role: str = "petitioner",
    *,
    room_id: str = ROOM,
    participant_id: str | None = None,
    official_id: str = "o" * 32,
    county_id: str = "c" * 32,
    now: datetime = NOON,
    ttl: timedelta = timedelta(minutes=1),
) -> Grant:
    """A Grant as scheduling would write it: only the official may admit and end."""
    presides = role == "official"
    return new_grant(
        room_id=RoomId(room_id), appointment_id=AppointmentId(room_id),
        participant_id=ParticipantId(participant_id or f"{role}-1"), role=role,
        label_zh="测试席", label_bo=None, label_en=f"The {role}",
        publish=("camera", "microphone", "document") if role == "petitioner"
        else ("camera", "microphone"),
        may_admit=presides, may_end=presides, slot_ends_at=now + timedelta(minutes=20),
        official_id=official_id, county_id=county_id, now=now, ttl=ttl,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FakeOfferedTrack:
    mid: str
    participant_id: ParticipantId
    name: TrackName
    direction: Literal["send", "receive"]


@dataclass(frozen=True, slots=True)
class FakeOffer:
    revision: int
    sdp: str
    tracks: tuple[FakeOfferedTrack, ...]


@dataclass(slots=True)
class FakePeer:
    """Remembers what it was told; `on_event` is for the test to speak through."""

    participant_id: ParticipantId
    publishes: tuple[TrackName, ...]
    on_event: Callable[[MediaEvent], None]
    legs: int = 1
    revision: int = 0
    answers: list[tuple[int, str]] = field(default_factory=list)
    muted: set[TrackName] = field(default_factory=set)
    refuse: Exception | None = None
    accepted: list[ClientOffer] = field(default_factory=list)

    @property
    def ice_name(self) -> str:
        return f"ufrag-{self.revision}"

    def accept(self, offer: ClientOffer, *, watch: Sequence[str] = ()) -> str:
        self.accepted.append(offer)
        return "v=0 answer"

    def restart_ice(self, remote_ufrag: str) -> str:
        self.revision += 1
        return f"a=ice-ufrag:{self.ice_name}"

    def offer(self) -> FakeOffer:
        self.revision += 1
        tracks = tuple(
            FakeOfferedTrack(f"m{index}", self.participant_id, name, "send")
            for index, name in enumerate(self.publishes)
        )
        return FakeOffer(self.revision, f"v=0 offer {self.revision}", tracks)

    def answer(self, revision: int, sdp: str) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.answers.append((revision, sdp))

    def set_publishes(self, names: Sequence[TrackName]) -> None:
        self.publishes = tuple(names)

    def set_muted(self, name: TrackName, muted: bool) -> None:
        (self.muted.add if muted else self.muted.discard)(name)

    def new_leg(self) -> None:
        self.legs += 1


@dataclass(slots=True)
class FakeMediaRoom:
    peers: dict[ParticipantId, FakePeer] = field(default_factory=dict)
    live_with: list[taps.Recorder | None] = field(default_factory=list)
    recorder: taps.Recorder | None = None
    recorded_late: int = 0
    is_ended: bool = False

    def add_peer(
        self,
        participant_id: ParticipantId,
        *,
        label: str,
        publishes: Sequence[TrackName],
        on_event: Callable[[MediaEvent], None],
        role: str = "",
    ) -> FakePeer:
        assert participant_id not in self.peers, "one peer per participant"
        self.peers[participant_id] = FakePeer(participant_id, tuple(publishes), on_event)
        return self.peers[participant_id]

    def remove_peer(self, participant_id: ParticipantId) -> None:
        self.peers.pop(participant_id, None)

    def go_live(self, recorder: taps.Recorder | None) -> None:
        self.live_with.append(recorder)
        self.recorder = recorder

    def record(self, recorder: taps.Recorder) -> None:
        self.recorder = recorder
        self.recorded_late += 1

    async def end(self) -> None:
        self.is_ended = True

    def stats(self) -> list[PeerStats]:
        return []


@dataclass(slots=True)
class FakeMediaNode:
    rooms: dict[RoomId, FakeMediaRoom] = field(default_factory=dict)

    def open_room(self, room_id: RoomId) -> FakeMediaRoom:
        self.rooms[room_id] = FakeMediaRoom()
        return self.rooms[room_id]


@dataclass(slots=True)
class FakeRecorder:
    """A recording without packets. `close_error` is what closing fails with."""

    directory: Path
    session_id: SessionId
    started_at: datetime
    t0_mono_ns: int = 0
    state: RecordingState = RecordingState.PREPARING
    tracks: tuple[TrackStatus, ...] = ()
    disk_error: str | None = None
    close_error: Exception | None = None
    is_closed: bool = False

    def party(
        self, participant_id: ParticipantId, leg: int, label: str, role: str
    ) -> taps.PartyTap:
        raise AssertionError("the stand-in media plane has no packets to record")

    def status(self) -> RecordingStatus:
        return RecordingStatus(self.state, 0, self.tracks, DiskStatus(1, 1, self.disk_error), 0)

    async def close(self) -> None:
        if self.close_error is not None:
            raise self.close_error
        self.is_closed = True
