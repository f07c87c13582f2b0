"""A peer between its room and its transports: offers, legs, silence, loss. Time is an argument."""

from collections.abc import Callable, Sequence

import pytest

from core.ids import ParticipantId
from media.client import with_only
from media.events import (
    TOO_MUCH,
    MediaEvent,
    OfferNeeded,
    PeerBack,
    PeerLost,
    PeerSilent,
    Quality,
    QualityChanged,
    SpeakingChanged,
    TrackStarted,
)
from media.feedback import Feedback
from media.journal import MarkKind
from media.peer import CONSENT_NS, LISTENER_SILENT_AFTER_NS, SILENT_AFTER_NS, Offer, Peer
from media.sdp import H264, MAX_SECTIONS, OPUS, VP8, SdpRefused, StaleAnswer
from media.srtp import SrtpSession
from media.stats import judge
from media.tables import Leg, Publication, Source
from media.tracks import CodecInfo, TrackName
from tests.support.relay import GCM, MS, SECOND, ListeningTap

CAMERA, MICROPHONE, DOCUMENT = TrackName.CAMERA, TrackName.MICROPHONE, TrackName.DOCUMENT
FINGERPRINT = ":".join(["AB"] * 32)


class StillDtls:
    """An association that only remembers that it was begun."""

    def __init__(self) -> None:
        self.started_with: str | None = None

    def start(self, fingerprint: str) -> None:
        self.started_with = fingerprint


class World:
    """Room and transports in one: who publishes, what time it is, who was attached."""

    def __init__(self) -> None:
        self.is_live = False
        self.recorder: World | None = None
        self.taps: dict[tuple[str, int], ListeningTap] = {}
        self.peers: list[Peer] = []
        self.feedback = Feedback(lambda *_: None, lambda *_: None, lambda: None)
        self.addresses: Sequence[tuple[str, int]] = [("192.0.2.1", 4000)]
        self.fingerprint = FINGERPRINT
        self.video_codecs: Sequence[CodecInfo] = (VP8, H264)
        self.time_ns = 100 * SECOND
        self.is_behind = False
        self.connect: dict[Leg, Callable[[SrtpSession, SrtpSession, str], None]] = {}
        self.detached: list[Leg] = []
        self.silent: list[Leg] = []
        self._mids: dict[tuple[str, TrackName], str] = {}

    def add(self, name: str, *publishes: TrackName) -> "tuple[Peer, list[MediaEvent]]":
        events: list[MediaEvent] = []
        peer = Peer(
            self,
            self,  # type: ignore[arg-type]  # StillDtls stands in for the association
            ParticipantId(name),
            label=name,
            role="",
            publishes=publishes,
            on_event=events.append,
        )
        self.peers.append(peer)
        self.publications_changed(peer)
        return peer, events

    def connected(self, name: str, *publishes: TrackName) -> "tuple[Peer, list[MediaEvent]]":
        peer, events = self.add(name, *publishes)
        accept(peer)
        key = bytes(28)
        self.connect[peer.leg](SrtpSession.inbound(key, GCM), SrtpSession.outbound(key, GCM), "GCM")
        events.clear()
        return peer, events

    # As room.
    def publications(self) -> Sequence[Publication]:
        return [p for peer in self.peers for p in peer.published.values()]

    def mid_of(self, participant_id: str, name: TrackName) -> str:
        return self._mids.setdefault((participant_id, name), f"m{len(self._mids)}")

    def publications_changed(self, by: Peer) -> None:
        for peer in self.peers:
            if peer is not by:
                peer.offer_needed()

    def takers(self, of: Peer) -> Sequence[frozenset[int]]:
        return [peer.takes for peer in self.peers if peer is not of and peer.takes]

    def abilities_changed(self, by: Peer) -> None:
        for peer in self.peers:
            if peer is not by:
                peer.review_codecs()

    def party(self, participant_id: str, leg: int, label: str, role: str) -> ListeningTap:
        return self.taps.setdefault((participant_id, leg), ListeningTap())

    # As transports.
    def now_ns(self) -> int:
        return self.time_ns

    def attach(self, leg: Leg, on_connected: Callable[..., None], on_closed: object) -> StillDtls:
        self.connect[leg] = on_connected
        return StillDtls()

    def detach(self, leg: Leg, dtls: object) -> None:
        self.detached.append(leg)

    def await_sign(self, leg: Leg) -> None:
        self.silent.append(leg)

    def open_track(self, publication: Publication) -> None:
        pass


