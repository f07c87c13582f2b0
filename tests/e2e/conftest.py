"""Clips made once, a prefecture behind a real server, a browser driver."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Playwright, async_playwright

from tests.e2e.clips import OFFICIAL, PETITIONER, Clip, make_clip
from tests.support.prefecture_process import Living, living_prefecture


@pytest.fixture(scope="session")
def petitioner_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return make_clip(tmp_path_factory.mktemp("clips"), "petitioner", PETITIONER)


@pytest.fixture(scope="session")
def official_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return make_clip(tmp_path_factory.mktemp("clips"), "official", OFFICIAL)


@pytest.fixture
async def living(tmp_path: Path) -> AsyncIterator[Living]:
    async with living_prefecture(tmp_path / "var") as made:
        yield made


@pytest.fixture
async def playwright() -> AsyncIterator[Playwright]:
    async with async_playwright() as driver:
        yield driver
