"""What a talk leaves behind, and what can be heard of it while it lasts."""

import asyncio
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from app.rehearsal import ask
from media.ffmpeg import decode_fully
from tests.support.firefox import FirefoxPage
from tests.support.prefecture_process import Living

READY_S = 240


async def case_with_recording(living: Living, number: str) -> dict[str, Any]:
    """The case of that number, once its recording is finished."""
    scheduler = await living.desk.as_("xinfang")
    cases = (await ask(scheduler, "GET", "/api/cases"))["items"]
    assert [case["number"] for case in cases] == [number], "one talk, one case"
    async with asyncio.timeout(READY_S):
        while True:
            case: dict[str, Any] = await ask(scheduler, "GET", f"/api/cases/{cases[0]['id']}")
            if case["recording"]["state"] in ("ready", "failed"):
                break
            await asyncio.sleep(0.5)
    assert case["recording"]["state"] == "ready", case["recording"]["error"]
    return case


def file_of(living: Living, file: dict[str, Any]) -> Path:
    """Where the server keeps a recording's file, found by its digest's size and kind."""
    blobs = living.server.var_dir / "blobs"
    [path] = [
        path
        for path in blobs.rglob("*")
        if path.is_file()
        and path.stat().st_size == file["size_bytes"]
        and (file["participant_id"] or file["kind"]) in path.name
        and (file["kind"] != "document" or "document" in path.name)
    ]
    return path


def of_kind(case: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [file for file in case["recording"]["files"] if file["kind"] == kind]


async def loudness(page: Page | FirefoxPage) -> float:
    """RMS of what the other side says, over three seconds, as this page hears it."""
    level: float = await page.evaluate(
        """async () => {
          const heard = [...document.querySelectorAll('video, audio')]
            .filter((e) => !e.muted && e.srcObject?.getAudioTracks().length);
          const sound = new AudioContext(); await sound.resume();
          const meter = sound.createAnalyser(); meter.fftSize = 2048;
          for (const e of heard)
            sound.createMediaStreamSource(new MediaStream(e.srcObject.getAudioTracks()))
              .connect(meter);
          const samples = new Float32Array(2048); let most = 0;
          for (let i = 0; i < 60; i++) {
            await new Promise((r) => setTimeout(r, 50));
            meter.getFloatTimeDomainData(samples);
            most = Math.max(most, Math.sqrt(samples.reduce((s, x) => s + x * x, 0) / 2048));
          }
          await sound.close();
          return most; }"""
    )
    return level


async def check_files(
    living: Living, case: dict[str, Any], *, talk_s: int, within_ms: int = 500
) -> None:
    """Every party's file decodes to the end and is as long as the talk."""
    length_ms = case["recording"]["duration_ms"]
    parties = of_kind(case, "party")
    assert {file["role"] for file in parties} == {"petitioner", "official"}
    for file in parties:
        checked = await asyncio.to_thread(decode_fully, file_of(living, file))
        assert checked.video_frames > talk_s * 10
        assert abs(file["offset_ms"] + file["duration_ms"] - length_ms) < within_ms
        assert file["duration_ms"] > (talk_s - 2) * 1000
