"""WHIP and WHEP over HTTP: methods, headers and status codes; what they mean is in whip.py.

RFC 9725 §4.2 and §4.3 say which header goes where and which methods are kept for later versions
(405). CORS headers are the edge's (app/api.py): these paths know no cookies, only bearer Grants.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Request, Response

from core.edge import Context, allow
from core.policy import Verb
from core.store import limit
from signaling.hub import Hub
from signaling.whip import (
    FRAGMENT_TYPE,
    SDP_TYPE,
    Devices,
    Door,
    bearer_of,
    check_media_type,
)

BEGINNINGS_PER_MINUTE: Final = 60
"""From one address. An encoder that is told to wait tries again every few seconds."""

Bringing = Annotated[Context, allow(Verb.BRING_GRANT)]


def make_device_router(hub: Callable[[], Hub]) -> APIRouter:
    """The routes of both doors. They are no part of the JSON API and of its schema."""
    router = APIRouter(include_in_schema=False)
    devices = Devices(hub)
    for door in Door:
        _add_door(router, devices, door)
    return router


def _add_door(router: APIRouter, devices: Devices, door: Door) -> None:
    endpoint = f"/{door}/{{room_id}}"
    session = f"{endpoint}/{{session_id}}"

    @router.post(endpoint)
    async def begin(room_id: str, request: Request, ctx: Bringing) -> Response:
        minute = timedelta(minutes=1)
        await limit(
            ctx.services.store, f"device:{ctx.address}", most=BEGINNINGS_PER_MINUTE, per=minute
        )
        bearer = bearer_of(request.headers.get("authorization"))
        check_media_type(request.headers.get("content-type"), SDP_TYPE)
        begun = await devices.begin(door, room_id, bearer, await request.body())
        return Response(
            begun.answer,
            201,
            media_type=SDP_TYPE,
            headers={
                "Location": f"/{door}/{room_id}/{begun.session_id}",
                "ETag": begun.etag,
                "Accept-Patch": FRAGMENT_TYPE,
            },
        )

    @router.patch(session)
    async def patch(room_id: str, session_id: str, request: Request, _ctx: Bringing) -> Response:
        bearer = bearer_of(request.headers.get("authorization"))
        check_media_type(request.headers.get("content-type"), FRAGMENT_TYPE)
        restarted = devices.patch(
            door, room_id, session_id, bearer,
            body=await request.body(), match=request.headers.get("if-match"),
        )  # fmt: skip
        if restarted is None:
            return Response(status_code=204)
        return Response(
            restarted.fragment, 200, media_type=FRAGMENT_TYPE, headers={"ETag": restarted.etag}
        )

    @router.delete(session)
    async def end(room_id: str, session_id: str, request: Request, _ctx: Bringing) -> Response:
        devices.end(door, room_id, session_id, bearer_of(request.headers.get("authorization")))
        return Response(status_code=200)

    @router.options(endpoint)
    async def endpoint_options(room_id: str, _ctx: Bringing) -> Response:
        return _options("POST, OPTIONS", {"Accept-Post": SDP_TYPE})

    @router.options(session)
    async def session_options(room_id: str, session_id: str, _ctx: Bringing) -> Response:
        return _options("PATCH, DELETE, OPTIONS", {"Accept-Patch": FRAGMENT_TYPE})

    # Named, because the pages' catch-all would answer GET and HEAD otherwise.
    @router.api_route(endpoint, methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"])
    async def not_on_endpoint(room_id: str, _ctx: Bringing) -> Response:
        raise _kept_for_later("POST, OPTIONS")

    @router.api_route(session, methods=["GET", "HEAD", "PUT", "POST"])
    async def not_on_session(room_id: str, session_id: str, _ctx: Bringing) -> Response:
        raise _kept_for_later("PATCH, DELETE, OPTIONS")


def _options(methods: str, accept: dict[str, str]) -> Response:
    """Also the answer to a browser's preflight."""
    return Response(
        status_code=200,
        headers={
            "Allow": methods,
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
            "Access-Control-Max-Age": "600",
            **accept,
        },
    )


def _kept_for_later(allowed: str) -> HTTPException:
    return HTTPException(405, f"Only {allowed} here.", headers={"Allow": allowed})
