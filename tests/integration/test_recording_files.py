"""From packets to files on a real disk, with real processes: killed, refused, raced, finished."""

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from media import jobs, journal, manifest
from media.ffmpeg import decode_fully
from media.journal import RecordType
from media.model import Recording, RecordingFile, RecordingState
from media.verification import verify
from tests.support.media_material import Speaker, flash_and_beep, record, talking_head
from tests.support.one_recording import KIOSK, OFFICIAL, RECORDING, House, open_house


def packets_in(directory: Path) -> list[bytes]:
    found: dict[bytes, None] = {}
    for path in journal.journals_in(directory):
        with journal.open_journal(path) as reader:
            found |= {r.payload: None for r in reader.records() if r.type is RecordType.RTP}
    return list(found)


WRITER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from core.clock import SystemClock
from media.recorder import Recorder
from media.tracks import CodecInfo, TrackName

recorder = Recorder.open(
    Path(sys.argv[1]), session_id="s", started_at=datetime.now(UTC), clock=SystemClock(),
    reserve_bytes=0,
)
tap = recorder.party("a" * 32, 1, "", "petitioner")
track = tap.open_track(1, TrackName.MICROPHONE, CodecInfo("audio/opus", 111, 48000, 2, ""))
def send(number):
    tap.rtp(track, b"%12d" % number + bytes(180), time.monotonic_ns())
"""


def test_killed_while_recording_loses_less_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    script = WRITER + textwrap.dedent("""
        number = 0
        while True:
            send(number)
            sys.stdout.write(f"{number} {time.monotonic_ns()}\\n")
            sys.stdout.flush()
            number += 1
            time.sleep(0.005)
    """)
    for round_number in range(4):
        directory = tmp_path / str(round_number)
        with subprocess.Popen(
            [sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            sent = [process.stdout.readline() for _ in range(150 + 37 * round_number)]
            process.send_signal(signal.SIGKILL)
            sent += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        times = {int(n): int(ns) for n, ns in (line.split() for line in sent if line.count(" "))}
        book = manifest.recover(directory)
        assert verify(directory).is_intact and book.sealed_by == "recovery"
        kept = [int(packet[:12]) for packet in packets_in(directory)]
        assert kept == list(range(len(kept)))  # nothing is missing before the end
        lost = [ns for number, ns in times.items() if number >= len(kept)]
        if lost:
            assert max(lost) - min(lost) <= 100_000_000


def test_a_limit_reached_in_mid_call_is_survived_and_space_that_returns_is_used(
    tmp_path: Path,
) -> None:
    # RLIMIT_FSIZE is a disk that is full for this process only: a real write that really fails.
    script = WRITER + textwrap.dedent("""
        import json, resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        seen = []
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        number = 0
        for _ in range(160):
            for _ in range(5):
                send(number)
                number += 1
            time.sleep(0.01)
            seen.append(recorder.status().state.value)
        troubled = "trouble" in seen
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        until = time.monotonic() + 10
        while recorder.status().state.value != "recording" and time.monotonic() < until:
            time.sleep(0.05)
        state = recorder.status().state.value
        recorder.seal_now()
        print(json.dumps({"troubled": troubled, "state": state, "sent": number,
                          "lost": recorder.status().lost_packets}))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "rec")],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["troubled"] and told["state"] == "recording" and told["lost"] == 0
    assert len(journal.journals_in(tmp_path / "rec")) >= 2
    assert [int(p[:12]) for p in packets_in(tmp_path / "rec")] == list(range(told["sent"]))
    assert verify(tmp_path / "rec").is_intact


