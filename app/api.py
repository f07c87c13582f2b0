"""The HTTP edge: errors become problem+json, strangers' forms are refused, headers are set.

Written as plain ASGI, so that recordings stream through untouched and sockets pass by.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import Forbidden, NotFound, ReceptionError, TooLarge, TooSlow

log = structlog.get_logger()

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
MAX_BODY_BYTES = 256 * 1024
MAX_UPLOAD_BYTES = 21 * 1024 * 1024
"""A 20 MiB picture and the form around it; cases/materials.py sets the exact bound."""

PAUSE_S = 60.0
"""As long as a talk waits for a line that is away."""
SLOWEST_BYTES_PER_S = 2048
"""Over the whole body, beyond one pause: what a village's line has left beside a talk. A 20 MiB
picture may take nearly three hours; whoever sends a byte now and then is let go of."""

CODES = {kind.status: kind.code for kind in (NotFound, TooLarge, TooSlow)}
"""What the framework finds out by itself, in our words."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; font-src 'self'; connect-src 'self'; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


DEVICE_PATHS = ("/whip/", "/whep/")
DEVICE_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Location, ETag, Accept-Patch, WWW-Authenticate, Retry-After",
    "Cache-Control": "no-store",
}
"""WHIP and WHEP clients may be pages of anywhere (RFC 9725 §4.2). Only the bearer Grant that they
send themselves counts there and no cookie does, so another site's page gains nothing by asking."""


PRINTED = "/slip.pdf"
PRINTED_POLICY = SECURITY_HEADERS["Content-Security-Policy"].replace(
    "frame-ancestors 'none'", "frame-ancestors 'self'"
)
"""The kiosk prints a slip from a frame of its own page; nothing else is ever framed."""


def problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **details: Any
) -> JSONResponse:
    """An RFC 9457 problem. `code` is stable for programs; `detail` says what to do next."""
    body = {"type": "about:blank", "status": status, "code": code, "detail": detail, **details}
    sent = dict(headers or {})
    if "retry_after_s" in details:
        sent["Retry-After"] = str(details["retry_after_s"])
    return JSONResponse(body, status, headers=sent, media_type="application/problem+json")


def install_errors(app: FastAPI) -> None:
    """Translate every error once. Unknown ones say nothing outside and everything to the log."""

    @app.exception_handler(ReceptionError)
    async def _known(_request: Request, error: ReceptionError) -> JSONResponse:
        return problem(error.status, error.code, error.message, error.headers, **error.details)

    @app.exception_handler(RequestValidationError)
    async def _malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        # The offending value may be somebody's name: only its place and the rule are repeated.
        faults = [
            {"where": ".".join(map(str, fault["loc"][1:])), "rule": fault["msg"]}
            for fault in error.errors()
        ]
        return problem(
            422, "malformed", "Some fields are missing or wrong. Correct them and send again.",
            faults=faults,
        )  # fmt: skip

    @app.exception_handler(HTTPException)
    async def _framework(_request: Request, error: HTTPException) -> JSONResponse:
        code = CODES.get(error.status_code, f"http_{error.status_code}")
        return problem(error.status_code, code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def _unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("request_failed", method=request.method, route=_route(request), exc_info=error)
        return problem(
            500, "internal", "Something went wrong on our side. It has been noted; try again."
        )


def _route(request: Request) -> str:
    # The template, not the path: ids stay out of error lines.
    route = request.scope.get("route")
    return getattr(route, "path", "unknown")


class Guard:
    """Origin check, body bounds and security headers, around everything."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].endswith(PRINTED):
                    headers["Content-Security-Policy"] = PRINTED_POLICY
                if scope["path"].startswith("/api"):
                    headers.setdefault("Cache-Control", "no-store")
                if is_for_devices:
                    for name, value in DEVICE_HEADERS.items():
                        headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        is_for_devices = scope["path"].startswith(DEVICE_PATHS)
        try:
            if scope["method"] not in SAFE_METHODS and not is_for_devices:
                check_origin(headers)
            receive = bounded(receive, headers)
        except ReceptionError as error:
            response = problem(error.status, error.code, error.message, **error.details)
            await response(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)


def check_origin(headers: Headers) -> None:
    """Refuse a request that another site's page sent (CSRF; OWASP ASVS 5.0, V3.5).

    Browsers say where an unsafe request comes from; a client that says nothing is no browser and
    carries no ambient cookie, so it may pass.
    """
    origin = headers.get("origin")
    if origin is not None and origin.split("://", 1)[-1] != headers.get("host"):
        raise Forbidden("This request came from another site and was not carried out.")
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Forbidden("This request came from another site and was not carried out.")


TOO_SLOW = "This came too slowly. Send it again when the line is better."


def bounded(receive: Receive, headers: Headers) -> Receive:
    """`receive` with limits on the body. Raises `TooLarge` at once if the length is declared.

    A body that pauses for too long, or comes too slowly, ends with 408. Only waiting counts against
    it, not what we do with what has come.
    """
    is_upload = headers.get("content-type", "").startswith("multipart/form-data")
    most = MAX_UPLOAD_BYTES if is_upload else MAX_BODY_BYTES
    words = f"This is larger than {most // 1024} KiB. Send a smaller one."
    declared = headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > most:
        raise TooLarge(words, limit_bytes=most)
    taken, waited_s, is_whole = 0, 0.0, False

    async def receive_bounded() -> Message:
        nonlocal taken, waited_s, is_whole
        if is_whole:
            return await receive()  # that the client goes may be waited for without end
        patience_s = min(PAUSE_S, PAUSE_S + taken / SLOWEST_BYTES_PER_S - waited_s)
        began_s = time.monotonic()
        # The framework's own errors: it turns any other one, raised here, into a plain 400.
        try:
            async with asyncio.timeout(patience_s):
                message = await receive()
        except TimeoutError as late:
            raise HTTPException(TooSlow.status, TOO_SLOW, {"Connection": "close"}) from late
        waited_s += time.monotonic() - began_s
        taken += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if taken > most:
            raise HTTPException(TooLarge.status, words)
        return message

    return receive_bounded
