"""Every setting in one place, from the environment (`RECEPTION_…`) or a `.env` file.

The defaults run one machine with nothing to install: SQLite, an in-process store, a local directory
for recordings, the ffmpeg inside the imageio-ffmpeg wheel. A wrong value stops the start with one
clear line. Secrets may come from a file (`RECEPTION_SECRET_FILE`); without one, a secret is made on
first start and kept beside the database, readable by the owner only.
"""

import secrets
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.keyfile import make_once

MIN_SECRET_BYTES = 32


class Settings(BaseSettings):
    """What an operator may set. Names with a unit carry it."""

    model_config = SettingsConfigDict(
        env_prefix="RECEPTION_", env_file=".env", extra="forbid", frozen=True
    )

    # Where things are kept.
    var_dir: Path = Path("var")
    database_url: str = ""
    redis_url: str = ""
    ffmpeg: Path | None = None
    web_dir: Path = Path(__file__).parents[1] / "web" / "dist"
    scrub_mib_per_s: Annotated[int, Field(ge=1, le=10_000)] = 20
    """How fast the nightly scrub reads finished recordings again."""
    min_free_disk_mib: Annotated[int, Field(ge=64)] = 2048
    """Below this no recording begins: what is left is for the talks that are under way."""
    recorded_hour_mib: Annotated[int, Field(ge=100, le=100_000)] = 4000
    """What an hour of a two-party talk takes in all, for reckoning ahead (docs/operations.md)."""

    # Who we are on the network.
    roles: Annotated[tuple[Literal["web", "room"], ...], Field(min_length=1)] = ("web", "room")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    public_url: str = ""
    """The address people type, e.g. https://jiefang.example.cn. Empty: http://host:port."""
    media_host: str = "0.0.0.0"  # noqa: S104  the media port is meant to be reached
    media_port: Annotated[int, Field(ge=0, le=65535)] = 8444
    media_addresses: tuple[str, ...] = ()
    """Addresses put into offers. Empty: every address of this machine, loopback included."""
    video_codecs: Annotated[tuple[Literal["vp8", "h264"], ...], NoDecode, Field(min_length=1)] = (
        "vp8",
        "h264",
    )
    """Offered for pictures, preferred first; in the environment with commas: `h264,vp8`."""
    node_name: str = "node-1"

    # Secrets.
    secret: SecretStr | None = None
    secret_file: Path | None = None

    # Rules of the house that the law or an office may change.
    max_representatives: Annotated[int, Field(ge=1, le=40)] = 5
    """《信访工作条例》 art. 20: joint matters elect at most 5 representatives."""
    hold_s: Annotated[int, Field(ge=30, le=3600)] = 300
    grant_s: Annotated[int, Field(ge=5, le=600)] = 60
    resume_grace_s: Annotated[int, Field(ge=5, le=600)] = 150
    """How long a seat waits for who is away: two minutes, and some for the way back."""
    countdown_s: Annotated[int, Field(ge=0, le=10)] = 3
    staff_session_h: Annotated[int, Field(ge=1, le=72)] = 12
    kiosk_idle_wipe_s: Annotated[int, Field(ge=15, le=600)] = 60
    retention_years: dict[Literal["instruction", "result", "no_result"], int] = {}
    """Years for which recordings of a class are kept, as the archive authority approved them (0:
    for ever). A class that is left out keeps the estimate of cases/retention.py."""
    retention_approval: str = ""
    """By which paper they were approved; printed on every certificate of deletion."""
    desk_phone: str = "0836-0000000"
    prefecture_code: str = "513300"

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = False

    @field_validator("video_codecs", mode="before")
    @classmethod
    def _between_commas(cls, value: object) -> object:
        if isinstance(value, str):
            value = tuple(word.strip().lower() for word in value.split(","))
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("each codec may be named once")
        return value

    @model_validator(mode="after")
    def _approved_retention(self) -> "Settings":
        # 10 years is the shortest period of 国家档案局令第8号 (2006).
        if any(0 < years < 10 or years < 0 for years in self.retention_years.values()):
            raise ValueError("RECEPTION_RETENTION_YEARS takes 10 years or more, or 0 for ever")
        if bool(self.retention_years) != bool(self.retention_approval):
            raise ValueError("set RECEPTION_RETENTION_YEARS and RECEPTION_RETENTION_APPROVAL both")
        return self

    @model_validator(mode="after")
    def _one_secret(self) -> "Settings":
        if self.secret and self.secret_file:
            raise ValueError("set RECEPTION_SECRET or RECEPTION_SECRET_FILE, not both")
        if self.secret and len(self.secret.get_secret_value()) < MIN_SECRET_BYTES:
            raise ValueError(f"RECEPTION_SECRET needs at least {MIN_SECRET_BYTES} characters")
        return self

    @property
    def base_url(self) -> str:
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.var_dir / 'reception.db'}"

    @property
    def workflow_database(self) -> str:
        """Where DBOS keeps its steps; a synchronous driver, beside the main data."""
        if self.database_url.startswith("postgresql"):
            return self.database_url.replace("+asyncpg", "+psycopg", 1)
        return f"sqlite:///{self.var_dir / 'workflows.db'}"

    @property
    def recordings_dir(self) -> Path:
        """Journals: what was captured, as it was captured."""
        return self.var_dir / "recordings"

    @property
    def blobs_dir(self) -> Path:
        """Finished files: playable recordings, pictures, slips."""
        return self.var_dir / "blobs"

    @property
    def signing_key_file(self) -> Path:
        """The Ed25519 key that signs recordings; made when the first one is closed."""
        return self.var_dir / "signing-key"

    @cached_property
    def secret_bytes(self) -> bytes:
        """The key under every token this installation signs. Made once if none is configured."""
        if self.secret:
            return self.secret.get_secret_value().encode()
        path = self.secret_file or self.var_dir / "secret"
        if not path.exists():
            if self.secret_file:
                raise ValueError(f"RECEPTION_SECRET_FILE {path} does not exist")
            make_once(path, secrets.token_hex(32).encode())
        value = path.read_text().strip().encode()
        if len(value) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret in {path} is too short; delete it or set a longer one")
        if path.stat().st_mode & 0o077:
            raise ValueError(f"the secret in {path} is readable by others; run: chmod 600 {path}")
        return value
