"""DTLS by aiortc, over our own datagrams: handshake, fingerprint check, SRTP keys.

We are the DTLS server: Chromium as server would choose the slow SRTP profile, and a server never
has to guess when the other side is ready. The one exception is an encoder that offers nothing but
the server's part (WHIP); then we speak first, once its address is known.

aiortc's transport expects an ICE transport; ours is the few methods it really calls. This is the
ONLY file that touches aiortc's private attributes; the exact pin in pyproject.toml and
tests/unit/media/test_dtls.py keep that honest.

RFC 5764 (DTLS-SRTP), 8842 (SDP for DTLS).
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal, cast

from aiortc.rtcdtlstransport import (
    SRTP_AEAD_AES_128_GCM,
    SRTP_AES128_CM_SHA1_80,
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    State,
)
from aiortc.rtcicetransport import RTCIceTransport

from media.srtp import SrtpSession

# The server's order decides (OpenSSL). 256-bit GCM costs more and browsers do not offer it.
PROFILES = [SRTP_AEAD_AES_128_GCM, SRTP_AES128_CM_SHA1_80]
# A handshake is two flights of a few datagrams. When full, the newest is dropped: DTLS repeats.
MAX_WAITING_DATAGRAMS = 32
HANDSHAKE_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 1.0


def new_certificate() -> RTCCertificate:
    """A node's self-signed identity; its fingerprint goes into every offer."""
    return RTCCertificate.generateCertificate()


def fingerprint_of(certificate: RTCCertificate) -> str:
    """The SHA-256 fingerprint as SDP writes it: `AB:CD:…`."""
    return next(f.value for f in certificate.getFingerprints() if f.algorithm == "sha-256")


class _DatagramPipe:
    """What RTCDtlsTransport needs of an ICE transport: a role, `_recv` and `_send`."""

    role = "controlled"

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send_datagram = send
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING_DATAGRAMS)
        self._closed = False

    def feed(self, datagram: bytes) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(datagram)

    def close(self) -> None:
        self._closed = True
        if self._waiting.empty():
            self._waiting.put_nowait(None)  # wakes a reader; one with datagrams left wakes anyway

    async def _recv(self) -> bytes:
        datagram = None if self._closed else await self._waiting.get()
        if datagram is None or self._closed:
            raise ConnectionError
        return datagram

    async def _send(self, data: bytes) -> None:
        if not self._closed:
            self._send_datagram(data)


class DtlsAssociation:
    """One leg's DTLS association.

    `send(datagram)` must not block. `on_connected(inbound, outbound, profile name)` comes once;
    `on_closed(reason)` comes at most once, with `dtls_failed` or `closed` (the client said so).
    Nothing is called after `aclose()`. Only the load generator takes the client's role.
    """

    def __init__(
        self,
        certificate: RTCCertificate,
        *,
        send: Callable[[bytes], None],
        on_connected: Callable[[SrtpSession, SrtpSession, str], None],
        on_closed: Callable[[str], None],
        role: Literal["server", "client"] = "server",
    ) -> None:
        self._pipe = _DatagramPipe(send)
        # The cast is the duck-typing this file exists for.
        self._transport = RTCDtlsTransport(cast(RTCIceTransport, self._pipe), [certificate])
        self._transport._set_role(role)
        self._transport._srtp_profiles = PROFILES
        self._transport.on("statechange", self._state_changed)
        self._on_connected = on_connected
        self._on_closed = on_closed
        self._path = asyncio.Event()
        self._handshake: asyncio.Task[None] | None = None
        self._is_over = False

    def feed(self, datagram: bytes) -> None:
        """A datagram of the DTLS range from a proven address. Kept until `start` if it is early:
        a client's first flight may overtake its answer, which travels over the WebSocket."""
        self._pipe.feed(datagram)

    def path_found(self) -> None:
        """The other side's address is known; a DTLS client begins to speak only then."""
        self._path.set()

    def start(self, fingerprint: str, *, as_client: bool = False) -> None:
        """Accept a peer whose certificate has this SHA-256 fingerprint. Call once.

        `as_client`: the peer insists on being the DTLS server (an offer with setup:passive).
        """
        assert self._handshake is None
        if as_client:
            self._transport._set_role("client")
        else:
            self._path.set()
        parameters = RTCDtlsParameters(
            fingerprints=[RTCDtlsFingerprint(algorithm="sha-256", value=fingerprint)]
        )
        self._handshake = asyncio.create_task(self._run(parameters), name="dtls handshake")

    async def aclose(self) -> None:
        """Say goodbye if there is someone to hear it, and stop every task of this association."""
        self._is_over = True
        if self._handshake is not None:
            self._handshake.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._handshake
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._transport.stop()
        self._pipe.close()
        self._transport.remove_all_listeners()

    async def _run(self, parameters: RTCDtlsParameters) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await self._path.wait()
                await self._transport.start(parameters)
        except TimeoutError:
            self._finish("dtls_failed")

    def _state_changed(self) -> None:
        state: Any = self._transport._state
        if state is State.CONNECTED and not self._is_over:
            association: Any = self._transport._ssl
            profile = association.get_selected_srtp_profile().decode()
            self._on_connected(
                SrtpSession(self._transport._rx_srtp),
                SrtpSession(self._transport._tx_srtp),
                profile,
            )
        elif state is State.FAILED:
            self._finish("dtls_failed")
        elif state is State.CLOSED:
            self._finish("closed")

    def _finish(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_closed(reason)
