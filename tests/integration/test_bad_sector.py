"""One block of one journal that the disk does not give: the rest becomes files, and it is named.

The block is really gone: the kernel answers EIO, and a mapping SIGBUS. That needs a mount, so the
scenario runs below `unshare --mount` as `python -m tests.integration.test_bad_sector SCRATCH`, and
tells what it saw.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.sick_disk import CannotInject
from media import inspection, jobs, journal, manifest
from media.ffmpeg import decode_fully
from media.verification import RESTORED, verify
from tests.support.bad_sector import BLOCK_BYTES, SickDisk, mounted_over
from tests.support.one_recording import (
    AT_ONCE,
    KIOSK,
    OFFICIAL,
    RECORDING,
    House,
    counts,
    logged,
    open_house,
    originals,
    record_two_parties,
)

BLOCK = 2
REPO = Path(__file__).resolve().parents[2]


def test_one_unreadable_block_is_left_out_and_named_and_a_retry_makes_it_whole(
    tmp_path: Path,
) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("This needs unshare.")
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private"),
            *(sys.executable, "-m", "tests.integration.test_bad_sector", str(tmp_path)),
        ],
        cwd=REPO, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(done.stderr[-500:])
    assert done.returncode == 0, done.stderr[-4000:]
    saw: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    name = f"{KIOSK}.l0001.s0000.rrj"
    where = f"bytes {BLOCK * BLOCK_BYTES}–{(BLOCK + 1) * BLOCK_BYTES}"

    assert saw["refused"] == "Input/output error"
    # It might have passed: tried three times before it is left out.
    assert saw["first"]["again"] == [["seal", "journal_unreadable"]] * 2
    assert saw["first"]["playable"] and not saw["first"]["complete"]
    sick = saw["sick"]
    assert (sick["state"], sick["error_code"]) == ("failed", "journal_unreadable")
    assert "The disk does not give back a part" in sick["error"]
    # Both parties' files are there, and everything else that is made of them.
    assert sick["kinds"] == ["composed", "party", "party", "poster"]
    assert sick["frames"][OFFICIAL] == saw["whole"]["frames"][OFFICIAL]
    assert 0 < sick["frames"][KIOSK] < saw["whole"]["frames"][KIOSK]
    # Named: for those who watch, in the manifest, and by what an operator asks.
    assert {gap["participant_id"] for gap in sick["gaps"]} == {KIOSK}
    assert {gap["cause"] for gap in sick["gaps"]} == {"disk"}
    assert {gap["track"] for gap in sick["gaps"]} == {"camera", "microphone"}
    [stretch] = sick["unread"][name]
    assert (stretch["start"], stretch["end"]) == (BLOCK * BLOCK_BYTES, (BLOCK + 1) * BLOCK_BYTES)
    assert 0 < stretch["from_ms"] <= stretch["to_ms"] < 3000
    assert sick["unread"][f"{OFFICIAL}.l0001.s0000.rrj"] == []
    assert where in sick["inspected"]
    [problem] = sick["problems"]
    assert problem["path"] == name and problem["code"] == "unread" and where in problem["words"]
    assert sick["is_intact"]

    # Trying again costs no waiting now, and makes nothing whole that is not.
    assert saw["still_sick"] == {"playable": True, "complete": False, "again": []}
    whole = saw["whole"]
    assert saw["second"] == {"playable": True, "complete": True, "again": []}
    assert (whole["state"], whole["error_code"], whole["gaps"]) == ("ready", None, [])
    [problem] = whole["problems"]
    assert problem["code"] == RESTORED and whole["is_intact"]
    assert saw["originals_after"] == saw["originals"]


# --- the scenario, in a mount namespace of its own -----------------------------------------------


async def _scenario(scratch: Path) -> dict[str, Any]:
    house = await _house(scratch)
    before = originals(house.directory)
    with mounted_over(house.directory, f"{KIOSK}.l0001.s0000.rrj", BLOCK, scratch) as disk:
        saw = await _sick_then_well(house, disk)
        saw |= {"originals": before, "originals_after": originals(house.directory)}
        jobs.WARM.end()
    await house.database.close()
    return saw


async def _sick_then_well(house: House, disk: SickDisk) -> dict[str, Any]:
    disk.sicken()
    saw: dict[str, Any] = {"refused": _why_refused(house.directory)}
    saw["first"] = await _finish(house)
    saw["sick"] = await _seen(house)
    saw["still_sick"] = await _finish(house)
    disk.heal()
    saw["second"] = await _finish(house)
    saw["whole"] = await _seen(house)
    return saw


def _why_refused(directory: Path) -> str:
    try:
        (directory / f"{KIOSK}.l0001.s0000.rrj").read_bytes()
    except OSError as problem:
        return problem.strerror or ""
    return ""


async def _finish(house: House) -> dict[str, Any]:
    done = {}
    again = []
    for name, steps in (("playable", jobs.PLAYABLE), ("complete", jobs.COMPLETE)):
        done[name], lines = await logged(
            jobs.run_steps(house, RECORDING, steps, retry_after_s=AT_ONCE)
        )
        again += counts(lines, "recording_step_again")
    return {**done, "again": again}


async def _seen(house: House) -> dict[str, Any]:
    recording = await house.recording()
    files = await house.files()
    book = manifest.read_manifest(house.directory)
    assert book is not None
    found = verify(house.directory)
    return {
        "state": recording.state,
        "error_code": recording.error_code,
        "error": recording.error,
        "gaps": recording.timeline["gaps"],
        "kinds": sorted(file.kind for file in files),
        "frames": {
            file.participant_id: decode_fully(house.blobs.local_path(file.blob_key)).video_frames
            for file in files
            if file.kind == "party"
        },
        "unread": {
            entry.path: [
                {
                    "start": one.start,
                    "end": one.end,
                    "from_ms": one.from_ms,
                    "to_ms": one.to_ms,
                }
                for one in entry.unread
            ]
            for entry in book.journals
        },
        "inspected": inspection.inspect_text(house.directory),
        "problems": [
            {"path": one.path, "code": one.code, "words": one.words} for one in found.problems
        ],
        "is_intact": found.is_intact,
    }


async def _house(scratch: Path) -> House:
    house = await open_house(scratch)
    record_two_parties(house.directory)
    (house.directory / manifest.FILE_NAME).unlink()
    assert all(
        path.stat().st_size > (BLOCK + 2) * BLOCK_BYTES
        for path in journal.journals_in(house.directory)
    )
    return house


def main(scratch: Path) -> int:
    try:
        saw = asyncio.run(_scenario(scratch))
    except CannotInject as cannot:
        sys.stderr.write(str(cannot))
        return 77
    sys.stdout.write(json.dumps(saw) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
