"""Fuzz targets for what comes as text: SDP, WHIP, signaling, Grants, byte ranges."""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bench.fuzz_target import Target, Taste, pieces, run_of
from cases.ranges import ByteRange, byte_range, range_applies
from core.errors import ReceptionError
from core.grants import GrantKey, GrantRefused, new_grant
from core.ids import AppointmentId, ParticipantId, RoomId, SessionId
from media.ice import Credentials
from media.offers import (
    AnswerSection,
    ClientOffer,
    OfferNotAcceptable,
    check_receiving,
    incoming_numbers,
    read_fragment,
    tracks_for,
    write_answer,
)
from media.outlets import Outlet
from media.sdp import SdpRefused, Section, read_answer, write_offer
from media.tracks import TrackName
from signaling import protocol, whip
from signaling.effects import (
    AnswerTaken,
    Entered,
    FetchOffer,
    GoLive,
    MediaConnected,
    MediaGone,
    OfferMade,
    Returned,
    Said,
    SessionStarted,
    SocketGone,
    SocketId,
    StartSession,
    TakeAnswer,
    Tick,
)
from signaling.protocol import RoomState, Unreadable
from signaling.room import Room
from signaling.rules import Rules

NOON: Final = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)
DIGEST: Final = ":".join(["AB"] * 32)
OURS: Final = Credentials("ourufrag", "ourpassword-ourpassword")
ADDRESSES: Final = (("192.0.2.1", 40_000),)
ROOM: Final = RoomId("a" * 32)
SESSION: Final = SessionId("5" * 32)
SECRET: Final = b"k" * 32
SECTIONS: Final = (
    Section("m0", "audio", "recvonly"),
    Section("m1", "video", "recvonly"),
    Section("m2", "audio", "sendonly", stream="s", cname="c", ssrc=11),
    Section("m3", "video", "sendonly", stream="s", cname="c", ssrc=12, rtx_ssrc=13),
)


# -- SDP -----------------------------------------------------------------------------------------


def our_offer() -> str:
    return write_offer(
        session=1,
        revision=1,
        credentials=OURS,
        fingerprint=DIGEST,
        addresses=ADDRESSES,
        sections=SECTIONS,
    )


def an_answer() -> str:
    """Our own offer turned round, as a browser would."""
    turned = {"a=recvonly": "a=sendonly\r\na=ssrc:21 cname:x", "a=sendonly": "a=recvonly"}
    lines = [turned.get(line, line) for line in our_offer().split("\r\n")]
    kept = [line for line in lines if not line.startswith(("a=ice-lite", "a=ssrc:1"))]
    return "\r\n".join(kept).replace("actpass", "active").replace(OURS.ufrag, "theirs")


def a_short_answer() -> str:
    """No more than what is asked for, so that more of what damages it hits something."""
    idle = ("a=candidate", "a=end-of", "a=msid", "c=", "a=rtcp:", "a=rtcp-fb", "a=fmtp:111", "s=")
    once = ("a=ice-", "a=fingerprint", "a=setup")  # one transport carries everything
    lines: list[str] = []
    for line in an_answer().split("\r\n"):
        if not line.startswith(idle) and not (line.startswith(once) and line in lines):
            lines.append(line)
    return "\r\n".join(lines)


def an_offer(direction: str = "sendonly", setup: str = "actpass") -> str:
    """What an encoder brings to WHIP, with numbers of its own, or a screen to WHEP."""
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]
    for mid, kind, numbers, codecs in (
        ("0", "audio", "100", ["100 opus/48000/2"]),
        ("1", "video", "107 108 120", ["107 H264/90000", "108 rtx/90000", "120 VP8/90000"]),
    ):
        lines += [
            f"m={kind} 9 UDP/TLS/RTP/SAVPF {numbers}",
            "c=IN IP4 0.0.0.0",
            "a=ice-ufrag:theirs",
            "a=ice-pwd:theirpassword-theirpassword",
            f"a=fingerprint:sha-256 {DIGEST}",
            f"a=setup:{setup}",
            "a=candidate:1 1 udp 2130706431 192.0.2.9 5000 typ host",
            f"a=mid:{mid}",
            f"a={direction}",
            "a=rtcp-mux",
            *(f"a=rtpmap:{codec}" for codec in codecs),
        ]
        if kind == "video":
            profile = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
            lines += [
                f"a=fmtp:107 {profile}",
                "a=fmtp:108 apt=107",
                "a=rtcp-fb:107 nack pli",
                "a=rtcp-fb:* nack",
                "a=extmap:4/recvonly urn:ietf:params:rtp-hdrext:sdes:mid",
                "a=ssrc-group:FID 31 32",
                "a=ssrc:31 cname:x",
                "a=ssrc:32 cname:x",
            ]
    return "\r\n".join(lines) + "\r\n"


