"""Datagrams by the batch: all of them, in order, to the right ones, whatever becomes of one."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from media.socket import RECEIVE_SLOTS, SEND_SLOTS, MediaSocket, host_and_port
from media.srtp import MAX_PLAIN_BYTES


class Echo:
    """Answers every datagram to whoever sent it, and remembers where that was."""

    def __init__(self, host: str) -> None:
        self.seen: list[tuple[str, int]] = []
        self.lengths: list[int] = []
        self.batches: list[int] = []
        self.socket = MediaSocket(host, 0, self._datagrams)

    def _datagrams(self, count: int) -> None:
        self.batches.append(count)
        for buffer, sender in zip(
            self.socket.received[:count], self.socket.senders[:count], strict=True
        ):
            address, length = sender.tobytes(), buffer.length[0]
            self.seen.append(host_and_port(address))
            self.lengths.append(length)
            self.socket.send(buffer.view[:length].tobytes(), address)


@pytest.fixture(params=["127.0.0.1", "::1"])
def client(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.bind((request.param, 0))
        made.settimeout(5)
        yield made


async def test_more_than_a_batch_comes_back_whole_and_in_order(client: socket.socket) -> None:
    host, port = client.getsockname()[:2]
    echo = Echo(host)
    sent = [b"%d" % number for number in range(3 * RECEIVE_SLOTS + 7)]
    for data in sent:
        client.sendto(data, (host, echo.socket.port))
    back = [await asyncio.to_thread(client.recv, 100) for _ in sent]
    echo.socket.close()
    assert back == sent
    assert max(echo.batches) == RECEIVE_SLOTS
    assert set(echo.seen) == {(host, port)}
    assert echo.socket.sent_dropped == 0


async def test_what_nobody_may_send_costs_the_others_nothing(client: socket.socket) -> None:
    host, _ = client.getsockname()[:2]
    echo = Echo(host)
    client.sendto(b"hello", (host, echo.socket.port))
    assert await asyncio.to_thread(client.recv, 100) == b"hello"
    good = echo.socket.senders[0].tobytes()
    # Port 0 is nobody's: the kernel refuses it.
    bad = good[:2] + b"\0\0" + good[4:]
    outbox = echo.socket.outbox
    outbox.is_held = True
    for number in range(SEND_SLOTS):
        echo.socket.send(b"%d" % number, bad if number % 10 == 3 else good)
    outbox.is_held = False
    outbox.flush()
    good_ones = [b"%d" % number for number in range(SEND_SLOTS) if number % 10 != 3]
    assert [await asyncio.to_thread(client.recv, 100) for _ in good_ones] == good_ones
    assert echo.socket.sent_dropped == SEND_SLOTS - len(good_ones)
    echo.socket.close()


async def test_a_datagram_that_is_too_long_shows_by_its_length(client: socket.socket) -> None:
    host, _ = client.getsockname()[:2]
    echo = Echo(host)
    client.sendto(bytes(4000), (host, echo.socket.port))
    assert len(await asyncio.to_thread(client.recv, 5000)) == MAX_PLAIN_BYTES
    assert echo.lengths == [MAX_PLAIN_BYTES]
    echo.socket.close()


async def test_after_closing_nothing_is_sent_and_nothing_breaks(client: socket.socket) -> None:
    host, _ = client.getsockname()[:2]
    echo = Echo(host)
    client.sendto(b"hello", (host, echo.socket.port))
    assert await asyncio.to_thread(client.recv, 100) == b"hello"
    address = echo.socket.senders[0].tobytes()
    echo.socket.close()
    echo.socket.send(b"late", address)
    assert echo.socket.sent_dropped == 1
