"""A wrong setting stops the start with words; a secret is made once and guarded."""

import stat
from multiprocessing import get_context
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.settings import Settings


def test_the_defaults_need_nothing_installed(tmp_path: Path) -> None:
    settings = Settings(var_dir=tmp_path)
    assert settings.database.startswith("sqlite+aiosqlite:///")
    assert settings.redis_url == ""


def test_the_first_start_makes_a_secret_that_only_the_owner_reads(tmp_path: Path) -> None:
    secret = Settings(var_dir=tmp_path).secret_bytes
    assert len(secret) >= 32
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert Settings(var_dir=tmp_path).secret_bytes == secret


def _secret_of(var_dir: Path) -> bytes:
    return Settings(var_dir=var_dir).secret_bytes


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    with get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_secret_of, [tmp_path] * 8))) == 1


def test_a_secret_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s" * 64)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        _ = Settings(var_dir=tmp_path).secret_bytes


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"hold_s": 1},
        {"secret": "short"},
        {"roles": ("kitchen",)},
        {"colour": "red"},
        {"video_codecs": "vp9"},
        {"video_codecs": "vp8,vp8"},
    ],
)
def test_a_value_that_makes_no_sense_is_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(var_dir=tmp_path, **wrong)  # type: ignore[arg-type]


def test_workflows_use_a_synchronous_driver_beside_the_main_data(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://u:p@h/d"
    settings = Settings(var_dir=tmp_path, database_url=url)
    assert settings.workflow_database == "postgresql+psycopg://u:p@h/d"


def test_video_codecs_are_named_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(var_dir=tmp_path).video_codecs == ("vp8", "h264")
    monkeypatch.setenv("RECEPTION_VIDEO_CODECS", "H264, vp8")
    assert Settings(var_dir=tmp_path).video_codecs == ("h264", "vp8")
