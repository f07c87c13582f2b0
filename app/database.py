"""Migrations at the composition root: every revision runs beside the previous release's code."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData

import cases.keeping_model
import cases.model
import core.audit
import core.events
import core.identity
import media.model
import scheduling.model
import signaling.model
from core.db import Base

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


def alembic_config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    # Alembic's parser treats % as interpolation; passwords may hold one.
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


async def upgrade(url: str) -> None:
    """Bring the database at `url` to the newest revision. Doing nothing is the usual case."""
    await asyncio.to_thread(command.upgrade, alembic_config(url), "head")
