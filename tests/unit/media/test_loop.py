"""A loop in whose sleep somebody is awake does all that another loop does, and in time."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from media.loop import MediaLoop

ASLEEP_S = 0.05


class Attendant:
    """Waits as it should, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.timeouts_s: list[float | None] = []

    def __call__(self, others: int, timeout_s: float | None) -> None:
        self.timeouts_s.append(timeout_s)
        select.select([others], [], [], timeout_s)


@pytest.fixture
async def attendant() -> AsyncIterator[Attendant]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MediaLoop), "the tests do not run on the house's loop"
    made = Attendant()
    assert loop.attend(made)
    yield made
    loop.sleep_again()


async def test_timers_come_in_time(attendant: Attendant) -> None:
    for pause_s in (0.0, 0.001, ASLEEP_S):
        before_s = time.monotonic()
        await asyncio.sleep(pause_s)
        assert pause_s <= time.monotonic() - before_s < pause_s + 0.5
    assert attendant.timeouts_s


async def test_a_socket_and_another_thread_end_the_wait(attendant: Attendant) -> None:
    loop, woken = asyncio.get_running_loop(), asyncio.Event()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        for wake in (
            lambda: theirs.send(b"x"),
            lambda: loop.call_soon_threadsafe(woken.set),
        ):
            attendant.timeouts_s.clear()
            threading.Timer(ASLEEP_S, wake).start()
            waited = [loop.create_task(loop.sock_recv(ours, 1)), loop.create_task(woken.wait())]
            done, rest = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            for task in rest:
                task.cancel()
            assert None in attendant.timeouts_s  # it slept without an end


async def test_only_one_attends_until_it_leaves(attendant: Attendant) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MediaLoop)
    other = Attendant()
    assert not loop.attend(other)
    await asyncio.sleep(0.001)
    loop.sleep_again()
    assert loop.attend(other)
    before = len(attendant.timeouts_s)
    await asyncio.sleep(0.001)
    assert other.timeouts_s
    assert len(attendant.timeouts_s) == before


async def test_a_surprise_is_told_and_the_loop_goes_on() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MediaLoop)
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    surprise = RuntimeError("boo")

    def attend(others: int, timeout_s: float | None) -> None:
        loop.sleep_again()
        raise surprise

    assert loop.attend(attend)
    await asyncio.sleep(0.001)
    assert [context["exception"] for context in told] == [surprise]
