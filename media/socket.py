"""One UDP socket for the whole node, read in batches into one buffer, and never waited for.

asyncio's own datagram transport asks the kernel for a fresh 256 KiB buffer per datagram; reading
into preallocated memory is a third of the cost. What cannot be sent at once is dropped and counted:
a late packet is worth less than the ones behind it, and receivers ask again for what they miss.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

Address = Any  # ("ip", port) or IPv6's four; opaque, hashable, compared by value.

# Fairness: after this many datagrams the loop gets a turn; timers and WebSockets live there too.
BATCH = 64
# Half a second of 60 Mbit/s: rides out a garbage collection or a scheduler's nap.
KERNEL_BUFFER_BYTES = 4 * 1024 * 1024


class MediaSocket:
    """Owns the socket. `on_datagram(length, address)` is called with the datagram in `buffer`.

    The buffer is overwritten by the next datagram. A datagram that fills it whole was probably cut
    and is dropped (`oversized`).
    """

    def __init__(
        self, host: str, port: int, buffer: memoryview, on_datagram: Callable[[int, Address], None]
    ) -> None:
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
        self.oversized = 0
        self._buffer = buffer
        self._on_datagram = on_datagram
        self._loop = asyncio.get_running_loop()
        self._sendto: Callable[[bytes | memoryview, Address], int] = self._socket.sendto
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def send(self, data: bytes | memoryview, address: Address | None) -> bool:
        """Whether the kernel took it. False means dropped and counted: full buffer, no route, or
        an address that was lost (None) between choosing and sending."""
        try:
            self._sendto(data, address)
        except (OSError, TypeError):  # BlockingIOError is one; TypeError: the address is None
            self.sent_dropped += 1
            return False
        return True

    def close(self) -> None:
        """Stop reading and free the port."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        receive = self._socket.recvfrom_into
        buffer = self._buffer
        on_datagram = self._on_datagram
        whole = len(buffer)
        for _ in range(BATCH):
            try:
                length, address = receive(buffer)
            except BlockingIOError:
                return
            except OSError:  # an ICMP answer to something we sent; there is no datagram to lose
                continue
            if length == whole:
                self.oversized += 1
                continue
            on_datagram(length, address)