def _answer() -> Taste:
    def taste(data: bytes) -> bool:
        try:
            answer = read_answer(data.decode("utf-8", "surrogatepass"), SECTIONS)
        except (SdpRefused, UnicodeDecodeError):
            return False  # the socket's library has refused what is not UTF-8
        assert len(answer.sections) == len(SECTIONS)
        assert all(len(section.sources) <= 4 for section in answer.sections.values())
        for section in answer.sections.values():
            for ssrc, rtx in section.sources:
                assert 0 <= ssrc < 1 << 32
                assert rtx is None or 0 <= rtx < 1 << 32
        return True

    return taste


def _answer_seeds() -> Sequence[bytes]:
    return [a_short_answer().encode(), an_answer().encode(), our_offer().encode()]


def _offer() -> Taste:
    def taste(data: bytes) -> bool:
        try:
            offer = whip._offer(data)
        except ReceptionError:
            return False
        for direction in ("recvonly", "sendonly"):
            _answer_it(offer, direction)
        return True

    return taste


def _answer_it(offer: ClientOffer, direction: Any) -> None:
    """All that follows from an offer that was read, up to our answer, which must be SDP again."""
    try:
        if direction == "recvonly":
            tracks_for(offer, [TrackName.CAMERA, TrackName.MICROPHONE])
            numbers = incoming_numbers(offer)
            assert all(0 <= theirs < 128 for theirs in numbers)
            sections = [AnswerSection(s, "recvonly", s.codecs[:1]) for s in offer.sections]
        else:
            check_receiving(offer)
            outlets = [Outlet(s) for s in offer.sections if s.is_receiving]
            assert all(0 <= n < 128 for outlet in outlets for n in outlet.numbers.values())
            sections = [outlet.answer() for outlet in outlets]
    except (SdpRefused, OfferNotAcceptable):
        return
    answer = write_answer(
        credentials=OURS,
        fingerprint=DIGEST,
        addresses=ADDRESSES,
        sections=sections,
        is_dtls_client=offer.is_dtls_server,
    )
    # Nothing of theirs begins a line of ours.
    known = ("v=", "o=", "s=", "t=", "m=", "c=", "a=")
    assert all(line.startswith(known) for line in answer.split("\r\n")[:-1]), answer
    assert "\n" not in answer.replace("\r\n", "")


def _fragment() -> Taste:
    def taste(data: bytes) -> None:
        try:
            read_fragment(whip._text(data))
        except SdpRefused:
            return

    return taste


def _door() -> Taste:
    """The headers of WHIP and WHEP: `authorization`, then `content-type`, a line each."""
    key = GrantKey(SECRET)

    def taste(data: bytes) -> None:
        # Header values reach us as Latin-1 (RFC 9110 §5.5).
        authorization, _, kind = data.decode("latin-1").partition("\n")
        with suppress(ReceptionError):
            whip.check_media_type(kind, whip.SDP_TYPE)
        try:
            key.verify(whip.bearer_of(authorization), now=NOON)
        except ReceptionError:
            return

    return taste


# -- Signaling -----------------------------------------------------------------------------------


def messages() -> list[dict[str, Any]]:
    """One of each that a client may send."""
    return [
        {"type": "hello", "versions": [1], "client": "page"},
        {"type": "join", "id": "1", "grant": "a.b.c"},
        {"type": "resume", "id": "2", "resume_token": "a.b.c", "last_seq": 7},
        {"type": "answer", "id": "3", "revision": 1, "sdp": "v=0"},
        {"type": "publish", "id": "4", "tracks": ["camera", "microphone"]},
        {"type": "mute", "id": "5", "track": "camera", "muted": True},
        {"type": "media_lost", "id": "6"},
        {"type": "admit", "id": "7"},
        {"type": "leave", "id": "8"},
        {"type": "end", "id": "9"},
        {"type": "ping", "t": 1.5},
    ]


def _message() -> Taste:
    def taste(data: bytes) -> bool:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return False  # the socket's library closes with 1007
        try:
            message = protocol.parse(text)
        except Unreadable as refused:
            protocol.Error(
                id=refused.request_id, code=refused.code, message=refused.message
            ).model_dump_json()
            return False
        assert protocol.CLIENT_MESSAGE.validate_json(message.model_dump_json()) == message
        return True

    return taste


