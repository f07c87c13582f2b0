"""Offers we write, answers we accept. The server always offers; payload types are ours, for all.

Because every peer gets the same payload types, header-extension ids and, room-wide, the same `mid`
for the same publication, forwarding a packet rewrites its numbers and SSRC and nothing else. What
would break that (other numbers, DTLS the wrong way round, unbundled media) is refused in words.

An answer comes from outside: a strict pre-check bounds it before aiortc's parser sees a byte, and
its candidates are thrown away unread (media/ice.py says why). RFC 8829 (JSEP), 8843 (BUNDLE), 8866.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from aiortc.sdp import MediaDescription, SessionDescription

from core.errors import Conflict, Refused
from media.ice import Credentials
from media.tracks import CodecInfo, Kind

MAX_SDP_BYTES = 32 * 1024
MAX_SECTIONS = 16
MAX_LINES = 1200
MAX_LINE_CHARS = 1024
MAX_OF_A_KIND = 64
"""Lines of one section that say the same kind of thing: codecs, sources, extensions. Feedback is
bounded by the codecs that it is about."""

MID_EXTENSION: Final = 1
AUDIO_LEVEL_EXTENSION: Final = 2
ABS_SEND_TIME_EXTENSION: Final = 3
EXTENSIONS: Final[dict[int, str]] = {
    MID_EXTENSION: "urn:ietf:params:rtp-hdrext:sdes:mid",
    AUDIO_LEVEL_EXTENSION: "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    ABS_SEND_TIME_EXTENSION: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
}

OPUS: Final = CodecInfo("audio/opus", 111, 48_000, 2, "minptime=10;useinbandfec=1;usedtx=0")
VP8: Final = CodecInfo("video/VP8", 96, 90_000, 1, "")
H264: Final = CodecInfo(
    "video/H264",
    102,
    90_000,
    1,
    "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
)
CODECS: Final[dict[int, CodecInfo]] = {c.payload_type: c for c in (OPUS, VP8, H264)}
VIDEO_CODECS: Final[dict[str, CodecInfo]] = {"vp8": VP8, "h264": H264}
"""By the operator's word (`RECEPTION_VIDEO_CODECS`), in the order of preference of the house."""
RTX_OF: Final[dict[int, int]] = {VP8.payload_type: 97, H264.payload_type: 103}
"""Media payload type → the payload type of its retransmissions (RFC 4588)."""
PRIMARY_OF: Final[dict[int, int]] = {rtx: media for media, rtx in RTX_OF.items()}

FEEDBACK: Final[dict[Kind, tuple[str, ...]]] = {
    "audio": ("nack",),
    "video": ("goog-remb", "ccm fir", "nack", "nack pli"),
}
_KIND_EXTENSIONS: Final[dict[Kind, tuple[int, ...]]] = {
    "audio": (MID_EXTENSION, AUDIO_LEVEL_EXTENSION),
    # abs-send-time is rewritten on the way out, so it may not ride on packets that are ever sent
    # twice under one number: audio is repaired by plain repetition (see router.py).
    "video": (MID_EXTENSION, ABS_SEND_TIME_EXTENSION),
}


class SdpRefused(Refused):
    """An answer we cannot or will not use. `details["reason"]` is the machine's word for it."""

    code = "sdp_refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)


class StaleAnswer(Conflict):
    """The answer is to an offer that has been replaced, or answered already."""

    code = "stale_answer"


@dataclass(frozen=True, slots=True)
class Section:
    """One m-section of an offer, seen from the server.

    `recvonly` takes a publication from this client, `sendonly` forwards one to it (then `ssrc` and,
    for video, `rtx_ssrc` are set). `stream` groups tracks that must play in step. `codecs`: what is
    offered, best first (RFC 8829 §5.3.1: the answerer keeps the order, and sends the first it can).
    """

    mid: str
    kind: Kind
    direction: Literal["recvonly", "sendonly", "inactive"]
    stream: str = "-"
    cname: str = ""
    ssrc: int = 0
    rtx_ssrc: int = 0
    codecs: tuple[CodecInfo, ...] = ()

    @property
    def offered(self) -> tuple[CodecInfo, ...]:
        """The codecs of this section; all of its kind if none are named."""
        return self.codecs or tuple(c for c in CODECS.values() if c.mime.startswith(self.kind))


