"""A socket's own pings are answered only as long as somebody reads the answers (docs/limits.md)."""

import asyncio
import socket
from typing import Any

import uvicorn

from app.serve import PatientSocket

PING = b"\x89\xfd" + bytes(4) + b"p" * 125
"""A masked frame, which is answered with 127 bytes."""
SENT_BYTES = 12_000_000
BOUND_BYTES = 1_000_000
"""The high-water mark and what one read can be answered with, and room to spare."""


async def _application(scope: Any, receive: Any, send: Any) -> None:
    """Takes the socket, and then waits for words."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "heard"})


async def _flood(line: socket.socket) -> None:
    """Pings without end, as far as the other side takes them, and nothing is read."""
    loop = asyncio.get_running_loop()
    batch = PING * 500
    for _ in range(SENT_BYTES // len(batch)):
        try:
            async with asyncio.timeout(1.0):
                await loop.sock_sendall(line, batch)
        except TimeoutError:
            return


async def test_whoever_pings_and_never_reads_is_not_read_any_more() -> None:
    config = uvicorn.Config(
        _application, port=0, ws=PatientSocket, log_config=None, lifespan="off", ws_max_size=65_536
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    address = server.servers[0].sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    with socket.socket() as line:
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(line, address)
        await loop.sock_sendall(
            line,
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b"A" * 22 + b"==\r\n\r\n",
        )
        assert b"101" in await loop.sock_recv(line, 4096)
        await _flood(line)
        (protocol,) = server.server_state.connections
        assert isinstance(protocol, PatientSocket)
        assert protocol.transport.get_write_buffer_size() < BOUND_BYTES
        # Who begins to read is heard again.
        await loop.sock_sendall(line, b"")
        heard = b""
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        while protocol.transport.get_write_buffer_size() or not protocol.writable.is_set():
            heard = await loop.sock_recv(line, 1 << 20)
        assert heard
        assert protocol.transport.is_reading()
    server.should_exit = True
    await serving
