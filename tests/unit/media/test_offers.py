"""Offers of clients: what is read, what is chosen, what is answered, and each refusal's reason."""

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given
from hypothesis import strategies as st

from media.ice import Credentials
from media.offers import (
    AnswerSection,
    ClientOffer,
    OfferNotAcceptable,
    check_receiving,
    incoming_numbers,
    outgoing_numbers,
    read_fragment,
    read_offer,
    tracks_for,
    write_answer,
    write_fragment,
)
from media.sdp import H264, OPUS, VP8, SdpRefused
from media.tracks import TrackName

FINGERPRINT = ":".join(["CD"] * 32)
TRANSPORT = f"""\
c=IN IP4 0.0.0.0
a=ice-ufrag:theirs
a=ice-pwd:their-password-of-22-letters
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:active
a=rtcp-mux"""
AUDIO = f"""\
m=audio 9 UDP/TLS/RTP/SAVPF 109
{TRANSPORT}
a=mid:0
a=sendonly
a=rtpmap:109 opus/48000/2
a=ssrc:11 cname:box"""
VIDEO = f"""\
m=video 9 UDP/TLS/RTP/SAVPF 96 97 120
{TRANSPORT}
a=mid:1
a=sendonly
a=rtpmap:120 VP8/90000
a=rtpmap:96 H264/90000
a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42000d
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 transport-cc
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=ssrc-group:FID 21 22
a=ssrc:21 cname:box
a=ssrc:22 cname:box"""
BOTH = (TrackName.CAMERA, TrackName.MICROPHONE)


def text(*sections: str, bundle: str = "a=group:BUNDLE 0 1") -> str:
    return "\n".join(["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", bundle, *sections]) + "\n"


def offer(*changes: tuple[str, str]) -> ClientOffer:
    sdp = text(AUDIO, VIDEO)
    for before, after in changes:
        assert before in sdp, before
        sdp = sdp.replace(before, after)
    return read_offer(sdp)


def reason(*changes: tuple[str, str]) -> str:
    with pytest.raises(SdpRefused) as refusal:
        offer(*changes)
    assert refusal.value.message.endswith(".")
    return str(refusal.value.details["reason"])


def test_codecs_are_paired_with_the_client_s_own_numbers() -> None:
    sound, picture = offer().sections
    assert [(c.ours, c.number, c.rtx) for c in sound.codecs] == [(OPUS, 109, None)]
    # In the client's order of preference, which is that of its m-line.
    assert [(c.ours, c.number, c.rtx) for c in picture.codecs] == [(H264, 96, 97), (VP8, 120, None)]
    assert picture.codecs[0].feedback == ("nack", "nack pli")
    assert picture.sources == ((21, 22),)
    assert (offer().ufrag, offer().fingerprint) == ("theirs", FINGERPRINT)


def test_what_a_publisher_sends_is_translated_from_its_first_codec() -> None:
    assert incoming_numbers(offer()) == {109: 111, 96: 102, 97: 103}


def test_what_a_screen_is_sent_is_translated_to_all_of_its_codecs() -> None:
    picture = offer(("sendonly", "recvonly")).sections[1]
    assert outgoing_numbers(picture) == {102: 96, 103: 97, 96: 120}


def test_tracks_are_those_of_the_grant() -> None:
    assert tracks_for(offer(), BOTH) == (TrackName.MICROPHONE, TrackName.CAMERA)
    only_picture = read_offer(text(VIDEO, bundle="a=group:BUNDLE 1"))
    assert tracks_for(only_picture, [TrackName.DOCUMENT]) == (TrackName.DOCUMENT,)


@pytest.mark.parametrize(
    ("sdp", "allowed", "words"),
    [
        (text(AUDIO, VIDEO), (TrackName.DOCUMENT,), "does not include audio"),
        (text(AUDIO, VIDEO, AUDIO.replace("mid:0", "mid:2"), bundle="a=group:BUNDLE 0 1 2"),
         BOTH, "one audio section"),
        (text(AUDIO, VIDEO.replace("H264", "VP9").replace("VP8", "AV1")), BOTH, "No codec"),
        (text(AUDIO, VIDEO.replace("sendonly", "recvonly")), BOTH, "only sections that send"),
    ],
)  # fmt: skip
def test_a_publisher_is_taken_whole_or_not_at_all(
    sdp: str, allowed: tuple[TrackName, ...], words: str
) -> None:
    with pytest.raises(OfferNotAcceptable, match=words) as refusal:
        tracks_for(read_offer(sdp), allowed)
    assert refusal.value.status == 406