@dataclass(frozen=True, slots=True)
class AnsweredSection:
    """What the client made of a section. `sources` are (ssrc, rtx ssrc or None) that it sends."""

    mid: str
    is_sending: bool
    is_receiving: bool
    payload_types: frozenset[int]
    sources: tuple[tuple[int, int | None], ...]
    has_nack: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The client's transport and its sections by mid."""

    ufrag: str
    fingerprint: str
    sections: dict[str, AnsweredSection]


# -- Choosing ------------------------------------------------------------------------------------


def rank_codecs(
    preferred: Sequence[CodecInfo],
    takers: Sequence[frozenset[int]],
    in_use: int | None = None,
) -> tuple[CodecInfo, ...]:
    """`preferred`, reordered for a publisher whose receivers take these payload types.

    Nothing is transcoded, so what more receivers take goes before what the house prefers. Among
    equals the codec `in_use` stays: a change costs a keyframe and splits the recording. None is
    left out: whoever cannot send the first sends the next, and no section is ever refused.
    """

    def rank(codec: CodecInfo) -> tuple[int, bool]:
        number = codec.payload_type
        return (-sum(number in taken for taken in takers), number != in_use)

    return tuple(sorted(preferred, key=rank))


# -- Writing -------------------------------------------------------------------------------------


def write_offer(
    *,
    session: int,
    revision: int,
    credentials: Credentials,
    fingerprint: str,
    addresses: Sequence[tuple[str, int]],
    sections: Sequence[Section],
) -> str:
    """The offer for one leg. `addresses` are where the node can be reached, best first."""
    transport = [
        f"a=ice-ufrag:{credentials.ufrag}",
        f"a=ice-pwd:{credentials.password}",
        f"a=fingerprint:sha-256 {fingerprint}",
        "a=setup:actpass",
        *(candidate_line(rank, *address) for rank, address in enumerate(addresses)),
        "a=end-of-candidates",
    ]
    lines = [
        "v=0",
        f"o=- {session} {revision} IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=ice-lite",
        "a=group:BUNDLE " + " ".join(section.mid for section in sections),
        "a=msid-semantic: WMS *",
    ]
    for section in sections:
        lines += _section_lines(section, transport)
    return "\r\n".join(lines) + "\r\n"


def candidate_line(rank: int, ip: str, port: int) -> str:
    # RFC 8445 §5.1.2: host type preference 126; earlier addresses get the higher local preference.
    priority = (126 << 24) | ((65_535 - rank) << 8) | 255
    return f"a=candidate:{rank + 1} 1 udp {priority} {ip} {port} typ host"


def _section_lines(section: Section, transport: list[str]) -> list[str]:
    codecs = section.offered
    numbers = [
        number
        for codec in codecs
        for number in (codec.payload_type, RTX_OF.get(codec.payload_type))
        if number is not None
    ]
    lines = [
        f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, numbers))}",
        "c=IN IP4 0.0.0.0",
        "a=rtcp:9 IN IP4 0.0.0.0",
        *transport,
        f"a=mid:{section.mid}",
        *(f"a=extmap:{number} {EXTENSIONS[number]}" for number in _KIND_EXTENSIONS[section.kind]),
        f"a={section.direction}",
        "a=rtcp-mux",
        "a=rtcp-rsize",
    ]
    for codec in codecs:
        lines += _codec_lines(codec, section.kind)
    if section.direction == "sendonly":
        lines.append(f"a=msid:{section.stream} {section.mid}")
        if section.rtx_ssrc:
            lines.append(f"a=ssrc-group:FID {section.ssrc} {section.rtx_ssrc}")
        for ssrc in filter(None, (section.ssrc, section.rtx_ssrc)):
            lines.append(f"a=ssrc:{ssrc} cname:{section.cname}")
            lines.append(f"a=ssrc:{ssrc} msid:{section.stream} {section.mid}")
    return lines


def _codec_lines(codec: CodecInfo, kind: Kind) -> list[str]:
    number, name = codec.payload_type, codec.mime.partition("/")[2]
    channels = f"/{codec.channels}" if codec.channels > 1 else ""
    lines = [f"a=rtpmap:{number} {name}/{codec.clock_rate}{channels}"]
    lines += [f"a=rtcp-fb:{number} {feedback}" for feedback in FEEDBACK[kind]]
    if codec.fmtp:
        lines.append(f"a=fmtp:{number} {codec.fmtp}")
    if (rtx := RTX_OF.get(number)) is not None:
        lines += [f"a=rtpmap:{rtx} rtx/{codec.clock_rate}", f"a=fmtp:{rtx} apt={number}"]
    return lines


