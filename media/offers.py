"""Offers that clients write, answers that we write: WHIP publishers and WHEP screens.

Everywhere else the server offers and its payload types are everyone's (media/sdp.py). A client
that speaks WHIP or WHEP brings its own numbers, so a section's codecs are read as pairs, ours and
theirs, and its packets are renumbered once, apart from the hot loop (media/router.py). No header
extension is ever accepted from such a client: their ids would be its own too. RFC 9725 §4.4;
RFC 3264 §6.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.sdp import MediaDescription

from core.errors import ReceptionError
from media.ice import Credentials
from media.sdp import (
    CODECS,
    FEEDBACK,
    FINGERPRINT,
    H264,
    ICE_TEXT,
    RTX_OF,
    SdpRefused,
    candidate_line,
    checked_lines,
    only_value,
    parse,
    sources_of,
)
from media.tracks import CodecInfo, Kind, TrackName

# Baseline and constrained baseline: what every browser in the room can show (RFC 6184 §8.1).
_BASELINE: Final = "42"
_MID = re.compile(r"[!-~]{1,32}")
MAX_FRAGMENT_BYTES: Final = 16 * 1024


class OfferNotAcceptable(ReceptionError):
    """A description that we read, with sections that we do not take (RFC 9725 §4.4.2, §4.4.3)."""

    code = "offer_not_acceptable"
    status = 406


@dataclass(frozen=True, slots=True)
class PairedCodec:
    """A codec that both sides speak: our description of it, and the client's numbers for it."""

    ours: CodecInfo
    number: int
    rtx: int | None
    fmtp: str
    feedback: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OfferedSection:
    """One m-section of a client's offer. `codecs`: those we speak too, in the client's order.

    `numbers` are all of its payload types, for a section that is refused in the answer.
    """

    mid: str
    kind: Kind
    is_sending: bool
    is_receiving: bool
    codecs: tuple[PairedCodec, ...]
    numbers: tuple[int, ...]
    sources: tuple[tuple[int, int | None], ...]


@dataclass(frozen=True, slots=True)
class ClientOffer:
    """The client's transport and its sections. `is_dtls_server`: it left us the client's part."""

    ufrag: str
    fingerprint: str
    is_dtls_server: bool
    sections: tuple[OfferedSection, ...]

    @property
    def sending(self) -> tuple[OfferedSection, ...]:
        return tuple(section for section in self.sections if section.is_sending)

    @property
    def receiving(self) -> tuple[OfferedSection, ...]:
        return tuple(section for section in self.sections if section.is_receiving)


@dataclass(frozen=True, slots=True)
class AnswerSection:
    """What we make of an offered section. `codecs` empty: refused. `sendonly` names its SSRCs."""

    offered: OfferedSection
    direction: Literal["recvonly", "sendonly", "inactive"] = "inactive"
    codecs: tuple[PairedCodec, ...] = ()
    ssrc: int = 0
    rtx_ssrc: int = 0


@dataclass(frozen=True, slots=True)
class Fragment:
    """A trickle-ice-sdpfrag (RFC 8840 §9). Candidates are not kept: see media/ice.py for why."""

    ufrag: str | None
    lines: tuple[str, ...] = field(repr=False, default=())


# -- Reading -------------------------------------------------------------------------------------


