"""What we offer, and the answers that are refused, each with its reason."""

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given
from hypothesis import strategies as st

from media.ice import Credentials
from media.sdp import (
    H264,
    MAX_SDP_BYTES,
    VP8,
    Answer,
    SdpRefused,
    Section,
    _used,
    checked_lines,
    parse,
    rank_codecs,
    read_answer,
    sources_of,
    write_offer,
)

FINGERPRINT = ":".join(["AB"] * 32)
SECTIONS = (
    Section("m0", "video", "recvonly"),
    Section("m1", "audio", "recvonly"),
    Section("m2", "video", "sendonly", stream="other", cname="other", ssrc=77, rtx_ssrc=78),
    Section("m3", "audio", "inactive"),
)


def offer() -> str:
    return write_offer(
        session=5,
        revision=2,
        credentials=Credentials("ufrag", "password-of-22-letters"),
        fingerprint=FINGERPRINT,
        addresses=[("192.0.2.1", 4000), ("198.51.100.1", 4000)],
        sections=SECTIONS,
    )


def answer(*changes: tuple[str, str]) -> str:
    """A client's answer: the offer turned round, then changed."""
    text = offer().replace("a=ice-lite\r\n", "").replace("actpass", "active")
    for ours, theirs in [("recvonly", "SEND"), ("sendonly", "recvonly"), ("SEND", "sendonly")]:
        text = text.replace(f"a={ours}", f"a={theirs}")
    lines = [line for line in text.split("\r\n") if not line.startswith(("a=ssrc", "a=msid:"))]
    text = "\r\n".join(lines)
    sending = "a=mid:m0\r\na=ssrc-group:FID 11 12\r\na=ssrc:11 cname:c\r\na=ssrc:12 cname:c"
    text = text.replace("a=mid:m0", sending).replace("ufrag:ufrag", "ufrag:their")
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    return text


def reason(sdp: str) -> str:
    with pytest.raises(SdpRefused) as refusal:
        read_answer(sdp, SECTIONS)
    assert refusal.value.code == "sdp_refused"
    assert refusal.value.message.endswith(".")
    return str(refusal.value.details["reason"])


def test_the_offer_can_be_read_by_others() -> None:
    read = SessionDescription.parse(offer())
    assert [media.rtp.muxId for media in read.media] == ["m0", "m1", "m2", "m3"]
    assert [media.direction for media in read.media] == [
        "recvonly",
        "recvonly",
        "sendonly",
        "inactive",
    ]
    names = [codec.mimeType for codec in read.media[0].rtp.codecs]
    assert names == ["video/VP8", "video/rtx", "video/H264", "video/rtx"]
    opus = read.media[1].rtp.codecs[0]
    assert {name: str(value) for name, value in opus.parameters.items()} == {
        "minptime": "10",
        "useinbandfec": "1",
        "usedtx": "0",
    }
    assert [c.ip for c in read.media[0].ice_candidates] == ["192.0.2.1", "198.51.100.1"]
    assert read.media[2].ssrc_group[0].items == [77, 78]
    assert all(media.ice is not None and media.ice.iceLite for media in read.media)


def test_a_fitting_answer_is_taken() -> None:
    taken = read_answer(answer(), SECTIONS)
    assert isinstance(taken, Answer)
    assert taken.ufrag == "their"
    assert taken.fingerprint == FINGERPRINT
    camera, other = taken.sections["m0"], taken.sections["m2"]
    assert camera.is_sending
    assert camera.sources == ((11, 12),)
    assert other.is_receiving
    assert not other.is_sending
    assert {96, 97} <= other.payload_types


def test_a_client_may_decline_to_send() -> None:
    declined = answer(("a=sendonly", "a=inactive"))
    assert not read_answer(declined, SECTIONS).sections["m0"].is_sending


def test_candidates_are_thrown_away_unread() -> None:
    odd = answer(("a=mid:m0", "a=mid:m0\r\na=candidate:garbage of any kind"))
    assert read_answer(odd, SECTIONS).ufrag == "their"


def test_lower_case_and_further_fingerprints_are_fine() -> None:
    other = f"a=fingerprint:sha-256 {FINGERPRINT.lower()}\r\na=fingerprint:sha-512 " + "AB:" * 63
    relaxed = answer((f"a=fingerprint:sha-256 {FINGERPRINT}", other + "AB"))
    assert read_answer(relaxed, SECTIONS).fingerprint == FINGERPRINT


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("v=0", "v=0\r\na=x:" + "y" * MAX_SDP_BYTES)], "too_large"),
        ([("v=0", "v=0" + "\r\na=x" * 2000)], "too_large"),
        ([("v=0", "HELLO")], "not_sdp"),
        ([("s=-", "s=-\r\nnonsense")], "not_sdp"),
        ([("a=setup:active", "a=setup:passive")], "setup"),
        ([("a=setup:active", "a=setup:actpass")], "setup"),
        ([("sha-256", "sha-1")], "fingerprint"),
        ([("AB:AB:AB", "AB:AB")], "fingerprint"),
        ([("a=ice-ufrag:their", "a=ice-ufrag:a b")], "ice"),
        ([("a=ice-ufrag:their", "a=ice-ufrag:" + "x" * 257)], "ice"),
        ([("a=rtcp-mux\r\n", "")], "rtcp_mux"),
        ([("a=mid:m1", "a=mid:m9")], "sections"),
        ([("m=audio", "m=application")], "data_channel"),
        ([("UDP/TLS/RTP/SAVPF", "RTP/AVP")], "media"),
        ([("m=video 9", "m=text 9")], "media"),
        ([(" 96 97 102 103", " 100 97 102 103"), (":96", ":100")], "payload_types"),
        ([("96 VP8/90000", "96 AV1/90000")], "payload_types"),
        ([("m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=audio 9 UDP/TLS/RTP/SAVPF 0")], "payload_types"),
        ([("a=extmap:3", "a=extmap:5")], "extensions"),
        ([("a=rtpmap:96 VP8/90000", "a=rtpmap:96")], "not_sdp"),
        ([("a=ssrc:11 cname:c", "a=ssrc:eleven cname:c")], "not_sdp"),
        ([("a=ssrc:11 cname:c", "a=ssrc:4294967296 cname:c")], "not_sdp"),
        ([("a=ssrc:11 cname:c", "a=ssrc:-1 cname:c")], "not_sdp"),
    ],
)
def test_an_answer_we_do_not_speak_is_refused_in_words(
    changes: list[tuple[str, str]], expected: str
) -> None:
    assert reason(answer(*changes)) == expected


