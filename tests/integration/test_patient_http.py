"""Connections that ask for nothing, or never end asking, are cut off (docs/limits.md)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

import app.serve
from app.serve import PatientHttp

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def _application(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def _server() -> AsyncIterator[int]:
    config = uvicorn.Config(_application, port=0, http=PatientHttp, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def _opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def _is_cut_off(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends it, without an answer."""
    try:
        async with asyncio.timeout(20):
            return await reader.read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_who_does_not_come_to_the_end_of_a_request_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(app.serve, "HEAD_WITHIN_S", 0.3)
    async with _server() as port:
        reader, writer = await _opened(port)
        writer.write(said)
        assert await _is_cut_off(reader)
        writer.close()


@pytest.mark.parametrize("said", [b"\r\n", b"GET / HTTP/1.1\r\nHo"])
async def test_nor_does_an_answer_buy_the_time_to_say_nothing(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(app.serve, "HEAD_WITHIN_S", 0.3)
    async with _server() as port:
        reader, writer = await _opened(port)
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        assert await _is_cut_off(reader)
        writer.close()


async def test_a_head_that_never_ends_is_cut_off() -> None:
    async with _server() as port:
        reader, writer = await _opened(port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 1_000_000)
        assert await _is_cut_off(reader)
        writer.close()


async def test_an_honest_connection_is_kept_and_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.serve, "HEAD_WITHIN_S", 0.3)
    monkeypatch.setattr(app.serve, "HEAD_BYTES", 100)
    async with _server() as port:
        reader, writer = await _opened(port)
        for _ in range(4):  # together longer than a head may take, and be
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
            await asyncio.sleep(0.2)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1_000)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        writer.close()


async def test_connections_leave_files_for_the_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.serve, "most_connections", lambda: 3)
    async with _server() as port:
        held = [await _opened(port) for _ in range(3)]
        for reader, writer in held:
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        reader, writer = await _opened(port)
        writer.write(REQUEST)
        assert await _is_cut_off(reader)
        for _, each in [*held, (reader, writer)]:
            each.close()
