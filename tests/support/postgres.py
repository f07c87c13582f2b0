"""A real PostgreSQL for the tests: one throwaway cluster per test session, on loopback.

PostgreSQL refuses to run as root, so under root the cluster belongs to the system's `postgres`
user. Durability is switched off: these tests ask about races and constraints, not about power loss.
"""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "120",
    "log_min_messages": "warning",
}


class PostgresMissing(RuntimeError):
    """PostgreSQL's server programs are not on this machine."""


class PostgresCluster:
    """A running cluster. Databases made here live until the cluster goes."""

    def __init__(self, port: int, password: str) -> None:
        self.port = port
        self._password = password

    def create_database(self) -> str:
        """A fresh empty database: its SQLAlchemy address for asyncpg."""
        name = f"t_{uuid.uuid4().hex}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+asyncpg://postgres:{self._password}@127.0.0.1:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Drop what `create_database` made, with whatever is still connected to it."""
        name = url.rsplit("/", 1)[1]
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _conninfo(self, database: str) -> str:
        return (
            f"host=127.0.0.1 port={self.port} user=postgres "
            f"password={self._password} dbname={database}"
        )


@contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """Start a cluster in a temporary directory, stop and remove it at the end.

    Raises `PostgresMissing` with what to install; a test that needs PostgreSQL must not pass
    without it.
    """
    programs = _programs()
    root = Path(tempfile.mkdtemp(prefix="reception-pg-"))
    data, password_file = root / "data", root / "password"
    password = secrets.token_hex(16)
    password_file.write_text(password)
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (root, password_file):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    try:
        _run(
            programs / "initdb", "--pgdata", data, "--username=postgres", "--encoding=UTF8",
            "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync",
        )  # fmt: skip
        port = _free_port()
        options = " ".join(f"-c {key}='{value}'" for key, value in _OPTIONS.items())
        _run(
            programs / "pg_ctl", "start", "--pgdata", data, "--wait", "--timeout=60",
            "--log", root / "log", "--options", f"-p {port} {options}",
        )  # fmt: skip
        try:
            yield PostgresCluster(port, password)
        finally:
            _run(programs / "pg_ctl", "stop", "--pgdata", data, "--mode=immediate", "--wait")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _programs() -> Path:
    """The directory with PostgreSQL's server programs, newest version first."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
        reverse=True,
    )
    if found:
        return found[0].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise PostgresMissing(
        "These tests need a real PostgreSQL server and found none. Install it "
        "(Debian: apt-get install postgresql) or deselect with: -m 'not postgres'."
    )


def _run(*command: str | Path) -> None:
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        words = ["runuser", "-u", "postgres", "--", *words]
    # Output goes to a file: a server started by pg_ctl would keep a pipe open for its whole life.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            words, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd="/",
            check=False, timeout=90,
        )  # fmt: skip
        if done.returncode:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise RuntimeError(f"{words[-1]} failed with {done.returncode}:\n{said}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
