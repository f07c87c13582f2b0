"""Who has which seat in a room, and what each of them is told and offered.

The seats outlive sockets and legs; what follows for them gathers here as effects, in order, until
the room hands it to its host. Whether a talk begins or ends is none of this module's business.
"""

from collections.abc import Iterator

from core.ids import ParticipantId
from signaling.effects import (
    AnswerTaken,
    CloseSocket,
    Effect,
    FetchOffer,
    NewLeg,
    OfferMade,
    Post,
    Send,
    SequencedMessage,
    SocketId,
)
from signaling.protocol import (
    CloseCode,
    Error,
    Offer,
    Ok,
    ParticipantChanged,
    ServerMessage,
)
from signaling.seat import Media, OfferTurn, Seat

MAX_UNANSWERED_OFFERS = 3


class Seating:
    """The seats of one room. Pure, as the room is."""

    def __init__(self) -> None:
        self.seats: dict[ParticipantId, Seat] = {}
        self._orders: list[Effect] = []

    # ── who is there ─────────────────────────────────────────────────────────────────────────────

    def taken(self) -> Iterator[Seat]:
        return (seat for seat in self.seats.values() if not seat.has_left)

    def people(self) -> Iterator[Seat]:
        """Seats of people: a camera left running in the hall keeps no talk alive."""
        return (seat for seat in self.taken() if not seat.is_device)

    def seat(self, participant_id: ParticipantId) -> Seat | None:
        """The seat, unless it was never taken or has been left."""
        seat = self.seats.get(participant_id)
        return None if seat is None or seat.has_left else seat

    def take_socket(self, seat: Seat, socket_id: SocketId) -> None:
        """The seat speaks through this socket now; one that it had before is closed."""
        if seat.socket_id is not None:
            words = "You have entered again from another page. This one is closed."
            self.send(seat.socket_id, Error(id=None, code="replaced", message=words, fatal=True))
            self.order(CloseSocket(seat.socket_id, CloseCode.REPLACED))
        seat.socket_id = socket_id

    def new_leg(self, seat: Seat, now_ms: int) -> None:
        """Media starts over on a fresh transport."""
        seat.leg += 1
        seat.leg_since_ms = now_ms
        seat.media = Media.NONE
        seat.offer.clear()
        self.order(NewLeg(seat.participant_id))

    # ── telling ──────────────────────────────────────────────────────────────────────────────────

    def order(self, effect: Effect) -> None:
        self._orders.append(effect)

    def take_orders(self) -> list[Effect]:
        """All orders since last asked."""
        orders, self._orders = self._orders, []
        return orders

    def show_changes(self) -> None:
        """Tell everyone about each participant whose picture has changed since last told."""
        for seat in self.seats.values():
            # Speaking has a message of its own, too frequent to keep.
            info = seat.info()
            known = seat.shown
            if known is not None and known.model_copy(update={"speaking": info.speaking}) == info:
                continue
            seat.shown = info
            for other in self.taken():
                self.post(other, ParticipantChanged(seq=0, participant=info))

    def post(self, seat: Seat, message: SequencedMessage) -> None:
        """Say it to this seat, now or when it comes back."""
        seat.seq += 1
        numbered = message.model_copy(update={"seq": seat.seq})
        self.order(Post(seat.participant_id, seat.socket_id, numbered))

    def reply(self, seat: Seat, message: ServerMessage) -> None:
        assert seat.socket_id is not None
        self.send(seat.socket_id, message)

    def send(self, socket_id: SocketId, message: ServerMessage) -> None:
        self.order(Send(socket_id, message))

    # ── offers ───────────────────────────────────────────────────────────────────────────────────

    def serve_offer(self, seat: Seat, now_ms: int, *, is_over: bool) -> None:
        """Have an offer fetched if one is wanted and none is with the client."""
        offer = seat.offer
        if offer.due_ms is not None and now_ms >= offer.due_ms:
            self._offer_unanswered(seat)
        if offer.wanted and offer.is_free and seat.socket_id is not None and not is_over:
            offer.wanted = False
            offer.asked = True
            self.order(FetchOffer(seat.participant_id))

    def _offer_unanswered(self, seat: Seat) -> None:
        offer = seat.offer
        offer.revision = None
        offer.due_ms = None
        offer.unanswered += 1
        if offer.unanswered < MAX_UNANSWERED_OFFERS:
            offer.wanted = True
        elif seat.socket_id is not None:
            # Say so once and rest until the client asks for a new leg or comes back.
            words = "Offers stay unanswered."
            self.send(seat.socket_id, Error(id=None, code="no_answer", message=words))

    def offer_made(self, fact: OfferMade, due_ms: int) -> None:
        """`due_ms`: until when the client may answer."""
        seat = self.seat(fact.participant_id)
        if seat is None or not seat.offer.asked:
            return
        seat.offer.asked = False
        if seat.socket_id is None:
            seat.offer.wanted = True
            return
        seat.offer.revision = fact.revision
        seat.offer.due_ms = due_ms
        self.send(
            seat.socket_id,
            Offer(revision=fact.revision, leg=seat.leg, sdp=fact.sdp, tracks=fact.tracks),
        )

    def answer_taken(self, fact: AnswerTaken) -> None:
        self.send(fact.socket_id, Ok(id=fact.request_id))
        seat = self.seat(fact.participant_id)
        if seat is not None and seat.offer.revision == fact.revision:
            seat.offer = OfferTurn(wanted=seat.offer.wanted)
