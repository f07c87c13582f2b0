"""The real server as a process of its own: started on free ports, killed or stopped by pid."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 20


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that was free a moment ago on the loopback."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class ServerProcess:
    """`reception serve` with its own `var`. Restarting keeps ports and data."""

    var_dir: Path
    extra: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    media_port: int = field(default_factory=lambda: free_port(socket.SOCK_DGRAM))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "RECEPTION_VAR_DIR": str(self.var_dir),
            "RECEPTION_PORT": str(self.port),
            "RECEPTION_MEDIA_PORT": str(self.media_port),
            "RECEPTION_MEDIA_HOST": "127.0.0.1",
            "RECEPTION_MEDIA_ADDRESSES": '["127.0.0.1"]',
            "RECEPTION_LOG_JSON": "true",
            **self.extra,
        }

    @property
    def log_path(self) -> Path:
        return self.var_dir / "server.log"

    def start(self) -> None:
        """Start and wait until it is ready. Raises with its log if it dies first."""
        self.var_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        # One client for all tries: each would read the system's certificates, and slow the start.
        with httpx.Client(base_url=self.url, timeout=2) as visitor:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise RuntimeError(f"server died:\n{self.log_tail()}")
                try:
                    if visitor.get("/readyz").status_code == 200:
                        return
                except httpx.TransportError:
                    time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"server not ready:\n{self.log_tail()}")

    def kill(self) -> None:
        """kill -9: nothing is flushed, nothing is said."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
            raise

    def log_tail(self, lines: int = 60) -> str:
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def running_server(var_dir: Path, **extra: str) -> Iterator[ServerProcess]:
    """A started server; stopped at the end, however the block ends."""
    server = ServerProcess(var_dir, extra)
    server.start()
    try:
        yield server
    finally:
        server.stop()