@pytest.fixture
def world() -> World:
    return World()


def answer_to(offer: Offer, *, ufrag: str = "their", fingerprint: str = FINGERPRINT) -> str:
    """The offer turned round."""
    lines = []
    for line in offer.sdp.split("\r\n"):
        if line.startswith(("a=ssrc", "a=candidate", "a=ice-lite", "a=msid:")):
            continue
        turned = {"a=recvonly": "a=sendonly", "a=sendonly": "a=recvonly"}.get(line, line)
        if line.startswith("a=ice-ufrag"):
            turned = f"a=ice-ufrag:{ufrag}"
        if line.startswith("a=fingerprint"):
            turned = f"a=fingerprint:sha-256 {fingerprint}"
        lines.append(turned.replace("actpass", "active"))
    return "\r\n".join(lines)


def accept(peer: Peer) -> Offer:
    offer = peer.offer()
    peer.answer(offer.revision, answer_to(offer))
    return offer


def feed(peer: Peer, name: TrackName) -> Source:
    """As if the first packet of a publication had come."""
    source = Source(77, peer.leg, peer.published[name], OPUS, 1)
    peer.leg.sources[77] = source
    peer.published[name].source = source
    return source


# -- Offers --------------------------------------------------------------------------------------


def test_the_first_offer_takes_what_is_published_and_gives_what_others_publish(
    world: World,
) -> None:
    world.add("villager", CAMERA, MICROPHONE)
    official, _ = world.add("official", MICROPHONE)
    offer = official.offer()
    assert [(t.participant_id, t.name, t.direction) for t in offer.tracks] == [
        ("official", MICROPHONE, "send"),
        ("villager", CAMERA, "receive"),
        ("villager", MICROPHONE, "receive"),
    ]
    assert (offer.revision, offer.leg) == (1, 1)


def test_a_tracks_mid_is_the_same_for_everyone(world: World) -> None:
    villager, _ = world.add("villager", CAMERA)
    official, _ = world.add("official", CAMERA)
    mids = {
        peer.participant_id: {(t.participant_id, t.name): t.mid for t in peer.offer().tracks}
        for peer in (villager, official)
    }
    assert mids["villager"] == mids["official"]


def test_changes_during_a_negotiation_lead_to_one_offer_after_it(world: World) -> None:
    villager, events = world.add("villager", CAMERA)
    offer = villager.offer()
    world.add("official", CAMERA)
    world.add("desk", CAMERA)
    assert events == []
    villager.answer(offer.revision, answer_to(offer))
    assert events == [OfferNeeded()]
    assert len(accept(villager).tracks) == 3


def test_a_track_taken_back_leaves_an_inactive_section_and_comes_back_to_it(world: World) -> None:
    villager, events = world.connected("villager", CAMERA, DOCUMENT)
    before = accept(villager)
    villager.set_publishes([CAMERA])
    assert events == [OfferNeeded()]
    without = accept(villager)
    assert [t.name for t in without.tracks] == [CAMERA]
    assert without.sdp.count("m=") == before.sdp.count("m=")
    assert "a=inactive" in without.sdp
    villager.set_publishes([CAMERA, DOCUMENT])
    assert accept(villager).tracks == before.tracks


