"""What a comparison with Janus says of its rows, and how the limit of a core is searched."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli
from bench import capacity, janus
from bench.janus_beside import summary
from bench.media_load import socket_drops


def row(server: str, **changes: Any) -> dict[str, Any]:
    return {
        "server": server,
        "calls": 10,
        "cpu_s_per_call_min": 2.0,
        "relay_cpu_s_per_call_min": 1.5,
        "finish_cpu_s_per_call_min": 0.5,
        "delay_ms": {"p50": 0.2, "p99": 1.0},
        "rss_mib_per_call": 1.0,
        "lost": 0,
        "fault": "",
        "load_1min": 0.5,
        "srtp_profile": "SRTP_AEAD_AES_128_GCM",
        **changes,
    }


def test_ratios_are_those_of_medians() -> None:
    rows = [row("janus") for _ in range(3)]
    rows += [row("reception", cpu_s_per_call_min=cpu_s) for cpu_s in (0.9, 1.0, 40.0)]
    result = summary(rows)
    assert result["cpu_ratio"] == {"10": 0.5}
    assert result["delay_p99_ratio"] == {"10": 1.0}


def test_loss_and_broken_files_are_told_apart_by_server() -> None:
    result = summary([row("reception"), row("janus", lost=3, fault="1 files for 2 parties")])
    assert (result["lost"], result["faults"]) == (0, [])
    assert (result["janus_lost"], result["janus_faults"]) == (3, ["1 files for 2 parties"])


def test_without_delays_there_is_no_ratio() -> None:
    silent = row("reception", delay_ms={"p50": None, "p99": None})
    assert summary([silent, row("janus")])["delay_p50_ratio"] == {"10": None}


def test_everything_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(janus.JanusMissing) as missing:
        janus.require()
    for package in ("apt install janus;", "apt install janus-tools", "apt install ffmpeg"):
        assert package in str(missing.value)


def test_what_a_process_read_too_late_is_counted() -> None:
    before = socket_drops(os.getpid())
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as writer,
    ):
        reader.bind(("127.0.0.1", 0))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(100):
            writer.sendto(bytes(1000), reader.getsockname())
        assert 80 < socket_drops(os.getpid()) - before < 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "janus"], "apt install janus-tools"),
        (["--against", "livekit"], "Only janus"),
        (["--calls", "1,no"], "numbers from 1 to 200"),
        (["--calls", "0"], "numbers from 1 to 200"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = CliRunner().invoke(cli, ["bench", "media", *arguments])
    assert refused.exit_code == 2
    assert words in refused.output


@pytest.mark.parametrize("limit", [3, 10, 37, 144])
def test_the_search_ends_within_a_tenth_of_the_limit(limit: int) -> None:
    steps: list[int] = []

    def step(calls: int) -> dict[str, Any]:
        steps.append(calls)
        return {"held": calls <= limit, "why": "delay"}

    found = capacity.search(step)
    assert 0.9 * limit - 1 <= found["calls_held"] <= limit
    assert found["limit"] == "delay"
    assert len(steps) <= 10
    assert len(set(steps)) == len(steps)


def test_a_gateway_that_never_gives_way_is_not_called_limited() -> None:
    found = capacity.search(lambda calls: {"held": True, "why": ""})
    assert found == {"calls_held": capacity.MAX_CALLS, "limit": "not reached"}


@pytest.mark.parametrize(
    ("lost", "p99_ms", "callers_percent", "late_ms", "why"),
    [
        (0, 1.0, 30.0, 1.0, None),
        (0, 1.0, 99.0, 9.0, None),
        (7, 1.0, 30.0, 1.0, capacity.Limit.LOSS),
        (0, 6.0, 30.0, 1.0, capacity.Limit.DELAY),
        (0, 6.0, 99.0, 9.0, capacity.Limit.GENERATOR),
        (7, 6.0, 30.0, 9.0, capacity.Limit.MACHINE),
    ],
)
def test_callers_who_are_late_themselves_accuse_nobody(
    lost: int, p99_ms: float, callers_percent: float, late_ms: float, why: capacity.Limit | None
) -> None:
    measured = row("janus", lost=lost, delay_ms={"p50": 0.2, "p99": p99_ms}, unsent=0)
    measured["generator"] = {"core_percent": [callers_percent], "late_ms_p99": late_ms}
    assert capacity.judge(measured) is why