def _message_seeds() -> Sequence[bytes]:
    """Each message plain, then as other writers of JSON would put it."""
    strange = [
        {"type": "join", "id": "\u00e9" * 64, "grant": "a" * 200 + "." + "b" * 300 + ".c"},
        {"type": "resume", "id": None, "resume_token": "a.b.c", "last_seq": 2**53, "more": [{}]},
        {"type": "publish", "id": "4", "tracks": ["camera", "camera", "screen", "microphone"]},
        {"type": "hello", "versions": list(range(32)), "client": "\U0001f4a9"},
        {"type": "answer", "id": "3", "revision": 0, "sdp": "v=0\r\n" * 20},
        {"type": "ping", "t": -1e300},
    ]
    return [
        *(json.dumps(m).encode() for m in messages()),
        *(json.dumps(m, ensure_ascii=False, indent=1).encode() for m in strange),
        b'{"type":"mute","type":"leave","id":"8","track":"camera","muted":1}',
    ]


def a_grant(role: str) -> Any:
    presides = role == "official"
    return new_grant(
        room_id=ROOM, appointment_id=AppointmentId(ROOM), participant_id=ParticipantId(f"{role}-1"),
        role=role, label_zh="席", label_bo=None, label_en=role,
        publish=("camera", "microphone"), may_admit=presides, may_end=presides,
        slot_ends_at=None, official_id="o" * 32, county_id="c" * 32,
        now=NOON, ttl=timedelta(minutes=1),
    )  # fmt: skip


_ROLES: Final = ("petitioner", "official")
_GRANTS: Final = tuple(a_grant(role) for role in _ROLES)
_HOLD: Final = 0x10
"""A run's kind byte: the low bit says who, the rest what; below this it is a message."""


class _Talk:
    """A room, two people who come, say and go, and a house that does what the room orders."""

    def __init__(self) -> None:
        self.room, self.now_ms = Room(ROOM, Rules(60_000, 3_000), 0), 1
        self.is_started = self.is_live = self.is_over = False
        self._sockets = 0
        self._current: dict[int, SocketId] = {}

    def fact(self, kind: int, body: bytes) -> Any:  # noqa: PLR0911  one line per fact
        """What a piece of a run means; None if it cannot happen now."""
        who = kind & 1
        person, socket_id = ParticipantId(f"{_ROLES[who]}-1"), self._current.get(who)
        if kind < _HOLD:
            message = _said(body)
            return Said(person, socket_id, message) if message and socket_id else None
        if kind < 0x60:
            return Entered(_GRANTS[who], self._come(who), "e", "token")
        if kind < 0x70:
            return Returned(_GRANTS[who], self._come(who), "r", "token", kind, None)
        if kind < 0x80:
            return SocketGone(person, self._current.pop(who)) if socket_id else None
        if kind < 0xB0:
            return MediaConnected(person)
        if kind < 0xB8:
            return MediaGone(person)
        self.now_ms += (kind & 0xF) * 700
        return Tick()

    def _come(self, who: int) -> SocketId:
        self._sockets += 1
        self._current[who] = SocketId(self._sockets)
        return self._current[who]

    def take(self, fact: Any) -> None:
        """One fact and all that follows from it."""
        waiting = [fact]
        while waiting:
            for effect in self.room.handle(waiting.pop(0), self.now_ms):
                waiting += self._perform(effect)
        assert self.room.state is not RoomState.LIVE or self.is_live
        assert self.room.is_over or not self.is_over
        self.is_over = self.room.is_over
        assert len(self.room.seats) <= len(_ROLES)

    def _perform(self, effect: Any) -> list[Any]:
        match effect:
            case StartSession():
                assert not self.is_started
                self.is_started = True
                return [SessionStarted(SESSION, NOON, 0)]
            case GoLive():
                assert self.is_started
                self.is_live = True
            case FetchOffer(peer):
                return [OfferMade(peer, 1, "v=0", ())]
            case TakeAnswer(peer, socket_id, request_id, revision):
                return [AnswerTaken(peer, socket_id, request_id, revision)]
            case _:
                pass
        return []


def _room() -> Taste:
    """Messages in any order: nothing flows before the Session is committed, the end is final."""

    def taste(data: bytes) -> None:
        talk = _Talk()
        for kind, body in pieces(data, 60):
            fact = talk.fact(kind, body)
            if fact is not None:
                talk.take(fact)

    return taste


