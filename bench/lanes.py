"""Lanes: calls between real pages, each kiosk behind a line and a NAT of its own that we may break.

    kiosk page ── k<n> ──veth── r<n> (masquerade) ──veth── bridge ── server, official's pages

Everything stands in a network and mount namespace that dies with its last process (`shelter`), so a
drill that is killed leaves neither interfaces nor processes behind, and no packet leaves it. Faults
are nft rules in `r<n>` with counters: who cuts a line can prove that packets were dropped.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SERVER_ADDRESS: Final = "10.201.0.1"
SERVER_PORT: Final = 8080
MEDIA_PORT: Final = 8444
TOOLS: Final = ("ip", "nft", "unshare", "mount", "sysctl")

_FAULTS: Final = {
    "down": "counter name lost drop",
    "signaling": f"tcp dport {SERVER_PORT} counter name lost reject with tcp reset; "
    f"add rule inet fault gate tcp sport {SERVER_PORT} counter name lost reject with tcp reset",
}


def missing_tools() -> list[str]:
    """What this machine lacks for a lane; empty when all is there."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return missing if os.geteuid() == 0 else [*missing, "root"]


def shelter(module: str, *arguments: str) -> list[str]:
    """The command that runs `python -m module` where `prepare` may build lanes.

    A PID namespace of its own too: when its first process ends, so does every browser in it.
    """
    flags = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return ["unshare", *flags, sys.executable, "-m", module, *arguments]


def prepare() -> None:
    """Inside the shelter: private namespace names, and the bridge that the server stands on."""
    Path("/run/netns").mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "none", "/run/netns")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "br0", "type", "bridge")
    _run("ip", "addr", "add", f"{SERVER_ADDRESS}/16", "dev", "br0")
    _run("ip", "link", "set", "br0", "up")


@dataclass(slots=True)
class Lane:
    """One kiosk's way to the server."""

    number: int
    _fault: str | None = field(default=None, init=False)

    @property
    def kiosk(self) -> str:
        """The namespace that the kiosk's browser lives in."""
        return f"k{self.number}"

    @property
    def router(self) -> str:
        return f"r{self.number}"

    @property
    def _public(self) -> str:
        return f"10.201.1.{self.number}/16"

    def build(self) -> None:
        inner = f"10.202.{self.number}"
        for name in (self.kiosk, self.router):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        uplink, inside = f"up{self.number}", f"in{self.number}"
        _run("ip", "link", "add", uplink, "type", "veth", "peer", "name", "out", "netns",
             self.router)  # fmt: skip
        _run("ip", "link", "set", uplink, "master", "br0", "up")
        _run("ip", "-n", self.router, "link", "add", inside, "type", "veth", "peer", "name", "eth0",
             "netns", self.kiosk)  # fmt: skip
        _run("ip", "-n", self.router, "addr", "add", self._public, "dev", "out")
        _run("ip", "-n", self.router, "link", "set", "out", "up")
        _run("ip", "-n", self.router, "addr", "add", f"{inner}.1/24", "dev", inside)
        _run("ip", "-n", self.router, "link", "set", inside, "up")
        _run("ip", "-n", self.kiosk, "addr", "add", f"{inner}.2/24", "dev", "eth0")
        _run("ip", "-n", self.kiosk, "link", "set", "eth0", "up")
        _run("ip", "-n", self.kiosk, "route", "add", "default", "via", f"{inner}.1")
        self._in_router("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._nft(
            "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; };"
            "add rule ip nat out oifname out masquerade random"
        )

    def browser(self, folder: Path, executable: str) -> Path:
        """A program that starts `executable` on this lane, for whoever wants a path."""
        path = folder / f"browser-{self.number}"
        path.write_text(f'#!/bin/sh\nexec ip netns exec {self.kiosk} {executable} "$@"\n')
        path.chmod(0o755)
        return path

    def pids(self) -> list[int]:
        """Every process that lives on this lane."""
        return [int(word) for word in _run("ip", "netns", "pids", self.kiosk).split()]

    # ── faults ───────────────────────────────────────────────────────────────────────────────────

    def cut(self, fault: str = "down") -> None:
        """Begin a fault: `down` loses every packet, `signaling` resets every TCP connection."""
        self._nft(
            "add table inet fault; add counter inet fault lost;"
            "add chain inet fault gate { type filter hook forward priority 0; };"
            f"add rule inet fault gate {_FAULTS[fault]}"
        )
        self._fault = fault

    def mend(self) -> int:
        """End the fault; how many packets it has cost."""
        listed = json.loads(
            self._in_router("nft", "-j", "list", "counter", "inet", "fault", "lost")
        )
        self._nft("delete table inet fault")
        self._fault = None
        return sum(item["counter"]["packets"] for item in listed["nftables"] if "counter" in item)

    def rebind(self) -> None:
        """Give every flow of this lane a new public port, as a rebooted router does.

        Taking the public address away makes the kernel forget what it masqueraded under it.
        """
        self._in_router(
            "sh", "-c",
            f"ip addr del {self._public} dev out && ip addr add {self._public} dev out",
        )  # fmt: skip

    def public_ports(self) -> set[str]:
        """The public ports of this lane's UDP flows, as the router knows them."""
        table = self._in_router("cat", "/proc/net/nf_conntrack")
        return {
            next(word for word in reversed(line.split()) if word.startswith("dport="))
            for line in table.splitlines()
            if " udp " in line and f"dport={MEDIA_PORT}" in line
        }

    def _nft(self, rules: str) -> None:
        self._in_router("nft", rules)

    def _in_router(self, *command: str) -> str:
        return _run("ip", "netns", "exec", self.router, *command)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # A fault that did not happen must never pass for one that was survived.
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


async def rows_of(command: Sequence[str]) -> list[dict[str, Any]]:
    """Run a sheltered drill; its JSON lines. Raises RuntimeError if it fails."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the drill ended with {process.returncode}")
    return [json.loads(line) for line in out.splitlines()]
