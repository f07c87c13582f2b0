"""What was recorded by every released version is read, verified and played by this one."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from media import journal, mux
from media.ffmpeg import decode_fully
from media.journal import RecordType
from media.verification import verify

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
VERSIONS = sorted(path for path in GOLDEN.iterdir() if (path / "expected.json").exists())


def test_there_is_a_recording_of_the_version_that_is_written_today() -> None:
    assert GOLDEN / f"v{journal.VERSION}" in VERSIONS


@pytest.mark.parametrize("golden", VERSIONS, ids=lambda path: path.name)
def test_every_record_reads_as_it_did_when_it_was_written(golden: Path) -> None:
    expected = json.loads((golden / "expected.json").read_bytes())
    found: dict[str, list[list[object]]] = {}
    for path in journal.journals_in(golden):
        with journal.open_journal(path) as reader:
            found[path.name] = [
                [r.type.name, r.track, r.at_ns, hashlib.sha256(r.payload).hexdigest()[:16]]
                for r in reader.records()
            ]
            assert reader.damaged_bytes == reader.torn_bytes == 0
    assert found == expected["records"]
    kinds = {record[0] for records in found.values() for record in records}
    assert kinds == {kind.name for kind in RecordType}, "a golden recording holds every kind"


@pytest.mark.parametrize("golden", VERSIONS, ids=lambda path: path.name)
def test_its_book_is_intact_and_signed_and_its_files_play(golden: Path, tmp_path: Path) -> None:
    recording = Path(shutil.copytree(golden, tmp_path / "recording"))
    found = verify(recording)
    assert found.problems == ()
    assert found.signed_by == json.loads((golden / "expected.json").read_bytes())["signed_by"]
    result = mux.mux(recording, tmp_path / "files")
    assert {Path(file.path).suffix for file in result.files} == {".webm", ".mp4"}
    for file in result.files:
        checked = decode_fully(tmp_path / "files" / file.path)
        assert checked.refused == 0
        assert abs(checked.duration_ms - 2000) < 120
