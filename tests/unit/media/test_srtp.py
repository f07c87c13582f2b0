"""The contract with pylibsrtp's private binding: in place, both profiles, and honest errors."""

import os

import pytest
from pylibsrtp import ERRORS, Policy

from media.rtp import build_pli
from media.srtp import (
    MAX_PLAIN_BYTES,
    STATUS_AUTH_FAIL,
    STATUS_OK,
    STATUS_REPLAY_FAIL,
    STATUS_REPLAY_OLD,
    PacketBuffer,
    SrtpSession,
    protect,
    protect_rtcp,
    unprotect,
    unprotect_rtcp,
)
from tests.support.relay import rtp

PROFILES = {
    Policy.SRTP_PROFILE_AEAD_AES_128_GCM: (28, 16),
    Policy.SRTP_PROFILE_AES128_CM_SHA1_80: (30, 10),
}


def load(buffer: PacketBuffer, data: bytes) -> None:
    buffer.view[: len(data)] = data
    buffer.length[0] = len(data)


def content(buffer: PacketBuffer) -> bytes:
    return bytes(buffer.view[: buffer.length[0]])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_packet_is_protected_and_unprotected_in_place(profile: int) -> None:
    key_bytes, tag_bytes = PROFILES[profile]
    key = os.urandom(key_bytes)
    outbound, inbound = SrtpSession.outbound(key, profile), SrtpSession.inbound(key, profile)
    buffer = PacketBuffer()
    packet = rtp(1, payload=os.urandom(MAX_PLAIN_BYTES - 12))
    load(buffer, packet)
    assert protect(outbound.context, buffer.cdata, buffer.length) == STATUS_OK
    encrypted = content(buffer)
    assert len(encrypted) == len(packet) + tag_bytes
    assert encrypted[:12] == packet[:12]
    assert encrypted[12:40] != packet[12:40]
    assert unprotect(inbound.context, buffer.cdata, buffer.length) == STATUS_OK
    assert content(buffer) == packet


def test_rtcp_is_protected_and_unprotected_in_place() -> None:
    profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
    key = os.urandom(28)
    outbound, inbound = SrtpSession.outbound(key, profile), SrtpSession.inbound(key, profile)
    buffer = PacketBuffer()
    load(buffer, build_pli(1, 2))
    assert protect_rtcp(outbound.context, buffer.cdata, buffer.length) == STATUS_OK
    assert content(buffer) != build_pli(1, 2)
    assert unprotect_rtcp(inbound.context, buffer.cdata, buffer.length) == STATUS_OK
    assert content(buffer) == build_pli(1, 2)


def test_forged_and_replayed_packets_have_the_error_numbers_we_know() -> None:
    profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
    key = os.urandom(28)
    outbound, inbound = SrtpSession.outbound(key, profile), SrtpSession.inbound(key, profile)
    buffer = PacketBuffer()
    load(buffer, rtp(1))
    protect(outbound.context, buffer.cdata, buffer.length)
    good = content(buffer)
    load(buffer, good[:-1] + bytes([good[-1] ^ 1]))
    assert unprotect(inbound.context, buffer.cdata, buffer.length) == STATUS_AUTH_FAIL
    load(buffer, good)
    assert unprotect(inbound.context, buffer.cdata, buffer.length) == STATUS_OK
    load(buffer, good)
    assert unprotect(inbound.context, buffer.cdata, buffer.length) == STATUS_REPLAY_FAIL
    assert "auth" in ERRORS[STATUS_AUTH_FAIL]
    assert "replay" in ERRORS[STATUS_REPLAY_FAIL]
    assert "replay" in ERRORS[STATUS_REPLAY_OLD]


def test_a_packet_may_be_sent_again_under_its_own_number() -> None:
    profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
    outbound = SrtpSession.outbound(os.urandom(28), profile)
    buffer = PacketBuffer()
    once = []
    for _ in range(2):
        load(buffer, rtp(1))
        assert protect(outbound.context, buffer.cdata, buffer.length) == STATUS_OK
        once.append(content(buffer))
    assert once[0] == once[1]