def read_offer(sdp: str) -> ClientOffer:
    """A client's offer. Raises SdpRefused, with a reason and words, for what we do not speak."""
    lines = checked_lines(sdp)
    digest = only_value(lines, "a=fingerprint:sha-256 ", "fingerprint").upper()
    if not FINGERPRINT.fullmatch(digest):
        raise SdpRefused("fingerprint", "The SHA-256 certificate fingerprint is malformed.")
    setup = only_value(lines, "a=setup:", "setup")
    if setup not in ("actpass", "active", "passive"):
        raise SdpRefused("setup", "Offer setup:actpass, active or passive.")
    ufrag = only_value(lines, "a=ice-ufrag:", "ice")
    if not ICE_TEXT.fullmatch(ufrag):
        raise SdpRefused("ice", "The offer's ICE username fragment is malformed.")
    description = parse(lines)
    bundled = {m for g in description.group if g.semantic == "BUNDLE" for m in map(str, g.items)}
    starts = [at for at, line in enumerate(lines) if line.startswith("m=")]
    sections = []
    for media, (start, end) in zip(description.media, pairwise([*starts, len(lines)]), strict=True):
        # RFC 9143 §7.2.1: port 0 with bundle-only is an offer, port 0 alone a refusal.
        is_offered = media.port != 0 or "a=bundle-only" in lines[start:end]
        section = _section(media, is_offered=is_offered)
        if is_offered and len(starts) > 1 and section.mid not in bundled:
            raise SdpRefused("bundle", "All sections must be in one BUNDLE group.")
        sections.append(section)
    if len({section.mid for section in sections}) != len(sections):
        raise SdpRefused("sections", "Each section needs a mid of its own.")
    return ClientOffer(ufrag, digest, setup == "passive", tuple(sections))


def _section(media: MediaDescription, *, is_offered: bool) -> OfferedSection:
    mid: str | None = media.rtp.muxId  # None: an "a=mid" that says nothing
    if mid is None or (mid and not _MID.fullmatch(mid)):
        raise SdpRefused("sections", "The mid of a section is malformed.")
    if is_offered and not media.rtcp_mux:
        raise SdpRefused("rtcp_mux", "RTCP must be multiplexed with RTP.")
    kind: Kind = "audio" if media.kind == "audio" else "video"
    direction = media.direction or "sendrecv"
    return OfferedSection(
        mid=mid,
        kind=kind,
        is_sending=is_offered and direction in ("sendonly", "sendrecv"),
        is_receiving=is_offered and direction in ("recvonly", "sendrecv"),
        codecs=_paired(media, kind),
        numbers=tuple(int(number) for number in media.fmt),
        sources=sources_of(media),
    )


def _paired(media: MediaDescription, kind: Kind) -> tuple[PairedCodec, ...]:
    """Each codec of ours at most once, in the client's order."""
    theirs = {codec.payloadType: codec for codec in media.rtp.codecs}
    repairs = {
        str(codec.parameters.get("apt")): number
        for number, codec in theirs.items()
        if codec.name.lower() == "rtx"
    }
    found: dict[int, PairedCodec] = {}
    for number in media.fmt:
        codec = theirs.get(number)
        ours = _ours(codec) if codec is not None else None
        if codec is None or ours is None or ours.payload_type in found:
            continue
        said = {f"{f.type} {f.parameter or ''}".strip() for f in codec.rtcpFeedback}
        found[ours.payload_type] = PairedCodec(
            ours=ours,
            number=int(number),
            rtx=repairs.get(str(number)) if ours.payload_type in RTX_OF else None,
            fmtp=_fmtp(ours, codec),
            feedback=tuple(each for each in FEEDBACK[kind] if each in said),
        )
    return tuple(found.values())


def _ours(codec: RTCRtpCodecParameters) -> CodecInfo | None:
    """Our description of a client's codec; None if we do not speak it."""
    for ours in CODECS.values():
        if codec.mimeType.lower() != ours.mime.lower() or codec.clockRate != ours.clock_rate:
            continue
        if ours is H264 and not (
            str(codec.parameters.get("packetization-mode", 0)) == "1"
            and _profile(codec).startswith(_BASELINE)
        ):
            return None
        return ours
    return None


def _profile(codec: RTCRtpCodecParameters) -> str:
    # RFC 6184 §8.1: without the parameter it is baseline at level 1.
    return str(codec.parameters.get("profile-level-id", "42000a")).lower()


