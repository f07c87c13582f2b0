"""One participant's media: publications, subscriptions, and the transports (legs) they live on.

A Peer lasts as long as its participant is in the room; a Leg lasts as long as one transport. When
the line is lost for good, `new_leg()` starts over with fresh ICE credentials and keys, and the
client builds a new RTCPeerConnection from the next offer; publications keep their identity, so the
others see the picture go on where it stopped.

Offers are written from the room as it stands at that moment. At most one is outstanding; what
changes meanwhile is told by one OfferNeeded once it is answered.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog

from core.ids import ParticipantId
from media.bitrate import Inflow, Load
from media.dtls import DtlsAssociation
from media.events import (
    TOO_MUCH,
    MediaEvent,
    OfferNeeded,
    PeerBack,
    PeerConnected,
    PeerLost,
    PeerSilent,
    Quality,
    QualityChanged,
    SpeakingChanged,
    TrackStarted,
)
from media.feedback import Feedback
from media.ice import Credentials, new_credentials
from media.journal import RECORDER_LATE
from media.offers import (
    AnswerSection,
    ClientOffer,
    OfferedSection,
    incoming_numbers,
    write_answer,
    write_fragment,
)
from media.outlets import Outlet, choose
from media.sdp import (
    CODECS,
    MAX_SECTIONS,
    RTX_OF,
    AnsweredSection,
    SdpRefused,
    Section,
    StaleAnswer,
    rank_codecs,
    read_answer,
    write_offer,
)
from media.srtp import SrtpSession
from media.stats import PeerStats, judge
from media.tables import Leg, Publication, Subscription
from media.taps import MarkKind, PartyTap, Recorder
from media.tracks import CodecInfo, TrackName

log = structlog.get_logger(__name__)

MS = 1_000_000
# A peer that should be sending sound or picture is silent after 1.5 s without any packet. One that
# only listens sends reports and ICE checks, the latter every 2.5 to 6 s.
SILENT_AFTER_NS = 1500 * MS
LISTENER_SILENT_AFTER_NS = 7000 * MS
# RFC 7675: consent to be sent to expires 30 s after the last sign of it.
CONSENT_NS = 30_000 * MS
# The reports of so long after a silence or a halt still tell of it, and not of the line.
EXCUSED_NS = 3_000 * MS
# What we lost ourselves in a halt has shown itself by then: each stream has gone on.
HALT_SHOWS_NS = 1_500 * MS
# Numbers left out after a pause: twice what a straggler can reach back (the caches' size).
PAUSE_JUMP = 1024


@dataclass(frozen=True, slots=True)
class OfferedTrack:
    """A section of an offer as the client sees it: `send` = it publishes, `receive` = it gets."""

    mid: str
    participant_id: ParticipantId
    name: TrackName
    direction: Literal["send", "receive"]


@dataclass(frozen=True, slots=True)
class Offer:
    """What to hand the client. When `leg` differs from the last offer's, the client must build a
    new RTCPeerConnection for it; otherwise it renegotiates the one it has."""

    revision: int
    sdp: str
    tracks: tuple[OfferedTrack, ...]
    leg: int


class Transports(Protocol):
    """What a peer needs of the node: a place among the addresses, DTLS, and the clock."""

    feedback: Feedback
    addresses: Sequence[tuple[str, int]]
    fingerprint: str
    video_codecs: Sequence[CodecInfo]
    is_behind: bool

    def now_ns(self) -> int: ...

    def attach(
        self,
        leg: Leg,
        on_connected: Callable[[SrtpSession, SrtpSession, str], None],
        on_closed: Callable[[str], None],
    ) -> DtlsAssociation: ...

    def detach(self, leg: Leg, dtls: DtlsAssociation) -> None: ...

    def rename(self, leg: Leg, credentials: Credentials) -> None: ...

    def await_sign(self, leg: Leg) -> None: ...

    def open_track(self, publication: Publication) -> None: ...


class Surroundings(Protocol):
    """What a peer needs of its room: who else publishes what."""

    is_live: bool
    recorder: Recorder | None

    def publications(self) -> Sequence[Publication]: ...

    def role_of(self, participant_id: ParticipantId) -> str: ...

    def mid_of(self, participant_id: ParticipantId, name: TrackName) -> str: ...

    def publications_changed(self, by: "Peer") -> None: ...

    def takers(self, of: "Peer") -> Sequence[frozenset[int]]: ...

    def abilities_changed(self, by: "Peer") -> None: ...


class Peer:
    """Made by MediaRoom.add_peer. All calls are on the event loop; none waits."""

    def __init__(
        self,
        room: Surroundings,
        transports: Transports,
        participant_id: ParticipantId,
        *,
        label: str,
        role: str,
        publishes: Sequence[TrackName],
        on_event: Callable[[MediaEvent], None],
        inflow: Inflow | None = None,
    ) -> None:
        self.participant_id = participant_id
        self.label = label
        self.role = role
        self.published: dict[TrackName, Publication] = {}
        self.quality = Quality.GOOD
        self._room = room
        self._transports = transports
        self._notify = on_event
        self._muted: set[TrackName] = set()
        self._session = secrets.randbits(62)  # the o= line; a new leg is a new session
        self._revision = 0
        self._outstanding: tuple[int, tuple[Section, ...]] | None = None
        self._is_offer_due = False
        # The m-sections of this leg, in order: they may change direction but never go away.
        self._sections: list[tuple[str, TrackName, ParticipantId]] = []
        # Video payload types that this leg's answers took from us, and took for sending.
        self._takes: frozenset[int] = frozenset()
        self._sends: frozenset[int] = frozenset()
        self._led_by: dict[str, int] = {}  # own video's mid → payload type last offered first
        # Of a client that offered: where it receives, and whose tracks it wants first.
        self._outlets: list[Outlet] = []
        self._watch: tuple[str, ...] = ()
        self._remote_fingerprint: str | None = None
        self._is_silent = False
        self._is_lost = False
        self._has_joined = False  # this leg, in the journal
        self._checked_ns = 0
        self._forgives_until_ns = 0
        self._quality_seconds = 0
        self._totals = (0, 0)
        self._bitrates_bps = (0, 0)
        self._recorded_round_trip_ns = 0  # the shortest of this leg; 0 = none yet
        self.inflow = inflow or Inflow()
        self.leg = self._open_leg(1)
        self._publish(publishes)

    # -- Negotiation -------------------------------------------------------------------------

    def offer(self) -> Offer:
        """The next offer for this client. Supersedes one that is still unanswered."""
        self._add_missing_sections()
        current = {p.mid: p for p in self._room.publications()}
        sections = tuple(self._section(mid, name, current) for mid, name, _ in self._sections)
        self._revision += 1
        self._outstanding = (self._revision, sections)
        self._is_offer_due = False
        tracks = tuple(
            OfferedTrack(mid, owner, name, "send" if s.direction == "recvonly" else "receive")
            for (mid, name, owner), s in zip(self._sections, sections, strict=True)
            if s.direction != "inactive"
        )
        sdp = write_offer(
            session=self._session,
            revision=self._revision,
            credentials=self.leg.credentials,
            fingerprint=self._transports.fingerprint,
            addresses=self._transports.addresses,
            sections=sections,
        )
        return Offer(self._revision, sdp, tracks, self.leg.number)

    def answer(self, revision: int, sdp: str) -> None:
        """The client's answer to the offer of that revision.

        Raises StaleAnswer if that offer is not the one outstanding, and SdpRefused (the offer then
        stays outstanding: the client may try again) for an answer that we do not speak.
        """
        if self._outstanding is None or self._outstanding[0] != revision:
            raise StaleAnswer(
                "This answer belongs to an offer that has been replaced. Wait for the next offer.",
                revision=revision,
            )
        answer = read_answer(sdp, self._outstanding[1])
        if self._remote_fingerprint not in (None, answer.fingerprint):
            raise SdpRefused("fingerprint", "The certificate changed within one transport.")
        leg = self.leg
        leg.remote_ufrag = answer.ufrag
        if self._remote_fingerprint is None:
            self._remote_fingerprint = answer.fingerprint
            leg.consent_at_ns = self._transports.now_ns()  # from here on we wait for the client
            self._dtls.start(answer.fingerprint)
        before = self.takes
        for section in self._outstanding[1]:
            self._take_answer(section, answer.sections[section.mid])
        self._outstanding = None
        if self.takes != before:
            self._room.abilities_changed(self)
        if self._is_offer_due:
            self._notify(OfferNeeded())

    def offer_needed(self) -> None:
        """The room has changed in a way this client must hear of. Said at most once per offer."""
        self._fill_outlets()
        if self._revision == 0 or self._is_offer_due or self._is_lost:
            return  # the first offer, and a new leg's, hold everything anyway
        self._is_offer_due = True
        if self._outstanding is None:
            self._notify(OfferNeeded())

    @property
    def takes(self) -> frozenset[int]:
        """The video payload types this client can show; empty while nobody knows. A browser that
        was not sent anything yet is taken to decode what it says it can encode."""
        return self._takes or self._sends

    def review_codecs(self) -> None:
        """The receivers can do something else than before. If a video of ours should lead with
        another codec now, it is told so by the next offer."""
        takers = self._room.takers(self)
        for publication in self.published.values():
            led_by = self._led_by.get(publication.mid)
            if led_by is None:
                continue
            best = self._codecs_for(publication)[0].payload_type
            if any(best not in taken for taken in takers):
                # Someone in this room gets sound only: nothing is transcoded.
                log.warning("media_no_common_codec", participant_id=self.participant_id)
            if best != led_by:
                self.offer_needed()

    def _codecs_for(self, publication: Publication) -> tuple[CodecInfo, ...]:
        in_use = publication.source.payload_type if publication.source is not None else None
        return rank_codecs(self._transports.video_codecs, self._room.takers(self), in_use)

    # -- Negotiation by a client that offers (WHIP, WHEP) ------------------------------------

    def accept(self, offer: ClientOffer, *, watch: Sequence[str] = ()) -> str:
        """Our answer to a checked offer, once per leg; this client is never sent offers of ours.

        What it sends feeds the tracks published at this moment, one per kind; where it receives, it
        is shown the room's tracks, those of the roles in `watch` first, now and as they change.
        """
        leg = self.leg
        leg.remote_ufrag = offer.ufrag
        leg.numbers = incoming_numbers(offer)
        self._watch = tuple(watch)
        self._remote_fingerprint = offer.fingerprint
        leg.consent_at_ns = self._transports.now_ns()  # from here on we wait for the client
        sections = tuple(self._answer_section(section) for section in offer.sections)
        self._fill_outlets()
        self._dtls.start(offer.fingerprint, as_client=offer.is_dtls_server)
        before = self.takes
        shown = [section.codecs for section in offer.receiving if section.kind == "video"]
        self._takes = frozenset(codec.ours.payload_type for codecs in shown for codec in codecs)
        if self.takes != before:
            self._room.abilities_changed(self)
        return write_answer(
            credentials=leg.credentials,
            fingerprint=self._transports.fingerprint,
            addresses=self._transports.addresses,
            sections=sections,
            is_dtls_client=offer.is_dtls_server,
        )

    def restart_ice(self, remote_ufrag: str) -> str:
        """New ICE names for this leg; DTLS and media go on where they are until a check with the
        new names comes. Returns the fragment that tells the client (RFC 9725 §4.3.3)."""
        leg = self.leg
        self._transports.rename(leg, new_credentials())
        leg.remote_ufrag = remote_ufrag
        return write_fragment(leg.credentials, self._transports.addresses)

    @property
    def ice_name(self) -> str:
        """Our ICE username fragment: it names this leg's ICE session."""
        return self.leg.credentials.ufrag

    def _answer_section(self, offered: OfferedSection) -> AnswerSection:
        if offered.is_sending:
            name = next((n for n in self.published if n.kind == offered.kind), None)
            if name is None:
                return AnswerSection(offered)
            for ssrc, rtx_ssrc in offered.sources:
                self.leg.declared[ssrc] = self.published[name].mid
                if rtx_ssrc is not None:
                    self.leg.declared_repairs[rtx_ssrc] = ssrc
            return AnswerSection(offered, "recvonly", offered.codecs[:1])
        if not offered.is_receiving:
            return AnswerSection(offered)
        outlet = Outlet(offered)
        self._outlets.append(outlet)
        return outlet.answer()

    def _fill_outlets(self) -> None:
        """Bind what is free to what is not shown yet."""
        if not any(outlet.is_free(self.leg) for outlet in self._outlets):
            return
        others = [p for p in self._room.publications() if p.participant_id != self.participant_id]
        others.sort(key=self._interest)
        for outlet in self._outlets:
            if not outlet.is_free(self.leg):
                continue
            shown = [s.publication for s in self.leg.subscriptions.values()]
            publication = choose(others, shown, outlet.section.kind)
            if publication is not None:
                outlet.bind(publication, self.leg, self._transports.now_ns())
                self.refresh(publication)

    def _interest(self, publication: Publication) -> int:
        role = self._room.role_of(publication.participant_id)
        return self._watch.index(role) if role in self._watch else len(self._watch)

    # -- Publications ------------------------------------------------------------------------

    def set_publishes(self, names: Sequence[TrackName]) -> None:
        """From now on this participant publishes exactly these tracks. Leads to OfferNeeded here
        and with everyone else."""
        gone = [name for name in self.published if name not in names]
        for name in gone:
            publication = self.published.pop(name)
            self.leg.publications.pop(publication.mid, None)
            self._close(publication)
        self._publish(names)
        self.offer_needed()
        self._room.publications_changed(self)

    def set_muted(self, name: TrackName, muted: bool) -> None:
        """Muted tracks are neither forwarded nor recorded; the journal notes when and which."""
        if muted == (name in self._muted):
            return
        (self._muted.add if muted else self._muted.discard)(name)
        publication = self.published.get(name)
        if publication is None:
            return
        publication.is_muted = muted
        self.refresh(publication)
        tap, source = self.leg.tap, publication.source
        if tap is not None:
            kind = MarkKind.MUTE if muted else MarkKind.UNMUTE
            is_open = source is not None and source.track_index >= 0
            index = source.track_index if source is not None and is_open else None
            tap.mark(kind, self._transports.now_ns(), index, name.value)
        if muted and publication.is_speaking:
            publication.is_speaking = False
            self._notify(SpeakingChanged(speaking=False))

    def refresh(self, publication: Publication) -> None:
        """Choose anew whether `publication` flows and to whom. Called whenever any reason for it
        has changed: live, mute, a receiver connected, answered or left, a new source or codec, a
        halt."""
        source = publication.source
        was_open = publication.is_open
        publication.is_live = self._room.is_live
        publication.is_open = publication.is_live and not publication.is_muted
        if publication.is_open != was_open and source is not None:
            source.is_anchored = False
        flowed = (*publication.targets, *publication.translated)
        able = tuple(
            s
            for s in publication.subscriptions
            if publication.is_open
            and not self._transports.is_behind
            and s.is_wanted
            and s.leg.is_connected
            and not (s.leg.downlink.is_held and publication.name.kind == "video")
            and (source is None or source.payload_type in s.payload_types)
        )
        publication.targets = tuple(s for s in able if s.numbers is None)
        publication.translated = tuple(s for s in able if s.numbers is not None)
        fresh = [s for s in able if s not in flowed]
        for subscription in fresh:
            _start(subscription)
        for subscription in flowed:
            if subscription not in able:
                _pause(subscription)
        self._transports.open_track(publication)
        if fresh or (publication.is_open and not was_open):
            self._transports.feedback.want_keyframe(publication, self._transports.now_ns())

    def go_live(self) -> None:
        """The room is live: open the recording of this leg and the gate of every publication."""
        self._open_tap()
        for publication in self.published.values():
            self.refresh(publication)

    def record_from_now(self) -> None:
        """The live room has been given its recorder only now. What was before is not in it, and
        the journal says so."""
        self._open_tap()
        if self.leg.is_connected:
            self._mark(MarkKind.GAP, self._transports.now_ns(), RECORDER_LATE)
        for publication in self.published.values():
            self.refresh(publication)

    # -- Transport ---------------------------------------------------------------------------

    def new_leg(self) -> None:
        """Give up the present transport; the next `offer()` describes a fresh one."""
        if self.leg.is_connected:
            self._mark(MarkKind.GAP, self.leg.last_packet_ns, "new_leg")
        self._close_leg()
        self._session = secrets.randbits(62)
        self._revision += 1  # an answer on its way to the old leg is stale
        self._outstanding = None
        self._is_offer_due = False
        self.leg = self._open_leg(self.leg.number + 1)
        for publication in self.published.values():
            self.leg.publications[publication.mid] = publication
        self._open_tap()

    def leave(self) -> None:
        """The participant is gone. The room forgets this peer afterwards."""
        self.inflow.sample(self._transports.now_ns(), self.leg.bytes_in)
        if self.leg.tap is not None:
            self.leg.tap.mark(MarkKind.LEAVE, self._transports.now_ns())
        self._close_leg()
        for publication in self.published.values():
            self._close(publication)
        self.published.clear()

    def check(self, now_ns: int) -> None:
        """Notice silence, return and loss. Called a few times a second."""
        if self._is_lost or self._remote_fingerprint is None:
            return
        leg = self.leg
        since_ns, self._checked_ns = self._checked_ns, now_ns
        if self._transports.is_behind:
            # Who is silent, and who has withdrawn consent, shows when what waited is taken in.
            if leg.is_connected:
                self._note_halt(since_ns, now_ns)
            return
        if now_ns - leg.consent_at_ns > CONSENT_NS:
            self._lose("no_consent" if leg.is_connected else "never_connected")
            return
        if not leg.is_connected:
            return
        if self._is_drowning_us(now_ns):
            return
        self._transports.feedback.sample(leg, now_ns)
        silent_ns = now_ns - leg.last_packet_ns
        if self._is_silent:
            if silent_ns < SILENT_AFTER_NS:
                self._is_silent = False
                self._mark(MarkKind.BACK, leg.back_at_ns or now_ns)
                self._excuse(now_ns)
                self._renew_pictures(now_ns)
                self._notify(PeerBack())
        elif silent_ns > SILENT_AFTER_NS and (
            self._is_sending or silent_ns > LISTENER_SILENT_AFTER_NS
        ):
            self._is_silent = True
            self._transports.await_sign(leg)
            self._mark(MarkKind.SILENT, leg.last_packet_ns)
            self._notify(PeerSilent(silent_ns // MS))
        else:
            self._note_halt(since_ns, now_ns)

    @property
    def _is_sending(self) -> bool:
        return any(
            p.source is not None and p.source.leg is self.leg and not p.is_muted
            for p in self.published.values()
        )

    def _note_halt(self, since_ns: int, now_ns: int) -> None:
        """If it is we who were not there: the process stood still between two looks. All that had
        waited for it came late, and of some nothing is left."""
        if since_ns and now_ns - since_ns > SILENT_AFTER_NS and self._is_sending:
            self._mark(MarkKind.SILENT, since_ns)
            self._mark(MarkKind.BACK, now_ns)

    def halt_noticed(self, now_ns: int) -> None:
        """The node is behind, or is so no longer: from now on packets go to nobody, or on to all,
        beginning with a keyframe."""
        for publication in self.published.values():
            self._transports.feedback.ask_anew(publication)
            self.refresh(publication)
        self._forgives_until_ns = now_ns + HALT_SHOWS_NS
        self._excuse(now_ns)

    def _excuse(self, now_ns: int) -> None:
        """What a silence lost, everybody who listens reports as lost on his own line. Judged by it
        lines would be called poor, and their pages send one picture a second for ten seconds."""
        listeners = (s.leg for p in self.published.values() for s in p.subscriptions)
        for leg in (self.leg, *listeners):
            leg.downlink.excuse(now_ns, now_ns + EXCUSED_NS)

    def _is_drowning_us(self, now_ns: int) -> bool:
        """Whether this leg has brought so much that it was closed: it would fill the disk and
        everybody's line."""
        leg = self.leg
        load = self.inflow.sample(now_ns, leg.bytes_in)
        if load is Load.MUCH:
            self._transports.feedback.remind(leg, now_ns)
        elif load is Load.TOO_MUCH:
            log.warning(
                "media_too_much_sent", participant_id=self.participant_id, leg=leg.number,
                bytes_in=leg.bytes_in,
            )  # fmt: skip
            self._lose(TOO_MUCH)
        return self._is_lost

    def every_second(self, now_ns: int) -> None:
        """Reports to the client, bitrates and quality."""
        if not self.leg.is_connected or self._transports.is_behind:
            return
        if now_ns < self._forgives_until_ns:
            self._transports.feedback.forgive(self.leg)
        self._transports.feedback.report(self.leg, now_ns)
        self._record_round_trip(now_ns)
        bytes_in, bytes_out = self.leg.bytes_in, self._sent()[1]
        before_in, before_out = self._totals
        self._totals = (bytes_in, bytes_out)
        self._bitrates_bps = ((bytes_in - before_in) * 8, (bytes_out - before_out) * 8)
        if self.leg.downlink.is_excused(now_ns):
            return
        word = judge(
            loss=max(self.leg.loss_in, self._loss_out()),
            round_trip_ms=self.leg.round_trip_ns / MS,
        )
        # Two seconds of the same verdict: one lost frame is not a bad line.
        self._quality_seconds = self._quality_seconds + 1 if word != self.quality else 0
        if self._quality_seconds >= 2:
            self.quality = word
            self._quality_seconds = 0
            self._notify(QualityChanged(word))

    def stats(self) -> PeerStats:
        leg = self.leg
        packets_out, bytes_out = self._sent()
        return PeerStats(
            participant_id=self.participant_id,
            leg=leg.number,
            state=self._state(),
            srtp_profile=leg.srtp_profile,
            round_trip_ms=leg.round_trip_ns / MS if leg.round_trip_ns else None,
            loss_in=leg.loss_in,
            loss_out=self._loss_out(),
            packets_in=leg.packets_in,
            packets_out=packets_out,
            bytes_in=leg.bytes_in,
            bytes_out=bytes_out,
            bitrate_in_bps=self._bitrates_bps[0],
            bitrate_out_bps=self._bitrates_bps[1],
            rejected=leg.rejected,
            quality=self.quality,
            freezes=sum(p.stillness.freezes for p in self.published.values()),
            frozen_ms=sum(p.stillness.frozen_ms for p in self.published.values()),
            is_picture_held=leg.downlink.is_held,
        )

    # -- Inside: sections --------------------------------------------------------------------

    def _add_missing_sections(self) -> None:
        have = {mid for mid, _, _ in self._sections}
        wanted = [*self.published.values()]
        wanted += [p for p in self._room.publications() if p.participant_id != self.participant_id]
        for publication in wanted:
            if publication.mid in have:
                continue
            if len(self._sections) >= MAX_SECTIONS:
                # The newest is left out: a room this full is beyond what a page can show anyway.
                log.warning("media_sections_full", participant_id=self.participant_id)
                return
            self._sections.append((publication.mid, publication.name, publication.participant_id))

    def _section(self, mid: str, name: TrackName, current: dict[str, Publication]) -> Section:
        publication = current.get(mid)
        if publication is None:
            return Section(mid, name.kind, "inactive")
        if publication.participant_id == self.participant_id:
            if name.kind == "audio":
                return Section(mid, name.kind, "recvonly")
            codecs = self._codecs_for(publication)
            self._led_by[mid] = codecs[0].payload_type
            return Section(mid, name.kind, "recvonly", codecs=codecs)
        subscription = self._subscription_to(publication)
        owner = publication.participant_id
        together = name in (TrackName.CAMERA, TrackName.MICROPHONE)
        return Section(
            mid,
            name.kind,
            "sendonly",
            stream=owner if together else f"{owner}-{name}",
            cname=owner,
            ssrc=subscription.ssrc,
            rtx_ssrc=subscription.rtx_ssrc,
            codecs=tuple(self._transports.video_codecs) if name.kind == "video" else (),
        )

    def _subscription_to(self, publication: Publication) -> Subscription:
        for subscription in publication.subscriptions:
            if subscription.leg is self.leg:
                return subscription
        subscription = Subscription(publication, self.leg)
        publication.subscriptions.append(subscription)
        self.leg.subscriptions[subscription.ssrc] = subscription
        return subscription

    def _take_answer(self, section: Section, answered: AnsweredSection) -> None:
        leg = self.leg
        if section.kind == "video":
            able = answered.payload_types & CODECS.keys()
            if section.direction == "recvonly":
                self._sends |= able
            elif section.direction == "sendonly":
                self._takes |= able
        if section.direction == "recvonly" and answered.is_sending:
            for ssrc, rtx_ssrc in answered.sources:
                leg.declared[ssrc] = section.mid
                if rtx_ssrc is not None:
                    leg.declared_repairs[rtx_ssrc] = ssrc
            return
        subscription = leg.subscriptions.get(section.ssrc)
        if section.direction != "sendonly" or subscription is None:
            return
        subscription.is_wanted = answered.is_receiving
        subscription.payload_types = answered.payload_types
        subscription.has_nack = answered.has_nack
        if not subscription.is_started and not _can_repair(answered):
            subscription.rtx_ssrc = 0
        self.refresh(subscription.publication)

    # -- Inside: publications ----------------------------------------------------------------

    def _publish(self, names: Sequence[TrackName]) -> None:
        for name in names:
            if name in self.published:
                continue
            mid = self._room.mid_of(self.participant_id, name)
            publication = Publication(self.participant_id, name, mid)
            publication.is_muted = name in self._muted
            self.published[name] = publication
            self.leg.publications[mid] = publication
            self.refresh(publication)

    def _close(self, publication: Publication) -> None:
        """Nobody gets or records it any more."""
        publication.is_open = False
        publication.targets = publication.translated = ()
        for subscription in publication.subscriptions:
            _retire(subscription)
        publication.subscriptions.clear()
        if publication.source is not None:
            publication.source.leg.sources.pop(publication.source.ssrc, None)
            publication.source = None

    # -- Inside: legs ------------------------------------------------------------------------

    def _open_leg(self, number: int) -> Leg:
        leg = Leg(
            self.participant_id,
            number,
            new_credentials(),
            notify=self._told,
            refresh=self.refresh,
            now_ns=self._transports.now_ns(),
        )
        self._sections = []
        self._takes = self._sends = frozenset()
        self._led_by = {}
        self._outlets = []
        self._remote_fingerprint = None
        self._is_silent = self._is_lost = self._has_joined = False
        self._totals = (0, 0)
        self.inflow.new_leg()
        self._dtls = self._transports.attach(leg, self._connected, self._lose)
        return leg

    def _close_leg(self) -> None:
        leg = self.leg
        leg.is_connected = False
        for subscription in list(leg.subscriptions.values()):
            publication = subscription.publication
            publication.subscriptions.remove(subscription)
            publication.targets = tuple(t for t in publication.targets if t is not subscription)
            publication.translated = tuple(
                t for t in publication.translated if t is not subscription
            )
            _retire(subscription)
        if leg.tap is not None:
            leg.tap.end()
            leg.tap = None  # whatever is still on its way is not recorded any more
        self._transports.detach(leg, self._dtls)

    def _connected(self, inbound: SrtpSession, outbound: SrtpSession, profile: str) -> None:
        leg = self.leg
        now_ns = self._transports.now_ns()
        leg.inbound, leg.outbound = inbound, outbound
        leg.rx, leg.tx = inbound.context, outbound.context
        leg.srtp_profile = profile
        leg.is_connected = True
        leg.connected_at_ns = leg.last_packet_ns = leg.consent_at_ns = now_ns
        self._transports.feedback.allow_start(leg)
        for subscription in leg.subscriptions.values():
            self.refresh(subscription.publication)
        if not self.published:
            self._mark(MarkKind.JOIN, now_ns)  # who only listens is never heard
        self._notify(PeerConnected(leg.number, profile))

    def _told(self, event: MediaEvent) -> None:
        """What the router says of this leg. A leg has joined with its first packet."""
        if isinstance(event, TrackStarted) and not self._has_joined:
            self._mark(MarkKind.JOIN, self.leg.last_packet_ns)
        self._notify(event)

    def _renew_pictures(self, now_ns: int) -> None:
        """After a silence: what was lost is more than can be repaired, and every picture that
        follows from it would stay dark until the receiver has given up hoping. Ask at once."""
        subscriptions = self.leg.subscriptions.values()
        for publication in (*self.published.values(), *(s.publication for s in subscriptions)):
            if publication.is_open:
                self._transports.feedback.want_keyframe(publication, now_ns)

    def _lose(self, reason: str) -> None:
        """This leg is over. Its subscriptions get nothing; the peer waits for `new_leg`."""
        if self._is_lost:
            return
        self._is_lost = True
        self.leg.is_connected = False
        for subscription in self.leg.subscriptions.values():
            self.refresh(subscription.publication)
        self._mark(MarkKind.GAP, self.leg.last_packet_ns, reason)
        self._notify(PeerLost(reason))

    def _open_tap(self) -> None:
        recorder = self._room.recorder
        if recorder is None or not self._room.is_live or self.leg.tap is not None:
            return
        self._recorded_round_trip_ns = 0
        tap: PartyTap = recorder.party(self.participant_id, self.leg.number, self.label, self.role)
        self.leg.tap = tap
        if self.leg.is_connected:
            self._mark(MarkKind.JOIN, self._transports.now_ns())
        for name in self._muted:
            tap.mark(MarkKind.MUTE, self._transports.now_ns(), None, name.value)

    def _record_round_trip(self, now_ns: int) -> None:
        """Half of the shortest round trip is how late the best of a party's packets came: without
        it the files would have someone behind a satellite answer late."""
        leg, known_ns = self.leg, self._recorded_round_trip_ns
        if leg.tap is None or not leg.round_trip_ns:
            return
        if not known_ns or leg.round_trip_ns < known_ns - MS:
            self._recorded_round_trip_ns = leg.round_trip_ns
            self._mark(MarkKind.ROUND_TRIP, now_ns, f"{leg.round_trip_ns / MS:.1f}")

    def _mark(self, kind: MarkKind, at_ns: int, detail: str = "") -> None:
        if self.leg.tap is not None:
            self._has_joined |= kind is MarkKind.JOIN
            self.leg.tap.mark(kind, at_ns, None, detail)

    # -- Inside: numbers ---------------------------------------------------------------------

    def _state(self) -> str:
        if self._is_lost:
            return "lost"
        if self.leg.is_connected:
            return "silent" if self._is_silent else "connected"
        return "connecting" if self._remote_fingerprint else "new"

    def _sent(self) -> tuple[int, int]:
        subscriptions = self.leg.subscriptions.values()
        return (
            self.leg.packets_out + sum(s.packets for s in subscriptions),
            self.leg.bytes_out + sum(s.octets for s in subscriptions),
        )

    def _loss_out(self) -> float:
        return max((s.loss for s in self.leg.subscriptions.values()), default=0.0)


def _start(subscription: Subscription) -> None:
    """Choose the first number of a stream: small and random, so that no wrap-around (which the
    receiver must witness to decrypt on) can fall into the first packets."""
    if not subscription.is_started:
        subscription.is_started = True
        first = secrets.randbits(14)
        subscription.seq_offset = (first - subscription.publication.next_seq) & 0xFFFF
    elif subscription.paused_seq >= 0:
        _resume(subscription)


def _pause(subscription: Subscription) -> None:
    """Nothing goes to this receiver for a while, whatever the publication does meanwhile."""
    publication = subscription.publication
    subscription.paused_seq = (publication.next_seq + subscription.seq_offset) & 0xFFFF
    subscription.paused_at_ns = publication.last_arrival_ns


def _resume(subscription: Subscription) -> None:
    """Go on at a number near the last one, however long the pause was (half a round further and
    the receiver could not decrypt any more), and far enough from it that no straggler from the
    pause can fall on a number that has been used."""
    publication = subscription.publication
    if publication.last_arrival_ns != subscription.paused_at_ns:
        first = subscription.paused_seq + PAUSE_JUMP
        subscription.seq_offset = (first - publication.next_seq) & 0xFFFF
        subscription.floor = publication.next_seq  # what it missed meanwhile it is not owed
    subscription.paused_seq = -1
    subscription.is_resumed = True


def _retire(subscription: Subscription) -> None:
    """Take a subscription out of its leg, keeping what it counted."""
    leg = subscription.leg
    leg.subscriptions.pop(subscription.ssrc, None)
    leg.packets_out += subscription.packets
    leg.bytes_out += subscription.octets


def _can_repair(answered: AnsweredSection) -> bool:
    """Whether every video codec this client takes comes with its RTX."""
    media = answered.payload_types & RTX_OF.keys()
    return bool(media) and all(RTX_OF[number] in answered.payload_types for number in media)
