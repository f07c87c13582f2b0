"""The contract with aiortc's private DTLS parts: handshake in memory, keys, refusals, goodbye."""

import asyncio

import pytest
from aiortc.rtcdtlstransport import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
)

from media.dtls import DtlsAssociation, fingerprint_of, new_certificate
from media.srtp import PacketBuffer, SrtpSession, unprotect
from tests.support.relay import rtp


class ClientPipe:
    """The client's side of the wire, in memory."""

    role = "controlling"

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.server: DtlsAssociation | None = None

    async def _recv(self) -> bytes:
        return await self.inbox.get()

    async def _send(self, data: bytes) -> None:
        if self.server is not None:
            self.server.feed(data)


class Handshake:
    """A DtlsAssociation and an aiortc client joined by two queues."""

    def __init__(self) -> None:
        self.pipe = ClientPipe()
        self.client_certificate = RTCCertificate.generateCertificate()
        self.client = RTCDtlsTransport(self.pipe, [self.client_certificate])  # type: ignore[arg-type]
        self.client._set_role("client")
        self.server_certificate = new_certificate()
        self.connected: asyncio.Future[tuple[SrtpSession, SrtpSession, str]] = (
            asyncio.get_running_loop().create_future()
        )
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.server = DtlsAssociation(
            self.server_certificate,
            send=self.pipe.inbox.put_nowait,
            on_connected=lambda *keys: self.connected.set_result(keys),
            on_closed=self.closed.set_result,
        )
        self.pipe.server = self.server

    def connect(self) -> "asyncio.Task[None]":
        fingerprint = RTCDtlsFingerprint("sha-256", fingerprint_of(self.server_certificate))
        return asyncio.create_task(self.client.start(RTCDtlsParameters([fingerprint])))


async def test_keys_are_agreed_on_the_fast_profile_and_fit() -> None:
    handshake = Handshake()
    client = handshake.connect()
    await asyncio.sleep(0)  # the client's first flight overtakes its answer, and is kept
    handshake.server.start(fingerprint_of(handshake.client_certificate))
    async with asyncio.timeout(10):
        inbound, _, profile = await handshake.connected
        await client
    assert profile == "SRTP_AEAD_AES_128_GCM"
    buffer = PacketBuffer()
    data = handshake.client._tx_srtp.protect(rtp(1))
    buffer.view[: len(data)] = data
    buffer.length[0] = len(data)
    assert unprotect(inbound.context, buffer.cdata, buffer.length) == 0
    assert bytes(buffer.view[: buffer.length[0]]) == rtp(1)
    await handshake.server.aclose()
    await handshake.client.stop()


async def test_another_certificate_than_the_answers_is_refused() -> None:
    handshake = Handshake()
    client = handshake.connect()
    handshake.server.start(fingerprint_of(RTCCertificate.generateCertificate()))
    async with asyncio.timeout(10):
        assert await handshake.closed == "dtls_failed"
    assert not handshake.connected.done()
    client.cancel()
    await handshake.server.aclose()


async def test_a_clients_goodbye_closes() -> None:
    handshake = Handshake()
    client = handshake.connect()
    handshake.server.start(fingerprint_of(handshake.client_certificate))
    async with asyncio.timeout(10):
        await handshake.connected
        await client
        await handshake.client.stop()
        assert await handshake.closed == "closed"
    await handshake.server.aclose()


async def test_nothing_is_reported_after_we_closed_ourselves() -> None:
    handshake = Handshake()
    client = handshake.connect()
    handshake.server.start(fingerprint_of(handshake.client_certificate))
    async with asyncio.timeout(10):
        await handshake.connected
        await client
        await handshake.server.aclose()
        await asyncio.sleep(0)
    assert not handshake.closed.done()
    await handshake.client.stop()


async def test_a_flood_before_the_answer_is_bounded() -> None:
    handshake = Handshake()
    for _ in range(10_000):
        handshake.server.feed(b"\x16" + bytes(100))
    assert handshake.server._pipe._waiting.qsize() <= 32
    await handshake.server.aclose()


@pytest.mark.parametrize("garbage", [b"\x16", b"\x16\xfe\xfd" + bytes(60), bytes([63]) * 1400])
async def test_garbage_of_the_dtls_range_does_not_end_a_handshake(garbage: bytes) -> None:
    handshake = Handshake()
    handshake.server.start(fingerprint_of(handshake.client_certificate))
    handshake.server.feed(garbage)
    client = handshake.connect()
    async with asyncio.timeout(10):
        await handshake.connected
        await client
    await handshake.server.aclose()
    await handshake.client.stop()
