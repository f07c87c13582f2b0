"""A real Redis for the tests: Debian's redis-server on a free loopback port, gone afterwards."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.server import free_port

_START_WITHIN_S = 10.0


class RedisMissing(RuntimeError):
    """Redis's server program is not on this machine."""


@contextmanager
def running_redis() -> Iterator[str]:
    """Start a server without persistence; its address. Raises `RedisMissing` with what to install:
    a test that needs Redis must not pass without it.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise RedisMissing(
            "These tests need a real Redis and found none. Install it (Debian: apt-get install "
            "redis-server) or deselect with: -m 'not redis'."
        )
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="reception-redis-") as directory:
        log = Path(directory, "log")
        process = subprocess.Popen(
            [
                program, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no", "--dir", directory, "--logfile", str(log),
            ],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_until_it_answers(process, port, log)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(10)


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + _START_WITHIN_S
    with redis.Redis(host="127.0.0.1", port=port) as asking:
        while True:
            try:
                asking.ping()
                return
            except redis.ConnectionError:
                if process.poll() is not None or time.monotonic() > until:
                    said = log.read_text(errors="replace") if log.exists() else "(no log)"
                    raise RuntimeError(f"redis-server did not start:\n{said}") from None
                time.sleep(0.02)
