"""The HTTP edge: every error in one shape, strangers' forms refused, headers on everything."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.types import Message

import app.api
from app.api import MAX_BODY_BYTES, Guard, bounded, install_errors
from core.errors import Conflict, Unavailable


class Named(BaseModel):
    name: str


class Taken(Conflict):
    code = "slot_taken"


def make_app() -> FastAPI:
    app = FastAPI()
    install_errors(app)
    app.add_middleware(Guard)

    @app.post("/api/thing")
    async def thing(body: Named) -> dict[str, str]:
        return {"name": body.name}

    @app.get("/api/taken")
    async def taken() -> None:
        raise Taken("This time has just been taken. Please choose another.", next_free=[1])

    @app.get("/api/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    @app.get("/api/busy")
    async def busy() -> None:
        raise Unavailable("Not now.", retry_after_s=7)

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=make_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as made:
        yield made


async def test_a_known_error_says_code_words_and_details(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/taken")
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "slot_taken"
    assert response.json()["next_free"] == [1]


async def test_an_unknown_error_says_nothing_of_its_cause(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/broken")
    assert response.status_code == 500
    assert "secret" not in response.text


async def test_a_malformed_body_names_the_field_but_never_its_value(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post("/api/thing", json={"name": {"first": "扎西"}})
    assert response.status_code == 422
    assert response.json()["faults"][0]["where"] == "name"
    assert "扎西" not in response.text


async def test_try_again_says_when(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/busy")).headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}],
)
async def test_another_sites_form_is_refused(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    response = await client.post("/api/thing", json={"name": "x"}, headers=headers)
    assert response.status_code == 403


async def test_our_own_page_and_programs_pass(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"origin": "http://here"}, {"sec-fetch-site": "same-origin"}):
        response = await client.post("/api/thing", json={"name": "x"}, headers=headers)
        assert response.status_code == 200


async def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(
    client: httpx.AsyncClient,
) -> None:
    body = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'

    async def undeclared() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    assert (await client.post("/api/thing", content=body)).status_code == 413
    assert (await client.post("/api/thing", content=undeclared())).status_code == 413


async def trickle(pieces: int, pause_s: float) -> AsyncIterator[bytes]:
    yield b'{"name": "'
    for _ in range(pieces):
        await asyncio.sleep(pause_s)
        yield b"x"
    yield b'"}'


async def test_a_body_that_stops_for_too_long_is_let_go_of(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.api, "PAUSE_S", 0.05)
    response = await client.post("/api/thing", content=trickle(1, 60))
    assert response.status_code == 408 and response.json()["code"] == "too_slow"
    assert response.headers["connection"] == "close"


async def test_a_body_that_trickles_is_let_go_of_though_it_never_stops(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.api, "PAUSE_S", 0.2)
    response = await client.post("/api/thing", content=trickle(100_000, 0.001))
    assert response.status_code == 408


async def test_a_slow_body_that_keeps_to_the_rate_is_waited_for(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.api, "SLOWEST_BYTES_PER_S", 1)
    monkeypatch.setattr(app.api, "PAUSE_S", 10)
    headers = {"content-type": "application/json"}
    response = await client.post("/api/thing", content=trickle(30, 0.01), headers=headers)
    assert response.status_code == 200 and response.json() == {"name": "x" * 30}


async def test_when_everything_has_come_nobody_is_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.api, "PAUSE_S", 0.01)
    messages = [{"type": "http.request", "body": b"x", "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    waiting = bounded(receive, Headers({}))
    assert (await waiting())["body"] == b"x"
    assert (await waiting())["type"] == "http.disconnect"


async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/api/taken", "/nowhere"):
        headers = (await client.get(path)).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert (await client.get("/api/taken")).headers["cache-control"] == "no-store"


async def test_only_a_slip_may_be_framed_and_only_by_our_own_page(
    client: httpx.AsyncClient,
) -> None:
    slip = await client.get("/api/appointments/x/slip.pdf")
    page = await client.get("/api/taken")
    assert "frame-ancestors 'self'" in slip.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
