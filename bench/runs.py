"""What does a packet of a picture cost on its way to the kernel, by itself and in a run?

Flushes of eight packets of 1,100 bytes to receivers on loopback, in runs of one length for one
receiver, handed over by Python and by C in turns (docs/decisions/0011-a-picture-in-one-piece.md).
Only the processor's time inside the call counts, in a tight loop: in a relay that sleeps between
packets everything costs several times as much.

    run(flushes) -> {"rows": a row for each length of a run, …}
"""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from statistics import median
from typing import Any, Final

from bench.circumstances import circumstances
from media import socket as media_socket
from media.socket import MediaSocket

PACKETS: Final = 8
PACKET_BYTES: Final = 1_100
RUNS: Final = (1, 2, 4, 8)
ROUNDS: Final = 5
LOOPBACK: Final = "127.0.0.1"
Row = dict[str, Any]
HandOver = Callable[[int, int, int], int]


def run(flushes: int) -> Row:
    """`flushes` of each kind in each of five rounds; the rows tell the rounds' medians."""
    return {"rows": asyncio.run(_measure(flushes)), **circumstances()}


def in_words(row: Row) -> str:
    """A row in a line, for people."""
    return (
        f"runs of {row['run']}: {row['us_singly']} us a packet one by one, {row['us_in_runs']} in "
        "runs"
    )


async def _measure(flushes: int) -> list[Row]:
    ours = MediaSocket(LOOPBACK, 0, lambda *_: None)
    rows = []
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for _ in range(PACKETS)
        ]
        for receiver in receivers:
            receiver.bind((LOOPBACK, 0))
            receiver.setblocking(False)
        for length in RUNS:
            _fill(ours, length, receivers)
            singly, in_runs = [], []
            for _ in range(ROUNDS):
                singly.append(_us(ours, media_socket.hand_over_in_python, flushes, receivers))
                in_runs.append(_us(ours, media_socket.hand_over, flushes, receivers))
            rows.append(
                {
                    "run": length,
                    "us_singly": round(median(singly), 2),
                    "us_in_runs": round(median(in_runs), 2),
                }
            )
    ours.close()
    return rows


def _fill(ours: MediaSocket, length: int, receivers: Sequence[socket.socket]) -> None:
    """Lay the packets ready, `length` after one another for each receiver."""
    for place in range(PACKETS):
        ours.outbox.buffers[place].length[0] = PACKET_BYTES
        _, port = receivers[place // length].getsockname()
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port)
        ours.outbox.receivers[place][:] = address + socket.inet_aton(LOOPBACK) + bytes(8)


def _us(
    ours: MediaSocket, hand_over: HandOver, flushes: int, receivers: Sequence[socket.socket]
) -> float:
    """Microseconds of the processor for each packet."""
    spent_ns = 0
    for _ in range(flushes):
        before_ns = time.process_time_ns()
        dropped = hand_over(ours.fd, ours.outbox.messages_address, PACKETS)
        spent_ns += time.process_time_ns() - before_ns
        assert not dropped
        came = sum(map(_drain, receivers))
        assert came == PACKETS, "not every packet arrived by itself"
    return spent_ns / flushes / PACKETS / 1000


def _drain(receiver: socket.socket) -> int:
    came = 0
    with suppress(BlockingIOError):
        while receiver.recv(2 * PACKET_BYTES):
            came += 1
    return came
