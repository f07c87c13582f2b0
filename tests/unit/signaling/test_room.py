"""The room's rules, told as short histories."""

from collections.abc import Iterable
from typing import TypeVar

import pytest

from core.grants import Grant
from core.ids import ParticipantId, RoomId, SessionId
from media.offers import ClientOffer
from signaling.effects import (
    AnswerOffer,
    AnswerRefused,
    AnswerTaken,
    ClosePeer,
    CloseSocket,
    Dispose,
    Effect,
    EndSession,
    Entered,
    FetchOffer,
    GoLive,
    MediaConnected,
    MediaGone,
    MediaSilent,
    NewLeg,
    NoteArrival,
    NoteDeparture,
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
)
from signaling.protocol import (
    Admit,
    Answer,
    CloseCode,
    Countdown,
    End,
    Ended,
    EndReason,
    Error,
    Joined,
    Leave,
    MediaLost,
    Mute,
    Offer,
    Ok,
    ParticipantChanged,
    ParticipantRole,
    ParticipantState,
    Publish,
    Resumed,
    RoomChanged,
    RoomState,
    Speaking,
    Track,
)
from signaling.room import Room
from signaling.rules import BARRED_MS, LiveSession, Rules
from tests.support.rooms import NOON, ROOM, make_grant

T = TypeVar("T")
RULES = Rules(grace_ms=60_000, countdown_ms=3_000)
SESSION = SessionId("5" * 32)
KIOSK = ParticipantId("petitioner-1")
CHAIR = ParticipantId("official-1")


class Stage:
    """A room and its clock, with words for what people do."""

    def __init__(self, room: Room | None = None) -> None:
        self.now_ms = 1_000_000
        self.room = room or Room(RoomId(ROOM), RULES, self.now_ms)
        self.sockets = 0
        self.seen: list[Effect] = []
        self.all: list[Effect] = []

    def feed(self, fact: object) -> list[Effect]:
        self.seen = self.room.handle(fact, self.now_ms)  # type: ignore[arg-type]
        self.all += self.seen
        return self.seen

    def wait(self, ms: int) -> list[Effect]:
        self.now_ms += ms
        return self.feed(Tick())

    def enter(self, role: str = "petitioner", grant: Grant | None = None) -> SocketId:
        self.sockets += 1
        socket_id = SocketId(self.sockets)
        self.feed(Entered(grant or make_grant(role), socket_id, f"j{socket_id}", "token"))
        return socket_id

    def come_back(
        self, role: str, last_seq: int = 0, missed: tuple[SequencedMessage, ...] | None = None
    ) -> SocketId:
        self.sockets += 1
        socket_id = SocketId(self.sockets)
        self.feed(Returned(make_grant(role), socket_id, "r", "token", last_seq, missed))
        return socket_id

    def say(self, who: ParticipantId, message: RoomMessage) -> list[Effect]:
        seat = self.room.seats[who]
        assert seat.socket_id is not None
        return self.feed(Said(who, seat.socket_id, message))

    def connected(self, *who: ParticipantId) -> None:
        for each in who:
            self.feed(MediaConnected(each))

    def live(self) -> None:
        """Both are there, ready, admitted, and the Session is committed."""
        self.enter("petitioner")
        self.enter("official")
        self.connected(KIOSK, CHAIR)
        self.say(CHAIR, Admit(type="admit", id="a"))
        self.wait(RULES.countdown_ms)
        self.feed(SessionStarted(SESSION, NOON, 5))

    def sent(self, kind: type[T], socket_id: SocketId | None = None) -> list[T]:
        return list(_messages(self.seen, kind, socket_id))

    def effects(self, kind: type[T]) -> list[T]:
        return [effect for effect in self.seen if isinstance(effect, kind)]


def _messages(
    effects: Iterable[Effect], kind: type[T], socket_id: SocketId | None = None
) -> Iterable[T]:
    for effect in effects:
        if not isinstance(effect, Send | Post) or not isinstance(effect.message, kind):
            continue
        if socket_id in (None, effect.socket_id):
            yield effect.message


