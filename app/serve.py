"""Run the application under uvicorn: httptools for HTTP, websockets for the signaling socket.

What both leave unbounded, because a proxy in front of them is thought to bound it, is bounded here.
"""

import asyncio
import gc
import resource
import socket
import sys
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.main import create_app
from core.clock import Clock
from core.log import configure_logging
from core.settings import Settings
from media import loop
from media.node import be_prompt
from signaling.protocol import MAX_MESSAGE_BYTES

SHUTDOWN_GRACE_S = 10
FILES = 65_536
"""A process asks for so many, if it may; 1,024 is what most begin with."""
MOST_CONNECTIONS = 8_192
"""Some thousand pages, each with a socket or a stream of events and a few requests."""
HEAD_WITHIN_S = 10.0
HEAD_BYTES = 64 * 1024
LINGER_S = 5.0
"""For the other side to say that it has read the end; then it is cut off."""


def serve(settings: Settings, *, on_started: Callable[[], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM. `on_started` runs once the address answers."""
    configure_logging(level=settings.log_level, as_json=settings.log_json)
    allow_many_files()
    loop.run(_serve(settings, on_started))


async def _serve(settings: Settings, on_started: Callable[[], None] | None) -> None:
    server = make_server(settings, on_started=on_started)
    await server.serve()
    if not server.started:
        sys.exit(3)  # uvicorn has said why


class Server(uvicorn.Server):
    """uvicorn's server, with a word when the address answers."""

    on_started: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        be_prompt()
        gc.enable()
        if self.started and self.on_started is not None:
            self.on_started()


def allow_many_files() -> None:
    """As many as the system lets this process have, up to `FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))


def most_connections() -> int:
    """Half of the files at most: with none left, no recording can be written."""
    return min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


class PatientHttp(HttpToolsProtocol):
    """Waits for no request for ever, reads no endless one, and leaves files for the recordings.

    Whoever connects and says nothing, or a header that never ends, is met here only: the
    application does not hear of a request before its head is whole.
    """

    _head_due: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_due is None and self._is_idle():
            self._await_head()  # empty lines before a request end uvicorn's own waiting
        self._head_bytes += len(data)
        if self._head_due is not None and self._head_bytes > HEAD_BYTES:
            self.transport.abort()

    def _is_idle(self) -> bool:
        is_http = self in self.connections  # not lost, and no socket by now
        return is_http and (self.cycle is None or self.cycle.response_complete)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_due is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_due = self.loop.call_later(HEAD_WITHIN_S, self.transport.abort)

    def _head_is_there(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None


class PatientSocket(WebSocketsSansIOProtocol):
    """Hears nobody who does not listen, waits for nobody who does not go, and says who is gone.

    The protocol's own pings never reach the application, which counts messages, and each is
    answered: whoever sends them without reading would fill our memory with the answers. Nor would
    whoever reads nothing ever be rid of: what waits to be sent keeps a closed connection open.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.gone: asyncio.Future[None] = self.loop.create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone.set_result(None)

    async def run_asgi(self) -> None:
        self.scope["state"]["gone"] = self.gone  # for signaling/endpoint.py
        await super().run_asgi()
        cut_off = self.loop.call_later(LINGER_S, self.transport.abort)
        self.gone.add_done_callback(lambda _: cut_off.cancel())

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.writable.is_set():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()


def make_server(
    settings: Settings,
    *,
    clock: Clock | None = None,
    on_started: Callable[[], None] | None = None,
) -> Server:
    """A configured server; tests and the seed run it inside their own loop."""
    server = Server(
        uvicorn.Config(
            create_app(settings, clock=clock),
            host=settings.host,
            port=settings.port,
            http=PatientHttp,
            ws=PatientSocket,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
            server_header=False,
            log_config=None,
            access_log=False,
        )
    )
    server.on_started = on_started
    return server