def test_a_room_too_full_for_one_description_leaves_the_newest_out(world: World) -> None:
    desk, _ = world.add("desk")
    for number in range(MAX_SECTIONS):
        world.add(f"p{number}", CAMERA, MICROPHONE)
    assert len(desk.offer().tracks) == MAX_SECTIONS


def test_an_answer_to_a_replaced_offer_is_stale(world: World) -> None:
    villager, _ = world.add("villager", CAMERA)
    first = villager.offer()
    second = villager.offer()
    with pytest.raises(StaleAnswer):
        villager.answer(first.revision, answer_to(first))
    villager.answer(second.revision, answer_to(second))
    with pytest.raises(StaleAnswer):
        villager.answer(second.revision, answer_to(second))


def test_a_refused_answer_may_be_followed_by_a_good_one(world: World) -> None:
    villager, _ = world.add("villager", CAMERA)
    offer = villager.offer()
    with pytest.raises(SdpRefused):
        villager.answer(offer.revision, answer_to(offer).replace("active", "passive"))
    villager.answer(offer.revision, answer_to(offer))


def test_another_certificate_within_a_leg_is_refused(world: World) -> None:
    villager, _ = world.add("villager", CAMERA)
    accept(villager)
    again = villager.offer()
    other = FINGERPRINT.replace("AB", "CD")
    with pytest.raises(SdpRefused):
        villager.answer(again.revision, answer_to(again, fingerprint=other))


# -- The gate ------------------------------------------------------------------------------------


def test_a_publication_reaches_connected_receivers_of_a_live_room_only(world: World) -> None:
    villager, _ = world.connected("villager", MICROPHONE)
    official, _ = world.connected("official")
    absent, _ = world.add("desk")
    accept(absent)  # negotiated, not connected
    publication = villager.published[MICROPHONE]
    assert publication.targets == ()
    assert not publication.is_open
    world.is_live = True
    for peer in world.peers:
        peer.go_live()
    assert [t.leg for t in publication.targets] == [official.leg]
    villager.set_muted(MICROPHONE, True)
    assert publication.targets == ()
    assert not publication.is_open
    villager.set_muted(MICROPHONE, False)
    assert [t.leg for t in publication.targets] == [official.leg]


def test_a_line_too_thin_for_pictures_gets_sound_only_and_nobody_else_notices(
    world: World,
) -> None:
    villager, _ = world.connected("villager", CAMERA, MICROPHONE)
    official, _ = world.connected("official")
    county, _ = world.connected("county")
    accept(official)
    accept(county)
    world.is_live = True
    for peer in world.peers:
        peer.go_live()
    official.leg.downlink.is_held = True
    for publication in villager.published.values():
        official.refresh(publication)
    assert [t.leg for t in villager.published[CAMERA].targets] == [county.leg]
    assert {t.leg for t in villager.published[MICROPHONE].targets} == {official.leg, county.leg}
    assert official.stats().is_picture_held


@pytest.mark.parametrize("missed", [1, 500, 40_000, 65_536])
def test_a_picture_goes_on_after_a_pause_at_a_number_near_and_unused(
    world: World, missed: int
) -> None:
    villager, _ = world.connected("villager", CAMERA)
    official, _ = world.connected("official")
    world.is_live = True
    villager.go_live()
    camera = villager.published[CAMERA]
    (target,) = camera.targets
    camera.last_arrival_ns = SECOND
    last = (camera.next_seq - 1 + target.seq_offset) & 0xFFFF
    official.leg.downlink.is_held = True
    official.refresh(camera)
    camera.next_seq = (camera.next_seq + missed) & 0xFFFF
    camera.last_arrival_ns = 700 * SECOND
    official.leg.downlink.is_held = False
    official.refresh(camera)
    straggler = (camera.next_seq - camera.cache_mask + target.seq_offset) & 0xFFFF
    following = (camera.next_seq + target.seq_offset) & 0xFFFF
    assert camera.targets == (target,)
    assert 0 < (straggler - last) & 0xFFFF < (following - last) & 0xFFFF < 0x8000
    assert target.floor == camera.next_seq


