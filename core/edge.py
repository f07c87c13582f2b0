"""What an edge holds: the house's services, and one request's context with its principal.

Every route asks for `Annotated[Context, allow(Verb.…)]`: that names its verb, refuses who may not,
and hands over everything the route may touch. This is the only module of the kernel that knows
FastAPI; the composition root (app/main.py) puts a `Services` into `app.state.services`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from core.blobs import BlobStore
from core.clock import Clock
from core.db import Database
from core.grants import GrantKey
from core.identity import Anyone, Principal, kiosk_by_token, staff_by_token
from core.policy import Verb, require
from core.settings import Settings
from core.store import Store

STAFF_COOKIE = "reception_session"
KIOSK_COOKIE = "reception_kiosk"


@dataclass(frozen=True, slots=True)
class Services:
    """Made once by the composition root; shared by every edge of the process."""

    settings: Settings
    database: Database
    store: Store
    blobs: BlobStore
    clock: Clock
    grant_key: GrantKey


@dataclass(frozen=True, slots=True)
class Context:
    """One request: who asks, when, from where, and the services."""

    principal: Principal
    now: datetime
    address: str
    services: Services

    @property
    def database(self) -> Database:
        return self.services.database

    @property
    def settings(self) -> Settings:
        return self.services.settings

    def require(self, verb: Verb, *paths: str) -> None:
        """As `policy.require`: for the thing itself, once its place in the org tree is known."""
        require(self.principal, verb, *paths)


class Allow:
    """The dependency behind `allow`; tests enumerate routes by it."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb

    async def __call__(self, request: Request) -> Context:
        services: Services = request.app.state.services
        now = services.clock.now()
        async with services.database.reading() as tx:
            principal = await principal_of(tx, request.cookies, now=now)
        require(principal, self.verb)
        address = request.client.host if request.client else "unknown"
        return Context(principal, now, address, services)


def allow(verb: Verb) -> Any:  # FastAPI's Depends marker has no useful public type
    """Name a route's verb: `ctx: Annotated[Context, allow(Verb.BOOK)]`."""
    return Depends(Allow(verb))


async def principal_of(tx: AsyncSession, cookies: dict[str, str], *, now: datetime) -> Principal:
    """Whose cookies these are: staff first, then a kiosk, else the public."""
    if token := cookies.get(STAFF_COOKIE):
        staff = await staff_by_token(tx, token, now=now)
        if staff is not None:
            return staff
    if token := cookies.get(KIOSK_COOKIE):
        device = await kiosk_by_token(tx, token)
        if device is not None:
            return device
    return Anyone()
