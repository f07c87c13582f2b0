"""Datagrams by the batch: all of them, in order, to the right ones, whatever becomes of one."""

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest

from media import socket as media_socket
from media.fastlane import built_as
from media.socket import RECEIVE_SLOTS, SEND_SLOTS, MediaSocket, host_and_port
from media.srtp import MAX_PLAIN_BYTES

UDP_GRO = 104  # linux/udp.h
SO_NO_CHECK = 11  # asm-generic/socket.h


@pytest.fixture(params=["in C", "in Python"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the kernel is spoken to."""
    if request.param == "in Python":
        monkeypatch.setattr(media_socket, "take_in", media_socket.take_in_in_python)
        monkeypatch.setattr(media_socket, "hand_over", media_socket.hand_over_in_python)
    elif built_as() is None:
        pytest.skip("media/_fastlane.c is not built here")
    return str(request.param)


class Echo:
    """Answers every datagram to whoever sent it, and remembers where that was."""

    def __init__(self, host: str) -> None:
        self.seen: list[tuple[str, int]] = []
        self.lengths: list[int] = []
        self.batches: list[int] = []
        self.socket = MediaSocket(host, 0, self._datagrams)

    def _datagrams(self, count: int, _at: int, _arrival_ns: int) -> None:
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


def send_together(echo: Echo, datagrams: list[tuple[bytes, bytes]]) -> None:
    """Each to its address, all in one flush."""
    echo.socket.outbox.is_held = True
    for data, address in datagrams:
        echo.socket.send(data, address)
    echo.socket.outbox.is_held = False
    echo.socket.outbox.flush()


def address_of(client: socket.socket) -> bytes:
    """As the kernel writes it (AF_INET)."""
    host, port = client.getsockname()
    family = struct.pack("=H", socket.AF_INET)
    return family + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for one in made:
        one.bind(("127.0.0.1", 0))
        one.settimeout(5)
    yield made
    for one in made:
        one.close()


def pictures(clients: list[socket.socket]) -> list[tuple[bytes, bytes]]:
    """Two pictures and sounds between them, for two receivers: runs of every shape."""
    first, second = map(address_of, clients)
    lengths = [
        *[(1100, first)] * 4, (300, first), (90, second), (90, first), *[(1000, second)] * 3,
        (1001, second), (1001, second), (7, second), (8, second), *[(500, first)] * 2, (0, first),
        *[(500, first)] * 2,
    ]  # fmt: skip
    return [(bytes([number]) * length, address) for number, (length, address) in enumerate(lengths)]


async def expect_all(clients: list[socket.socket], sent: list[tuple[bytes, bytes]]) -> None:
    for client in clients:
        mine = [data for data, address in sent if address == address_of(client)]
        assert [await asyncio.to_thread(client.recv, 5000) for _ in mine] == mine


async def test_pictures_arrive_packet_by_packet(clients: list[socket.socket]) -> None:
    echo = Echo("127.0.0.1")
    sent = pictures(clients)
    send_together(echo, sent)
    await expect_all(clients, sent)
    assert echo.socket.sent_dropped == 0
    echo.socket.close()


async def test_where_no_run_is_taken_each_packet_goes_by_itself(
    clients: list[socket.socket],
) -> None:
    echo = Echo("127.0.0.1")
    # The kernel refuses to cut what it may not checksum; as it does where the way is too narrow.
    echo.socket._socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    sent = pictures(clients)
    send_together(echo, sent)
    await expect_all(clients, sent)
    assert echo.socket.sent_dropped == 0
    echo.socket.close()


async def test_a_picture_goes_to_the_kernel_as_one(clients: list[socket.socket], way: str) -> None:
    echo = Echo("127.0.0.1")
    receiver = clients[0]
    # Who asks for it is given the run as it travelled.
    receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    packets = [bytes([number]) * 1100 for number in range(4)] + [b"the rest"]
    send_together(echo, [(data, address_of(receiver)) for data in packets])
    came = await asyncio.to_thread(receiver.recv, 65535)
    assert came == (b"".join(packets) if way == "in C" else packets[0])
    echo.socket.close()
