"""Migrations at the composition root: every revision runs beside the previous release's code.

Alembic is loaded where there is something to migrate: talks wait for a killed server to load.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import MetaData, text

import cases.keeping_model
import cases.model
import core.audit
import core.events
import core.identity
import media.model
import scheduling.model
import signaling.model
from core.db import Base, Database

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parents[1] / "migrations"

# Importing a model module registers its tables; naming them here keeps that visible.
_MODELS = (
    core.audit, core.events, core.identity, scheduling.model, signaling.model, media.model,
    cases.model, cases.keeping_model,
)  # fmt: skip


def metadata() -> MetaData:
    """Every table of the house."""
    assert all(_MODELS)
    return Base.metadata


def newest_revision() -> str:
    """Where the migrations lead. Their files are named after their revisions, which only grow."""
    return max(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


async def reached_revision(database: Database) -> str | None:
    """Where `database` is; None if nothing has been made in it yet."""
    async with database.engine.connect() as connection:
        exists = await connection.run_sync(
            lambda sync: sync.dialect.has_table(sync, "alembic_version")
        )
        if not exists:
            return None
        revision = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        return str(revision) if revision else None


def alembic_config(url: str) -> "Config":
    from alembic.config import Config  # noqa: PLC0415  see above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    # Alembic's parser treats % as interpolation; passwords may hold one.
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


async def upgrade(url: str) -> None:
    """Bring the database at `url` to the newest revision. Doing nothing is the usual case."""
    database = Database(url)
    try:
        if await reached_revision(database) == newest_revision():
            return
    finally:
        await database.close()
    from alembic import command  # noqa: PLC0415  see above

    await asyncio.to_thread(command.upgrade, alembic_config(url), "head")
