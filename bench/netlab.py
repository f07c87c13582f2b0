"""Networks of one machine: namespaces as hosts, wires and bad lines between them, all taken down.

    with NetLab() as lab:
        server, hall = lab.host("server"), lab.host("hall")
        line = lab.link(server, hall, seed=7)         # 10.77.0.1 at server, 10.77.0.2 at hall
        line.set(down=Impairment(loss=0.05))          # `up` is hall → server
        process = hall.start([sys.executable, "-m", "…"])
        …
        assert line.count()["down"]["lost"] > 0       # every test asserts that its fault happened

Names carry the process id. Leaving the block ends what was started in it and removes the rest;
what a killed process left behind is removed by the next lab. Needs root and /dev/net/tun:
`why_not()` says in words what is missing. Nothing here reaches the machine's own network.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench.link import Impairment

TUN: Final = Path("/dev/net/tun")
NAMESPACES: Final = Path("/run/netns")
TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000  # plain IP packets, no header of the device's own
STOP_TIMEOUT_S: Final = 5.0
ROOT: Final = Path(__file__).resolve().parent.parent
UNIMPAIRED: Final = Impairment()
# A line is not late because browsers on the same machine are busy.
AHEAD: Final = ("nice", "-n", "-10")


class LabUnavailable(RuntimeError):
    """This machine or this user cannot make networks; the message says why."""


def why_not() -> str | None:
    """What is missing for a lab, in words; None if nothing is."""
    if os.geteuid() != 0:
        return "Network namespaces need root; run this as root."
    if shutil.which("ip") is None:
        return "The command `ip` is missing (Debian: iproute2)."
    if not TUN.exists():
        return "/dev/net/tun is missing: this kernel or container offers no TUN devices."
    return None


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace. `address` is the one that all its links share."""

    name: str
    address: str
    namespace: str
    lab: "NetLab"

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The same command, run on this host."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def start(self, arguments: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """A process on this host, ended with the lab. `options` are Popen's."""
        process = subprocess.Popen(self.command(arguments), **options)
        self.lab.processes.append(process)
        return process

    def run(self, arguments: Sequence[str]) -> str:
        """Run to the end; what it printed. Raises RuntimeError with its words if it fails."""
        return _run(self.command(arguments))


class Link:
    """A bad line between two hosts: `up` is from b to a, `down` from a to b.

    `a` is by custom the server. Both directions begin unimpaired.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def set(self, *, up: Impairment | None = None, down: Impairment | None = None) -> None:
        """Change directions from now on; None leaves one as it is. Packets on their way stay."""
        wanted = {"b_to_a": up, "a_to_b": down}
        self._ask({"set": {k: asdict(v) for k, v in wanted.items() if v is not None}})

    def cut(self) -> None:
        """Nothing passes in either direction until the next `set`."""
        self.set(up=Impairment(is_cut=True), down=Impairment(is_cut=True))

    def heal(self) -> None:
        """Both directions as they began."""
        self.set(up=UNIMPAIRED, down=UNIMPAIRED)

    def count(self) -> dict[str, dict[str, Any]]:
        """What happened to packets since the last call: {"up": {...}, "down": {...}}.

        The fields are LaneCounts' and `wait_p50_ms`, `wait_p95_ms`, `wait_p99_ms`: how long those
        that came out had been on the line.
        """
        answer = self._ask({"count": True})
        return {"up": answer["b_to_a"], "down": answer["a_to_b"]}

    def close(self) -> None:
        """End the line's process; its devices vanish with it."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        _end(self._process)

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The link's process has ended early.")
        answer: dict[str, Any] = json.loads(line)
        return answer


class NetLab:
    """A handful of hosts and the lines between them, for as long as the `with` block lasts."""

    def __init__(self) -> None:
        self._prefix = f"rr{os.getpid()}"
        self._hosts: list[Host] = []
        self._links: list[Link] = []
        self._devices = 0
        self.processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        """Raises LabUnavailable."""
        if (reason := why_not()) is not None:
            raise LabUnavailable(reason)
        sweep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self.processes):
            _end(process)
        for link in self._links:
            link.close()
        for host in self._hosts:
            with contextlib.suppress(RuntimeError):
                _run(["ip", "netns", "del", host.namespace])

    def host(self, name: str) -> Host:
        """A new host with a loopback and nothing else. At most 200 in a lab."""
        number = len(self._hosts) + 1
        assert number <= 200
        host = Host(name, f"10.77.0.{number}", f"{self._prefix}-{name}", self)
        _run(["ip", "netns", "add", host.namespace])
        self._hosts.append(host)
        # Without IPv6 nothing but what a test sends crosses a link, so counts mean what they say.
        for scope in ("all", "default"):
            host.run(["sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1"])
        host.run(["ip", "link", "set", "lo", "up"])
        return host

    def wire(self, a: Host, b: Host) -> tuple[str, str]:
        """A perfect cable (veth) between two hosts; the names of its devices at `a` and `b`."""
        at_a, at_b = self._device(), self._device()
        _run(["ip", "link", "add", at_a, "netns", a.namespace, "type", "veth",
              "peer", "name", at_b, "netns", b.namespace])  # fmt: skip
        _attach(a, at_a, b)
        _attach(b, at_b, a)
        return at_a, at_b

    def link(self, a: Host, b: Host, *, seed: int) -> Link:
        """A bad line between two hosts, in a process of its own. `a` is by custom the server."""
        at_a, at_b = self._device(), self._device()
        fd_a, fd_b = _open_tun(at_a), _open_tun(at_b)
        try:
            for host, device, other in ((a, at_a, b), (b, at_b, a)):
                _run(["ip", "link", "set", device, "netns", host.namespace])
                _attach(host, device, other)
            process = subprocess.Popen(
                [*AHEAD, sys.executable, "-m", "bench.link", str(fd_a), str(fd_b), str(seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(fd_a, fd_b),
                cwd=ROOT,
            )
        finally:
            os.close(fd_a)
            os.close(fd_b)
        link = Link(process)
        self._links.append(link)
        link.count()  # it answers, so it runs
        return link

    def _device(self) -> str:
        self._devices += 1
        return f"{self._prefix}d{self._devices}"  # 15 characters are the kernel's limit


def sweep() -> None:
    """Remove the namespaces of labs whose process is gone."""
    for path in NAMESPACES.glob("rr*-*") if NAMESPACES.exists() else ():
        owner = re.match(r"rr(\d+)-", path.name)
        if owner is not None and not Path(f"/proc/{owner[1]}").exists():
            with contextlib.suppress(RuntimeError):
                _run(["ip", "netns", "del", path.name])


def _attach(host: Host, device: str, other: Host) -> None:
    """Point to point: a host keeps one address over all its links."""
    host.run(["ip", "addr", "add", host.address, "peer", other.address, "dev", device])
    host.run(["ip", "link", "set", device, "up"])


def _open_tun(device: str) -> int:
    """A TUN device of that name in the present namespace; it lives as long as the descriptor."""
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(descriptor, TUNSETIFF, request)
    return descriptor


def _run(arguments: Sequence[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _end(process: "subprocess.Popen[Any]") -> None:
    """Ask, then insist."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
