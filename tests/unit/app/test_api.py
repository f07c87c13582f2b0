"""The HTTP edge: every error in one shape, strangers' forms refused, headers on everything."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.api import MAX_BODY_BYTES, Guard, install_errors
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
