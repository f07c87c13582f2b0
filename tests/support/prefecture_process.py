"""A founded prefecture behind a real server process: what integration and e2e tests live in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.rehearsal import Desk
from app.seed import Founding, found
from core.settings import Settings
from tests.support.server import ServerProcess


@dataclass(frozen=True, slots=True)
class Living:
    """A running server, the keys to its prefecture, and staff who can sign in."""

    server: ServerProcess
    founding: Founding
    desk: Desk


@asynccontextmanager
async def living_prefecture(var_dir: Path, **extra: str) -> AsyncIterator[Living]:
    """Found a prefecture in `var_dir`, serve it from a process of its own, stop it at the end."""
    database_url = extra.get("RECEPTION_DATABASE_URL", "")
    founding = await found(Settings(var_dir=var_dir, database_url=database_url))
    assert founding is not None, "the prefecture's database was not empty"
    server = ServerProcess(var_dir, {"RECEPTION_COUNTDOWN_S": "1", **extra})
    await asyncio.to_thread(server.start)
    try:
        async with Desk(server.url, founding.password) as desk:
            yield Living(server, founding, desk)
    finally:
        await asyncio.to_thread(server.stop)
