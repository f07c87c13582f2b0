"""A room as a pure state machine: `(fact, now) → effects`. No clock, no socket, no media, no disk.

    waiting ──admit, the petitioner is ready──▶ countdown ──Session committed──▶ live ──▶ ended
       ▲                                            │
       └──────── the party or the official is gone ─┘

Promises, each kept by a test over random histories: nothing is forwarded before live (`GoLive` is
the only order that forwards, and it follows a committed Session); at most one Session per room;
`seq` grows strictly for each participant; ended is final; every request gets exactly one reply.
`now_ms` is monotonic milliseconds from any zero, the same for all calls.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import assert_never

from core.errors import ReceptionError
from core.grants import Grant
from core.ids import ParticipantId, RoomId, SessionId
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
    Fact,
    GoLive,
    MediaConnected,
    MediaGone,
    MediaSilent,
    NoteArrival,
    NoteDeparture,
    OfferFailed,
    OfferMade,
    OfferWanted,
    OpenPeer,
    PluggedIn,
    RefuseOffer,
    Returned,
    Said,
    SessionClosed,
    SessionRefused,
    SessionStarted,
    SetMuted,
    SetPublishes,
    SocketGone,
    Spoke,
    StartSession,
    TakeAnswer,
    Tick,
    Unplugged,
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
    Ok,
    ParticipantRole,
    ParticipantState,
    Publish,
    Resumed,
    RoomChanged,
    RoomSnapshot,
    RoomState,
    Speaking,
    Track,
)
from signaling.rules import (
    BARRED_MS,
    FIRST_ENTRY_MS,
    LEG_SPACING_MS,
    MAX_SEATS,
    DeviceBusy,
    LiveSession,
    RoomFull,
    RoomNotOpen,
    Rules,
    TalkOver,
    TooMuchSent,
)
from signaling.seat import Media, OfferTurn, Seat, first_tracks
from signaling.seating import Seating
from signaling.unheard import Expected, TrackKey, Unheard


class _No(ReceptionError):
    """A request is refused; `_said` turns it into its one `error` reply."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