def error_of(stage: Stage) -> str:
    (error,) = stage.sent(Error)
    return error.code


@pytest.fixture
def stage() -> Stage:
    return Stage()


# ── coming in ────────────────────────────────────────────────────────────────────────────────────


def test_who_enters_gets_the_room_its_rights_and_an_offer(stage: Stage) -> None:
    stage.enter("petitioner")
    (joined,) = stage.sent(Joined)
    assert joined.participant_id == KIOSK
    assert joined.may == ("publish:camera", "publish:microphone", "publish:document")
    assert joined.room.state is RoomState.WAITING
    (opened,) = stage.effects(OpenPeer)
    assert opened.publishes == (Track.CAMERA, Track.MICROPHONE)  # the document camera waits
    assert stage.effects(FetchOffer) == [FetchOffer(KIOSK)]


def test_the_joined_reply_comes_before_everything_else(stage: Stage) -> None:
    stage.enter()
    assert isinstance(stage.seen[0], Send) and isinstance(stage.seen[0].message, Joined)


def test_everyone_is_told_who_came(stage: Stage) -> None:
    kiosk = stage.enter("petitioner")
    stage.enter("official")
    (change,) = stage.sent(ParticipantChanged, kiosk)
    assert change.participant.label_en == "The official"
    assert change.participant.state is ParticipantState.JOINING


def test_a_page_reload_takes_over_the_seat_on_a_new_leg(stage: Stage) -> None:
    old = stage.enter("petitioner")
    stage.connected(KIOSK)
    new = stage.enter("petitioner")
    assert stage.effects(CloseSocket) == [CloseSocket(old, CloseCode.REPLACED)]
    assert stage.sent(Joined, new)[0].participant_id == KIOSK
    assert stage.effects(NewLeg) == [NewLeg(KIOSK)]
    assert not stage.effects(OpenPeer)
    assert [error.code for error in stage.sent(Error, old)] == ["replaced"]


def test_the_replaced_socket_does_not_speak_for_the_seat(stage: Stage) -> None:
    old = stage.enter("petitioner")
    stage.enter("petitioner")
    stage.feed(Said(KIOSK, old, Leave(type="leave", id="x")))
    assert error_of(stage) == "seat_expired"
    stage.feed(SocketGone(KIOSK, old))
    assert stage.room.seats[KIOSK].socket_id is not None


def test_a_room_has_twelve_seats(stage: Stage) -> None:
    for n in range(12):
        stage.enter(grant=make_grant("observer", participant_id=f"o{n}"))
    socket_id = stage.enter(grant=make_grant("observer", participant_id="one-more"))
    assert error_of(stage) == "room_full"
    assert stage.effects(CloseSocket) == [CloseSocket(socket_id, CloseCode.REFUSED)]


