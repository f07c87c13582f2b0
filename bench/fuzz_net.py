"""Fuzz targets for what comes as datagrams and is parsed one by one: STUN, RTP, RTCP."""

import hmac
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from aioice import stun
from aiortc.rtp import RtcpPsfbPacket

from bench.fuzz_target import Target, Taste
from media.ice import Credentials, answer_check
from media.rtp import (
    HEADER,
    build_nack,
    build_pli,
    build_receiver_report,
    build_remb,
    build_sender_report,
    find_extension,
    parse_rtcp,
    payload_length,
    payload_offset,
    read_remb,
    renumbered,
    restore_rtx,
    wrap_rtx,
)
from media.sdp import H264, OPUS, RTX_OF, VP8

CAMERA_SSRC, CAMERA_RTX, SOUND_SSRC = 1111, 1112, 2222
TO_BOB, SOUND_TO_BOB = 3333, 4444
OURS: Final = Credentials("ourufrag12345678", "ourpassword-ourpassword!")


# -- STUN ----------------------------------------------------------------------------------------


def _stun() -> Taste:
    """A first byte of 128 and more: the rest is signed as a check of someone who knows the password
    would be, so its attributes are read."""
    key = OURS.password.encode()

    def taste(data: bytes) -> bool:
        datagram = data[1:]
        if data[:1] >= b"\x80":
            datagram = signed(datagram, key)
        check = answer_check(
            datagram,
            ("192.0.2.1", 5000),
            lambda name: OURS.password if name == OURS.ufrag else None,
        )
        if check is not None:
            assert check.ufrag == OURS.ufrag
            # Never an amplifier: what goes back is no longer than what came, but for our own tail.
            assert len(check.response) <= len(datagram) + 64
            assert stun.parse_message(check.response).check_message_integrity(key)
        return check is not None

    return taste


def signed(body: bytes, key: bytes) -> bytes:
    """A message whose header tells the truth about its length, and whose integrity holds."""
    body = body[20:] if len(body) >= 20 else body
    body = body[: len(body) & ~3]
    transaction = hmac.digest(b"transaction", body, "sha1")
    head = struct.pack("!HHI12s", 1, len(body) + 24, stun.COOKIE, transaction)
    return head + body + b"\0\x08\0\x14" + hmac.digest(key, head + body, "sha1")


def a_check(**attributes: object) -> bytes:
    request = stun.Message(
        stun.Method.BINDING,
        stun.Class.REQUEST,
        transaction_id=b"transaction!",
        attributes={"USERNAME": f"{OURS.ufrag}:theirs", "PRIORITY": 1, **attributes},
    )
    request.add_message_integrity(OURS.password.encode())
    return bytes(request)


def _stun_seeds() -> Sequence[bytes]:
    checks = [
        a_check(**{"ICE-CONTROLLING": 1, "USE-CANDIDATE": None}),
        a_check(**{"ICE-CONTROLLED": 1}),
        a_check(**{"XOR-MAPPED-ADDRESS": ("192.0.2.7", 9), "SOFTWARE": "x"}),
    ]
    return [bytes([mode]) + check for check in checks for mode in (0, 128)]


# -- RTP and RTCP --------------------------------------------------------------------------------


def rtp(
    seq: int,
    ssrc: int = CAMERA_SSRC,
    payload_type: int = VP8.payload_type,
    payload: bytes = b"\x90\x80\x81\x22\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00",
    extension: bytes = b"",
) -> bytes:
    """A plain packet. `extension`: elements of the one-byte form."""
    head = HEADER.pack(0x90 if extension else 0x80, payload_type, seq, seq * 3000, ssrc)
    if extension:
        extension += bytes(-len(extension) % 4)
        head += b"\xbe\xde" + (len(extension) // 4).to_bytes(2, "big") + extension
    return head + payload


MID: Final = b"\x11m0"
LEVEL: Final = b"\x20\x9e"
STAMP: Final = b"\x32abc"


def packets() -> list[bytes]:
    sound = OPUS.payload_type
    padded = bytearray(rtp(7, payload=b"\0\0\0\4"))
    padded[0] |= 0x20
    return [
        rtp(1),
        rtp(2, extension=MID + STAMP),
        rtp(5),
        rtp(3, CAMERA_RTX, RTX_OF[VP8.payload_type], b"\0\3" + b"\x80repaired"),
        rtp(1, SOUND_SSRC, sound, b"\xf8\xff\xfe", LEVEL),
        rtp(2, SOUND_SSRC, sound, b"\xf8\xff\xfe", b"\x11m1" + LEVEL),
        rtp(9, 5555, H264.payload_type, b"\x67\x42\xe0\x1f", MID),
        rtp(6, CAMERA_SSRC, H264.payload_type, b"\x65picture"),
        bytes(padded),
    ]


def _rtp() -> Taste:
    def taste(data: bytes) -> bool:
        is_whole = False
        try:
            offset = payload_offset(data)
            assert 12 <= offset <= len(data)
            length = payload_length(data)
            assert 0 <= length <= len(data) - offset
            is_whole = True
        except ValueError:
            assert find_extension(data, 1) is None or len(data) > 12
        for number in (1, 2, 3, 14):
            found = find_extension(data, number)
            assert found is None or (found[0] > 12 and sum(found) <= len(data))
        with suppress(ValueError):  # what it documents for a malformed header
            changed = renumbered(data, 96)
            assert payload_offset(changed) <= len(changed)
            assert changed[1] & 0x7F == 96
        restored = restore_rtx(data, 96, 7)
        if restored is not None:
            assert len(restored) == len(data) - 2
            payload_offset(restored)
        with suppress(ValueError):
            wrapped = wrap_rtx(data, payload_type=97, ssrc=1, sequence=2, original=3, timestamp=4)
            assert len(wrapped) == len(data) + 2
        return is_whole

    return taste


def compounds() -> list[bytes]:
    report = build_sender_report(
        CAMERA_SSRC, ntp_time=1 << 40, rtp_time=3000, packets=1, octets=2, cname="alice"
    )
    return [
        report,
        build_receiver_report(9, [], "bob"),
        build_nack(9, TO_BOB, [101, 102, 105]),
        build_nack(9, SOUND_TO_BOB, [101]),
        build_pli(9, TO_BOB),
        b"\x84\xce\x00\x04"
        + (9).to_bytes(4, "big")
        + bytes(4)
        + TO_BOB.to_bytes(4, "big")
        + b"\1\0\0\0",
        build_remb(9, 300_000, [TO_BOB]),
        report + build_nack(9, TO_BOB, [101]) + build_pli(9, TO_BOB),
        # A receiver's report on what it was sent, and a goodbye in another's name.
        b"\x81\xc9\x00\x07" + (9).to_bytes(4, "big") + TO_BOB.to_bytes(4, "big") + bytes(20),
        b"\x81\xcb\x00\x01" + CAMERA_SSRC.to_bytes(4, "big"),
    ]


def _rtcp() -> Taste:
    """Parsing alone; `relay` acts on what was parsed."""

    def taste(data: bytes) -> bool:
        try:
            packets = parse_rtcp(data)
        except ValueError:
            return False
        for packet in packets:
            if isinstance(packet, RtcpPsfbPacket):
                read_remb(packet)
        return True

    return taste


TARGETS: Final = (
    Target("stun", _stun, _stun_seeds, 700, "stun"),
    Target("rtp", _rtp, packets, parser="rtp"),
    Target("rtcp", _rtcp, compounds, parser="rtcp"),
)
