"""The same day on the engines of a prefecture: PostgreSQL for data and durable work, and Redis."""

import tempfile
from pathlib import Path

import pytest
from sqlalchemy import text

from app.rehearsal import Rehearsal
from app.seed_facts import PAST_VISITS
from core.db import Database
from media.manifest import verify
from tests.integration.test_a_killed_server import hours_from_now
from tests.support.postgres import PostgresCluster
from tests.support.prefecture_process import living_prefecture
from tests.support.redis import running_redis

TALK_S = 4

pytestmark = [pytest.mark.timeout(240), pytest.mark.postgres, pytest.mark.redis]


async def test_a_talk_is_held_recorded_and_followed_by_its_case(
    tmp_path: Path, postgres_cluster: PostgresCluster
) -> None:
    url = postgres_cluster.create_database()
    visit = PAST_VISITS[0]
    with running_redis() as redis_url, tempfile.TemporaryDirectory() as clips:
        engines = {"RECEPTION_DATABASE_URL": url, "RECEPTION_REDIS_URL": redis_url}
        async with living_prefecture(tmp_path / "var", **engines) as living:
            day_id = await living.desk.publish("lingdao", *hours_from_now(), topics=["草场"])
            code = living.founding.kiosk_codes[visit.county]
            rehearsal = Rehearsal(living.desk, "lingdao", visit, code)
            held = await rehearsal.hold(day_id, TALK_S, Path(clips))
    assert held.recording_state == "ready"
    [journals] = (tmp_path / "var/recordings").iterdir()
    assert verify(journals).is_intact
    database = Database(url)
    async with database.reading() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM cases")) == 1
        durable = await tx.scalar(text("SELECT count(*) FROM dbos.workflow_status"))
    await database.close()
    assert durable == 2, "the case's workflow and the recording's, kept in PostgreSQL"
