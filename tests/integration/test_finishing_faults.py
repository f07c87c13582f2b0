"""Finishing that is killed, starved, raced and given bad files: what was made stays, and says why.

Every test makes its fault truly happen in the child that finishes a recording, or in the ffmpeg
below it, and proves that it did.
"""

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from media import jobs, journal, manifest
from media.ffmpeg import Limits, decode_fully, ffmpeg_path
from media.model import RecordingState
from media.verification import verify
from media.warm import WarmParent
from tests.support.one_recording import (
    AT_ONCE,
    RECORDING,
    House,
    counts,
    logged,
    open_house,
    originals,
    record_two_parties,
)

AMPLE = Limits.fit_for(0, 600)
MIB = 1024**2


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = await open_house(tmp_path)
    record_two_parties(made.directory)
    yield made
    await made.database.close()


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return path


async def test_ffmpeg_that_eats_memory_is_stopped_and_what_was_made_stays(
    house: House, tmp_path: Path
) -> None:
    before = originals(house.directory)
    glutton = script(
        tmp_path / "glutton",
        f"""
        held = []
        try:
            while True:
                held.append(bytearray({MIB}))
        except MemoryError:
            with open({str(tmp_path / "eaten")!r}, "a") as file:
                file.write(f"{{len(held)}}\\n")
            raise SystemExit(137)
        """,
    )
    starved = replace(AMPLE, data_bytes=300 * MIB)
    hungry = house.with_ffmpeg(glutton)
    assert await jobs.run_steps(hungry, RECORDING, jobs.PLAYABLE)
    done, lines = await logged(
        jobs.run_steps(hungry, RECORDING, jobs.COMPLETE, limits=starved, retry_after_s=AT_ONCE)
    )
    eaten = [int(line) for line in (tmp_path / "eaten").read_text().split()]
    assert not done and len(eaten) == 6, "poster and picture are tried three times each"
    assert all(100 < mib < 300 for mib in eaten)
    assert counts(lines, "recording_step_quarantined") == [
        ("poster", "ffmpeg_failed"), ("compose", "ffmpeg_failed"),
    ]  # fmt: skip
    recording = await house.recording()
    assert (recording.state, recording.stage) == (RecordingState.FAILED, "poster")
    assert recording.error and recording.progress_percent < 100
    files = await house.files()
    assert [file.kind for file in files] == ["party", "party"]
    for file in files:
        assert decode_fully(house.blobs.local_path(file.blob_key)).video_frames > 0
    assert originals(house.directory) == before and verify(house.directory).is_intact


async def test_a_child_without_memory_says_so_and_a_retry_with_enough_goes_through(
    house: House,
) -> None:
    before = originals(house.directory)
    # Python starts and imports before it is confined; the steps themselves find nothing left.
    starved = replace(AMPLE, memory_bytes=MIB)
    done, lines = await logged(
        jobs.run_steps(house, RECORDING, jobs.PLAYABLE, limits=starved, retry_after_s=AT_ONCE)
    )
    assert not done
    [(step, code)] = counts(lines, "recording_step_quarantined")
    assert code in {"machine_refused", "step_crashed"} and step in {"seal", "mux"}
    assert len(counts(lines, "recording_step_again")) == 2
    recording = await house.recording()
    assert recording.state == RecordingState.FAILED and recording.error
    assert originals(house.directory) == before
    assert await jobs.run_steps(house, RECORDING, jobs.PLAYABLE)
    assert await jobs.run_steps(house, RECORDING, jobs.COMPLETE)
    recording = await house.recording()
    assert (recording.state, recording.progress_percent) == (RecordingState.READY, 100)


async def test_a_file_that_grows_too_large_is_refused_by_the_kernel(house: House) -> None:
    before = originals(house.directory)
    narrow = replace(AMPLE, file_bytes=4000)
    assert await jobs.run_steps(house, RECORDING, ("seal",))
    assert not await jobs.run_steps(
        house, RECORDING, ("mux",), limits=narrow, retry_after_s=AT_ONCE
    )
    recording = await house.recording()
    assert recording.error_code == "machine_refused" and "too large" in (recording.error or "")
    assert originals(house.directory) == before
    assert not list((house.directory / "work").glob("party-*"))  # nothing half-written has a name
    assert await jobs.run_steps(house, RECORDING, ("mux",))


async def test_ffmpeg_that_computes_for_ever_is_ended_by_its_limit(
    house: House, tmp_path: Path
) -> None:
    endless = script(tmp_path / "endless", "while True: pass\n")
    assert await jobs.run_steps(house, RECORDING, ("seal", "mux", "verify"))
    begun = time.monotonic()
    done, lines = await logged(
        jobs.run_steps(
            house.with_ffmpeg(endless), RECORDING, ("poster",),
            limits=replace(AMPLE, cpu_s=2), retry_after_s=(0.0,),
        )
    )  # fmt: skip
    assert not done and time.monotonic() - begun > 2
    [again] = [line for line in lines if line["event"] == "recording_step_again"]
    assert again["details"]["exit"] in (-signal.SIGXCPU, -signal.SIGKILL)


