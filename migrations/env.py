"""Alembic's entry: the same revisions on SQLite and PostgreSQL, through the async engine."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from app.database import metadata
from core.db import Database, UtcDateTime


def render_item(kind: str, item: object, _context: object) -> str | bool:
    """Revisions speak SQLAlchemy's own types: they must not change when our code does."""
    return "sa.DateTime(timezone=True)" if isinstance(item, UtcDateTime) else False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata(),
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    database = Database(context.config.get_main_option("sqlalchemy.url") or "")
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(run)
    finally:
        await database.close()


asyncio.run(run_online())