def test_a_pause_in_which_nothing_passed_leaves_no_gap(world: World) -> None:
    villager, _ = world.connected("villager", CAMERA)
    world.connected("official")
    world.is_live = True
    villager.go_live()
    (target,) = villager.published[CAMERA].targets
    before = target.seq_offset
    villager.set_muted(CAMERA, True)
    villager.set_muted(CAMERA, False)
    assert target.seq_offset == before


def test_a_mute_is_noted_once_and_ends_speech(world: World) -> None:
    villager, events = world.connected("villager", MICROPHONE)
    world.is_live, world.recorder = True, world
    villager.go_live()
    villager.published[MICROPHONE].is_speaking = True
    villager.set_muted(MICROPHONE, True)
    villager.set_muted(MICROPHONE, True)
    assert world.taps["villager", 1].marks == [MarkKind.JOIN, MarkKind.MUTE]
    assert events == [SpeakingChanged(False)]


def test_a_receiver_that_declines_a_track_is_not_sent_it(world: World) -> None:
    villager, _ = world.connected("villager", MICROPHONE)
    official, _ = world.connected("official")
    world.is_live = True
    villager.go_live()
    offer = official.offer()
    official.answer(offer.revision, answer_to(offer).replace("a=recvonly", "a=inactive"))
    assert villager.published[MICROPHONE].targets == ()


# -- Legs ----------------------------------------------------------------------------------------


def test_a_new_leg_has_fresh_credentials_and_the_same_publications(world: World) -> None:
    villager, _ = world.connected("villager", CAMERA)
    old, publication = villager.leg, villager.published[CAMERA]
    before = villager.offer()
    villager.new_leg()
    after = villager.offer()
    assert after.leg == 2
    assert after.revision > before.revision
    assert villager.leg.credentials != old.credentials
    assert villager.published[CAMERA] is publication
    assert after.tracks == before.tracks
    assert world.detached == [old]
    with pytest.raises(StaleAnswer):
        villager.answer(before.revision, answer_to(before))


def test_a_new_leg_of_a_receiver_replaces_its_subscriptions(world: World) -> None:
    villager, _ = world.connected("villager", MICROPHONE)
    official, _ = world.connected("official")
    world.is_live = True
    villager.go_live()
    official.new_leg()
    assert villager.published[MICROPHONE].targets == ()
    assert villager.published[MICROPHONE].subscriptions == []
    accept(official)
    assert [s.leg for s in villager.published[MICROPHONE].subscriptions] == [official.leg]


def test_who_leaves_takes_everything_along(world: World) -> None:
    villager, _ = world.connected("villager", MICROPHONE)
    official, _ = world.connected("official")
    world.is_live, world.recorder = True, world
    villager.go_live()
    publication = villager.published[MICROPHONE]
    villager.leave()
    assert publication.targets == ()
    assert not publication.is_open
    assert official.leg.subscriptions == {}
    assert world.taps["villager", 1].marks[-1] is MarkKind.LEAVE
    assert world.taps["villager", 1].is_ended
    assert villager.leg.tap is None


# -- Silence and loss ----------------------------------------------------------------------------


def video_lines(offer: Offer) -> list[str]:
    """The payload types of each picture's section, as they stand in the offer."""
    lines = [line for line in offer.sdp.split("\r\n") if line.startswith("m=video")]
    return [line.partition("SAVPF ")[2] for line in lines]


def accept_with_only(peer: Peer, codec: CodecInfo) -> Offer:
    """A client that knows but one video codec answers."""
    offer = peer.offer()
    peer.answer(offer.revision, with_only(codec.mime, answer_to(offer)))
    return offer


H264_FIRST, VP8_FIRST = "102 103 96 97", "96 97 102 103"