class Room:
    """One room. `handle` is the only way in; everything else reads."""

    def __init__(self, room_id: RoomId, rules: Rules, now_ms: int) -> None:
        self.room_id = room_id
        self.rules = rules
        self.state = RoomState.WAITING
        self.session_id: SessionId | None = None
        self.live_since: datetime | None = None
        self.slot_ends_at: datetime | None = None
        self._seating = Seating()
        self._t0_ms = 0  # time 0 of the session's timeline, on the caller's monotonic clock
        self._ended_ms: int | None = None
        self._end_reason: EndReason | None = None
        self._countdown_due_ms: int | None = None
        self._opening: tuple[Grant, ...] | None = None  # StartSession is with the host
        self._restored: frozenset[ParticipantId] = frozenset()
        # Until then an empty room is held: someone is on the way, for the first time or back.
        self._held_until_ms: int | None = now_ms + FIRST_ENTRY_MS
        self._is_quiet = False  # restored, and nobody has come back yet
        self._away_since_ms: dict[ParticipantRole, int] = {}
        self._expected = Expected()
        self._disposed = False

    @classmethod
    def restored(cls, room_id: RoomId, rules: Rules, session: LiveSession, now_ms: int) -> "Room":
        """The room of a session whose node was restarted: live, empty, for the grace time."""
        room = cls(room_id, rules, now_ms)
        room.state = RoomState.LIVE
        room.session_id = session.session_id
        room.live_since = session.started_at
        room.slot_ends_at = session.slot_ends_at
        room._t0_ms = now_ms - session.elapsed_ms
        room._restored = session.participants
        room._held_until_ms = now_ms + rules.grace_ms
        room._is_quiet = True
        return room

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    @property
    def seats(self) -> Mapping[ParticipantId, Seat]:
        """Every seat that was ever taken, the ones left included."""
        return self._seating.seats

    @property
    def is_over(self) -> bool:
        return self.state is RoomState.ENDED

    def elapsed_ms(self, now_ms: int) -> int:
        """The session's timeline now; it stands still once ended, and is 0 before live."""
        if self.live_since is None:
            return 0
        return max(0, (now_ms if self._ended_ms is None else self._ended_ms) - self._t0_ms)

    def snapshot(self, now_ms: int) -> RoomSnapshot:
        return RoomSnapshot(
            room_id=self.room_id, state=self.state, session_id=self.session_id,
            live_since=self.live_since, elapsed_ms=self.elapsed_ms(now_ms),
            slot_ends_at=self.slot_ends_at,
            participants=tuple(seat.info() for seat in self._seating.taken()),
        )  # fmt: skip

    def due_ms(self) -> int | None:
        """When a `Tick` is next worth sending; None if nothing waits for time."""
        times = [self._countdown_tick_ms(), self._held_until_ms]
        for seat in self._seating.taken():
            times.append(seat.offer.due_ms)
            if seat.gone_since_ms is not None and not self.is_over:
                times.append(seat.gone_since_ms + self.rules.grace_ms)
        return min((time for time in times if time is not None), default=None)

    def _countdown_tick_ms(self) -> int | None:
        # While the party is away only the end of patience matters; its return is a fact of its own.
        if self._countdown_due_ms is None or self._party_is_ready():
            return self._countdown_due_ms
        return self._countdown_due_ms + self.rules.party_patience_ms

    def roles_present(self) -> frozenset[str]:
        """Roles of whom a person would call present: not left, not silent."""
        return frozenset(
            seat.role.value
            for seat in self._seating.taken()
            if seat.state is not ParticipantState.SILENT
        )

    def away_ms(self, role: ParticipantRole, now_ms: int) -> int | None:
        """For how long the petitioner's side, or the official of a live talk, has been away without
        having said so; else None.
        """
        since_ms = self._away_since_ms.get(role)
        return None if self.is_over or since_ms is None else now_ms - since_ms

    def unheard(self, ages_ms: Mapping[TrackKey, int | None], now_ms: int) -> tuple[Unheard, ...]:
        """Tracks of people who are there of which nothing is being recorded (unheard.py)."""
        return self._expected.unheard(ages_ms, now_ms)

    @property
    def is_waited_for(self) -> bool:
        """Live, taken back after a restart, and nobody has come back yet: nothing goes on."""
        return self._is_quiet

    # ── handling ─────────────────────────────────────────────────────────────────────────────────

    def handle(self, fact: Fact, now_ms: int) -> list[Effect]:
        """Take in one fact; the effects are to be performed in order."""
        self._seating.take_orders()  # none, unless the last fact raised: then they are void
        if not self._disposed:
            self._dispatch(fact, now_ms)
            self._settle(now_ms)
        elif isinstance(fact, Entered | Returned):
            self._turn_away(fact, "session_ended", "This session is over.")
        elif isinstance(fact, Said):
            self._refuse(fact, "session_ended", "This session is over.")
        elif isinstance(fact, PluggedIn):
            self._seating.order(RefuseOffer(TalkOver("This session is over.")))
        return self._seating.take_orders()

    def _dispatch(self, fact: Fact, now_ms: int) -> None:  # noqa: PLR0912  one arm per fact
        match fact:
            case Entered():
                self._entered(fact, now_ms)
            case Returned():
                self._returned(fact, now_ms)
            case Said():
                self._said(fact, now_ms)
            case PluggedIn():
                self._plugged_in(fact, now_ms)
            case Unplugged():
                self._unplugged(fact)
            case SocketGone():
                self._socket_gone(fact)
            case MediaConnected() | MediaSilent() | MediaGone():
                self._media_changed(fact, now_ms)
            case OfferWanted():
                if seat := self._seating.seat(fact.participant_id):
                    seat.offer.wanted = True
            case Spoke():
                self._spoke(fact)
            case OfferMade():
                self._seating.offer_made(fact, now_ms + self.rules.answer_timeout_ms)
            case OfferFailed():
                if seat := self._seating.seat(fact.participant_id):
                    seat.offer.asked = False
            case AnswerTaken():
                self._seating.answer_taken(fact)
            case AnswerRefused():
                self._seating.send(fact.socket_id, Error(id=fact.request_id, code=fact.code,
                                                 message=fact.words))  # fmt: skip
            case SessionStarted():
                self._session_started(fact, now_ms)
            case SessionRefused():
                self._session_refused(fact, now_ms)
            case SessionClosed():
                self._session_closed()
            case Tick():
                pass  # time is looked at after every fact
            case _:
                assert_never(fact)

    def _settle(self, now_ms: int) -> None:
        """What follows from the state and the time, whichever fact came."""
        if not self.is_over:
            self._expire_seats(now_ms)
            self._run_countdown(now_ms)
            self._end_if_empty(now_ms)
            self._miss_people(now_ms)
        self._expected.look(self._seating.taken() if self.state is RoomState.LIVE else (), now_ms)
        if not self._disposed:
            self._seating.show_changes()
        for seat in self._seating.taken():
            self._seating.serve_offer(seat, now_ms, is_over=self.is_over)

    # ── coming in ────────────────────────────────────────────────────────────────────────────────

    def _entered(self, fact: Entered, now_ms: int) -> None:
        participant_id = ParticipantId(fact.grant.participant_id)
        seat = self.seats.get(participant_id)
        if self.is_over:
            self._turn_away(fact, "session_ended", "This session is over.")
            return
        if seat is None and len(self.seats) >= MAX_SEATS:
            self._turn_away(fact, "room_full", "This room is full.")
            return
        if seat is None or seat.has_left:
            seat = self._new_seat(fact.grant, fact.resume_token, now_ms, old=seat)
            self._seating.take_socket(seat, fact.socket_id)
            self._reply_joined(seat, fact.request_id, now_ms)
            self._open_media(seat)
            return
        # The same participant on a new page: the seat and its media identity stay, the leg does
        # not.
        seat.grant, seat.resume_token = fact.grant, fact.resume_token
        self._seating.take_socket(seat, fact.socket_id)
        self._reply_joined(seat, fact.request_id, now_ms)
        self._seating.new_leg(seat, now_ms)

    def _returned(self, fact: Returned, now_ms: int) -> None:
        participant_id = ParticipantId(fact.grant.participant_id)
        seat = self.seats.get(participant_id)
        if seat is None and participant_id in self._restored and not self.is_over:
            seat = self._new_seat(fact.grant, fact.resume_token, now_ms, old=None)
            seat.seq = fact.last_seq
            self._seating.take_socket(seat, fact.socket_id)
            self._reply_resumed(seat, fact, "new_leg", now_ms, whole=True)
            self._open_media(seat)
            return
        if seat is None or seat.has_left:
            code = "session_ended" if self.is_over else "seat_expired"
            self._turn_away(fact, code, "This seat is no longer held. Please enter again.")
            return
        self._seating.take_socket(seat, fact.socket_id)
        kept = seat.media in (Media.CONNECTED, Media.SILENT) or self.is_over
        complete = _is_complete(fact, seat.seq)
        self._reply_resumed(seat, fact, "kept" if kept else "new_leg", now_ms, whole=not complete)
        if complete:
            for message in fact.missed or ():
                self._seating.send(fact.socket_id, message)
        if not kept:
            self._seating.new_leg(seat, now_ms)
        elif not seat.offer.is_free:
            seat.offer.clear()  # the lost socket may have taken the offer or its answer with it

    # ── devices ──────────────────────────────────────────────────────────────────────────────────

    def _plugged_in(self, fact: PluggedIn, now_ms: int) -> None:
        """Seat a device. It is there for as long as its media is, and for the grace time."""
        seat = self.seats.get(ParticipantId(fact.grant.participant_id))
        refusal = self._why_not(seat, now_ms)
        if refusal is not None:
            self._seating.order(RefuseOffer(refusal))
            return
        if seat is None or seat.has_left:
            seat = self._new_seat(fact.grant, "", now_ms, old=seat)
            seat.publishing = fact.publishes
            self._open_media(seat)
        else:  # its power or its line was cut, and it is back before the grace time is over
            seat.grant = fact.grant
            self._seating.new_leg(seat, now_ms)
            if seat.publishing != fact.publishes:
                seat.publishing = fact.publishes
                self._seating.order(SetPublishes(seat.participant_id, fact.publishes))
        self._seating.order(AnswerOffer(fact.grant, fact.offer, seat.leg))

    def _why_not(self, seat: Seat | None, now_ms: int) -> ReceptionError | None:
        if self.is_over:
            return TalkOver("This session is over.")
        if not any(self._seating.people()):
            return RoomNotOpen()
        if seat is None and len(self.seats) >= MAX_SEATS:
            return RoomFull("This room is full.")
        if seat is not None and now_ms < seat.barred_until_ms:
            words = "This device sent far too much. Lower its bit rate below 12 Mbit/s."
            return TooMuchSent(words, retry_after_s=-(-(seat.barred_until_ms - now_ms) // 1000))
        if seat is not None and not seat.has_left and seat.media is Media.CONNECTED:
            return DeviceBusy("This device is connected already. End that session first.")
        return None

    def _unplugged(self, fact: Unplugged) -> None:
        seat = self._seating.seat(fact.participant_id)
        if seat is not None and seat.leg == fact.leg:
            self._leave(seat)

    def _new_seat(self, grant: Grant, resume_token: str, now_ms: int, old: Seat | None) -> Seat:
        seat = Seat(
            grant=grant, resume_token=resume_token, leg_since_ms=now_ms,
            leg=self.rules.first_leg if old is None else old.leg + 1,
            publishing=first_tracks(grant), seq=0 if old is None else old.seq,
            barred_until_ms=0 if old is None else old.barred_until_ms,
        )  # fmt: skip
        self._seating.seats[seat.participant_id] = seat
        if self.state is not RoomState.LIVE:
            self._held_until_ms = None
        self.slot_ends_at = self.slot_ends_at or grant.slot_ends_at
        return seat

    def _open_media(self, seat: Seat) -> None:
        self._seating.order(OpenPeer(seat.grant, seat.publishing, tuple(sorted(seat.muted))))
        seat.offer.clear()
        if self.state is RoomState.LIVE and self.session_id is not None:
            if self._is_quiet:
                # The first one back after a restart: media goes on for everyone from here.
                self._is_quiet = False
                self._seating.order(GoLive(self.session_id))
            self._seating.order(NoteArrival(seat.grant))

    def _reply_joined(self, seat: Seat, request_id: str, now_ms: int) -> None:
        self._seating.reply(
            seat,
            Joined(
                id=request_id, seq=seat.seq, participant_id=seat.participant_id,
                resume_token=seat.resume_token, may=seat.rights(), room=self.snapshot(now_ms),
            ),
        )  # fmt: skip

    def _reply_resumed(
        self, seat: Seat, fact: Returned, media: str, now_ms: int, *, whole: bool
    ) -> None:
        self._seating.reply(
            seat,
            Resumed(
                id=fact.request_id, seq=seat.seq, resume_token=seat.resume_token,
                media="kept" if media == "kept" else "new_leg",
                room=self.snapshot(now_ms) if whole else None,
            ),
        )  # fmt: skip

    def _turn_away(self, fact: Entered | Returned, code: str, words: str) -> None:
        self._seating.send(
            fact.socket_id, Error(id=fact.request_id, code=code, message=words, fatal=True)
        )
        self._seating.order(CloseSocket(fact.socket_id, CloseCode.REFUSED))

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    def _said(self, fact: Said, now_ms: int) -> None:
        seat = self._seating.seat(fact.participant_id)
        try:
            if seat is None or seat.socket_id != fact.socket_id:
                raise _No("seat_expired", "This socket no longer speaks for this seat.")
            if self.is_over and not isinstance(fact.message, Leave):
                raise _No("session_ended", "This session is over.")
            replied = self._request(seat, fact.message, now_ms)
        except _No as no:
            self._refuse(fact, no.reason, no.message)
            return
        if not replied:
            self._seating.send(fact.socket_id, Ok(id=fact.message.id))
        if isinstance(fact.message, Leave):
            self._leave(seat)
        elif isinstance(fact.message, End):
            self._end(EndReason.ENDED_BY_OFFICIAL, now_ms)

    def _refuse(self, fact: Said, code: str, words: str) -> None:
        self._seating.send(fact.socket_id, Error(id=fact.message.id, code=code, message=words))

    def _request(self, seat: Seat, message: object, now_ms: int) -> bool:
        """Act on one request. True if its reply comes later, as the answer to an effect."""
        match message:
            case Answer():
                self._answer(seat, message)
                return True
            case Publish():
                self._publish(seat, message)
            case Mute():
                self._mute(seat, message)
            case MediaLost():
                self._media_lost(seat, now_ms)
            case Admit():
                self._admit(seat, now_ms)
            case End():
                if not seat.grant.may_end:
                    raise _No("not_permitted", "Only the presiding official ends the session.")
            case _:
                pass  # Leave asks for nothing more
        return False

    def _answer(self, seat: Seat, message: Answer) -> None:
        if seat.offer.revision != message.revision:
            raise _No("stale_answer", "This answer belongs to an older offer. Answer the newest.")
        assert seat.socket_id is not None
        self._seating.order(
            TakeAnswer(
                seat.participant_id, seat.socket_id, message.id, message.revision, message.sdp
            )
        )

    def _publish(self, seat: Seat, message: Publish) -> None:
        wanted = tuple(track for track in Track if track in message.tracks)
        if not all(seat.may_publish(track) for track in wanted):
            raise _No("not_permitted", "This seat may not send one of these tracks.")
        if wanted == seat.publishing:
            return
        seat.publishing = wanted
        # Media says by itself who needs a new offer for this.
        self._seating.order(SetPublishes(seat.participant_id, wanted))

    def _mute(self, seat: Seat, message: Mute) -> None:
        # Muting holds also for a track that is published only later.
        if not seat.may_publish(message.track):
            raise _No("not_permitted", "This seat may not send this track.")
        if (message.track in seat.muted) == message.muted:
            return
        (seat.muted.add if message.muted else seat.muted.discard)(message.track)
        self._seating.order(SetMuted(seat.participant_id, message.track, message.muted))

    def _media_lost(self, seat: Seat, now_ms: int) -> None:
        if now_ms - seat.leg_since_ms < LEG_SPACING_MS:
            raise _No("too_many", "A new leg has only just begun. Try again in a second.")
        self._seating.new_leg(seat, now_ms)

    def _admit(self, seat: Seat, now_ms: int) -> None:
        if not seat.grant.may_admit:
            raise _No("not_permitted", "Only the presiding official lets the party in.")
        if self.state is not RoomState.WAITING:
            return  # a double click
        if not self._party_is_ready():
            raise _No("petitioner_not_ready", "The party is not ready yet. Please wait a moment.")
        self.state = RoomState.COUNTDOWN
        self._countdown_due_ms = now_ms + self.rules.countdown_ms
        self._post_room(now_ms)
        for each in self._seating.taken():
            self._seating.post(each, Countdown(seq=0, live_in_ms=self.rules.countdown_ms))

    # ── sockets and media ────────────────────────────────────────────────────────────────────────

    def _socket_gone(self, fact: SocketGone) -> None:
        seat = self._seating.seat(fact.participant_id)
        if seat is None or seat.socket_id != fact.socket_id:
            return  # an older socket of this seat: someone else has taken over
        seat.socket_id = None
        if not seat.offer.is_free:
            seat.offer.clear()

    def _media_changed(self, fact: MediaConnected | MediaSilent | MediaGone, now_ms: int) -> None:
        seat = self._seating.seat(fact.participant_id)
        if seat is None:
            return
        match fact:
            case MediaConnected():
                seat.media = Media.CONNECTED
            case MediaSilent():
                # Silence is news only about a leg that was heard.
                if seat.media is Media.CONNECTED:
                    seat.media = Media.SILENT
            case MediaGone(_, has_sent_too_much):
                seat.media = Media.GONE
                if has_sent_too_much:
                    self._turn_off(seat, now_ms)
        if seat.media is not Media.CONNECTED:
            seat.speaking = False

    def _turn_off(self, seat: Seat, now_ms: int) -> None:
        """Its line was closed for what it sent. A person is told why and comes back on a new leg; a
        device hears nothing, so its session ends."""
        if seat.is_device:
            seat.barred_until_ms = now_ms + BARRED_MS
            self._leave(seat)
        elif seat.socket_id is not None:
            words = "Your device sent far too much, so its line was closed. It connects anew."
            self._seating.send(seat.socket_id, Error(id=None, code="too_much_sent", message=words))

    def _spoke(self, fact: Spoke) -> None:
        seat = self._seating.seat(fact.participant_id)
        # Before live, whether someone speaks is nobody's business.
        if seat is None or self.state is not RoomState.LIVE or seat.speaking == fact.speaking:
            return
        seat.speaking = fact.speaking
        for other in self._seating.taken():
            if other.socket_id is not None:
                self._seating.send(
                    other.socket_id,
                    Speaking(participant_id=seat.participant_id, speaking=fact.speaking),
                )

    # ── going live ───────────────────────────────────────────────────────────────────────────────

    def _party_is_ready(self) -> bool:
        return any(
            seat.role is ParticipantRole.PETITIONER and seat.state is ParticipantState.READY
            for seat in self._seating.taken()
        )

    def _run_countdown(self, now_ms: int) -> None:
        if self._countdown_due_ms is None:
            return
        roles = {seat.role for seat in self._seating.taken()}
        someone_admits = any(seat.grant.may_admit for seat in self._seating.taken())
        late_ms = now_ms - self._countdown_due_ms
        is_there = ParticipantRole.PETITIONER in roles and someone_admits
        if not is_there or (late_ms >= self.rules.party_patience_ms and not self._party_is_ready()):
            self._back_to_waiting(now_ms)
        elif late_ms >= 0 and self._party_is_ready():
            self._countdown_due_ms = None
            self._opening = tuple(seat.grant for seat in self._seating.taken())
            self._seating.order(StartSession(self._opening))

    def _back_to_waiting(self, now_ms: int) -> None:
        self._countdown_due_ms = None
        self.state = RoomState.WAITING
        self._post_room(now_ms)

    def _session_started(self, fact: SessionStarted, now_ms: int) -> None:
        if self._opening is None:
            return
        committed = {grant.participant_id for grant in self._opening}
        self._opening = None
        self.session_id = fact.session_id
        self.live_since = fact.started_at
        self._t0_ms = now_ms - fact.elapsed_ms
        self.state = RoomState.LIVE
        taken = {seat.participant_id for seat in self._seating.taken()}
        for gone in sorted(committed - taken):
            self._seating.order(NoteDeparture(ParticipantId(gone)))
        for seat in self._seating.taken():
            if seat.participant_id not in committed:
                self._seating.order(NoteArrival(seat.grant))
        if self._end_reason is not None:
            self._end(self._end_reason, now_ms)  # it was ended while the Session was committed
            return
        self._seating.order(GoLive(fact.session_id))
        self._post_room(now_ms)

    def _session_refused(self, fact: SessionRefused, now_ms: int) -> None:
        if self._opening is None:
            return
        self._opening = None
        if self._end_reason is not None:
            self._end_without_session(self._end_reason, now_ms)
            return
        self._back_to_waiting(now_ms)
        for seat in self._seating.taken():
            if seat.grant.may_admit and seat.socket_id is not None:
                self._seating.send(
                    seat.socket_id, Error(id=None, code=fact.code, message=fact.words)
                )

    # ── ending ───────────────────────────────────────────────────────────────────────────────────

    def _expire_seats(self, now_ms: int) -> None:
        for seat in list(self._seating.taken()):
            if not seat.is_gone:
                seat.gone_since_ms = None
            elif seat.gone_since_ms is None:
                seat.gone_since_ms = now_ms
            elif now_ms - seat.gone_since_ms >= self.rules.grace_ms:
                self._leave(seat)
                seat.is_missing = True
                if not any(self._seating.people()):
                    self._end_or_forget(EndReason.TIMED_OUT, now_ms)
                    return  # the room is over, and devices with it

    def _miss_people(self, now_ms: int) -> None:
        """Note since when who is needed is away: silent, or gone without a word. Before the talk
        an official comes and goes as the day has it.
        """
        needed = {ParticipantRole.PETITIONER}
        if self.state is RoomState.LIVE:
            needed.add(ParticipantRole.OFFICIAL)
        away = {role for role in needed if self._is_away(role)}
        kept = {role: since for role, since in self._away_since_ms.items() if role in away}
        self._away_since_ms = dict.fromkeys(away, now_ms) | kept

    def _is_away(self, role: ParticipantRole) -> bool:
        seats = [seat for seat in self.seats.values() if seat.role is role]
        present = any(
            seat.state in (ParticipantState.JOINING, ParticipantState.READY) for seat in seats
        )
        is_away = any(seat.state is ParticipantState.SILENT or seat.is_missing for seat in seats)
        return is_away and not present

    def _leave(self, seat: Seat) -> None:
        seat.has_left = True
        seat.speaking = False
        seat.offer = OfferTurn()
        self._seating.order(ClosePeer(seat.participant_id))
        if seat.socket_id is not None:
            self._seating.order(CloseSocket(seat.socket_id, CloseCode.OVER))
            seat.socket_id = None
        if self.state is RoomState.LIVE:
            self._seating.order(NoteDeparture(seat.participant_id))

    def _end_if_empty(self, now_ms: int) -> None:
        if self._held_until_ms is not None:
            if now_ms < self._held_until_ms:
                return  # others may still be on their way back
            self._held_until_ms = None
        if self.is_over or any(self._seating.people()):
            return
        if self._is_quiet:
            self._end(EndReason.NODE_LOST, now_ms)
        else:
            self._end_or_forget(EndReason.EVERYONE_LEFT, now_ms)

    def _end_or_forget(self, reason: EndReason, now_ms: int) -> None:
        """Nobody is left: a live session ends; a room that was never live is only forgotten."""
        if self.state is RoomState.LIVE or self._opening is not None:
            self._end(reason, now_ms)
        else:
            self.state = RoomState.ENDED
            self._countdown_due_ms = None
            self._dispose()

    def _end(self, reason: EndReason, now_ms: int) -> None:
        self._end_reason = reason
        self._countdown_due_ms = None
        self._held_until_ms = None
        if self._opening is not None:
            return  # decided when the host says whether there is a Session to end
        if self.session_id is None:
            self._end_without_session(reason, now_ms)
            return
        self._ended_ms = now_ms
        self.state = RoomState.ENDED
        self._post_room(now_ms)
        self._seating.order(EndSession(reason))

    def _end_without_session(self, reason: EndReason, now_ms: int) -> None:
        self.state = RoomState.ENDED
        self._ended_ms = now_ms
        self._end_reason = reason
        self._countdown_due_ms = None
        self._post_room(now_ms)
        self._say_ended()

    def _session_closed(self) -> None:
        if self.is_over:
            self._say_ended()

    def _say_ended(self) -> None:
        assert self._end_reason is not None
        for seat in list(self._seating.taken()):
            self._seating.post(
                seat, Ended(seq=0, reason=self._end_reason, session_id=self.session_id)
            )
            self._leave(seat)
        self._dispose()

    def _dispose(self) -> None:
        for seat in self._seating.taken():
            self._seating.order(ClosePeer(seat.participant_id))
        self._disposed = True
        self._seating.order(Dispose())

    # ── telling ──────────────────────────────────────────────────────────────────────────────────

    def _post_room(self, now_ms: int) -> None:
        for seat in self._seating.taken():
            self._seating.post(
                seat,
                RoomChanged(
                    seq=0, state=self.state, session_id=self.session_id,
                    live_since=self.live_since, elapsed_ms=self.elapsed_ms(now_ms),
                ),
            )  # fmt: skip


def _is_complete(fact: Returned, seq: int) -> bool:
    """Whether the kept messages are exactly those between the client's last one and `seq`."""
    if fact.missed is None:
        return False
    return [message.seq for message in fact.missed] == list(range(fact.last_seq + 1, seq + 1))