async def test_a_killed_child_is_followed_by_another(house: House, tmp_path: Path) -> None:
    # An ffmpeg that kills the child above it, once; then it is the real one.
    real = ffmpeg_path(None)
    assassin = script(
        tmp_path / "assassin",
        f"""
        import os, pathlib, signal, sys
        mark = pathlib.Path({str(tmp_path / "killed")!r})
        if not mark.exists():
            mark.write_text(str(os.getppid()))
            os.kill(os.getppid(), signal.SIGKILL)
        os.execv({real!r}, [{real!r}, *sys.argv[1:]])
        """,
    )
    done, lines = await logged(
        jobs.run_steps(house.with_ffmpeg(assassin), RECORDING, jobs.STEPS, retry_after_s=AT_ONCE)
    )
    assert done and (tmp_path / "killed").exists()
    assert counts(lines, "recording_step_again") == [("poster", "step_crashed")]
    steps = [line["step"] for line in lines if line["event"] == "recording_step_done"]
    assert steps == list(jobs.STEPS), "what was through is not done again"
    assert (await house.recording()).state == RecordingState.READY


async def test_a_machine_that_starts_no_children_is_told_and_a_retry_goes_through(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "WARM", WarmParent())
        patched.setattr(sys, "executable", "/bin/false")
        done, lines = await logged(
            jobs.run_steps(house, RECORDING, jobs.PLAYABLE, retry_after_s=AT_ONCE)
        )
    assert not done
    assert counts(lines, "recording_step_again") == [("seal", "machine_refused")] * 2
    recording = await house.recording()
    assert recording.error_code == "machine_refused"
    assert (recording.error or "").startswith("The machine refused: ")
    assert await jobs.run_steps(house, RECORDING, jobs.PLAYABLE)


async def test_the_process_that_children_come_from_is_killed_and_the_work_goes_on(
    house: House, tmp_path: Path
) -> None:
    real = ffmpeg_path(None)
    assassin = script(
        tmp_path / "assassin",
        f"""
        import os, pathlib, signal, sys, time
        mark = pathlib.Path({str(tmp_path / "killed")!r})
        if not mark.exists():
            mark.touch()
            child = pathlib.Path(f"/proc/{{os.getppid()}}/stat").read_text()
            os.kill(int(child.rsplit(") ", 1)[1].split()[1]), signal.SIGKILL)
            time.sleep(300)
        os.execv({real!r}, [{real!r}, *sys.argv[1:]])
        """,
    )
    done, lines = await logged(
        jobs.run_steps(house.with_ffmpeg(assassin), RECORDING, jobs.STEPS, retry_after_s=AT_ONCE)
    )
    assert done and (tmp_path / "killed").exists()
    assert counts(lines, "recording_step_again") == [("poster", "step_crashed")]
    assert (await house.recording()).state == RecordingState.READY


async def test_a_child_that_died_of_a_bad_sector_is_told_as_the_disk_s_fault(
    house: House, tmp_path: Path
) -> None:
    """What a mapped file does to its reader where the disk gives nothing: SIGBUS."""
    stricken = script(
        tmp_path / "stricken",
        """
        import os, signal
        os.kill(os.getppid(), signal.SIGBUS)
        """,
    )
    done, lines = await logged(
        jobs.run_steps(house.with_ffmpeg(stricken), RECORDING, jobs.STEPS, retry_after_s=(0.0,))
    )
    assert not done
    assert counts(lines, "recording_step_again")[0] == ("poster", "journal_unreadable")
    recording = await house.recording()
    assert recording.error_code == "journal_unreadable"
    assert "The disk cannot read a file" in (recording.error or "")


async def test_without_a_poster_the_picture_is_made_and_a_retry_makes_the_poster_only(
    house: House, tmp_path: Path
) -> None:
    real = ffmpeg_path(None)
    no_stills = script(
        tmp_path / "no-stills",
        f"""
        import os, sys
        if "mjpeg" in sys.argv:
            raise SystemExit("no stills today")
        open({str(tmp_path / "films")!r}, "a").write("film\\n")
        os.execv({real!r}, [{real!r}, *sys.argv[1:]])
        """,
    )
    refusing = house.with_ffmpeg(no_stills)
    assert not await jobs.run_steps(refusing, RECORDING, jobs.STEPS, retry_after_s=AT_ONCE)
    recording = await house.recording()
    assert (recording.state, recording.stage) == (RecordingState.FAILED, "poster")
    assert recording.progress_percent == 99
    assert [file.kind for file in await house.files()] == ["composed", "party", "party"]
    # The same labour a second time would run ffmpeg a second time.
    assert not await jobs.run_steps(refusing, RECORDING, jobs.STEPS, retry_after_s=AT_ONCE)
    assert (tmp_path / "films").read_text() == "film\n"
    assert await jobs.run_steps(house, RECORDING, jobs.STEPS)
    assert (await house.recording()).state == RecordingState.READY
    assert len(await house.files()) == 4
    assert not (house.directory / "work").exists()


