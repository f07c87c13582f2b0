"""A client of the signaling socket in Python: tests, the seed, the load generator and `doctor`.

It speaks the protocol's own types, answers nothing by itself but keeps the heartbeat, and remembers
what a resume needs. Offers and room events wait in `inbox` until somebody asks for them.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from core.errors import Unavailable
from signaling.protocol import (
    CLIENT_MESSAGE,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    SERVER_MESSAGE,
    Answer,
    Error,
    Hello,
    Join,
    Joined,
    Message,
    Ok,
    Ping,
    Pong,
    Resume,
    Resumed,
    ServerMessage,
    Welcome,
)

M = TypeVar("M", bound=Message)

PATIENCE_S: Final = 10.0
MAX_INBOX: Final = 1_000
"""Messages nobody has asked for. When full the oldest goes: a program that does not read its inbox
has no use for them."""


class SignalingRefused(Exception):
    """A request was answered with `error`."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.code = error.code
        self.error = error


class SignalingClosed(Unavailable):
    """The socket is closed; `close_code` says why."""

    code = "signaling_closed"

    def __init__(self, close_code: int | None) -> None:
        super().__init__("The signaling socket is closed.", close_code=close_code)
        self.close_code = close_code


class SignalingClient:
    """One socket. Made by `open_signaling`; for a resume open another and call `resume`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.welcome: Welcome | None = None
        self.participant_id: str | None = None
        self.resume_token: str | None = None
        self.last_seq = 0
        self.inbox: list[ServerMessage] = []
        self._socket = socket
        self._ids = (f"p{n}" for n in itertools.count(1))
        self._replies: dict[str, asyncio.Future[Ok | Joined | Resumed]] = {}
        self._arrived = asyncio.Condition()
        self._is_closed = False

    # ── asking ───────────────────────────────────────────────────────────────────────────────────

    async def join(self, grant: str) -> Joined:
        """Take a seat with a Grant. Raises `SignalingRefused`."""
        reply = await self.request(Join(type="join", id=next(self._ids), grant=grant))
        assert isinstance(reply, Joined)
        return reply

    async def resume(self, resume_token: str, last_seq: int) -> Resumed:
        """Take a seat again after a lost socket. Raises `SignalingRefused`."""
        self.last_seq = last_seq
        reply = await self.request(
            Resume(type="resume", id=next(self._ids), resume_token=resume_token, last_seq=last_seq)
        )
        assert isinstance(reply, Resumed)
        return reply

    async def answer(self, revision: int, sdp: str) -> None:
        await self.request(Answer(type="answer", id=next(self._ids), revision=revision, sdp=sdp))

    async def ask(self, kind: str, **fields: object) -> Ok | Joined | Resumed:
        """Any request by its type, e.g. `ask("mute", track="camera", muted=True)`."""
        message = CLIENT_MESSAGE.validate_python({"type": kind, "id": next(self._ids), **fields})
        return await self.request(message)

    async def request(self, message: Message) -> Ok | Joined | Resumed:
        """Send a message that has an `id` and wait for its one reply."""
        request_id: str = message.model_dump()["id"]
        reply: asyncio.Future[Ok | Joined | Resumed] = asyncio.get_running_loop().create_future()
        self._replies[request_id] = reply
        try:
            await self._send(message)
            async with asyncio.timeout(PATIENCE_S):
                return await reply
        finally:
            self._replies.pop(request_id, None)

    async def send_text(self, text: str) -> None:
        """Any text as it is: for what no honest client would say."""
        try:
            await self._socket.send(text)
        except ConnectionClosed as closed:
            raise SignalingClosed(self._socket.close_code) from closed

    async def _send(self, message: Message) -> None:
        await self.send_text(message.model_dump_json())

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────

    async def next(
        self,
        kind: type[M],
        where: Callable[[M], bool] = lambda _: True,
        *,
        within_s: float = PATIENCE_S,
    ) -> M:
        """Take the first message of `kind` for which `where` holds out of the inbox, or wait for
        it. Raises `TimeoutError`, or `SignalingClosed` if it can no longer come.
        """
        async with asyncio.timeout(within_s), self._arrived:
            while True:
                for index, message in enumerate(self.inbox):
                    if isinstance(message, kind) and where(message):
                        del self.inbox[index]
                        return message
                if self._is_closed:
                    raise SignalingClosed(self._socket.close_code)
                await self._arrived.wait()

    async def closed(self, *, within_s: float = PATIENCE_S) -> int | None:
        """Wait until the server has closed the socket; its close code."""
        async with asyncio.timeout(within_s):
            await self._socket.wait_closed()
        return self._socket.close_code

    def abort(self) -> None:
        """Lose the socket as a pulled cable would: no close frame."""
        self._socket.transport.abort()

    # ── the two tasks of `open_signaling` ────────────────────────────────────────────────────────

    async def greet(self) -> None:
        await self._send(Hello(type="hello", versions=(PROTOCOL_VERSION,), client="python"))
        self.welcome = await self.next(Welcome)

    async def read(self) -> None:
        """Take in what the server says until the socket closes."""
        try:
            async for text in self._socket:
                await self._take(SERVER_MESSAGE.validate_json(text))
        except ConnectionClosed:
            pass
        finally:
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(SignalingClosed(self._socket.close_code))
            async with self._arrived:
                self._is_closed = True
                self._arrived.notify_all()

    async def _take(self, message: ServerMessage) -> None:
        match message:
            case Joined():
                self.participant_id = message.participant_id
                self.resume_token, self.last_seq = message.resume_token, message.seq
            case Resumed():
                self.resume_token = message.resume_token
                if message.room is not None:
                    self.last_seq = message.seq
            case Pong():
                return
            case _:
                self.last_seq = max(self.last_seq, getattr(message, "seq", 0))
        if isinstance(message, Ok | Joined | Resumed):
            self._resolve(message)
            return
        reply = self._replies.get(message.id or "") if isinstance(message, Error) else None
        if isinstance(message, Error) and reply is not None and not reply.done():
            reply.set_exception(SignalingRefused(message))
            return
        async with self._arrived:
            self.inbox.append(message)
            del self.inbox[:-MAX_INBOX]
            self._arrived.notify_all()

    def _resolve(self, message: Ok | Joined | Resumed) -> None:
        reply = self._replies.get(message.id)
        if reply is not None and not reply.done():
            reply.set_result(message)

    async def beat(self) -> None:
        """Keep the heartbeat that the server asked for."""
        assert self.welcome is not None
        loop = asyncio.get_running_loop()
        with contextlib.suppress(SignalingClosed):
            while True:
                await asyncio.sleep(self.welcome.heartbeat_ms / 1000)
                await self._send(Ping(type="ping", t=loop.time()))


@asynccontextmanager
async def open_signaling(url: str, *, origin: str | None = None) -> AsyncIterator[SignalingClient]:
    """A greeted socket at `url` (ws:// or wss://), closed at the end of the block.

    `origin` is what a page of the server would send; by default that of `url` itself. Raises
    `websockets.exceptions.InvalidStatus` if the server does not want this origin.
    """
    parts = urlsplit(url)
    page = f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"
    async with connect(
        url,
        origin=None if origin == "" else origin or page,  # type: ignore[arg-type]  # a NewType of str
        max_size=2 * MAX_MESSAGE_BYTES,
        compression=None,
        proxy=None,
    ) as socket:
        client = SignalingClient(socket)
        reader = asyncio.create_task(client.read(), name="signaling client reads")
        tasks = [reader]
        try:
            await client.greet()
            tasks.append(asyncio.create_task(client.beat(), name="signaling client beats"))
            yield client
        finally:
            await socket.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
