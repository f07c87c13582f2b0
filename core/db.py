"""One database, two engines: SQLite (WAL) embedded, PostgreSQL when it grows.

Same models, same migrations, same tests. One request, one message, one job step is one transaction;
only the edges open it, with `async with database.transaction() as tx`. Functions receive `tx` and
never commit. Where two transactions race, a constraint in the database decides; `run` retries what
the engine calls retryable (busy, serialization failure, deadlock) so that no caller has to.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import DateTime, MetaData, event, text
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

T = TypeVar("T")

RETRIES = 8
SQLITE_BUSY_MS = 10_000
READ_ONLY = "reception_read_only"
# SQLSTATE classes that mean "run the whole transaction again": serialization failure, deadlock.
RETRYABLE_SQLSTATES = {"40001", "40P01"}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant, stored in UTC on both engines; naive values are a programming error."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime given to the database")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The root of every table; constraints get names, so that a refusal can be recognised."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime()}  # noqa: RUF012  SQLAlchemy reads it off the class


class Database:
    """The engine and its transactions. Made once by the composition root, closed by it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.engine = _engine(url)
        if self.is_sqlite:
            _teach_sqlite(self.engine)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: commits at the end of the block, rolls back on any error."""
        async with self._sessions() as session, session.begin():
            yield session

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A consistent view for queries; never waits for a writer. Writing in it is an error."""
        async with self._sessions() as session, session.begin():
            await session.connection(execution_options={READ_ONLY: True})
            yield session
            if session.new or session.dirty or session.deleted:
                raise AssertionError("a reading transaction was asked to write")

    async def run(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run `work` in one transaction, again if the engine says so. `work` must be repeatable."""
        for attempt in range(RETRIES):
            try:
                async with self.transaction() as tx:
                    return await work(tx)
            except DBAPIError as error:
                if attempt == RETRIES - 1 or not is_retryable(error):
                    raise
                # Jittered, so that contenders do not meet again in step.
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")

    async def ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def is_retryable(error: DBAPIError) -> bool:
    """Whether the engine asks to run the same transaction again, rather than refusing it."""
    if getattr(error.orig, "sqlstate", None) in RETRYABLE_SQLSTATES:
        return True
    return "database is locked" in str(error.orig)


def violates(error: DBAPIError, constraint: str, *columns: str) -> bool:
    """Whether `error` is the refusal of the named unique constraint or index.

    PostgreSQL names the constraint; SQLite names `table.column`, which `columns` gives, or for a
    partial index the index itself.
    """
    words = str(error.orig)
    return constraint in words or (bool(columns) and all(column in words for column in columns))


def _engine(url: str) -> AsyncEngine:
    # Parameters stay out of error messages: they hold names and matters.
    if ":memory:" in url:
        return create_async_engine(url, hide_parameters=True)
    return create_async_engine(
        url, hide_parameters=True, pool_size=10, max_overflow=10, pool_pre_ping="sqlite" not in url
    )


def _teach_sqlite(engine: AsyncEngine) -> None:
    """Durable settings for each connection, and a BEGIN that says what it is for."""

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:  # DBAPI connections have no common type
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        # FULL: a commit that was acknowledged survives power loss.
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={SQLITE_BUSY_MS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:  # sqlalchemy.engine.Connection, untyped in the event API
        # Taking the write lock first turns a late "database is locked" into a short wait here.
        reading = connection.get_execution_options().get(READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
