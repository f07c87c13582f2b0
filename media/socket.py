"""One UDP socket for the whole node: read in batches, written in batches, and never waited for.

A relay of many small calls spends its time on being woken and on waking others, not on copying. So
one system call takes in everything that has come (`recvmmsg`), it is all worked on, and one system
call lets everything go that came of it (`sendmmsg`): whoever receives is woken once, not once per
packet. Where it was built in C, a picture's packets even go as one
(docs/decisions/0011-a-picture-in-one-piece.md). The memory is laid out once, in the shape in which
the kernel, libsrtp and Python each want to see it, so a packet is decrypted where it was received
and encrypted where it is sent from.

What cannot be sent at once is dropped and counted: a late packet is worth less than the ones behind
it, and receivers ask again for what they miss. Linux only, as the rest of the house.
"""

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from media.loop import MediaLoop
from media.numbers import OutboxNumbers
from media.srtp import BUFFER_BYTES, MAX_PLAIN_BYTES, PacketBuffer

Address = bytes
"""Where a datagram came from, as the kernel writes it (`struct sockaddr`): opaque, and compared as
it is. `host_and_port` makes it readable."""

# A batch is worked on before any of it goes out: larger ones hold the first packets back.
RECEIVE_SLOTS: Final = 8
# Fairness: then the loop gets a turn; timers and WebSockets live there too.
BATCHES_PER_TURN: Final = 16
SEND_SLOTS: Final = 64
# Half a second of 60 Mbit/s: rides out a garbage collection or a scheduler's nap.
KERNEL_BUFFER_BYTES: Final = 4 * 1024 * 1024

_MSG_DONTWAIT: Final = socket.MSG_DONTWAIT
_IPV4: Final = struct.Struct("=H2s4s")  # sin_family (the machine's order), sin_port, sin_addr
_IPV6: Final = struct.Struct("=H2s4x16s")  # the same with sin6_flowinfo before the address
IPV4_NAME_BYTES: Final = 16
IPV6_NAME_BYTES: Final = 28

# Not CDLL: that gives up the interpreter around each call, and whoever took it would have to be
# waited for. Neither call ever blocks.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_recvmmsg: Final = _libc.recvmmsg
_sendmmsg: Final = _libc.sendmmsg


class _IoVec(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """`struct msghdr`."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """`struct mmsghdr`: a header, and how many bytes came or went."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


class _Slots:
    """Room for `count` datagrams, and the headers by which the kernel finds it.

    `buffers[i].length` lies where the kernel looks for it: for what is received that is the message
    header, for what is sent the iovec, of whose eight bytes libsrtp's `int` is the lower half.
    """

    def __init__(self, count: int, name_bytes: int, room_bytes: int, *, is_received: bool) -> None:
        assert sys.byteorder == "little", "the lower half of a size_t comes first"
        self._packets = (ctypes.c_ubyte * (count * BUFFER_BYTES))()
        self._names = (ctypes.c_ubyte * (count * name_bytes))()
        self._iovs = (_IoVec * count)()
        self._messages = (_Message * count)()
        self.names_address = ctypes.addressof(self._names)
        self.iovs_address = ctypes.addressof(self._iovs)
        self.messages_address = ctypes.addressof(self._messages)
        names = memoryview(self._names).cast("B")
        self.names = tuple(names[i * name_bytes : (i + 1) * name_bytes] for i in range(count))
        buffers = []
        for i, (message, iov) in enumerate(zip(self._messages, self._iovs, strict=True)):
            iov.base = ctypes.addressof(self._packets) + i * BUFFER_BYTES
            iov.length = room_bytes
            message.header.name = ctypes.addressof(self._names) + i * name_bytes
            message.header.name_length = name_bytes
            message.header.iov = ctypes.addressof(iov)
            message.header.iov_length = 1
            length_at = (
                ctypes.addressof(message) + _Message.length.offset
                if is_received
                else ctypes.addressof(iov) + _IoVec.length.offset
            )
            buffers.append(PacketBuffer.over(iov.base, length_at, owner=self))
        self.buffers = tuple(buffers)


def take_in_in_python(fd: int, messages_address: int, most: int) -> int:
    """As many datagrams as have come, at most `most`, into an array of `struct mmsghdr`. 0: nothing
    more; or an ICMP answer to what we sent, which carries no datagram."""
    first = ctypes.c_void_p(messages_address)
    return max(0, int(_recvmmsg(fd, first, most, _MSG_DONTWAIT, None)))


def hand_over_in_python(fd: int, messages_address: int, count: int) -> int:
    """Send the datagrams of an array of `struct mmsghdr`; how many the kernel did not take."""
    done = dropped = 0
    while done < count:
        first = ctypes.c_void_p(messages_address + done * ctypes.sizeof(_Message))
        sent = _sendmmsg(fd, first, count - done, _MSG_DONTWAIT)
        if sent > 0:
            done += sent
        elif ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):  # full, also for the rest
            return dropped + count - done
        else:  # no route, or a firewall's word: this one receiver's affair
            dropped += 1
            done += 1
    return dropped


take_in: Callable[[int, int, int], int]
hand_over: Callable[[int, int, int], int]
try:
    # The same, with less to do for each call and for each packet of a picture.
    from media._fastlane import hand_over, take_in
except ImportError:  # not built
    take_in, hand_over = take_in_in_python, hand_over_in_python


