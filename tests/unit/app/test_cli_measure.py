"""How a drill ends: what a script that runs it goes by."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli


def ended(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]] | Exception) -> int:
    """The exit code of a drill that found these rows, or could not be run."""

    def run(*_: object) -> list[dict[str, Any]]:
        if isinstance(rows, Exception):
            raise rows
        return rows

    monkeypatch.setattr("bench.storm.run", run)
    return CliRunner().invoke(cli, ["drill", "storm", "--json", "--save", "kept.json"]).exit_code


def test_a_drill_ends_with_what_its_last_row_says_and_keeps_every_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bench.storm import StormUnavailable

    monkeypatch.chdir(tmp_path)
    kept: list[dict[str, Any]] = [{"datagrams": 1}, {"ok": True}]
    assert ended(monkeypatch, kept) == 0
    assert ended(monkeypatch, [{"ok": True}, {"ok": False}]) == 1
    assert json.loads(Path("kept.json").read_text()) == [{"ok": True}, {"ok": False}]
    assert ended(monkeypatch, StormUnavailable("no second core")) == 2
    assert ended(monkeypatch, OSError("a fault, not a finding")) == 1
