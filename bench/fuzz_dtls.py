"""Fuzz targets for DTLS: whole handshakes that go wrong, and one datagram at a time.

The parser is OpenSSL's; what is ours is that it never ends a call by something nobody signed, that
a broken handshake ends itself and nothing else, and that what waits to be read is bounded.
"""

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final, TypeVarTuple

from aiortc.rtcdtlstransport import RTCCertificate

from bench.fuzz_target import Target, Taste, at_each_beginning, at_the_end, pieces, run_of
from media.dtls import DtlsAssociation, fingerprint_of, new_certificate


class _OneContext(RTCCertificate):
    """A certificate whose TLS settings are made once. They take a hundred times as long to make as
    a datagram takes to read, and are the same for every association."""

    _made: Any = None

    def _create_ssl_context(self, srtp_profiles: Any) -> Any:
        if self._made is None:
            self._made = super()._create_ssl_context(srtp_profiles)
        return self._made


def _certificate() -> RTCCertificate:
    made = new_certificate()
    return _OneContext(made._key, made._cert)


class _Handshake:
    """Two associations of ours, joined by hand. `first`: before anything was said."""

    def __init__(self, certificate: Any) -> None:
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.connected = 0
        self.closed: list[str] = []
        self.server = self._half(certificate, self.to_client, "server")
        self.client = self._half(certificate, self.to_server, "client")
        print_ = fingerprint_of(certificate)
        self.server.start(print_)
        self.client.path_found()
        self.client.start(print_)

    def _half(self, certificate: Any, out: list[bytes], role: Any) -> DtlsAssociation:
        return DtlsAssociation(
            certificate,
            send=out.append,
            on_connected=self._on_connected,
            on_closed=self.closed.append,
            role=role,
        )

    def _on_connected(self, *_: object) -> None:
        self.connected += 1

    async def go_on(self, *, until: Callable[[], bool]) -> None:
        for _ in range(400):
            if until():
                return
            for datagram in self.to_server:
                self.server.feed(datagram)
            for datagram in self.to_client:
                self.client.feed(datagram)
            self.to_server.clear()
            self.to_client.clear()
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.server.aclose()
        await self.client.aclose()


def _dtls() -> Taste:
    """Runs of datagrams to the server's half. The first byte says when: below 128 while shaking
    hands, else when connected. A connected association must outlive whatever nobody signed."""
    loop = asyncio.new_event_loop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    certificate = _certificate()
    kept: list[_Handshake] = []

    async def connected() -> _Handshake:
        if not kept:
            pair = _Handshake(certificate)
            await pair.go_on(until=lambda: pair.connected == 2)
            assert pair.connected == 2
            kept.append(pair)
        return kept[0]

    async def one(data: bytes) -> None:
        is_late = data[0] >= 128
        if is_late:
            pair = await connected()
        else:
            pair = _Handshake(certificate)
            await pair.go_on(until=lambda: bool(pair.to_server))
        turns = _TURNS_OF_A_HANDSHAKE
        for _, datagram in pieces(data[1:], 40):
            # The node's guard lets nothing else this far.
            if len(datagram) >= 8 and 20 <= datagram[0] < 64:
                pair.server.feed(datagram)
                turns += 1 if is_late else _TURNS_OF_A_HANDSHAKE
        await _turns(turns)
        if is_late:
            assert not pair.closed, "ended by something that nobody signed"
            pair.to_client.clear()
        else:
            await pair.aclose()

    def taste(data: bytes) -> None:
        if data:
            loop.run_until_complete(one(data))
            assert not faults, faults

    def close() -> None:
        for pair in kept:
            loop.run_until_complete(pair.aclose())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    at_the_end(close)

    return taste


def _dtls_seeds() -> Sequence[bytes]:
    """A handshake recorded now (its keys are new each time), whole and in parts, and its end."""

    async def record() -> list[bytes]:
        pair = _Handshake(new_certificate())
        said: list[bytes] = []
        for _ in range(200):
            said += pair.to_server
            await pair.go_on(until=lambda: not (pair.to_server or pair.to_client))
            await asyncio.sleep(0)
        await pair.client.aclose()
        said += pair.to_server
        await pair.server.aclose()
        await asyncio.sleep(0)
        return said

    said = asyncio.run(record())
    alert = bytes.fromhex("15fefd00000000000000000002") + b"\1\0"
    runs = [run_of(*((0, datagram) for datagram in said)), run_of((0, alert))]
    runs += [run_of((0, datagram)) for datagram in said]
    return [bytes([when]) + run for run in runs for when in (0, 128)]


# -- One datagram ---------------------------------------------------------------------------------