def test_a_late_joiner_who_cannot_show_the_codec_has_the_sender_change_it(world: World) -> None:
    world.video_codecs = (H264, VP8)
    villager, events = world.add("villager", CAMERA)
    assert video_lines(accept(villager)) == [H264_FIRST]
    official, _ = world.add("official")
    accept_with_only(official, VP8)
    assert OfferNeeded() in events
    assert video_lines(accept(villager)) == [VP8_FIRST]


def test_a_codec_that_everyone_shows_is_kept_when_another_becomes_possible(world: World) -> None:
    world.video_codecs = (H264, VP8)
    villager, events = world.add("villager", CAMERA)
    guest, _ = world.add("guest")
    accept_with_only(guest, VP8)
    assert video_lines(accept(villager)) == [VP8_FIRST]
    source = feed(villager, CAMERA)
    source.payload_type = VP8.payload_type
    world.peers.remove(guest)
    events.clear()
    official, _ = world.add("official")
    accept(official)
    villager.review_codecs()
    assert video_lines(villager.offer()) == [VP8_FIRST]


def test_able_receivers_ask_for_no_second_offer(world: World) -> None:
    villager, events = world.add("villager", CAMERA)
    accept(villager)
    official, _ = world.add("official")
    events.clear()
    accept(official)
    assert events == []
    assert official.takes == {VP8.payload_type, H264.payload_type}


def test_what_a_client_can_show_is_forgotten_with_its_leg(world: World) -> None:
    villager, _ = world.add("villager", CAMERA)
    accept(villager)
    official, _ = world.add("official")
    accept_with_only(official, VP8)
    assert official.takes == {VP8.payload_type}
    official.new_leg()
    assert official.takes == frozenset()


def test_a_sender_is_silent_after_one_and_a_half_seconds_and_then_back(world: World) -> None:
    villager, events = world.connected("villager", MICROPHONE)
    feed(villager, MICROPHONE)
    villager.check(world.time_ns + SILENT_AFTER_NS)
    assert events == []
    villager.check(world.time_ns + SILENT_AFTER_NS + 100 * MS)
    villager.check(world.time_ns + SILENT_AFTER_NS + 300 * MS)
    assert events == [PeerSilent(1600)]
    villager.leg.last_packet_ns = world.time_ns + 2 * SECOND
    villager.check(world.time_ns + 2 * SECOND)
    assert events == [PeerSilent(1600), PeerBack()]


def test_a_silence_ends_on_the_record_with_its_first_packet(world: World) -> None:
    villager, _ = world.connected("villager", MICROPHONE)
    world.is_live, world.recorder = True, world
    villager.go_live()
    feed(villager, MICROPHONE)
    villager.check(world.time_ns)
    villager.check(world.time_ns + 2 * SECOND)
    assert world.silent == [villager.leg]
    villager.leg.back_at_ns = world.time_ns + 3 * SECOND
    villager.leg.last_packet_ns = world.time_ns + 3 * SECOND + 200 * MS
    villager.check(world.time_ns + 3 * SECOND + 240 * MS)  # on a busy machine
    tap = world.taps["villager", 1]
    assert tap.marks[-1] is MarkKind.BACK
    assert tap.marks_ns[-1] == world.time_ns + 3 * SECOND


def test_a_relay_that_stood_still_marks_when_it_was_not_there(world: World) -> None:
    villager, events = world.connected("villager", MICROPHONE)
    world.is_live, world.recorder = True, world
    villager.go_live()
    feed(villager, MICROPHONE)
    villager.check(world.time_ns)
    villager.leg.last_packet_ns = world.time_ns + 10 * SECOND  # what had waited came first
    villager.check(world.time_ns + 10 * SECOND)
    assert world.taps["villager", 1].marks[-2:] == [MarkKind.SILENT, MarkKind.BACK]
    villager.check(world.time_ns + 10 * SECOND + 250 * MS)
    assert world.taps["villager", 1].marks.count(MarkKind.SILENT) == 1
    assert events == []  # nobody was away but we


