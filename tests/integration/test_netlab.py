"""Real namespaces, real packets: the lab does what it counts, and leaves nothing behind."""

import subprocess
import sys

import pytest

from bench.link import Impairment
from bench.netlab import NAMESPACES, Host, LabUnavailable, NetLab, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 7000))
print("ready", flush=True)
while True:
    data, address = s.recvfrom(2048)
    s.sendto(data, address)
"""
ASK = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.3)
came, began = 0, time.monotonic()
for n in range(int(sys.argv[2])):
    s.sendto(bytes(200), (sys.argv[1], 7000))
    try:
        s.recv(2048)
        came += 1
    except TimeoutError:
        pass
print(came, (time.monotonic() - began) / max(1, came))
"""


def echo_at(host: Host) -> None:
    process = host.start([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def ask(host: Host, address: str, times: int) -> tuple[int, float]:
    came, seconds_each = host.run([sys.executable, "-c", ASK, address, str(times)]).split()
    return int(came), float(seconds_each)


def test_a_line_loses_delays_and_heals_as_told_and_counts_it() -> None:
    with NetLab() as lab:
        server, hall = lab.host("server"), lab.host("hall")
        line = lab.link(server, hall, seed=1)
        echo_at(server)
        assert ask(hall, server.address, 20)[0] == 20

        line.set(up=Impairment(delay_ms=30))
        line.count()
        came, seconds_each = ask(hall, server.address, 10)
        assert came == 10
        assert 0.03 <= seconds_each < 0.2
        assert line.count()["up"]["delayed"] == 10

        line.set(up=Impairment(loss=0.5))
        came, _ = ask(hall, server.address, 20)
        counts = line.count()
        assert 0 < counts["up"]["lost"] == 20 - came
        assert counts["down"]["lost"] == 0

        line.cut()
        assert ask(hall, server.address, 2)[0] == 0
        assert line.count()["up"]["cut"] == 2
        line.heal()
        assert ask(hall, server.address, 5)[0] == 5


def test_a_host_with_two_lines_keeps_one_address_and_a_wire_is_perfect() -> None:
    with NetLab() as lab:
        server, hall, office = lab.host("server"), lab.host("hall"), lab.host("office")
        lab.link(server, hall, seed=1)
        lab.wire(server, office)
        echo_at(server)
        assert ask(hall, server.address, 5)[0] == 5
        assert ask(office, server.address, 5)[0] == 5


def test_nothing_is_left_behind_even_if_the_block_fails() -> None:
    kept: list[Host] = []
    with pytest.raises(ZeroDivisionError), NetLab() as lab:
        server, hall = lab.host("server"), lab.host("hall")
        lab.link(server, hall, seed=1)
        echo_at(server)
        kept += [server, hall]
        _ = 1 / 0
    assert not any((NAMESPACES / host.namespace).exists() for host in kept)
    assert all(process.poll() is not None for process in lab.processes)


def test_without_root_it_says_so_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabUnavailable, match="root"), NetLab():
        pass