class _NoFiles(selectors.SelectSelector):
    """For a loop that never waits for anything: its turns cost no call to the kernel."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


_Given = TypeVarTuple("_Given")


class _StillLoop(asyncio.SelectorEventLoop):
    """A loop on which no time passes, so that no timer is ever due. It can be let run until all
    its tasks wait for something from outside: that says when an input has been dealt with, and
    costs a fraction of starting, turning and stopping the loop as often as it may need."""

    _ready: deque[asyncio.Handle]  # asyncio's own, which typeshed does not tell of

    def __init__(self) -> None:
        super().__init__(_NoFiles())

    def time(self) -> float:
        return 0.0

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Given], object],
        *args: *_Given,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(when, callback, args, self, context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Given], object],
        *args: *_Given,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(delay, callback, *args, context=context)

    def settle(self) -> None:
        """Run what is ready, and what that makes ready, until nothing is. What a callback raises
        goes to the loop's exception handler, as ever; a task that never waits is never left."""
        ready = self._ready
        asyncio._set_running_loop(self)
        try:
            while ready:
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)


class _Server:
    """The server's half, as far on as it is brought. `is_spent`: it ended, or moved on."""

    def __init__(self, certificate: RTCCertificate, *, first: bytes = b"") -> None:
        self.said: list[bytes] = []
        self.closed: list[str] = []
        self._first = first
        self.half = DtlsAssociation(
            certificate,
            send=self.said.append,
            on_connected=lambda *_: self.closed.append("connected"),
            on_closed=self.closed.append,
        )

    async def start(self) -> None:
        self.half.start(_NOBODYS)
        if self._first:
            self.half.feed(self._first)
        await _turns(_TURNS_OF_A_HANDSHAKE)
        self.said.clear()

    @property
    def is_spent(self) -> bool:
        return bool(self.said or self.closed)


_NOBODYS: Final = ":".join(["00"] * 32)
_TURNS_OF_A_HANDSHAKE: Final = 6
"""Of the loop, until a datagram that was fed has been read and the next is waited for."""
_FIRST, _SECOND = 0x55, 0xAA
"""Below the first, a datagram meets a server to which nobody has spoken; below the second one that
has answered a greeting; else one that is connected."""


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class _Record:
    """Three servers that datagrams are given to; a spent one is replaced by one like it."""

    def __init__(self) -> None:
        self.loop = _StillLoop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self._certificate = _certificate()
        self._hello = self.loop.run_until_complete(self._greeting())
        self._connected = self.loop.run_until_complete(self._handshake())
        self._waiting: dict[bool, _Server] = {}

    async def _greeting(self) -> bytes:
        pair = _Handshake(self._certificate)
        await pair.go_on(until=lambda: bool(pair.to_server))
        hello = pair.to_server[0]
        await pair.aclose()
        return hello

    async def _handshake(self) -> _Handshake:
        pair = _Handshake(self._certificate)
        await pair.go_on(until=lambda: pair.connected == 2)
        assert pair.connected == 2
        return pair

    def begin(self) -> None:
        """New servers, for whom nothing was said before."""
        self.loop.run_until_complete(self._replace(False))
        self.loop.run_until_complete(self._replace(True))

    async def _replace(self, is_greeted: bool) -> None:
        old = self._waiting.pop(is_greeted, None)
        if old is not None:
            await old.half.aclose()
        server = _Server(self._certificate, first=self._hello if is_greeted else b"")
        await server.start()
        self._waiting[is_greeted] = server

    def taste(self, data: bytes) -> bool:
        if len(data) < 9 or not 20 <= data[1] < 64:
            return False  # the node's guard lets nothing else this far
        if data[0] >= _SECOND:
            self._connected.server.feed(data[1:])
            self.loop.settle()
            assert not self._connected.closed, "ended by something that nobody signed"
            answered = bool(self._connected.to_client)
            self._connected.to_client.clear()
        else:
            is_greeted = data[0] >= _FIRST
            server = self._waiting[is_greeted]
            server.half.feed(data[1:])
            self.loop.settle()
            assert "connected" not in server.closed, "without the fingerprint"
            answered = bool(server.said)
            if server.is_spent:
                self.loop.run_until_complete(self._replace(is_greeted))
        assert not self.faults, self.faults
        return answered

    def close(self) -> None:
        async def all_of_it() -> None:
            for server in self._waiting.values():
                await server.half.aclose()
            await self._connected.aclose()
            await asyncio.sleep(0)

        self.loop.run_until_complete(all_of_it())
        self.loop.close()


def _record() -> Taste:
    record = _Record()
    at_the_end(record.close)
    at_each_beginning(record.begin)
    record.begin()
    return record.taste


def _record_seeds() -> Sequence[bytes]:
    datagrams = [body for run in _dtls_seeds() for _, body in pieces(run[1:], 99)]
    return [bytes([when]) + data for data in dict.fromkeys(datagrams) for when in (0, 0x60, 0xC0)]


TARGETS: Final = (
    Target("dtls", _dtls, _dtls_seeds, 4096),
    Target("dtls-record", _record, _record_seeds, 1500, "dtls"),
)