def test_what_waited_while_the_relay_stood_still_goes_to_nobody(world: World) -> None:
    villager, _ = world.connected("villager", CAMERA)
    official, _ = world.connected("official")
    world.is_live = True
    villager.go_live()
    camera = villager.published[CAMERA]
    (target,) = camera.targets
    camera.source = Source(77, villager.leg, camera, VP8, 1)
    world.is_behind = True
    villager.halt_noticed(world.time_ns)
    official.refresh(camera)
    assert camera.targets == ()
    assert camera.is_open, "it is recorded"
    world.is_behind = False
    world.time_ns += SECOND
    villager.halt_noticed(world.time_ns)
    assert camera.targets == (target,)
    assert camera.keyframe_asked_ns == world.time_ns


def test_nobody_is_silent_or_lost_before_what_waited_is_taken_in(world: World) -> None:
    villager, events = world.connected("villager", MICROPHONE)
    world.is_live, world.recorder = True, world
    villager.go_live()
    feed(villager, MICROPHONE)
    villager.check(world.time_ns)
    world.is_behind = True
    villager.check(world.time_ns + 2 * CONSENT_NS)
    assert world.taps["villager", 1].marks[-2:] == [MarkKind.SILENT, MarkKind.BACK]
    assert events == []
    world.is_behind = False
    villager.check(world.time_ns + 2 * CONSENT_NS + 100 * MS)
    assert events == [PeerLost("no_consent")]


def test_a_line_is_not_called_poor_for_what_a_silence_lost(world: World) -> None:
    villager, events = world.connected("villager", CAMERA)
    official, heard = world.connected("official")
    world.is_live = True
    villager.go_live()
    feed(villager, CAMERA)
    villager.check(world.time_ns + 2 * SECOND)
    back_ns = world.time_ns + 12 * SECOND
    villager.leg.last_packet_ns = back_ns
    villager.check(back_ns)
    assert events[-1] == PeerBack()
    (target,) = official.leg.subscriptions.values()
    target.loss = 0.95
    for second in range(3):
        for peer in (villager, official):
            peer.every_second(back_ns + second * SECOND)
    assert QualityChanged(Quality.POOR) not in heard
    for second in range(3, 6):
        official.every_second(back_ns + second * SECOND)
    assert QualityChanged(Quality.POOR) in heard, "what goes on being lost is the line's"


def test_each_shorter_round_trip_of_a_leg_is_on_the_record(world: World) -> None:
    villager, _ = world.connected("villager", MICROPHONE)
    world.is_live, world.recorder = True, world
    villager.leg.round_trip_ns = 80 * MS
    villager.every_second(world.time_ns)  # nothing is recorded yet
    villager.go_live()
    for round_trip_ms in (90, 60, 75, 59.5, 40):
        villager.leg.round_trip_ns = int(round_trip_ms * MS)
        villager.every_second(world.time_ns)
    assert world.taps["villager", 1].marks.count(MarkKind.ROUND_TRIP) == 3
    villager.new_leg()
    key = bytes(28)
    accept(villager)
    inbound, outbound = SrtpSession.inbound(key, GCM), SrtpSession.outbound(key, GCM)
    world.connect[villager.leg](inbound, outbound, "GCM")
    villager.leg.round_trip_ns = 95 * MS
    villager.every_second(world.time_ns)
    assert world.taps["villager", 2].marks.count(MarkKind.ROUND_TRIP) == 1