def test_eight_processes_that_recover_at_once_write_one_manifest(tmp_path: Path) -> None:
    record(tmp_path / "rec", [Speaker(KIOSK, flash_and_beep(4.0))])
    (tmp_path / "rec" / manifest.FILE_NAME).unlink()
    for path in journal.journals_in(tmp_path / "rec"):
        path.write_bytes(path.read_bytes()[:-7])
    script = (
        "import sys; from pathlib import Path; from media import manifest;"
        "print(manifest.recover(Path(sys.argv[1]), patience_s=60).sealed_at)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "rec")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    answers = [process.communicate(timeout=90) for process in started]
    assert [process.returncode for process in started] == [0] * 8, answers
    assert len({out for out, _ in answers}) == 1
    assert verify(tmp_path / "rec").is_intact


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = await open_house(tmp_path)
    yield made
    await made.database.close()


async def look(house: House) -> tuple[Recording, list[RecordingFile]]:
    return await house.recording(), await house.files()


def talk(house: House) -> Path:
    directory = house.directory
    record(
        directory,
        [
            Speaker(KIOSK, talking_head(5.0), clock_offset_s=50),
            Speaker(OFFICIAL, flash_and_beep(5.0), role="official", starts_ms=500),
        ],
    )
    return directory


async def test_a_captured_recording_becomes_ready_step_by_step(house: House) -> None:
    directory = talk(house)
    seen: list[tuple[str, int]] = []

    async def watch() -> None:
        while True:
            recording, _ = await look(house)
            seen.append((recording.state, recording.progress_percent))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    for step in jobs.STEPS:
        done = await jobs.run_step(house, RECORDING, step, case_number="513328-SP-20260525-00001")
        assert done, (await look(house))[0].error
    watching.cancel()
    recording, files = await look(house)
    assert recording.state == RecordingState.READY and recording.stage is None
    assert recording.progress_percent == 100 and recording.ready_at is not None
    assert [file.kind for file in files] == ["composed", "party", "party", "poster"]
    assert abs((recording.duration_ms or 0) - 5500) < 150
    for file in files:
        path = house.blobs.local_path(file.blob_key)
        assert (path.stat().st_size, manifest.digests(path)[0]) == (file.size_bytes, file.sha256)
        assert decode_fully(path).video_frames > 0
    assert recording.timeline["speech"]
    assert not (directory / "work").exists()
    assert verify(directory).is_intact
    percents = [percent for _, percent in seen]
    assert percents == sorted(percents) and len(set(percents)) > 3


async def test_one_picture_that_cannot_be_decoded_does_not_keep_the_talk_from_being_seen(
    house: House,
) -> None:
    clip = flash_and_beep(4.0)
    pictures = list(clip.video)
    bad = next(i for i, coded in enumerate(pictures) if i > 20 and not coded.is_keyframe)
    # A header that announces more than the picture holds, as a picture cut short has it.
    announced = b"\xf1\xff\xff" + pictures[bad].data[3:40]
    pictures[bad] = replace(pictures[bad], data=announced)
    record(
        house.directory,
        [Speaker(KIOSK, replace(clip, video=tuple(pictures)))],
    )
    for step in jobs.STEPS:
        assert await jobs.run_step(house, RECORDING, step), (await look(house))[0].error
    _, files = await look(house)
    [party] = [file for file in files if file.kind == "party"]
    checked = decode_fully(house.blobs.local_path(party.blob_key))
    assert checked.refused > 0, "the picture was meant to be bad"
    assert checked.video_frames > len(pictures) // 2


async def test_every_step_may_be_repeated_and_files_keep_their_ids(house: House) -> None:
    talk(house)
    for step in jobs.STEPS[:4]:
        assert await jobs.run_step(house, RECORDING, step)
        assert await jobs.run_step(house, RECORDING, step)
    _, before = await look(house)
    assert await jobs.run_step(house, RECORDING, "verify")
    assert await jobs.run_step(house, RECORDING, "compose")
    _, after = await look(house)
    assert {file.id for file in before} < {file.id for file in after}
    assert await jobs.run_step(house, RECORDING, "mux")  # ready: nothing is touched any more
    recording, _ = await look(house)
    assert recording.state == RecordingState.READY


async def test_a_failed_step_says_why_and_can_be_retried(house: House, tmp_path: Path) -> None:
    talk(house)
    broken = house.with_ffmpeg(Path("/bin/false"))
    for step in ("seal", "mux", "verify"):
        assert await jobs.run_step(broken, RECORDING, step)
    assert not await jobs.run_steps(broken, RECORDING, ("poster",), retry_after_s=())
    recording, files = await look(house)
    assert (recording.state, recording.stage) == (RecordingState.FAILED, "poster")
    assert recording.error_code == "ffmpeg_failed" and recording.error
    assert len(files) == 2  # what was verified stays to be seen
    for step in jobs.STEPS:
        assert await jobs.run_step(house, RECORDING, step)
    recording, _ = await look(house)
    assert recording.state == RecordingState.READY and recording.error is None


async def test_changed_journals_stop_the_finishing(house: House) -> None:
    directory = talk(house)
    path = journal.journals_in(directory)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert await jobs.run_step(house, RECORDING, "seal")
    assert await jobs.run_step(house, RECORDING, "mux")
    assert not await jobs.run_step(house, RECORDING, "verify")
    recording, _ = await look(house)
    assert recording.error_code == "not_verified"


async def test_a_recording_without_a_directory_fails_in_words(house: House) -> None:
    assert not await jobs.run_step(house, RECORDING, "seal")
    recording, _ = await look(house)
    assert recording.state == RecordingState.FAILED
    assert recording.error_code == "recording_missing"


async def test_a_cancelled_step_leaves_no_process_behind(house: House) -> None:
    talk(house)
    for step in ("seal", "mux", "verify"):
        assert await jobs.run_step(house, RECORDING, step)
    composing = asyncio.create_task(jobs.run_step(house, RECORDING, "compose"))
    work = house.directory / "work"
    until = time.monotonic() + 30
    while not list(work.glob(".composed.part*")) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    assert list(work.glob(".composed.part*")), "ffmpeg never began"
    composing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await composing
    until = time.monotonic() + 10
    while _processes_with(str(work)) and time.monotonic() < until:
        await asyncio.sleep(0.1)
    assert _processes_with(str(work)) == []


def _processes_with(words: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
