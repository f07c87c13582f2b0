"""The same day on the engines of a prefecture: PostgreSQL for data and durable work, and Redis."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from app.rehearsal import Desk, Rehearsal
from app.seed import Founding, found
from app.seed_facts import PAST_VISITS
from core.db import Database
from core.settings import Settings
from media.verification import verify
from tests.integration.test_a_killed_server import hours_from_now
from tests.support.postgres import PostgresCluster
from tests.support.redis import running_redis
from tests.support.server import ServerProcess

TALK_S = 4

pytestmark = [pytest.mark.timeout(240), pytest.mark.postgres, pytest.mark.redis]


@asynccontextmanager
async def prefecture(
    var_dir: Path, engines: dict[str, str], roles: str
) -> AsyncIterator[tuple[Desk, Founding]]:
    """One process with both roles, or two with one each on the same data."""
    founding = await found(
        Settings(var_dir=var_dir, database_url=engines["RECEPTION_DATABASE_URL"])
    )
    assert founding is not None
    common = {"RECEPTION_COUNTDOWN_S": "1", **engines}
    room = ServerProcess(var_dir, {**common, "RECEPTION_NODE_NAME": "room-1"})
    servers = [room]
    if roles == "apart":
        room.extra["RECEPTION_ROLES"] = '["room"]'
        # A proxy would send signaling to the room's process; here its address does.
        apart = {"RECEPTION_ROLES": '["web"]', "RECEPTION_PUBLIC_URL": room.url}
        servers.append(ServerProcess(var_dir, {**common, "RECEPTION_NODE_NAME": "web-1", **apart}))
    try:
        for server in servers:
            await asyncio.to_thread(server.start)
        async with Desk(servers[-1].url, founding.password) as desk:
            yield desk, founding
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)


@pytest.mark.parametrize("roles", ["together", "apart"])
async def test_a_talk_is_held_recorded_and_followed_by_its_case(
    tmp_path: Path, postgres_cluster: PostgresCluster, roles: str
) -> None:
    url = postgres_cluster.create_database()
    visit = PAST_VISITS[0]
    with running_redis() as redis_url, tempfile.TemporaryDirectory() as clips:
        engines = {"RECEPTION_DATABASE_URL": url, "RECEPTION_REDIS_URL": redis_url}
        async with prefecture(tmp_path / "var", engines, roles) as (desk, founding):
            day_id = await desk.publish("lingdao", *hours_from_now(), topics=["草场"])
            rehearsal = Rehearsal(desk, "lingdao", visit, founding.kiosk_codes[visit.county])
            held = await rehearsal.hold(day_id, TALK_S, Path(clips))
    assert held.recording_state == "ready"
    [journals] = filter(Path.is_dir, (tmp_path / "var/recordings").iterdir())
    assert verify(journals).is_intact
    database = Database(url)
    async with database.reading() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM cases")) == 1
        durable = await tx.scalar(text("SELECT count(*) FROM dbos.workflow_status"))
    await database.close()
    assert durable == 2, "the case's workflow and the recording's, kept in PostgreSQL"
