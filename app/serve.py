"""Run the application under uvicorn: httptools for HTTP, websockets for the signaling socket."""

import asyncio
import gc
import socket
import sys
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.main import create_app
from core.clock import Clock
from core.log import configure_logging
from core.settings import Settings
from media.node import be_prompt
from signaling.protocol import MAX_MESSAGE_BYTES

SHUTDOWN_GRACE_S = 10
LINGER_S = 5.0
"""For the other side to say that it has read the end; then it is cut off."""


def serve(settings: Settings, *, on_started: Callable[[], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM. `on_started` runs once the address answers."""
    configure_logging(level=settings.log_level, as_json=settings.log_json)
    asyncio.run(_serve(settings, on_started))


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
            http="httptools",
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
