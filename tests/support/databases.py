"""Fresh databases for tests: the same test runs on a SQLite file and on a real PostgreSQL.

`database` is parametrised over both engines. `sqlite_database` is for tests whose question has
nothing to do with the engine. Registered as a plugin in tests/conftest.py.
"""

import importlib
import importlib.util
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.db import Base, Database
from tests.support.postgres import PostgresCluster, running_cluster

MODEL_MODULES = (
    "core.identity", "core.events", "core.audit",
    "scheduling.model", "signaling.model", "media.model", "cases.model", "cases.keeping_model",
)  # fmt: skip


async def create_tables(database: Database) -> None:
    """Every table that any package declares."""
    for name in MODEL_MODULES:
        if importlib.util.find_spec(name) is None:
            break  # the packages above refer to its tables
        importlib.import_module(name)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """One PostgreSQL for the session; fails, in words, where none is installed."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database of each engine in turn."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
    url = cluster.create_database()
    yield url
    cluster.drop_database(url)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A `Database` with all tables, on each engine in turn."""
    made = Database(database_url)
    try:
        await create_tables(made)
        yield made
    finally:
        await made.close()


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[Database]:
    """A `Database` with all tables, on a SQLite file."""
    made = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    try:
        await create_tables(made)
        yield made
    finally:
        await made.close()