def test_a_waiting_room_that_everyone_left_is_forgotten(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.say(KIOSK, Leave(type="leave", id="l"))
    assert isinstance(stage.seen[-1], Dispose)
    assert not stage.effects(EndSession)


def test_a_room_whose_opener_never_comes_is_forgotten(stage: Stage) -> None:
    stage.wait(9_999)
    assert stage.seen == []
    stage.wait(1)
    assert stage.effects(Dispose)


# ── going live ───────────────────────────────────────────────────────────────────────────────────


def test_only_the_presiding_official_admits(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.say(KIOSK, Admit(type="admit", id="a"))
    assert error_of(stage) == "not_permitted"


def test_the_party_is_not_admitted_before_its_media_is_connected(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.say(CHAIR, Admit(type="admit", id="a"))
    assert error_of(stage) == "petitioner_not_ready"
    assert stage.room.state is RoomState.WAITING


def test_admitting_counts_down_then_commits_then_forwards(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.connected(KIOSK, CHAIR)
    stage.say(CHAIR, Admit(type="admit", id="a"))
    assert len(stage.sent(Countdown)) == 2
    stage.wait(2_999)
    assert not stage.effects(StartSession)
    stage.wait(1)
    (start,) = stage.effects(StartSession)
    assert {grant.role for grant in start.present} == {"petitioner", "official"}
    assert not any(isinstance(effect, GoLive) for effect in stage.all)
    stage.feed(SessionStarted(SESSION, NOON, 20))
    assert stage.effects(GoLive) == [GoLive(SESSION)]
    room = stage.sent(RoomChanged)[0]
    assert (room.state, room.session_id, room.live_since) == (RoomState.LIVE, SESSION, NOON)
    assert room.elapsed_ms == 20


def test_a_second_admit_is_a_double_click(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.connected(KIOSK)
    stage.say(CHAIR, Admit(type="admit", id="a"))
    stage.say(CHAIR, Admit(type="admit", id="b"))
    assert [ok.id for ok in stage.sent(Ok)] == ["b"]
    assert not stage.sent(Countdown)


def test_a_party_that_drops_during_the_countdown_is_waited_for(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.connected(KIOSK)
    stage.say(CHAIR, Admit(type="admit", id="a"))
    stage.feed(MediaSilent(KIOSK))
    stage.wait(RULES.countdown_ms)
    assert stage.room.state is RoomState.COUNTDOWN
    stage.wait(RULES.party_patience_ms)
    assert stage.room.state is RoomState.WAITING
    assert not any(isinstance(effect, StartSession) for effect in stage.all)


def test_a_party_that_is_back_soon_after_the_countdown_goes_live(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.connected(KIOSK)
    stage.say(CHAIR, Admit(type="admit", id="a"))
    stage.feed(MediaSilent(KIOSK))
    stage.wait(RULES.countdown_ms + RULES.party_patience_ms - 1)
    assert not any(isinstance(effect, StartSession) for effect in stage.all)
    stage.connected(KIOSK)
    assert any(isinstance(effect, StartSession) for effect in stage.all)


def test_an_official_who_leaves_during_the_countdown_stops_it(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.connected(KIOSK)
    stage.say(CHAIR, Admit(type="admit", id="a"))
    stage.say(CHAIR, Leave(type="leave", id="l"))
    assert stage.room.state is RoomState.WAITING


def test_a_session_that_cannot_be_committed_leaves_the_room_waiting(stage: Stage) -> None:
    stage.enter("petitioner")
    chair = stage.enter("official")
    stage.connected(KIOSK)
    stage.say(CHAIR, Admit(type="admit", id="a"))
    stage.wait(RULES.countdown_ms)
    stage.feed(SessionRefused("session_unavailable", "Please admit again."))
    assert stage.room.state is RoomState.WAITING
    assert [error.code for error in stage.sent(Error, chair)] == ["session_unavailable"]


def test_who_came_and_went_while_the_session_was_committed_is_noted(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.enter("desk")
    stage.connected(KIOSK)
    stage.say(CHAIR, Admit(type="admit", id="a"))
    stage.wait(RULES.countdown_ms)
    stage.say(ParticipantId("desk-1"), Leave(type="leave", id="l"))
    stage.enter("interpreter")
    stage.feed(SessionStarted(SESSION, NOON, 0))
    assert stage.effects(NoteDeparture) == [NoteDeparture(ParticipantId("desk-1"))]
    assert [note.grant.role for note in stage.effects(NoteArrival)] == ["interpreter"]


def test_who_joins_late_is_noted_and_gets_an_offer(stage: Stage) -> None:
    stage.live()
    stage.enter("desk")
    assert len(stage.effects(NoteArrival)) == 1
    assert stage.effects(FetchOffer) == [FetchOffer(ParticipantId("desk-1"))]


def test_speaking_is_nobodys_business_before_live(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.feed(Spoke(KIOSK, True))
    assert not stage.sent(Speaking)


def test_speaking_is_told_while_live(stage: Stage) -> None:
    stage.live()
    stage.feed(Spoke(KIOSK, True))
    assert len(stage.sent(Speaking)) == 2
    assert not stage.sent(ParticipantChanged)


# ── ending ───────────────────────────────────────────────────────────────────────────────────────


def test_only_the_presiding_official_ends(stage: Stage) -> None:
    stage.live()
    stage.say(KIOSK, End(type="end", id="e"))
    assert error_of(stage) == "not_permitted"
    assert stage.room.state is RoomState.LIVE


def test_the_end_is_told_once_it_is_committed(stage: Stage) -> None:
    stage.live()
    stage.say(CHAIR, End(type="end", id="e"))
    assert stage.effects(EndSession) == [EndSession(EndReason.ENDED_BY_OFFICIAL)]
    assert stage.sent(RoomChanged)[0].state is RoomState.ENDED
    assert not stage.sent(Ended)
    stage.feed(SessionClosed())
    assert {ended.session_id for ended in stage.sent(Ended)} == {SESSION}
    assert len(stage.sent(Ended)) == 2
    assert [each.code for each in stage.effects(CloseSocket)] == [CloseCode.OVER] * 2
    assert isinstance(stage.seen[-1], Dispose)


def test_the_clock_of_the_session_stands_still_after_the_end(stage: Stage) -> None:
    stage.live()
    stage.now_ms += 10_000
    stage.say(CHAIR, End(type="end", id="e"))
    stage.now_ms += 10_000
    assert stage.room.elapsed_ms(stage.now_ms) == 10_005


def test_everyone_leaving_ends_the_session(stage: Stage) -> None:
    stage.live()
    stage.say(KIOSK, Leave(type="leave", id="1"))
    assert stage.room.state is RoomState.LIVE
    stage.say(CHAIR, Leave(type="leave", id="2"))
    assert stage.effects(EndSession) == [EndSession(EndReason.EVERYONE_LEFT)]


def test_everyone_silent_for_the_grace_time_ends_the_session(stage: Stage) -> None:
    stage.live()
    for seat in list(stage.room.seats.values()):
        assert seat.socket_id is not None
        stage.feed(SocketGone(seat.participant_id, seat.socket_id))
        stage.feed(MediaSilent(seat.participant_id))
    stage.wait(59_999)
    assert stage.room.state is RoomState.LIVE
    stage.wait(1)
    assert stage.effects(EndSession) == [EndSession(EndReason.TIMED_OUT)]


def test_an_overrun_slot_does_not_end_the_session(stage: Stage) -> None:
    stage.live()
    stage.wait(5 * 3_600_000)
    assert stage.room.state is RoomState.LIVE


def test_ending_before_live_has_no_session(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.say(CHAIR, End(type="end", id="e"))
    assert {ended.session_id for ended in stage.sent(Ended)} == {None}
    assert not stage.effects(EndSession)


def test_an_end_while_the_session_is_committed_still_ends_it(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.connected(KIOSK)
    stage.say(CHAIR, Admit(type="admit", id="a"))
    stage.wait(RULES.countdown_ms)
    stage.say(CHAIR, End(type="end", id="e"))
    stage.feed(SessionStarted(SESSION, NOON, 0))
    assert stage.effects(EndSession) == [EndSession(EndReason.ENDED_BY_OFFICIAL)]
    assert not stage.effects(GoLive)


def test_nobody_enters_an_ended_room(stage: Stage) -> None:
    stage.live()
    stage.say(CHAIR, End(type="end", id="e"))
    stage.enter("desk")
    assert error_of(stage) == "session_ended"


# ── lost sockets, lost media ─────────────────────────────────────────────────────────────────────


def test_a_lost_socket_leaves_media_and_the_picture_of_the_person_alone(stage: Stage) -> None:
    stage.live()
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    assert stage.seen == []
    assert stage.room.seats[KIOSK].state is ParticipantState.READY


def test_a_seat_without_a_socket_is_kept_while_media_flows(stage: Stage) -> None:
    stage.live()
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    stage.wait(3_600_000)
    assert not stage.room.seats[KIOSK].has_left


def test_a_seat_without_socket_and_media_expires_after_the_grace_time(stage: Stage) -> None:
    stage.live()
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    stage.feed(MediaSilent(KIOSK))
    (change,) = stage.sent(ParticipantChanged, SocketId(2))
    assert change.participant.state is ParticipantState.SILENT
    stage.wait(60_000)
    assert ClosePeer(KIOSK) in stage.seen
    assert NoteDeparture(KIOSK) in stage.seen
    assert stage.room.state is RoomState.LIVE  # the official is still there


def test_before_live_nobody_is_missing_from_the_recording_and_then_from_live_on(
    stage: Stage,
) -> None:
    stage.enter("petitioner")
    stage.enter("official")
    stage.connected(KIOSK, CHAIR)
    stage.wait(50_000)
    assert stage.room.unheard({}, stage.now_ms) == ()
    stage.say(CHAIR, Admit(type="admit", id="a"))
    stage.wait(RULES.countdown_ms)
    stage.feed(SessionStarted(SESSION, NOON, 5))
    stage.wait(19_999)
    assert stage.room.unheard({}, stage.now_ms) == ()
    stage.wait(1)
    heard = {(CHAIR, Track.CAMERA): 50, (CHAIR, Track.MICROPHONE): 50}
    assert {(one.participant_id, one.track) for one in stage.room.unheard(heard, stage.now_ms)} == {
        (KIOSK, Track.CAMERA),
        (KIOSK, Track.MICROPHONE),
    }
    stage.say(CHAIR, End(type="end", id="e"))
    assert stage.room.unheard({}, stage.now_ms) == ()


def test_media_that_returns_stops_the_grace_time(stage: Stage) -> None:
    stage.live()
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    stage.feed(MediaSilent(KIOSK))
    stage.wait(59_000)
    stage.feed(MediaConnected(KIOSK))
    stage.wait(3_600_000)
    assert not stage.room.seats[KIOSK].has_left


def test_a_party_is_away_from_its_silence_until_it_is_heard_or_says_goodbye(stage: Stage) -> None:
    def away_ms() -> int | None:
        return stage.room.away_ms(ParticipantRole.PETITIONER, stage.now_ms)

    assert away_ms() is None  # nobody has come yet
    stage.live()
    stage.feed(MediaSilent(KIOSK))
    stage.wait(61_000)
    assert away_ms() == 61_000
    stage.feed(MediaConnected(KIOSK))
    assert away_ms() is None
    stage.feed(MediaGone(CHAIR))
    assert away_ms() is None  # the official is no party
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    stage.feed(MediaSilent(KIOSK))
    stage.wait(RULES.grace_ms)
    stage.wait(30_000)
    assert stage.room.seats[KIOSK].has_left
    assert away_ms() == RULES.grace_ms + 30_000
    stage.enter("petitioner")
    assert away_ms() is None
    stage.say(KIOSK, Leave(type="leave", id="l"))
    stage.wait(120_000)
    assert away_ms() is None


def test_an_official_is_away_only_from_a_live_talk(stage: Stage) -> None:
    def away_ms() -> int | None:
        return stage.room.away_ms(ParticipantRole.OFFICIAL, stage.now_ms)

    stage.enter("official")
    stage.feed(MediaConnected(CHAIR))
    stage.feed(MediaSilent(CHAIR))
    stage.wait(1_000)
    assert away_ms() is None
    stage.feed(MediaConnected(CHAIR))
    stage.live()
    socket_id = stage.room.seats[CHAIR].socket_id
    assert socket_id is not None
    stage.feed(SocketGone(CHAIR, socket_id))
    stage.feed(MediaSilent(CHAIR))
    stage.wait(RULES.grace_ms)
    stage.wait(30_000)
    assert stage.room.seats[CHAIR].has_left
    assert stage.room.state is RoomState.LIVE  # the petitioner is there, the talk is not over
    assert away_ms() == RULES.grace_ms + 30_000
    stage.enter("official")
    assert away_ms() is None


def test_a_resume_replays_exactly_what_was_missed(stage: Stage) -> None:
    stage.live()
    posts = [e for e in stage.all if isinstance(e, Post) and e.participant_id == KIOSK]
    known = posts[-3].message.seq
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    stage.feed(MediaSilent(CHAIR))
    missed = tuple(
        e.message
        for e in stage.all
        if isinstance(e, Post) and e.participant_id == KIOSK and e.message.seq > known
    )
    socket_id = stage.come_back("petitioner", known, missed)
    (resumed,) = stage.sent(Resumed, socket_id)
    assert resumed.room is None
    assert resumed.media == "kept"
    replayed = [e.message for e in stage.seen if isinstance(e, Send)][1:]
    assert tuple(replayed) == missed


@pytest.mark.parametrize("missed", [None, ()])
def test_a_resume_with_a_gap_gets_the_whole_room(
    stage: Stage, missed: tuple[SequencedMessage, ...] | None
) -> None:
    stage.live()
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    socket_id = stage.come_back("petitioner", 1, missed)
    (resumed,) = stage.sent(Resumed, socket_id)
    assert resumed.room is not None
    assert resumed.seq == stage.room.seats[KIOSK].seq


def test_a_resume_does_not_touch_connected_media(stage: Stage) -> None:
    stage.live()
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    stage.come_back("petitioner")
    assert not stage.effects(NewLeg) and not stage.effects(OpenPeer)


def test_a_resume_after_lost_media_begins_a_new_leg(stage: Stage) -> None:
    stage.live()
    stage.feed(SocketGone(KIOSK, SocketId(1)))
    stage.feed(MediaGone(KIOSK))
    socket_id = stage.come_back("petitioner")
    assert stage.sent(Resumed, socket_id)[0].media == "new_leg"
    assert stage.effects(NewLeg) == [NewLeg(KIOSK)]


def test_who_left_cannot_resume(stage: Stage) -> None:
    stage.live()
    stage.say(KIOSK, Leave(type="leave", id="l"))
    stage.come_back("petitioner")
    assert error_of(stage) == "seat_expired"


def test_who_left_may_enter_again_with_a_new_grant(stage: Stage) -> None:
    stage.live()
    stage.say(KIOSK, Leave(type="leave", id="l"))
    before = stage.room.seats[KIOSK].leg
    stage.enter("petitioner")
    assert stage.effects(OpenPeer) and stage.effects(NoteArrival)
    assert stage.room.seats[KIOSK].leg > before


def test_media_lost_begins_a_new_leg_with_an_offer(stage: Stage) -> None:
    stage.live()
    stage.feed(OfferMade(KIOSK, 1, "sdp", ()))
    stage.now_ms += 5_000
    stage.say(KIOSK, MediaLost(type="media_lost", id="m"))
    assert stage.effects(NewLeg) == [NewLeg(KIOSK)]
    assert stage.effects(FetchOffer) == [FetchOffer(KIOSK)]
    stage.feed(OfferMade(KIOSK, 9, "sdp", ()))
    assert stage.sent(Offer)[0].leg == 2


def test_new_legs_are_not_begun_in_a_rush(stage: Stage) -> None:
    stage.live()
    stage.now_ms += 5_000
    stage.say(KIOSK, MediaLost(type="media_lost", id="1"))
    stage.say(KIOSK, MediaLost(type="media_lost", id="2"))
    assert error_of(stage) == "too_many"


# ── offers ───────────────────────────────────────────────────────────────────────────────────────


def answer(revision: int) -> Answer:
    return Answer(type="answer", id=f"an{revision}", revision=revision, sdp="v=0")


def test_one_offer_at_a_time_and_later_changes_coalesce(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.feed(OfferMade(KIOSK, 1, "sdp", ()))
    for _ in range(3):
        stage.feed(OfferWanted(KIOSK))
        assert not stage.effects(FetchOffer)
    stage.say(KIOSK, answer(1))
    (take,) = stage.effects(TakeAnswer)
    stage.feed(AnswerTaken(KIOSK, take.socket_id, take.request_id, 1))
    assert [ok.id for ok in stage.sent(Ok)] == ["an1"]
    assert stage.effects(FetchOffer) == [FetchOffer(KIOSK)]


def test_a_stale_answer_is_refused_without_touching_media(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.feed(OfferMade(KIOSK, 2, "sdp", ()))
    stage.say(KIOSK, answer(1))
    assert error_of(stage) == "stale_answer"
    assert not stage.effects(TakeAnswer)


def test_a_refused_answer_may_be_tried_again(stage: Stage) -> None:
    socket_id = stage.enter("petitioner")
    stage.feed(OfferMade(KIOSK, 1, "sdp", ()))
    stage.say(KIOSK, answer(1))
    stage.feed(AnswerRefused(KIOSK, socket_id, "an1", "sdp_refused", "No."))
    assert error_of(stage) == "sdp_refused"
    stage.say(KIOSK, answer(1))
    assert stage.effects(TakeAnswer)


def test_an_unanswered_offer_is_made_again_three_times_then_no_more(stage: Stage) -> None:
    stage.enter("petitioner")
    offers = 0
    for revision in range(1, 10):
        stage.feed(OfferMade(KIOSK, revision, "sdp", ()))
        offers += len(stage.sent(Offer))
        stage.wait(RULES.answer_timeout_ms)
        if not stage.effects(FetchOffer):
            assert error_of(stage) == "no_answer"
            break
    assert offers == 3
    stage.wait(10 * RULES.answer_timeout_ms)
    assert stage.seen == []


def test_an_offer_that_was_with_a_lost_socket_is_made_again_on_resume(stage: Stage) -> None:
    socket_id = stage.enter("petitioner")
    stage.connected(KIOSK)
    stage.feed(OfferMade(KIOSK, 1, "sdp", ()))
    stage.feed(SocketGone(KIOSK, socket_id))
    assert not stage.effects(FetchOffer)
    stage.come_back("petitioner")
    assert stage.effects(FetchOffer) == [FetchOffer(KIOSK)]


# ── tracks ───────────────────────────────────────────────────────────────────────────────────────


def test_a_track_outside_the_grant_is_not_published(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.say(KIOSK, Publish(type="publish", id="p", tracks=(Track.SCREEN,)))
    assert error_of(stage) == "not_permitted"
    assert not stage.effects(SetPublishes)


def test_the_document_camera_is_published_by_asking(stage: Stage) -> None:
    stage.enter("petitioner")
    wanted = (Track.DOCUMENT, Track.CAMERA, Track.MICROPHONE)
    stage.say(KIOSK, Publish(type="publish", id="p", tracks=wanted))
    (publishes,) = stage.effects(SetPublishes)
    assert set(publishes.tracks) == set(wanted)
    (change,) = stage.sent(ParticipantChanged)
    assert Track.DOCUMENT in change.participant.tracks


def test_muting_is_told_and_survives_a_page_reload(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.say(KIOSK, Mute(type="mute", id="m", track=Track.MICROPHONE, muted=True))
    assert stage.effects(SetMuted) == [SetMuted(KIOSK, Track.MICROPHONE, True)]
    assert stage.sent(ParticipantChanged)[0].participant.muted == (Track.MICROPHONE,)
    stage.enter("petitioner")
    (me,) = stage.sent(Joined)[0].room.participants
    assert me.muted == (Track.MICROPHONE,)


# ── after a restart ──────────────────────────────────────────────────────────────────────────────


def restored() -> Stage:
    survivors = frozenset({KIOSK, CHAIR})
    session = LiveSession(SESSION, NOON, 90_000, None, survivors)
    rules = Rules(grace_ms=60_000, countdown_ms=3_000, first_leg=1_001)
    return Stage(Room.restored(RoomId(ROOM), rules, session, 1_000_000))


def test_who_comes_back_after_a_restart_goes_on_in_the_same_session() -> None:
    stage = restored()
    stage.wait(10_000)
    socket_id = stage.come_back("petitioner", last_seq=41)
    (resumed,) = stage.sent(Resumed, socket_id)
    assert resumed.media == "new_leg"
    assert resumed.room is not None
    assert (resumed.room.session_id, resumed.room.elapsed_ms) == (SESSION, 100_000)
    assert stage.effects(GoLive) == [GoLive(SESSION)]
    assert min(post.message.seq for post in stage.effects(Post)) == 42
    stage.feed(OfferMade(KIOSK, 1, "sdp", ()))
    assert stage.sent(Offer)[0].leg == 1_001  # higher than any leg of the life before
    stage.enter("official")
    assert not stage.effects(GoLive)


def test_a_stranger_cannot_resume_into_a_restored_room() -> None:
    stage = restored()
    stage.come_back("desk")
    assert error_of(stage) == "seat_expired"


def test_a_restored_room_to_which_nobody_comes_back_is_ended() -> None:
    stage = restored()
    stage.wait(59_999)
    assert not stage.effects(EndSession)
    stage.wait(1)
    assert stage.effects(EndSession) == [EndSession(EndReason.NODE_LOST)]
    assert not any(isinstance(effect, GoLive) for effect in stage.all)


def test_a_restored_room_waits_for_the_others_though_the_first_left_again() -> None:
    stage = restored()
    stage.come_back("official")
    stage.say(CHAIR, Leave(type="leave", id="l"))
    assert stage.room.state is RoomState.LIVE
    stage.come_back("petitioner")
    assert stage.sent(Resumed)
    stage.wait(120_000)
    assert stage.room.state is RoomState.LIVE


def test_a_person_whose_line_sent_too_much_is_told_why_and_may_come_back(stage: Stage) -> None:
    socket_id = stage.enter("petitioner")
    stage.feed(MediaConnected(KIOSK))
    stage.feed(MediaGone(KIOSK, has_sent_too_much=True))
    (error,) = stage.sent(Error)
    assert isinstance(error, Error)
    assert (error.id, error.code, error.fatal) == (None, "too_much_sent", False)
    assert Send(socket_id, error) in stage.seen
    assert stage.room.seats[KIOSK].state is ParticipantState.SILENT
    stage.wait(1_000)
    stage.say(KIOSK, MediaLost(type="media_lost", id="m"))
    assert stage.effects(NewLeg) == [NewLeg(KIOSK)]


def test_a_line_that_is_lost_otherwise_blames_nobody(stage: Stage) -> None:
    stage.enter("petitioner")
    stage.feed(MediaConnected(KIOSK))
    stage.feed(MediaGone(KIOSK))
    assert not stage.sent(Error)


def test_a_device_that_sent_too_much_is_let_go_and_stays_outside_for_a_while(stage: Stage) -> None:
    stage.enter("official")
    camera = make_grant("device")
    offer = ClientOffer("ufrag", "AB", False, ())
    stage.feed(PluggedIn(camera, (Track.CAMERA,), offer))
    who = ParticipantId("device-1")
    stage.feed(MediaConnected(who))
    stage.feed(MediaGone(who, has_sent_too_much=True))
    assert ClosePeer(who) in stage.seen
    assert stage.room.seats[who].has_left
    stage.wait(BARRED_MS - 1_000)
    stage.feed(PluggedIn(camera, (Track.CAMERA,), offer))
    (refused,) = stage.effects(RefuseOffer)
    assert refused.refusal.code == "too_much_sent"
    assert refused.refusal.details["retry_after_s"] == 1
    stage.wait(1_000)
    stage.feed(PluggedIn(camera, (Track.CAMERA,), offer))
    assert stage.effects(AnswerOffer)