def _fmtp(ours: CodecInfo, codec: RTCRtpCodecParameters) -> str:
    """The format parameters of the answer. H.264 keeps the client's profile (RFC 6184 §8.2.2)."""
    if ours is not H264:
        return ours.fmtp
    return f"level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={_profile(codec)}"


def read_fragment(text: str) -> Fragment:
    """A trickle-ice-sdpfrag. Raises SdpRefused (`not_sdp`) for anything else."""
    if len(text) > MAX_FRAGMENT_BYTES:
        raise SdpRefused("too_large", "The ICE fragment is larger than 16 KiB.")
    lines = text.replace("\r\n", "\n").strip("\n").split("\n")
    if not all(line.startswith(("a=", "m=")) and line.isprintable() for line in lines):
        raise SdpRefused("not_sdp", "This is not an ICE fragment.")
    names = {line.partition(":")[2] for line in lines if line.startswith("a=ice-ufrag:")}
    if len(names) > 1 or not all(ICE_TEXT.fullmatch(name) for name in names):
        raise SdpRefused("ice", "The ICE username fragment is malformed.")
    return Fragment(next(iter(names), None), tuple(lines))


# -- Choosing ------------------------------------------------------------------------------------


def tracks_for(offer: ClientOffer, allowed: Sequence[TrackName]) -> tuple[TrackName, ...]:
    """Which tracks a WHIP offer publishes: per kind the first that its Grant allows.

    One section of a kind at most, and none is left out silently: a publisher that believes to be
    seen must be. Raises OfferNotAcceptable in words (RFC 9725 §4.4.2, §4.4.3), SdpRefused for an
    offer that sends nothing.
    """
    if not offer.sending:
        raise SdpRefused("direction", "Nothing is sent in this offer. Offer sendonly sections.")
    chosen: list[TrackName] = []
    for section in offer.sections:
        if not section.is_sending:
            raise OfferNotAcceptable("Offer only sections that send.")
        name = next((name for name in allowed if name.kind == section.kind), None)
        if name is None:
            raise OfferNotAcceptable(f"This Grant does not include {section.kind}. Leave it out.")
        if name in chosen:
            raise OfferNotAcceptable(f"Send one {section.kind} section, not more.")
        if not section.codecs:
            raise OfferNotAcceptable(
                "No codec of this offer is spoken here. Send Opus, VP8 or H.264 baseline with "
                "packetization-mode 1.",
                kind=section.kind,
            )
        chosen.append(name)
    return tuple(chosen)


def check_receiving(offer: ClientOffer) -> None:
    """Raise unless a WHEP offer receives, and only that, in codecs that we speak."""
    if not offer.receiving:
        raise SdpRefused("direction", "Nothing is received in this offer. Offer recvonly sections.")
    if offer.sending and any(not section.is_receiving for section in offer.sending):
        raise OfferNotAcceptable("A screen only receives. Offer recvonly sections.")
    if not all(section.codecs for section in offer.receiving):
        raise OfferNotAcceptable("A section of this offer has no codec that is spoken here.")


def incoming_numbers(offer: ClientOffer) -> dict[int, int]:
    """Their payload types → ours, of what a WHIP client was told to send: one codec a section."""
    numbers: dict[int, int] = {}
    for section in offer.sending:
        codec = section.codecs[0]
        numbers[codec.number] = codec.ours.payload_type
        if codec.rtx is not None:
            numbers[codec.rtx] = RTX_OF[codec.ours.payload_type]
    return numbers


def outgoing_numbers(section: OfferedSection) -> Mapping[int, int]:
    """Our payload types → theirs, of everything that may be sent in this section."""
    numbers = {codec.ours.payload_type: codec.number for codec in section.codecs}
    for codec in section.codecs:
        if codec.rtx is not None:
            numbers[RTX_OF[codec.ours.payload_type]] = codec.rtx
    return numbers


# -- Writing -------------------------------------------------------------------------------------