def test_pictures_begin_anew_after_a_silence(world: World) -> None:
    official, _ = world.connected("official", CAMERA)
    villager, _ = world.connected("villager", CAMERA)
    world.is_live = True
    official.go_live()
    villager.go_live()
    asked: list[int] = []
    world.feedback = Feedback(
        lambda leg, data: asked.append(leg.number), lambda *_: None, lambda: None
    )
    for peer in (official, villager):
        feed(peer, CAMERA)
    accept(villager)
    villager.check(world.time_ns + 2 * SECOND)
    assert asked == []
    villager.leg.last_packet_ns = world.time_ns + 3 * SECOND
    villager.check(world.time_ns + 3 * SECOND)
    assert len(asked) == 2, "its own, and the one that it watches"


def test_a_replaced_leg_ends_with_a_gap_and_the_new_one_begins_when_it_is_heard(
    world: World,
) -> None:
    world.is_live, world.recorder = True, world
    villager, _ = world.connected("villager", MICROPHONE)
    villager.go_live()
    world.time_ns += 5 * SECOND
    villager.new_leg()
    assert world.taps["villager", 1].marks[-1] is MarkKind.GAP
    assert world.taps["villager", 2].marks == []
    accept(villager)
    key = bytes(28)
    world.connect[villager.leg](
        SrtpSession.inbound(key, GCM), SrtpSession.outbound(key, GCM), "GCM"
    )
    assert world.taps["villager", 2].marks == []
    for name in (MICROPHONE, CAMERA):
        villager.leg.notify(TrackStarted(name))
    assert world.taps["villager", 2].marks == [MarkKind.JOIN]


def test_who_only_listens_or_is_muted_is_given_longer(world: World) -> None:
    villager, events = world.connected("villager", MICROPHONE)
    feed(villager, MICROPHONE)
    villager.set_muted(MICROPHONE, True)
    villager.check(world.time_ns + 3 * SECOND)
    assert events == []
    villager.check(world.time_ns + LISTENER_SILENT_AFTER_NS + SECOND)
    assert [type(e) for e in events] == [PeerSilent]


def test_consent_is_lost_after_thirty_seconds_and_said_once(world: World) -> None:
    villager, events = world.connected("villager", MICROPHONE)
    villager.check(world.time_ns + CONSENT_NS)
    villager.check(world.time_ns + CONSENT_NS + 1)
    villager.check(world.time_ns + CONSENT_NS + SECOND)
    assert [e for e in events if isinstance(e, PeerLost)] == [PeerLost("no_consent")]
    assert not villager.leg.is_connected
    assert villager.stats().state == "lost"


def test_a_leg_that_brings_far_too_much_is_closed_and_the_next_one_is_not(world: World) -> None:
    villager, events = world.connected("villager", CAMERA)
    villager.check(world.time_ns)
    villager.leg.bytes_in += 60_000_000
    villager.check(world.time_ns + SECOND // 10)
    assert events == [PeerLost(TOO_MUCH)]
    assert not villager.leg.is_connected
    villager.new_leg()
    accept(villager)
    world.time_ns += SECOND
    events.clear()
    key = bytes(28)
    world.connect[villager.leg](
        SrtpSession.inbound(key, GCM), SrtpSession.outbound(key, GCM), "GCM"
    )
    villager.leg.bytes_in += 500_000
    villager.check(world.time_ns + SECOND // 10)
    assert PeerLost(TOO_MUCH) not in events
    assert villager.leg.is_connected


def test_who_answers_but_never_connects_is_lost_too(world: World) -> None:
    villager, events = world.add("villager", MICROPHONE)
    villager.check(world.time_ns + 10 * CONSENT_NS)
    assert events == []  # has not even answered: that is signaling's patience
    accept(villager)
    villager.check(world.time_ns + CONSENT_NS + 1)
    assert events == [PeerLost("never_connected")]


def test_quality_is_a_word_for_loss_and_delay() -> None:
    assert judge(loss=0.0, round_trip_ms=40) is Quality.GOOD
    assert judge(loss=0.05, round_trip_ms=40) is Quality.FAIR
    assert judge(loss=0.0, round_trip_ms=400) is Quality.FAIR
    assert judge(loss=0.2, round_trip_ms=40) is Quality.POOR