def test_an_answer_with_fewer_sections_is_refused() -> None:
    text = answer()
    assert reason(text[: text.rindex("m=")]) == "sections"


def test_an_answer_with_very_many_sections_is_refused() -> None:
    text = answer()
    assert reason(text + text[text.rindex("m=") :] * 13) == "sections"


def test_two_different_fingerprints_are_refused() -> None:
    text = answer()
    at = text.rindex("AB:AB")
    assert reason(text[:at] + "CD" + text[at + 2 :]) == "fingerprint"


@given(st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=4)), max_size=6))
def test_a_damaged_answer_is_taken_or_refused_but_never_an_accident(
    damage: list[tuple[int, bytes]],
) -> None:
    data = bytearray(answer().encode())
    for where, what in damage:
        data[where % len(data) : where % len(data) + len(what)] = what
    try:
        read = read_answer(data.decode("latin-1"), SECTIONS)
    except SdpRefused:
        return
    assert list(read.sections) == [section.mid for section in SECTIONS]
    for section in read.sections.values():
        ssrcs = [ssrc for pair in section.sources for ssrc in pair if ssrc is not None]
        assert all(0 <= ssrc < 1 << 32 for ssrc in ssrcs)


BOTH, ONLY_VP8, ONLY_H264 = frozenset({96, 102}), frozenset({96}), frozenset({102})


@pytest.mark.parametrize(
    ("takers", "in_use", "first"),
    [
        ([], None, H264),
        ([BOTH, BOTH], None, H264),
        ([BOTH, ONLY_VP8], None, VP8),
        ([BOTH, ONLY_VP8], 102, VP8),
        ([BOTH, BOTH], 96, VP8),
        ([ONLY_VP8, ONLY_H264, ONLY_VP8], None, VP8),
    ],
    ids=["alone", "all can", "one cannot", "one cannot, in use", "kept", "most can"],
)
def test_the_codec_that_most_receivers_take_leads(
    takers: list[frozenset[int]], in_use: int | None, first: object
) -> None:
    ranked = rank_codecs((H264, VP8), takers, in_use)
    assert ranked[0] is first
    assert set(ranked) == {VP8, H264}


def hostile(*extra: str) -> str:
    """One section with as many `extra` lines as a description may have."""
    head = [
        "v=0", f"a=fingerprint:sha-256 {FINGERPRINT}", "a=setup:active", "a=ice-ufrag:their",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97", "a=mid:m0", "a=rtcp-mux", "a=sendonly",
    ]  # fmt: skip
    return "\r\n".join([*head, *extra[:1_190]]) + "\r\n"


def test_what_multiplies_in_the_parser_is_bounded_before_it() -> None:
    """1,190 lines, each of which the parser would hold against every codec or every source."""
    codecs = [f"a=rtpmap:{number % 250} VP8/90000" for number in range(595)]
    stars = ["a=rtcp-fb:* nack"] * 595
    (media,) = parse(checked_lines(hostile(codecs[96], *stars))).media
    assert [len(codec.rtcpFeedback) for codec in media.rtp.codecs] == [1], "said once, kept once"
    assert reason_of_parsing(hostile(*codecs, *stars)) == "too_large"
    assert reason_of_parsing(hostile(*(f"a=ssrc:{n} cname:x" for n in range(1_000)))) == "too_large"
    assert reason_of_parsing(hostile(*(f"a=extmap:{n} x" for n in range(1_000)))) == "too_large"
    foreign = hostile(*(f"a=rtcp-fb:{n} nack" for n in range(1_000)))
    assert parse(checked_lines(foreign)).media[0].rtp.codecs == []


def reason_of_parsing(sdp: str) -> str:
    with pytest.raises(SdpRefused) as refusal:
        parse(checked_lines(sdp))
    return str(refusal.value.details["reason"])


def test_a_source_with_many_lines_is_one_source() -> None:
    lines = [f"a=ssrc:{11 + n % 2} attribute{n}:x" for n in range(900)]
    (media,) = parse(checked_lines(hostile("a=ssrc-group:FID 11 12", *lines))).media
    assert sources_of(media) == ((11, 12),)


def test_foreign_codecs_of_an_answer_are_refused_before_they_are_parsed() -> None:
    assert reason(answer(("a=mid:m0", "a=mid:m0\r\na=rtpmap:120 VP9/90000"))) == "payload_types"


@pytest.mark.parametrize(
    "line",
    [
        "a=candidate:1 1 udp 1 192.0.2.1 1 typ host",
        "a=x-unknown:1",
        "a=rtcp-fb:96 strange",
        "a=rtcp-fb:120 nack",
        "b=AS:1",
        "a=rtcp-mux",
    ],
)
def test_what_we_never_use_or_know_already_is_not_parsed(line: str) -> None:
    """Counted, not timed: how many lines reach the parser, of all that were sent."""
    assert len(list(_used(checked_lines(hostile(*[line] * 400))))) < 10