async def test_journals_damaged_on_purpose_stop_the_muxing_and_stay_as_they_are(
    house: House,
) -> None:
    for path in journal.journals_in(house.directory):
        data = bytearray(path.read_bytes())
        for position in range(400, len(data), 40):  # no record is left whole
            data[position] ^= 0xFF
        path.write_bytes(data)
    (house.directory / manifest.FILE_NAME).unlink()
    assert await jobs.run_steps(house, RECORDING, ("seal",))
    before = originals(house.directory)
    done, lines = await logged(
        jobs.run_steps(house, RECORDING, jobs.PLAYABLE, retry_after_s=AT_ONCE)
    )
    assert not done and counts(lines, "recording_step_quarantined") == [("mux", "mux_failed")]
    assert not counts(lines, "recording_step_again"), "a bad file is no better a second time"
    recording = await house.recording()
    assert recording.error_code == "mux_failed" and recording.error
    assert originals(house.directory) == before


async def test_progress_never_goes_back_over_crashes_and_retries(
    house: House, tmp_path: Path
) -> None:
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append((await house.recording()).progress_percent)
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    assert await jobs.run_steps(house, RECORDING, jobs.PLAYABLE)
    refusing = house.with_ffmpeg(Path("/bin/false"))
    assert not await jobs.run_steps(refusing, RECORDING, jobs.COMPLETE, retry_after_s=AT_ONCE)
    failed_at = (await house.recording()).progress_percent
    assert 40 <= failed_at < 100
    for steps in (jobs.PLAYABLE, jobs.COMPLETE):
        assert await jobs.run_steps(house, RECORDING, steps)
    watching.cancel()
    assert seen == sorted(seen) and failed_at in seen
    assert (await house.recording()).progress_percent == 100


FINISHER = """
import asyncio, json, sys
import app.database  # knows every table
from pathlib import Path
from sqlalchemy import event
from core.blobs import DirectoryBlobs
from core.clock import SystemClock
from core.db import Database
from core.settings import Settings
from media import jobs

class House:
    settings = Settings(var_dir=Path(sys.argv[1]), ffmpeg=Path(sys.argv[4]))
    database = Database(sys.argv[2])
    blobs = DirectoryBlobs(settings.blobs_dir)
    clock = SystemClock()

@event.listens_for(House.database.engine.sync_engine, "connect")
def _(connection, _record):
    connection.execute("PRAGMA foreign_keys=OFF")

async def main():
    print("begun", flush=True)
    done = await jobs.run_steps(House, sys.argv[3], jobs.STEPS)
    await House.database.close()
    print(json.dumps(done), flush=True)

asyncio.run(main())
"""


async def _finisher(house: House, tmp_path: Path, ffmpeg: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", FINISHER, str(house.settings.var_dir),
        f"sqlite+aiosqlite:///{tmp_path / 'test.db'}", RECORDING, str(ffmpeg),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_four_processes_finish_one_recording_and_one_of_them_is_killed_at_work(
    house: House, tmp_path: Path
) -> None:
    before = originals(house.directory)
    real = ffmpeg_path(None)
    painting = tmp_path / "painting"
    slow = script(
        tmp_path / "slow",
        f"""
        import os, pathlib, sys, time
        if "mjpeg" not in sys.argv:
            pathlib.Path({str(painting)!r}).write_text(str(os.getpid()))
            time.sleep(300)
        os.execv({real!r}, [{real!r}, *sys.argv[1:]])
        """,
    )
    first = await _finisher(house, tmp_path, slow)
    until = time.monotonic() + 60
    while not (painting.exists() and painting.read_text()) and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert painting.exists(), "the first one never came to the picture"
    others = [await _finisher(house, tmp_path, Path(real)) for _ in range(3)]
    for other in others:
        assert other.stdout is not None and await other.stdout.readline() == b"begun\n"
    assert manifest.lock_directory(house.directory, manifest.FINISHING_LOCK) is None
    os.kill(first.pid, signal.SIGKILL)
    await first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert await _is_gone(int(painting.read_text())), "ffmpeg outlives who asked for it"
    answers = [await asyncio.wait_for(other.communicate(), 120) for other in others]
    assert [json.loads(out.split()[-1]) for out, _ in answers] == [True] * 3, answers
    assert (await house.recording()).state == RecordingState.READY
    files = await house.files()
    assert [file.kind for file in files] == ["composed", "party", "party", "poster"]
    for file in files:
        path = house.blobs.local_path(file.blob_key)
        assert manifest.digests(path)[0] == file.sha256
    assert originals(house.directory) == before
    fd = manifest.lock_directory(house.directory, manifest.FINISHING_LOCK)
    assert fd is not None, "the kernel frees the lock of whoever dies"
    os.close(fd)


async def _is_gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        await asyncio.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()
