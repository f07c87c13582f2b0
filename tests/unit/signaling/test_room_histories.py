"""Random histories of a room against its promises: people, sockets, media, time and the database
do what they like, in any order.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from core.ids import ParticipantId, RoomId, SessionId
from media.offers import ClientOffer
from signaling.effects import (
    AnswerOffer,
    AnswerRefused,
    AnswerTaken,
    CloseSocket,
    Dispose,
    Effect,
    EndSession,
    Entered,
    Fact,
    FetchOffer,
    GoLive,
    MediaConnected,
    MediaGone,
    MediaSilent,
    NewLeg,
    OfferFailed,
    OfferMade,
    OfferWanted,
    OpenPeer,
    PluggedIn,
    Post,
    RefuseOffer,
    Returned,
    RoomMessage,
    Said,
    Send,
    SequencedMessage,
    SessionClosed,
    SessionRefused,
    SessionStarted,
    SetMuted,
    SetPublishes,
    SocketGone,
    SocketId,
    Spoke,
    StartSession,
    TakeAnswer,
    Tick,
    Unplugged,
)
from signaling.protocol import (
    CLIENT_MESSAGE,
    Ended,
    Error,
    Joined,
    Offer,
    Ok,
    Resumed,
    RoomState,
    Speaking,
    Track,
)
from signaling.room import Room
from signaling.rules import LiveSession, Rules
from tests.support.rooms import NOON, ROOM, make_grant

ROLES = ("petitioner", "official", "desk", "interpreter")
SESSION = SessionId("5" * 32)
roles = st.sampled_from(ROLES)
OFFER = ClientOffer("ufrag", "AB:CD", False, ())


class Histories(RuleBasedStateMachine):
    """Plays the world around one room and keeps books on what the room ordered."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 10_000
        self.sockets = 0
        self.requests = 0
        self.revision = 0
        self.asked: Counter[str] = Counter()
        self.replied: Counter[str] = Counter()

    @initialize(is_restored=st.booleans())
    def begin(self, is_restored: bool) -> None:
        self.seqs: dict[str, int] = {}
        self.kept: dict[str, list[SequencedMessage]] = {}
        self.open_sockets: dict[SocketId, str] = {}
        self.pending_start = False
        self.pending_end = False
        self.started = 0
        self.went_live = 0
        self.ends: list[EndSession] = []
        self.was_over = False
        self.disposed = False
        self.peers: set[str] = set()
        self.with_client: dict[str, int] = {}  # offers on their way, by participant
        self.plugged = 0  # the last device session's leg
        rules = Rules(grace_ms=60_000, countdown_ms=3_000)
        if is_restored:
            people = frozenset({ParticipantId("petitioner-1"), ParticipantId("official-1")})
            session = LiveSession(SESSION, NOON, 5_000, None, people)
            self.room = Room.restored(RoomId(ROOM), rules, session, self.now_ms)
            self.started = 1
        else:
            self.room = Room(RoomId(ROOM), rules, self.now_ms)

    @precondition(lambda self: self.disposed)
    @rule(is_restored=st.booleans())
    def next_appointment(self, is_restored: bool) -> None:
        """A late knock at the old room is still answered; then another room."""
        self.enter("desk")
        self.begin(is_restored)

    # ── the world ────────────────────────────────────────────────────────────────────────────────

    def _request_id(self) -> str:
        self.requests += 1
        request_id = f"r{self.requests}"
        self.asked[request_id] += 1
        return request_id

    def _socket(self, role: str) -> SocketId:
        self.sockets += 1
        socket_id = SocketId(self.sockets)
        self.open_sockets[socket_id] = f"{role}-1"
        return socket_id

    @precondition(lambda self: not self.disposed)
    @rule(role=roles)
    def enter(self, role: str) -> None:
        self.feed(Entered(make_grant(role), self._socket(role), self._request_id(), "t"))

    @precondition(lambda self: not self.disposed)
    @rule(role=roles, behind=st.integers(0, 5), has_stream=st.booleans())
    def come_back(self, role: str, behind: int, has_stream: bool) -> None:
        who = f"{role}-1"
        last_seq = max(0, self.seqs.get(who, 0) - behind)
        missed = tuple(m for m in self.kept.get(who, []) if m.seq > last_seq)
        self.feed(
            Returned(
                make_grant(role), self._socket(role), self._request_id(), "t", last_seq,
                missed if has_stream else None,
            )
        )  # fmt: skip

    @rule(tracks=st.sampled_from([(), (Track.CAMERA,), (Track.DOCUMENT,)]))
    def plug_in(self, tracks: tuple[Track, ...]) -> None:
        """A device is answered or refused, also by a room that is over."""
        self.plugging = self._request_id()
        self.feed(PluggedIn(make_grant("device"), tracks, OFFER))

    @rule(is_the_last=st.booleans())
    def unplug(self, is_the_last: bool) -> None:
        leg = self.plugged if is_the_last else self.plugged - 1
        self.feed(Unplugged(ParticipantId("device-1"), leg))

    @precondition(lambda self: self.open_sockets)
    @rule(data=st.data())
    def lose_a_socket(self, data: st.DataObject) -> None:
        socket_id = data.draw(st.sampled_from(sorted(self.open_sockets)))
        who = self.open_sockets.pop(socket_id)
        self.feed(SocketGone(ParticipantId(who), socket_id))

    @precondition(lambda self: self.open_sockets)
    @rule(
        data=st.data(),
        said=st.sampled_from(
            [
                {"type": "admit"},
                {"type": "end"},
                {"type": "leave"},
                {"type": "media_lost"},
                {"type": "answer", "revision": 0, "sdp": "v=0"},
                {"type": "answer", "revision": 1, "sdp": "v=0"},
                {"type": "publish", "tracks": ["camera", "document"]},
                {"type": "publish", "tracks": ["screen"]},
                {"type": "mute", "track": "microphone", "muted": True},
                {"type": "mute", "track": "camera", "muted": False},
                {"type": "answer", "revision": 0, "sdp": "v=0"},
            ]
        ),
        is_current=st.booleans(),
    )
    def say(self, data: st.DataObject, said: dict[str, object], is_current: bool) -> None:
        socket_id = data.draw(st.sampled_from(sorted(self.open_sockets)))
        who = self.open_sockets[socket_id]
        fields = {**said, "id": self._request_id()}
        if said["type"] == "answer" and is_current:
            fields["revision"] = self.with_client.get(who, 0)
        message: RoomMessage = CLIENT_MESSAGE.validate_python(fields)  # type: ignore[assignment]
        self.feed(Said(ParticipantId(who), socket_id, message))

    @precondition(lambda self: self.peers)
    @rule(
        data=st.data(),
        kind=st.sampled_from([MediaConnected, MediaConnected, MediaSilent, MediaGone, OfferWanted]),
    )
    def media(self, data: st.DataObject, kind: type) -> None:
        self.feed(kind(ParticipantId(data.draw(st.sampled_from(sorted(self.peers))))))

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), speaking=st.booleans())
    def speak(self, data: st.DataObject, speaking: bool) -> None:
        who = ParticipantId(data.draw(st.sampled_from(sorted(self.peers))))
        self.feed(Spoke(who, speaking))

    @precondition(lambda self: not self.disposed)
    @rule(ms=st.sampled_from([1, 500, 3_000, 10_000, 60_000]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.feed(Tick())

    @precondition(lambda self: not self.disposed)
    @rule()
    def wait_until_something_is_due(self) -> None:
        due_ms = self.room.due_ms()
        if due_ms is not None:
            self.now_ms = max(self.now_ms, due_ms)
            self.feed(Tick())

    @precondition(lambda self: self.room.state is RoomState.WAITING and not self.disposed)
    @rule(is_patient=st.booleans())
    def all_goes_well_for_once(self, is_patient: bool) -> None:
        """Chance alone seldom gets this far: both come, both are ready, the party is admitted."""
        self.enter("petitioner")
        self.enter("official")
        for role in ("petitioner", "official"):
            self.feed(MediaConnected(ParticipantId(f"{role}-1")))
        socket_id = SocketId(self.sockets)
        fields = {"type": "admit", "id": self._request_id()}
        message: RoomMessage = CLIENT_MESSAGE.validate_python(fields)  # type: ignore[assignment]
        self.feed(Said(ParticipantId("official-1"), socket_id, message))
        if is_patient:
            self.wait(3_000)

    @precondition(lambda self: self.pending_start)
    @rule(is_committed=st.booleans())
    def database_answers_the_start(self, is_committed: bool) -> None:
        self.pending_start = False
        if is_committed:
            self.started += 1
            self.feed(SessionStarted(SESSION, NOON, 3))
        else:
            self.feed(SessionRefused("session_unavailable", "Not now."))

    @precondition(lambda self: self.pending_end)
    @rule()
    def database_answers_the_end(self) -> None:
        self.pending_end = False
        self.feed(SessionClosed())

    # ── the host ─────────────────────────────────────────────────────────────────────────────────

    def feed(self, fact: Fact) -> None:
        waiting = [fact]
        while waiting:
            effects = self.room.handle(waiting.pop(0), self.now_ms)
            results = [result for effect in effects for result in self.perform(effect)]
            waiting = results + waiting

    def perform(self, effect: Effect) -> list[Fact]:  # noqa: PLR0912
        assert not self.disposed or isinstance(effect, Send | CloseSocket | RefuseOffer)
        match effect:
            case Post(who, _, message):
                assert message.seq == self.seqs.get(who, message.seq - 1) + 1
                self.seqs[who] = message.seq
                self.kept.setdefault(who, []).append(message)
                assert not isinstance(message, Ended) or self.room.is_over
            case Send(socket_id, message):
                if isinstance(message, Ok | Joined | Resumed | Error) and message.id is not None:
                    self.replied[message.id] += 1
                if isinstance(message, Joined | Resumed):
                    who = self.open_sockets[socket_id]
                    # After a restart the client's own count is taken over.
                    assert message.seq >= self.seqs.get(who, 0)
                    self.seqs[who] = message.seq
                if isinstance(message, Speaking):
                    assert self.room.state is RoomState.LIVE
                if isinstance(message, Offer):
                    who = self.open_sockets[socket_id]
                    self.with_client[who] = message.revision
            case CloseSocket(socket_id):
                self.open_sockets.pop(socket_id, None)
            case OpenPeer(grant):
                assert grant.participant_id not in self.peers, "one peer per participant"
                self.peers.add(grant.participant_id)
            case NewLeg(who) | SetPublishes(who) | SetMuted(who):
                assert who in self.peers
            case FetchOffer(who):
                assert who in self.peers
                self.revision += 1
                if self.revision % 7 == 0:
                    return [OfferFailed(who)]
                return [OfferMade(who, self.revision, "v=0", ())]
            case TakeAnswer(who, socket_id, request_id, revision):
                assert who in self.peers
                assert revision == self.with_client[who]
                if revision % 5 == 0:
                    return [AnswerRefused(who, socket_id, request_id, "sdp_refused", "No.")]
                return [AnswerTaken(who, socket_id, request_id, revision)]
            case AnswerOffer(grant, _, leg):
                assert grant.participant_id in self.peers
                self.replied[self.plugging] += 1
                self.plugged = leg
            case RefuseOffer():
                self.replied[self.plugging] += 1
            case StartSession():
                assert self.started == 0 and not self.pending_start
                self.pending_start = True
            case GoLive():
                assert self.started == 1, "nothing is forwarded before the Session is committed"
                assert self.room.state is RoomState.LIVE
                self.went_live += 1
            case EndSession():
                assert self.started == 1
                self.ends.append(effect)
                self.pending_end = True
            case Dispose():
                self.disposed = True
            case _:
                if hasattr(effect, "participant_id") and type(effect).__name__ == "ClosePeer":
                    self.peers.discard(effect.participant_id)
        return []

    # ── the promises ─────────────────────────────────────────────────────────────────────────────

    @invariant()
    def every_request_has_exactly_one_reply(self) -> None:
        assert self.replied == self.asked

    @invariant()
    def one_session_at_most_goes_live_once_and_ends_once(self) -> None:
        assert self.started <= 1
        assert self.went_live <= 1
        assert len(self.ends) <= 1

    @invariant()
    def ended_is_final(self) -> None:
        assert self.room.is_over or not self.was_over
        self.was_over = self.room.is_over

    @invariant()
    def a_room_that_is_over_says_so_to_the_database_if_it_ever_began(self) -> None:
        if self.was_over and self.started:
            assert len(self.ends) == 1

    @invariant()
    def nothing_that_is_due_stays_due(self) -> None:
        self.feed(Tick())
        due_ms = self.room.due_ms()
        assert self.disposed or due_ms is None or due_ms > self.now_ms

    @invariant()
    def no_device_is_left_alone(self) -> None:
        seats = [seat for seat in self.room.seats.values() if not seat.has_left]
        # A restored room waits for its people; one that is just opening ends when that is decided.
        is_between = self.room._held_until_ms is not None or self.pending_start
        assert self.room.is_over or is_between or not seats or not all(s.is_device for s in seats)

    @invariant()
    def before_live_there_is_no_time(self) -> None:
        if self.started == 0:
            assert self.room.elapsed_ms(self.now_ms) == 0
            assert self.went_live == 0


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None, print_blob=True
)


def test_tracks_of_the_wire_are_the_tracks_of_media() -> None:
    from media.tracks import TrackName

    assert {track.value for track in Track} == {name.value for name in TrackName}
