"""The way out of one socket: bounded, and a slow reader loses the socket, not the house its memory.

`send` never waits. Messages that the next one replaces (levels, status) are dropped early; anything
else that does not fit means that the reader is too slow: the queue is thrown away and the socket is
closed with 1013, after which the client resumes.
"""

import asyncio
from collections import deque

from signaling.effects import SocketId
from signaling.protocol import CloseCode, Quality, RecordingStatus, ServerMessage, Speaking

MAX_WAITING = 64
_REPLACEABLE = (Speaking, RecordingStatus, Quality)
_REPLACEABLE_UP_TO = MAX_WAITING // 4


class Outbox:
    """Messages on their way to one socket. Used on the event loop only."""

    def __init__(self, socket_id: SocketId) -> None:
        self.socket_id = socket_id
        self.close_code: CloseCode | None = None
        self._waiting: deque[ServerMessage] = deque()
        self._woken = asyncio.Event()
        self._closing = asyncio.Event()

    def send(self, message: ServerMessage) -> None:
        if self.close_code is not None:
            return
        if isinstance(message, _REPLACEABLE) and len(self._waiting) >= _REPLACEABLE_UP_TO:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.clear()
            self.close(CloseCode.SLOW_READER)
            return
        self._waiting.append(message)
        self._woken.set()

    def close(self, code: CloseCode) -> None:
        """Send what is waiting, then close. The first reason stands."""
        if self.close_code is None:
            self.close_code = code
        self._woken.set()
        self._closing.set()

    async def next(self) -> ServerMessage | None:
        """The next message; None when the socket is to be closed."""
        while not self._waiting:
            if self.close_code is not None:
                return None
            self._woken.clear()
            await self._woken.wait()
        return self._waiting.popleft()

    async def closing(self) -> None:
        """Returns once the socket is to be closed, whether or not messages still wait."""
        await self._closing.wait()