# -- Reading -------------------------------------------------------------------------------------

_LINE = re.compile(r"[a-z]=[ -\U0010ffff]*")
_MEDIA_LINE = re.compile(r"m=(audio|video) (\d{1,5}) UDP/TLS/RTP/SAVPF((?: \d{1,3}){1,64})")
_RTPMAP = re.compile(r"a=rtpmap:(\d{1,9}) ")
_OUR_NUMBERS: Final = frozenset((*CODECS, *PRIMARY_OF))
FINGERPRINT = re.compile(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}")
ICE_TEXT = re.compile(r"[A-Za-z0-9+/]{4,256}")


def read_answer(sdp: str, offered: Sequence[Section]) -> Answer:
    """The client's answer to an offer of exactly these sections.

    Raises SdpRefused, with a reason and words, for anything this node does not speak.
    """
    lines = checked_lines(sdp)
    digest = only_value(lines, "a=fingerprint:sha-256 ", "fingerprint").upper()
    if not FINGERPRINT.fullmatch(digest):
        raise SdpRefused("fingerprint", "The SHA-256 certificate fingerprint is malformed.")
    if only_value(lines, "a=setup:", "setup") != "active":
        raise SdpRefused("setup", "This server is always the DTLS server; answer setup:active.")
    ufrag = only_value(lines, "a=ice-ufrag:", "ice")
    if not ICE_TEXT.fullmatch(ufrag):
        raise SdpRefused("ice", "The answer's ICE username fragment is malformed.")
    if any(int(found[1]) not in _OUR_NUMBERS for found in map(_RTPMAP.match, lines) if found):
        raise SdpRefused("payload_types", "The answer must keep the offer's payload types.")
    description = parse(lines)
    if len(description.media) != len(offered):
        raise SdpRefused("sections", "The answer must have as many m-sections as the offer.")
    sections = {}
    for section, media in zip(offered, description.media, strict=True):
        sections[section.mid] = _answered(section, media)
    return Answer(ufrag=ufrag, fingerprint=digest, sections=sections)


def checked_lines(sdp: str) -> list[str]:
    """The lines, bounded in number and length and of shapes that the parser can bear."""
    if len(sdp) > MAX_SDP_BYTES or len(sdp.encode("utf-8", "replace")) > MAX_SDP_BYTES:
        raise SdpRefused("too_large", "The session description is larger than 32 KiB.")
    lines = sdp.replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) > MAX_LINES or any(len(line) > MAX_LINE_CHARS for line in lines):
        raise SdpRefused("too_large", "The session description has too many or too long lines.")
    if lines[0] != "v=0" or not all(map(_LINE.fullmatch, lines)):
        raise SdpRefused("not_sdp", "This is not a session description.")
    media = [line for line in lines if line.startswith("m=")]
    if len(media) > MAX_SECTIONS:
        raise SdpRefused("sections", f"More than {MAX_SECTIONS} m-sections.")
    if any(line.startswith("m=application") for line in media):
        raise SdpRefused("data_channel", "Data channels are not spoken here.")
    if not media or not all(_MEDIA_LINE.fullmatch(line) for line in media):
        raise SdpRefused("media", "Only audio and video over UDP/TLS/RTP/SAVPF are spoken here.")
    return lines


def only_value(lines: list[str], prefix: str, reason: str) -> str:
    """The value that all lines with this prefix agree on: one transport carries everything."""
    values = {line.removeprefix(prefix).strip() for line in lines if line.startswith(prefix)}
    if len(values) != 1:
        name = prefix[2:].strip(" :")
        raise SdpRefused(reason, f"The description must say {name} once, or the same each time.")
    return values.pop()


def parse(lines: Sequence[str]) -> SessionDescription:
    """What checked lines say, as far as we use it. Raises SdpRefused (`not_sdp`, `too_large`)."""
    try:
        return SessionDescription.parse("\r\n".join(_used(lines)) + "\r\n")
    except (ValueError, AssertionError, AttributeError, LookupError, TypeError, StopIteration):
        # aiortc's parser assumes well-formed input and says otherwise in many ways.
        raise SdpRefused("not_sdp", "The session description cannot be read.") from None