class Outbox(OutboxNumbers):
    """Datagrams on their way out: filled one by one, handed to the kernel together.

    In the hot loop: fill `buffers[posted]`, write the address into `receivers[posted]`, count
    `posted` up, and `flush` when it has reached `SEND_SLOTS`. Others call `room` and `post`.
    `hand_over(count)` takes the first `count`; it is called by `flush` and must not block.
    """

    def __init__(self, name_bytes: int, hand_over: Callable[[int], None]) -> None:
        self._slots = _Slots(SEND_SLOTS, name_bytes, 0, is_received=False)
        self.name_bytes = name_bytes
        # Where a loop in C finds the same memory (media/fastlane.py).
        self.names_address = self._slots.names_address
        self.iovs_address = self._slots.iovs_address
        self.messages_address = self._slots.messages_address
        self._hand_over = hand_over
        self.buffers = self._slots.buffers
        self.receivers = self._slots.names
        self.posted = 0
        self.is_held = False
        """More is coming: `post` lets nothing go by itself."""

    def room(self) -> PacketBuffer:
        """The next buffer to fill; it goes with `post`, or is given out again."""
        if self.posted == SEND_SLOTS:
            self.flush()
        return self.buffers[self.posted]

    def post(self, address: Address) -> None:
        """Let the buffer that `room` gave go to `address`: at once, or when held ones go."""
        self.receivers[self.posted][:] = address
        self.posted += 1
        if not self.is_held:
            self.flush()

    def flush(self) -> None:
        """Hand over everything posted."""
        count, self.posted = self.posted, 0
        if count:
            self._hand_over(count)


Relay = Callable[[int, float | None], tuple[int, int, int] | None]
"""Waits as `media.loop.Attend` does. What it leaves is told as `on_datagrams` is told."""


class MediaSocket:
    """Owns the socket and the memory of what passes through it.

    `on_datagrams(count, at, arrival_ns)` is called when the first `count` of `received` hold
    datagrams from `senders` that came at `arrival_ns`, those before `at` already dealt with; the
    next batch overwrites them. What is posted to the `outbox` meanwhile leaves when it returns;
    what is posted at any other time leaves at once.
    """

    def __init__(self, host: str, port: int, on_datagrams: Callable[[int, int, int], None]) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                # The kernel clips to its own maximum; a smaller buffer still works.
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER_BYTES)
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self.sent_dropped = 0
        name_bytes = IPV6_NAME_BYTES if family == socket.AF_INET6 else IPV4_NAME_BYTES
        # What fills this much could not be forwarded under another profile's tag; whoever looks
        # drops it as oversized. 1,900 bytes is far above any path's MTU.
        self._incoming = _Slots(RECEIVE_SLOTS, name_bytes, MAX_PLAIN_BYTES, is_received=True)
        self.received = self._incoming.buffers
        self.senders = self._incoming.names
        self.messages_address = self._incoming.messages_address
        self.outbox = Outbox(name_bytes, self._hand_over)
        self._on_datagrams = on_datagrams
        self._loop = asyncio.get_running_loop()
        self.fd = self._socket.fileno()
        self._loop.add_reader(self.fd, self._readable)
        self._stop_reading: Callable[[], object] = partial(self._loop.remove_reader, self.fd)

    def send(self, data: bytes, address: Address) -> None:
        """Post one datagram of at most `BUFFER_BYTES` as it is."""
        buffer = self.outbox.room()
        buffer.view[: len(data)] = data
        buffer.length[0] = len(data)
        self.outbox.post(address)

    def close(self) -> None:
        """Stop reading and free the port. What is sent afterwards goes nowhere."""
        if self.fd >= 0:
            self._stop_reading()
            self._socket.close()
            self.fd = -1

    def relay_with(self, relay: Relay) -> None:
        """Have `relay` wait for datagrams, and do with them what it can, if the loop is one that
        can be attended, and nobody does yet."""
        loop = self._loop

        def attend(others: int, timeout_s: float | None) -> None:
            try:
                batch = relay(others, timeout_s)
            except BaseException:
                self.outbox.flush()  # what came before the surprise
                raise
            if batch is not None:
                self._take_up(*batch)

        if isinstance(loop, MediaLoop) and loop.attend(attend):
            self._stop_reading()
            self._stop_reading = loop.sleep_again

    def _readable(self) -> None:
        # Packets that came while others were worked on are taken in at once, without the loop's
        # round.
        for _ in range(BATCHES_PER_TURN):
            count = take_in(self.fd, self.messages_address, RECEIVE_SLOTS)
            if not count:
                return
            # One reading for all: they came while the last batch was in work.
            self._take_up(count, 0, time.monotonic_ns())

    def _take_up(self, count: int, at: int, arrival_ns: int) -> None:
        outbox = self.outbox
        outbox.is_held = True
        try:
            self._on_datagrams(count, at, arrival_ns)
        finally:
            outbox.is_held = False
            outbox.flush()

    def _hand_over(self, count: int) -> None:
        self.sent_dropped += hand_over(self.fd, self.outbox.messages_address, count)


def host_and_port(address: Address) -> tuple[str, int]:
    """The IP address as text, and the port."""
    if len(address) == IPV4_NAME_BYTES:
        _, port, host = _IPV4.unpack_from(address)
        return socket.inet_ntop(socket.AF_INET, host), int.from_bytes(port, "big")
    _, port, host = _IPV6.unpack_from(address)
    return socket.inet_ntop(socket.AF_INET6, host), int.from_bytes(port, "big")
