"""The HTTP edge: errors become problem+json, strangers' forms are refused, headers are set.

Written as plain ASGI, so that recordings stream through untouched and sockets pass by.
"""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import Forbidden, NotFound, ReceptionError, TooLarge

log = structlog.get_logger()

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
MAX_BODY_BYTES = 256 * 1024
MAX_UPLOAD_BYTES = 21 * 1024 * 1024
"""A 20 MiB picture and the form around it; cases/materials.py sets the exact bound."""

CODES = {kind.status: kind.code for kind in (NotFound, TooLarge)}
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


def bounded(receive: Receive, headers: Headers) -> Receive:
    """`receive` with a limit on the body. Raises `TooLarge` at once if the length is declared."""
    is_upload = headers.get("content-type", "").startswith("multipart/form-data")
    most = MAX_UPLOAD_BYTES if is_upload else MAX_BODY_BYTES
    words = f"This is larger than {most // 1024} KiB. Send a smaller one."
    declared = headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > most:
        raise TooLarge(words, limit_bytes=most)
    taken = 0

    async def receive_bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            # The framework's own error: it turns any other one, raised here, into a plain 400.
            raise HTTPException(TooLarge.status, words)
        return message

    return receive_bounded
