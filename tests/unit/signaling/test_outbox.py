"""The way out of a socket keeps its bound and says why it closes."""

import asyncio

from signaling.effects import SocketId
from signaling.outbox import MAX_WAITING, Outbox
from signaling.protocol import CloseCode, Ok, Pong, ServerMessage, Speaking


def outbox() -> Outbox:
    return Outbox(SocketId(1))


async def drained(box: Outbox) -> list[ServerMessage]:
    box.close(CloseCode.OVER)
    out = []
    while (message := await box.next()) is not None:
        out.append(message)
    return out


async def test_messages_leave_in_order_and_before_the_close() -> None:
    box = outbox()
    for n in range(3):
        box.send(Ok(id=str(n)))
    assert [message.id for message in await drained(box)] == ["0", "1", "2"]  # type: ignore[union-attr]


async def test_a_full_queue_closes_the_socket_and_keeps_nothing() -> None:
    box = outbox()
    for n in range(MAX_WAITING + 1):
        box.send(Ok(id=str(n)))
    assert box.close_code is CloseCode.SLOW_READER
    assert await box.next() is None


async def test_levels_and_status_make_way_long_before_the_queue_is_full() -> None:
    box = outbox()
    for _ in range(10 * MAX_WAITING):
        box.send(Speaking(participant_id="p", speaking=True))
    box.send(Pong(t=1))
    assert box.close_code is None
    out = await drained(box)
    assert len(out) < MAX_WAITING
    assert isinstance(out[-1], Pong)


async def test_the_first_reason_to_close_stands_and_nothing_follows_it() -> None:
    box = outbox()
    box.close(CloseCode.REPLACED)
    box.close(CloseCode.OVER)
    box.send(Ok(id="late"))
    assert box.close_code is CloseCode.REPLACED
    assert await box.next() is None


async def test_a_waiting_writer_is_woken_by_a_message_and_by_the_close() -> None:
    box = outbox()
    writer = asyncio.create_task(box.next())
    closing = asyncio.create_task(box.closing())
    await asyncio.sleep(0)
    box.send(Ok(id="1"))
    assert await writer == Ok(id="1")
    assert not closing.done()
    box.close(CloseCode.OVER)
    await asyncio.wait_for(closing, 1)
