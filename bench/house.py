"""The real server as a child of a benchmark: free ports, a scratch `var`, its CPU to the tick."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

START_WITHIN_S: Final = 120
STOP_WITHIN_S: Final = 20


@dataclass(frozen=True, slots=True)
class HouseProcess:
    """A started `reception serve`."""

    process: "subprocess.Popen[bytes]"
    port: int
    media_port: int
    var_dir: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """CPU that the process has used, its threads included and its children not."""
        return sum(
            int(path.read_text().split()[0]) / 1e9
            for path in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        )

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def rss_mib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def running_house(var_dir: Path, *command: str, **settings: str) -> Iterator[HouseProcess]:
    """The server with `var_dir` and further RECEPTION_… `settings`, stopped at the end.

    `command` is what Python runs; `-m app serve` if there is none.

    Raises RuntimeError with its last words if it does not come up.
    """
    port, media_port = _free_port(socket.SOCK_STREAM), _free_port(socket.SOCK_DGRAM)
    var_dir.mkdir(parents=True, exist_ok=True)
    log_path = var_dir / f"server-{port}.log"
    environment = {
        **os.environ,
        "RECEPTION_VAR_DIR": str(var_dir),
        "RECEPTION_PORT": str(port),
        "RECEPTION_MEDIA_PORT": str(media_port),
        "RECEPTION_MEDIA_HOST": "127.0.0.1",
        "RECEPTION_MEDIA_ADDRESSES": '["127.0.0.1"]',
        **settings,
    }
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "app", "serve"))],
            env=environment,
            stdout=log,
            stderr=log,
        )
    house = HouseProcess(process, port, media_port, var_dir)
    try:
        _wait_until_ready(house, log_path)
        yield house
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(house: HouseProcess, log_path: Path) -> None:
    until = time.monotonic() + START_WITHIN_S
    # One client: each new one reads the machine's certificates.
    with httpx.Client(base_url=house.url, timeout=2) as client:
        while time.monotonic() < until and house.process.poll() is None:
            # Until it listens there is nobody to answer.
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200:
                    return
            time.sleep(0.1)
    raise RuntimeError(f"the server did not come up:\n{log_path.read_text()[-2000:]}")


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