def write_answer(
    *,
    credentials: Credentials,
    fingerprint: str,
    addresses: Sequence[tuple[str, int]],
    sections: Sequence[AnswerSection],
    is_dtls_client: bool,
) -> str:
    """Our answer. All of our candidates are in it, so nothing has to be trickled to the client."""
    transport = [
        *transport_lines(credentials, addresses),
        f"a=fingerprint:sha-256 {fingerprint}",
        f"a=setup:{'active' if is_dtls_client else 'passive'}",
    ]
    taken = [section.offered.mid for section in sections if section.codecs]
    lines = [
        "v=0",
        f"o=- {secrets.randbits(62)} 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=ice-lite",
        f"a=group:BUNDLE {' '.join(taken)}",
        "a=msid-semantic: WMS *",
    ]
    for section in sections:
        lines += _answer_lines(section, transport)
    return "\r\n".join(lines) + "\r\n"


def write_fragment(credentials: Credentials, addresses: Sequence[tuple[str, int]]) -> str:
    """The body that answers an ICE restart (RFC 9725 §4.3.3)."""
    return "\r\n".join(["a=ice-lite", *transport_lines(credentials, addresses)]) + "\r\n"


def transport_lines(credentials: Credentials, addresses: Sequence[tuple[str, int]]) -> list[str]:
    return [
        f"a=ice-ufrag:{credentials.ufrag}",
        f"a=ice-pwd:{credentials.password}",
        *(candidate_line(rank, *address) for rank, address in enumerate(addresses)),
        "a=end-of-candidates",
    ]


def _answer_lines(section: AnswerSection, transport: Sequence[str]) -> list[str]:
    offered = section.offered
    mid = [f"a=mid:{offered.mid}"] if offered.mid else []
    if not section.codecs:
        numbers = " ".join(map(str, offered.numbers))
        return [f"m={offered.kind} 0 UDP/TLS/RTP/SAVPF {numbers}", "c=IN IP4 0.0.0.0", *mid,
                "a=inactive"]  # fmt: skip
    numbers = " ".join(str(n) for codec in section.codecs for n in (codec.number, codec.rtx) if n)
    lines = [
        f"m={offered.kind} 9 UDP/TLS/RTP/SAVPF {numbers}",
        "c=IN IP4 0.0.0.0",
        "a=rtcp:9 IN IP4 0.0.0.0",
        *transport,
        *mid,
        f"a={section.direction}",
        "a=rtcp-mux",
        "a=rtcp-rsize",
    ]
    for codec in section.codecs:
        lines += _codec_lines(codec)
    if section.direction == "sendonly":
        # One stream per section: which party a section shows may change while it plays.
        stream = f"reception-{offered.mid}"
        lines.append(f"a=msid:{stream} {stream}-track")
        if section.rtx_ssrc:
            lines.append(f"a=ssrc-group:FID {section.ssrc} {section.rtx_ssrc}")
        for ssrc in filter(None, (section.ssrc, section.rtx_ssrc)):
            lines.append(f"a=ssrc:{ssrc} cname:reception")
            lines.append(f"a=ssrc:{ssrc} msid:{stream} {stream}-track")
    return lines


def _codec_lines(codec: PairedCodec) -> list[str]:
    name = codec.ours.mime.partition("/")[2]
    channels = f"/{codec.ours.channels}" if codec.ours.channels > 1 else ""
    lines = [f"a=rtpmap:{codec.number} {name}/{codec.ours.clock_rate}{channels}"]
    lines += [f"a=rtcp-fb:{codec.number} {each}" for each in codec.feedback]
    if codec.fmtp:
        lines.append(f"a=fmtp:{codec.number} {codec.fmtp}")
    if codec.rtx is not None:
        lines.append(f"a=rtpmap:{codec.rtx} rtx/{codec.ours.clock_rate}")
        lines.append(f"a=fmtp:{codec.rtx} apt={codec.number}")
    return lines