def _said(body: bytes) -> Any:
    """A message that the endpoint would hand to the room, or None."""
    try:
        message = protocol.parse(body.decode())
    except (Unreadable, UnicodeDecodeError):
        return None
    early = protocol.Hello | protocol.Join | protocol.Resume | protocol.Ping
    return None if isinstance(message, early) else message


def _room_seeds() -> Sequence[bytes]:
    says = {m["type"]: json.dumps(m).encode() for m in messages()}
    both = [(0x20, b""), (0x21, b""), (0x90, b""), (0x91, b"")]
    live = [*both, (1, says["admit"]), (0xCF, b"")]
    return [
        run_of(*live),
        run_of(*live, (0, says["mute"]), (0, says["media_lost"]), (1, says["end"])),
        run_of(*both, (0, says["publish"]), (0, says["answer"]), (0, says["leave"])),
        run_of(*live, (0x70, b""), (0x60, b""), (0xB0, b""), (0x90, b""), (0, says["leave"])),
        run_of((1, says["admit"]), (0, says["end"]), *both, (1, says["leave"]), (0xC1, b"")),
    ]


# -- Grants and ranges ---------------------------------------------------------------------------


def _grant() -> Taste:
    """A first byte of 0 to 127 takes the rest as a token; beyond, as the text that we sign."""
    key = GrantKey(SECRET)

    def taste(data: bytes) -> None:
        if not data:
            return
        if data[0] < 128:
            token = data[1:].decode("utf-8", "surrogateescape")
        else:
            token = key._serialize(("grant", "resume")[data[0] & 1], data[1:])
        for is_taken in (_is_grant(key, token), _is_resume(key, token)):
            assert data[0] >= 128 or not is_taken, "a token that we never signed"

    return taste


def _is_grant(key: GrantKey, token: str) -> bool:
    try:
        key.verify(token, now=NOON)
    except GrantRefused:
        return False
    return True


def _is_resume(key: GrantKey, token: str) -> bool:
    try:
        key.verify_resume(token)
    except GrantRefused:
        return False
    return True


def _grant_seeds() -> Sequence[bytes]:
    grant = a_grant("official").model_copy(update={"grant_id": "9" * 32})
    text = grant.model_dump_json().encode()
    # Signed by somebody else; then the same words under our key.
    foreign = GrantKey(b"x" * 32)
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=")
    return [
        b"\0" + foreign.sign(grant).encode(),
        b"\0" + head + b".e30.",
        b"\x80" + text,
        b"\x81" + text,
    ]


def _range() -> Taste:
    """A size in eight bytes, then `Range`, a line end, `If-Range`."""

    def taste(data: bytes) -> None:
        size = int.from_bytes(data[:8], "big") >> 8
        header, _, condition = data[8:].decode("latin-1").partition("\n")
        found = byte_range(header, size)
        if isinstance(found, ByteRange):
            assert 0 <= found.start < found.end <= size
        range_applies(condition, '"etag"')

    return taste


TARGETS: Final = (
    Target("sdp-answer", _answer, _answer_seeds, 8192, "sdp"),
    Target(
        "sdp-offer",
        _offer,
        lambda: [
            an_offer().encode(),
            an_offer("recvonly").encode(),
            an_offer("sendrecv", "passive").encode(),
        ],
        8192,
        "sdp",
    ),
    Target(
        "sdp-fragment",
        _fragment,
        lambda: [b"a=ice-ufrag:theirs\r\na=ice-pwd:x\r\nm=audio 9 RTP/AVP 0\r\na=candidate:1\r\n"],
    ),
    Target(
        "whip-headers",
        _door,
        lambda: [
            f"Bearer {GrantKey(SECRET).sign(a_grant('official'))}\napplication/sdp".encode(),
            b"basic x\napplication/trickle-ice-sdpfrag; charset=utf-8",
        ],
    ),
    Target(
        "signaling",
        _message,
        _message_seeds,
        8192,
        "signaling",
    ),
    Target("room", _room, _room_seeds, 4096),
    Target("grant", _grant, _grant_seeds),
    Target(
        "range",
        _range,
        lambda: [
            (1_000_000 << 8).to_bytes(8, "big") + text
            for text in (b"bytes=0-99\n", b"bytes=-5\n", b'bytes=7-\n"etag"', b"bytes=0-1,5-9\n")
        ],
        512,
    ),
)
