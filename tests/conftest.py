"""Fixtures that every tier may ask for."""

import asyncio
from collections.abc import Callable, Mapping

from media.loop import MediaLoop

pytest_plugins = ["tests.support.databases"]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test runs on the loop that the house runs on."""
    return {"MediaLoop": MediaLoop}