@pytest.mark.parametrize("profile", ["profile-level-id=640c1f", "profile-level-id=4d001f"])
def test_h264_that_not_every_browser_can_show_is_not_spoken(profile: str) -> None:
    picture = offer(("profile-level-id=42000d", profile)).sections[1]
    assert [codec.ours for codec in picture.codecs] == [VP8]


def test_a_screen_only_receives() -> None:
    check_receiving(offer(("sendonly", "recvonly")))
    with pytest.raises(SdpRefused, match="Nothing is received"):
        check_receiving(offer())
    with pytest.raises(OfferNotAcceptable, match="only receives"):
        check_receiving(read_offer(text(AUDIO, VIDEO.replace("sendonly", "recvonly"))))


def test_refusals_say_why() -> None:
    assert reason(("a=setup:active", "a=setup:holdconn")) == "setup"
    assert reason(("a=rtcp-mux\na=mid:1", "a=mid:1")) == "rtcp_mux"
    assert reason(("a=group:BUNDLE 0 1", "a=group:BUNDLE 0")) == "bundle"
    assert reason(("a=mid:1", "a=mid:0")) == "sections"
    assert reason(("a=group:BUNDLE 0 1", "a=group:BUNDLE None"), ("a=mid:0", "a=mid")) == "sections"
    assert reason(("a=fingerprint:sha-256", "a=fingerprint:sha-1")) == "fingerprint"
    assert reason(("ice-ufrag:theirs", "ice-ufrag:no")) == "ice"
    assert reason(("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 RTP/AVP")) == "media"
    assert reason(("v=0", "v=1")) == "not_sdp"


def test_a_section_that_is_only_bundled_is_offered_all_the_same() -> None:
    bundled = offer(("m=video 9", "m=video 0"), ("a=mid:1", "a=mid:1\na=bundle-only"))
    assert bundled.sections[1].is_sending
    refused = offer(("m=video 9", "m=video 0"))
    assert not refused.sections[1].is_sending


def test_the_answer_can_be_read_by_others_and_keeps_the_client_s_numbers() -> None:
    sound, picture = offer().sections
    answer = write_answer(
        credentials=Credentials("ours", "our-password-of-22-letters"),
        fingerprint=FINGERPRINT,
        addresses=[("192.0.2.1", 4000)],
        sections=[
            AnswerSection(sound),
            AnswerSection(picture, "recvonly", picture.codecs[:1]),
        ],
        is_dtls_client=False,
    )
    read = SessionDescription.parse(answer)
    assert [media.port for media in read.media] == [0, 9]
    assert read.group[0].items == ["1"]
    taken = read.media[1]
    assert (taken.direction, taken.fmt, taken.rtp.muxId) == ("recvonly", [96, 97], "1")
    assert taken.dtls is not None and taken.dtls.role == "server"
    assert taken.ice is not None and taken.ice.iceLite
    assert [c.ip for c in taken.ice_candidates] == ["192.0.2.1"]
    assert taken.rtp.codecs[0].parameters["profile-level-id"] == "42000d"
    assert taken.rtp.headerExtensions == []


def test_an_ice_fragment_names_its_session() -> None:
    trickled = "a=ice-ufrag:theirs\r\na=ice-pwd:x\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    assert read_fragment(trickled).ufrag == "theirs"
    assert read_fragment("a=end-of-candidates\r\n").ufrag is None
    for nonsense in ("", "hello", "a=ice-ufrag:a b\n", "a=ice-ufrag:abcd\na=ice-ufrag:efgh\n"):
        with pytest.raises(SdpRefused):
            read_fragment(nonsense)
    ours = write_fragment(Credentials("ours", "password"), [("192.0.2.1", 4000)])
    assert read_fragment(ours).ufrag == "ours"


@given(st.text(max_size=300), st.integers(0, 1200))
def test_an_offer_with_noise_in_it_is_refused_or_can_be_answered(noise: str, at: int) -> None:
    sdp = text(AUDIO, VIDEO)
    try:
        read = read_offer(sdp[:at] + noise + sdp[at:])
    except SdpRefused:
        return
    assert all(
        0 <= ssrc < 1 << 32 for s in read.sections for pair in s.sources for ssrc in pair if ssrc
    )
    written = write_answer(
        credentials=Credentials("ours", "our-password-of-22-letters"),
        fingerprint=FINGERPRINT,
        addresses=[("192.0.2.1", 4000)],
        sections=[AnswerSection(s, "recvonly", s.codecs[:1]) for s in read.sections],
        is_dtls_client=False,
    )
    answered = SessionDescription.parse(written)
    assert [media.rtp.muxId for media in answered.media] == [s.mid for s in read.sections]
