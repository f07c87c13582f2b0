"""The WebSocket at /signal: who may connect, how much may be said, and what is answered.

Before anything else the Origin is checked exactly and a place looked for (doorway.py); then hello,
then one Grant or resume token, each within seconds. Limits: 64 KiB a frame, 20 messages a second
with a burst of 40, 64 messages in the out-queue (outbox.py). Text frames only. Every refusal has a
stable code and words (docs/protocol.md); what a client sent is never echoed or logged.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.websockets import WebSocketDisconnect, WebSocketState

from core.clock import Clock
from core.errors import ReceptionError, Unavailable
from core.grants import GrantRefused
from core.settings import Settings
from core.store import use_once
from signaling.doorway import Place
from signaling.hub import Hub, Member, refusal_code
from signaling.protocol import (
    HEARTBEAT_MS,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    ClientMessage,
    CloseCode,
    Error,
    Hello,
    Join,
    Ping,
    Pong,
    Resume,
    Unreadable,
    Welcome,
    parse,
)
from signaling.seat import DEVICES

log = structlog.get_logger(__name__)

HELLO_WITHIN_S: Final = 5.0
JOIN_WITHIN_S: Final = 30.0
"""A client that has said hello may still be fetching its Grant."""
SILENT_FOR_S: Final = 3.5 * HEARTBEAT_MS / 1000
"""Three missed heartbeats and a little for the way."""
MESSAGES_PER_S: Final = 20
BURST: Final = 40
CLOSE_WITHIN_S: Final = 2.0
"""A reader that takes nothing does not take the close frame either."""


class GrantUsed(GrantRefused):
    code = "grant_used"


class _Stop(Exception):
    """How the conversation ends from our side: say `error` if there is one, close with `code`."""

    def __init__(self, code: CloseCode, error: Error | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.error = error


def make_router(hub: Callable[[], Hub]) -> APIRouter:
    """The route of the socket. `hub` is asked at each connection: it exists only while started."""
    router = APIRouter()

    @router.websocket("/signal")
    async def signal(socket: WebSocket) -> None:
        await Conversation(hub(), socket).run()

    return router


class Budget:
    """A token bucket: `take` says whether one more message fits."""

    def __init__(self, now_ns: int) -> None:
        self._tokens = float(BURST)
        self._at_ns = now_ns

    def take(self, now_ns: int) -> bool:
        earned = (now_ns - self._at_ns) / 1e9 * MESSAGES_PER_S
        self._tokens = min(float(BURST), self._tokens + earned)
        self._at_ns = now_ns
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Conversation:
    """One socket from its opening to its closing."""

    def __init__(self, hub: Hub, socket: WebSocket) -> None:
        self._hub = hub
        self._socket = socket
        self._outbox = hub.new_outbox()
        self._clock: Clock = hub.services.clock
        self._budget = Budget(self._clock.monotonic_ns())
        self._member: Member | None = None

    async def run(self) -> None:
        """Talk until either side closes. Never raises for what the other side does."""
        if not origin_is_ours(self._socket, self._hub.services.settings):
            # Before accept: the browser sees 403 and no socket.
            await self._socket.close(CloseCode.FLOOD)
            return
        try:
            place = self._hub.doorway.come(address_of(self._socket))
        except ReceptionError as refusal:
            # Before accept too: a socket that must first be closed properly would need a place.
            await self._socket.send_denial_response(_problem(refusal))
            return
        try:
            await self._talk(place)
        finally:
            _when_gone(self._socket, place.go_in)

    async def _talk(self, place: Place) -> None:
        await self._socket.accept()
        reader = asyncio.create_task(self._read(place), name=f"read {self._outbox.socket_id}")
        writer = asyncio.create_task(self._write(), name=f"write {self._outbox.socket_id}")
        closing = asyncio.create_task(self._outbox.closing(), name="closing")
        try:
            await asyncio.wait({reader, closing}, return_when=asyncio.FIRST_COMPLETED)
            place.come_out()
            if self._outbox.close_code is not None:
                # What is still queued goes out first, if the reader takes it in time.
                await asyncio.wait({writer}, timeout=CLOSE_WITHIN_S)
        finally:
            for task in (reader, writer, closing):
                task.cancel()
            results = await asyncio.gather(reader, writer, closing, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    log.error("socket_failed", exc_info=result)
            if self._member is not None:
                self._member.gone()
            await self._hang_up()

    # ── out ──────────────────────────────────────────────────────────────────────────────────────

    async def _write(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while (message := await self._outbox.next()) is not None:
                await self._socket.send_text(message.model_dump_json())

    async def _hang_up(self) -> None:
        """Close from our side if nobody has; give up on a peer that does not take it."""
        if self._socket.application_state is not WebSocketState.CONNECTED:
            return
        code = self._outbox.close_code or CloseCode.OVER
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._socket.close(code)

    # ── in ───────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, place: Place) -> None:
        try:
            await self._greet()
            await self._come_in()
            place.go_in()
            while True:
                await self._follow(await self._next(SILENT_FOR_S))
        except _Stop as stop:
            if stop.error is not None:
                self._outbox.send(stop.error)
            self._outbox.close(stop.code)
        except WebSocketDisconnect:
            pass  # The other side has gone: `_talk` ends for it as for every end.

    async def _next(self, within_s: float) -> ClientMessage:
        """The next message that makes sense; pings and nonsense are answered on the way."""
        while True:
            text = await self._frame(within_s)
            try:
                message = parse(text)
            except Unreadable as nonsense:
                self._refuse(nonsense.request_id, nonsense)
                continue
            if isinstance(message, Ping):
                self._outbox.send(Pong(t=message.t))
                continue
            return message

    async def _frame(self, within_s: float) -> str:
        try:
            async with asyncio.timeout(within_s):
                event = await self._socket.receive()
        except TimeoutError:
            # No words: the way is probably broken, and whoever hears them should just resume.
            raise _Stop(CloseCode.TIMED_OUT) from None
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1006))
        text: str | None = event.get("text")
        if text is None:
            raise _Stop(
                CloseCode.BINARY_REFUSED, _fatal("binary_refused", "Only text frames are spoken.")
            )
        if not self._budget.take(self._clock.monotonic_ns()):
            raise _Stop(CloseCode.FLOOD, _fatal("too_many", "Too many messages. Slow down."))
        # A quick bound first: every character takes at least one byte.
        if len(text) > MAX_MESSAGE_BYTES or len(text.encode(errors="replace")) > MAX_MESSAGE_BYTES:
            raise _Stop(
                CloseCode.TOO_LARGE, _fatal("message_too_large", "A message is at most 64 KiB.")
            )
        return text

    async def _greet(self) -> None:
        message = await self._next(HELLO_WITHIN_S)
        if not isinstance(message, Hello):
            raise _Stop(
                CloseCode.PROTOCOL, _fatal("hello_first", "Say hello first.", _id_of(message))
            )
        if PROTOCOL_VERSION not in message.versions:
            words = "This page is too old or too new for this server. Reload it."
            raise _Stop(CloseCode.PROTOCOL, _fatal("version_refused", words))
        grace_ms = self._hub.services.settings.resume_grace_s * 1000
        self._outbox.send(
            Welcome(version=PROTOCOL_VERSION, heartbeat_ms=HEARTBEAT_MS, resume_grace_ms=grace_ms)
        )

    async def _come_in(self) -> None:
        message = await self._next(JOIN_WITHIN_S)
        if not isinstance(message, Join | Resume):
            raise _Stop(CloseCode.PROTOCOL, _fatal("join_first", "Join first.", _id_of(message)))
        try:
            self._member = await (
                self._join(message) if isinstance(message, Join) else self._resume(message)
            )
        except ReceptionError as refusal:
            error = _fatal(refusal.code, refusal.message, message.id)
            raise _Stop(refusal_code(refusal.code), error) from refusal
        except (RedisError, OSError, TimeoutError) as trouble:
            log.warning("nobody_can_come_in", reason=type(trouble).__name__)
            error = _fatal(Unavailable.code, "The server is busy. Trying again.", message.id)
            raise _Stop(CloseCode.RESTART, error) from trouble

    async def _join(self, message: Join) -> Member:
        services = self._hub.services
        now = self._clock.now()
        grant = services.grant_key.verify(message.grant, now=now)
        if grant.role in DEVICES:
            raise GrantRefused("This Grant is for a device. It comes in by WHIP or WHEP.")
        # Kept until the Grant would be refused for its age anyway.
        ttl = max(grant.expires_at - now, timedelta(0)) + timedelta(seconds=1)
        if not await use_once(services.store, f"grant:{grant.grant_id}", ttl):
            raise GrantUsed("This invitation has been used. Please enter again.")
        return await self._hub.enter(self._outbox, grant, message.id)

    async def _resume(self, message: Resume) -> Member:
        grant = self._hub.services.grant_key.verify_resume(message.resume_token)
        return await self._hub.come_back(
            self._outbox, grant, message.id, message.resume_token, message.last_seq
        )

    async def _follow(self, message: ClientMessage) -> None:
        match message:
            case Hello() | Join() | Resume():
                error = Error(
                    id=_id_of(message), code="already_joined", message="This socket has joined."
                )
                self._outbox.send(error)
            case Ping():
                pass  # answered in `_next`
            case _:
                assert self._member is not None
                self._member.say(message)

    def _refuse(self, request_id: str | None, error: ReceptionError) -> None:
        self._outbox.send(Error(id=request_id, code=error.code, message=error.message))


def origin_is_ours(socket: WebSocket, settings: Settings) -> bool:
    """Whether the page that opened this socket is ours (CSWSH, ASVS 4.4.2).

    With `public_url` set, exactly its origin; without, the origin under which the socket itself was
    asked for. A missing Origin is refused: every browser sends one, our own clients do too.
    """
    origin = socket.headers.get("origin")
    if not origin:
        return False
    if settings.public_url:
        ours = urlsplit(settings.base_url)
        return origin == f"{ours.scheme}://{ours.netloc}"
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc == socket.headers.get("host")


def address_of(socket: WebSocket) -> str:
    """Whose limits count: what core/edge.py takes for a request's address."""
    return socket.client.host if socket.client else "unknown"


def _when_gone(socket: WebSocket, call: Callable[[], None]) -> None:
    """Call it when the connection is gone, which may be a while after the talk: a reader that takes
    nothing does not take the end either. app/serve.py says when; under a server that does not, now.
    """
    gone: asyncio.Future[None] | None = socket.scope.get("state", {}).get("gone")
    if gone is None:
        call()
    else:
        gone.add_done_callback(lambda _: call())


def _problem(refusal: ReceptionError) -> JSONResponse:
    """As app/api.py says it; a refused socket passes no handler there."""
    body = {"type": "about:blank", "status": refusal.status, "code": refusal.code}
    sent = {**body, "detail": refusal.message, **refusal.details}
    wait = {"Retry-After": str(refusal.details["retry_after_s"])}
    return JSONResponse(sent, refusal.status, headers=wait, media_type="application/problem+json")


def _id_of(message: ClientMessage) -> str | None:
    return None if isinstance(message, Hello | Ping) else message.id


def _fatal(code: str, words: str, request_id: str | None = None) -> Error:
    return Error(id=request_id, code=code, message=words, fatal=True)
