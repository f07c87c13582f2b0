"""Sockets that join nothing, or do not go: their number is bounded, and who is in a room stays."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import app.serve
from core.db import Database
from signaling.client import SignalingClient, open_signaling
from signaling.doorway import MOST_OF_AN_ADDRESS, Doorway
from tests.support.databases import create_tables
from tests.support.signal_house import House, eventually, running_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    database = Database(url)
    await create_tables(database)
    await database.close()
    async with running_house(tmp_path, url) as made:
        yield made


async def silent(stack: AsyncExitStack, house: House) -> None:
    """A socket that never says a word."""
    page = f"http://127.0.0.1:{house.port}"
    await stack.enter_async_context(connect(house.url, origin=page, proxy=None))  # type: ignore[arg-type]


async def seated(stack: AsyncExitStack, house: House, room: str) -> SignalingClient:
    client = await stack.enter_async_context(open_signaling(house.url))
    await client.join(house.grant(room, "petitioner"))
    return client


async def nobody_outside(house: House) -> bool:
    return house.hub.doorway.outside == 0


async def test_an_address_that_fills_its_places_is_refused_and_the_talk_goes_on(
    house: House,
) -> None:
    async with AsyncExitStack() as stack:
        kiosk = await seated(stack, house, await house.appointment())
        async with AsyncExitStack() as crowd:
            for _ in range(MOST_OF_AN_ADDRESS):
                await silent(crowd, house)
            with pytest.raises(InvalidStatus) as refused:
                await silent(crowd, house)
            response = refused.value.response
            assert (response.status_code, response.headers["Retry-After"]) == (429, "2")
            assert json.loads(response.body or b"")["code"] == "too_many_sockets"
            assert house.hub.doorway.refused == 1
            await kiosk.ask("mute", track="camera", muted=True)
        await eventually(lambda: nobody_outside(house))
        await seated(stack, house, await house.appointment())


async def test_who_has_joined_takes_no_place(house: House) -> None:
    house.hub.doorway = Doorway(most_of_an_address=1)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await seated(stack, house, await house.appointment())
        assert house.hub.doorway.outside == 0


async def test_a_replaced_socket_that_does_not_go_takes_a_place_until_it_is_cut_off(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.serve, "LINGER_S", 0.5)
    room = await house.appointment()
    with socket.socket() as line:
        await _join_and_read_no_more(line, house, house.grant(room, "petitioner"))
        assert house.hub.doorway.outside == 0
        async with AsyncExitStack() as stack:
            again = await seated(stack, house, room)  # the same seat: takes it over

            async def is_outside() -> bool:
                return house.hub.doorway.outside == 1

            await eventually(is_outside)
            await eventually(lambda: nobody_outside(house))
            await again.ask("mute", track="camera", muted=True)


async def _join_and_read_no_more(line: socket.socket, house: House, grant: str) -> None:
    """A client that answers nothing, not even the end."""
    loop = asyncio.get_running_loop()
    line.setblocking(False)
    host = f"127.0.0.1:{house.port}"
    await loop.sock_connect(line, ("127.0.0.1", house.port))
    opening = (
        f"GET /signal HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
    )
    await loop.sock_sendall(line, opening.encode())
    await _hear(line, b"\r\n\r\n")
    for text in (
        '{"type": "hello", "versions": [1]}',
        json.dumps({"type": "join", "id": "1", "grant": grant}),
    ):
        await loop.sock_sendall(line, _frame(text.encode()))
    await _hear(line, b'"joined"')


async def _hear(line: socket.socket, words: bytes) -> None:
    heard = b""
    async with asyncio.timeout(10):
        while words not in heard:
            more = await asyncio.get_running_loop().sock_recv(line, 65_536)
            assert more, f"closed after {heard!r}"
            heard += more


def _frame(text: bytes) -> bytes:
    """A masked text frame (RFC 6455, 5.2) whose mask changes nothing."""
    short = len(text) < 126
    length = bytes([0x80 | len(text)]) if short else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text