_READ: Final = frozenset((
    "group", "mid", "rtcp-mux", "extmap", "rtpmap", "fmtp", "rtcp-fb", "ssrc", "ssrc-group",
    "sendrecv", "sendonly", "recvonly", "inactive",
))  # fmt: skip
_READ_FEEDBACK: Final = frozenset(value for values in FEEDBACK.values() for value in values)
_ATTRIBUTE: Final = re.compile(r"a=([^:]*):?([^ ]*) ?(.*)", re.DOTALL)


def _used(lines: Sequence[str]) -> Iterator[str]:
    """The lines that are parsed: those that we use, each once a section.

    The parser walks all codecs for each line about a codec, and all sources for each about a
    source: 600 of both would hold the loop for 0.4 s. So what says nothing new, or what we never
    ask for, it does not see; candidates least of all.
    """
    numbers: frozenset[str] = frozenset()
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    for line in lines:
        if line[0] != "a":
            if line[0] == "m":
                numbers = frozenset(line.split(" ")[3:])
                counts.clear()
                seen.clear()
            if line[0] in "vostm":
                yield line
            continue
        found = _ATTRIBUTE.fullmatch(line)
        assert found is not None
        name, about, value = found.groups()
        if name not in _READ:
            continue
        if name == "rtcp-fb" and not (
            value in _READ_FEEDBACK and (about == "*" or about in numbers)
        ):
            continue
        # Of a source its number is all we read.
        key = (name, about, "" if name == "ssrc" else value)
        if key in seen:
            continue
        seen.add(key)
        counts[name] += 1
        if counts[name] > MAX_OF_A_KIND and name != "rtcp-fb":
            raise SdpRefused("too_large", f"A section has more than {MAX_OF_A_KIND} {name} lines.")
        yield line


def _answered(section: Section, media: MediaDescription) -> AnsweredSection:
    if media.rtp.muxId != section.mid or media.kind != section.kind:
        raise SdpRefused("sections", "The answer's m-sections are not those of the offer.")
    if media.port == 0:
        return AnsweredSection(section.mid, False, False, frozenset(), (), has_nack=False)
    if not media.rtcp_mux:
        raise SdpRefused("rtcp_mux", "RTCP must be multiplexed with RTP.")
    _check_numbers(media)
    direction = media.direction or "sendrecv"
    codecs = [c for c in media.rtp.codecs if c.payloadType in CODECS]
    return AnsweredSection(
        mid=section.mid,
        is_sending=section.direction == "recvonly" and direction in ("sendonly", "sendrecv"),
        is_receiving=section.direction == "sendonly" and direction in ("recvonly", "sendrecv"),
        payload_types=frozenset(int(number) for number in media.fmt),
        sources=sources_of(media),
        has_nack=any(f.type == "nack" and not f.parameter for c in codecs for f in c.rtcpFeedback),
    )


def _check_numbers(media: MediaDescription) -> None:
    """Payload types and extension ids must be the offered ones: everybody shares them."""
    for codec in media.rtp.codecs:
        ours = CODECS.get(codec.payloadType or 0)
        if ours is not None:
            is_same = codec.mimeType.lower() == ours.mime.lower()
        else:
            is_same = codec.payloadType in PRIMARY_OF and codec.name.lower() == "rtx"
        if not is_same or codec.payloadType not in media.fmt:
            raise SdpRefused("payload_types", "The answer must keep the offer's payload types.")
    if not any(number in CODECS for number in media.fmt):
        raise SdpRefused("codecs", "None of the offered codecs was accepted.")
    for extension in media.rtp.headerExtensions:
        if extension.id is None or EXTENSIONS.get(extension.id) != extension.uri:
            raise SdpRefused("extensions", "The answer must keep the offer's header extensions.")


def sources_of(media: MediaDescription) -> tuple[tuple[int, int | None], ...]:
    """The SSRCs that are announced, and for each that of its repairs (RFC 5576 §4.1, §4.2), at most
    four. Raises SdpRefused for numbers that no SSRC can have."""
    repairs = {
        int(group.items[0]): int(group.items[1])
        for group in media.ssrc_group
        if group.semantic == "FID" and len(group.items) == 2
    }
    known = [description.ssrc for description in media.ssrc]
    repairing = set(repairs.values())
    if not all(0 <= ssrc < 1 << 32 for ssrc in (*known, *repairs, *repairing)):
        raise SdpRefused("not_sdp", "An SSRC is a number of 32 bits.")
    return tuple((ssrc, repairs.get(ssrc)) for ssrc in known if ssrc not in repairing)[:4]
