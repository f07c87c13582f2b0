"""The composed picture shows both parties, has their sound, its length and a true progress."""

import os
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from media import compose, ffmpeg, mux
from media.compose import Caption
from media.ffmpeg import FfmpegFailed
from media.mux import MuxedFile, MuxResult
from tests.support.media_material import (
    STARTED,
    Clip,
    Coded,
    Speaker,
    beep_times_ms,
    encode_video,
    flash_and_beep,
    record,
    talking_head,
)

KIOSK, OFFICIAL = "a" * 32, "b" * 32
FFMPEG = ffmpeg.ffmpeg_path(None)
NUMBER = "甘信接〔2026〕0001号"


def a_file(**changes: object) -> MuxedFile:
    values: dict[str, object] = {
        "kind": "party", "participant_id": KIOSK, "role": "petitioner", "label": "",
        "path": f"party-{KIOSK}.webm", "mime": "video/webm", "bytes": 1, "sha256": "",
        "duration_ms": 10_000, "offset_ms": 0, "width": 640, "height": 480, "has_audio": True,
        "has_video": True, "gaps": (), "speech": (), "audio_packets": 1, "video_frames": 1,
        "lost_frames": 0,
    }  # fmt: skip
    return MuxedFile(**(values | changes))  # type: ignore[arg-type]


def caption() -> Caption:
    return Caption(NUMBER, STARTED, None)


def half(frame: np.ndarray, right: bool) -> np.ndarray:  # type: ignore[type-arg]
    body = frame[compose.STRIP_HEIGHT :]
    return body[:, compose.CELL_WIDTH :] if right else body[:, : compose.CELL_WIDTH]


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:  # type: ignore[type-arg]
    with av.open(str(path)) as container:
        return [
            (float(frame.time or 0), frame.reformat(format="gray").to_ndarray())
            for frame in container.decode(video=0)
        ]


def composed(tmp_path: Path, speakers: list[Speaker]) -> tuple[MuxResult, Path, list[int]]:
    record(tmp_path / "rec", speakers)
    out = tmp_path / "out"
    result = mux.mux(tmp_path / "rec", out, with_speech=False)
    told: list[int] = []
    compose.compose(out, caption(), ffmpeg_path=FFMPEG, progress=told.append)
    return result, out / compose.COMPOSED_NAME, told


def test_both_pictures_the_sound_the_length_and_a_true_progress(tmp_path: Path) -> None:
    result, path, told = composed(
        tmp_path,
        [
            Speaker(KIOSK, talking_head(6.0), clock_offset_s=30),
            Speaker(OFFICIAL, flash_and_beep(6.0), role="official", starts_ms=2000),
        ],
    )
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(result.duration_ms * 1000, abs=100_000)
        assert {s.codec_context.name for s in container.streams} == {"h264", "aac"}
    assert b"moov" in path.read_bytes()[:200]  # fast start
    frames = frames_of(path)
    assert frames[0][1].shape == (compose.STRIP_HEIGHT + 480, 1280)
    # The face is there from the start, textured and moving; the official's cell is black.
    early = next(f for t, f in frames if t >= 1.0)
    assert half(early, right=False).std() > 20
    assert half(early, right=True).mean() < 25
    # The official's flash of 0.5 s after joining is where it belongs, in its own cell only.
    flashes = [
        t
        for (_, a), (t, b) in pairwise(frames)
        if half(b, right=True).mean() > 128 >= half(a, right=True).mean()
    ]
    offset_s = next(f.offset_ms for f in result.files if f.participant_id == OFFICIAL) / 1000
    assert flashes == pytest.approx([offset_s + 0.5 + k for k in range(6)], abs=0.08)
    # Number and clock stand in the strip, and the clock's seconds change.
    strips = [f[: compose.STRIP_HEIGHT] for _, f in frames]
    assert strips[0][:, :500].max() > 180
    assert np.abs(strips[-1].astype(int) - strips[10].astype(int))[:, -500:].max() > 100
    # Beeps survive the mix, in step with the flashes.
    beeps = [b / 1000 for b in beep_times_ms(path) if b / 1000 > 5.5]
    for flash in flashes[4:]:
        assert min(abs(flash - beep) for beep in beeps) <= 0.08
    assert told == sorted(told) and told[-1] == 100 and any(0 < p < 80 for p in told)


def test_a_camera_that_changes_size_keeps_its_time(tmp_path: Path) -> None:
    def picture(index: int) -> np.ndarray:  # type: ignore[type-arg]
        size = (120, 160) if index < 75 else (240, 320)
        return np.full(size, 235 if index >= 100 else 20, np.uint8)

    video = encode_video(picture, 6.0, "vp8")
    video = tuple(Coded(i * 40, c.data, c.is_keyframe) for i, c in enumerate(video))
    clip = Clip("vp8", video, flash_and_beep(6.0).audio)
    _, path, _ = composed(tmp_path, [Speaker(KIOSK, clip)])
    white = [t for t, f in frames_of(path) if f[compose.STRIP_HEIGHT :].mean() > 128]
    assert white[0] == pytest.approx(4.0, abs=0.1)
    assert white[-1] == pytest.approx(6.0, abs=0.1)


def test_poster_shows_the_parties(tmp_path: Path) -> None:
    record(
        tmp_path / "rec",
        [
            Speaker(KIOSK, talking_head(4.0)),
            Speaker(OFFICIAL, talking_head(4.0), role="official", starts_ms=500),
        ],
    )
    mux.mux(tmp_path / "rec", tmp_path / "out", with_speech=False)
    checked = compose.poster(tmp_path / "out", ffmpeg_path=FFMPEG)
    assert (checked.width, checked.height) == (1280, 480)
    (_, still) = frames_of(tmp_path / "out" / compose.POSTER_NAME)[0]
    assert still[:, :640].std() > 20 and still[:, 640:].std() > 20


def test_sound_alone_composes_too(tmp_path: Path) -> None:
    result, path, _ = composed(tmp_path, [Speaker(KIOSK, flash_and_beep(4.0), has_video=False)])
    assert len(beep_times_ms(path)) == 4
    assert not result.files[0].has_video


def test_cells_are_in_reading_order_with_the_official_last() -> None:
    official = a_file(participant_id=OFFICIAL, role="official", path=f"party-{OFFICIAL}.webm")
    second = a_file(path=f"party-{KIOSK}-2.mp4", offset_ms=5000)
    document = a_file(kind="document", path=f"document-{KIOSK}.webm")
    cells, width, height = compose.layout([document, official, second, a_file()])
    assert [[f.path for f in cell.files] for cell in cells] == [
        [f"party-{KIOSK}.webm", f"party-{KIOSK}-2.mp4"],
        [official.path],
        [document.path],
    ]
    assert [(cell.x, cell.y) for cell in cells] == [(0, 48), (640, 48), (0, 528)]
    assert (width, height) == (1280, 48 + 960)


def test_the_graph_is_the_same_every_time_and_holds_no_text_of_people(tmp_path: Path) -> None:
    evil = "':[x];movie=/etc/passwd%{pts}\\"
    result = MuxResult("s", 10_000, (a_file(), a_file(participant_id=OFFICIAL, path="b.webm")), ())
    how = Caption(evil, datetime(2026, 3, 2, tzinfo=UTC), None)
    first = compose.composed_arguments(result, tmp_path, how, tmp_path)
    assert first == compose.composed_arguments(result, tmp_path, how, tmp_path)
    assert not any("passwd" in argument for argument in first)
    assert (tmp_path / "number.txt").read_text() == compose.shown_text(
        evil, compose.find_font() or Path()
    )
    inputs = [first[i + 1] for i, a in enumerate(first) if a == "-i"]
    assert all(i.startswith(("file:/", "color=")) for i in inputs)


def test_poster_time_lies_where_all_can_be_seen() -> None:
    late = a_file(participant_id=OFFICIAL, offset_ms=4000, duration_ms=6000)
    assert compose.poster_time_ms(MuxResult("s", 10_000, (a_file(), late), ())) == 5200
    after = a_file(participant_id=OFFICIAL, offset_ms=20_000)
    assert compose.poster_time_ms(MuxResult("s", 30_000, (a_file(), after), ())) == 2000


def test_a_failing_ffmpeg_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FfmpegFailed) as failed:
        ffmpeg.run(
            ["-i", "file:/nowhere.webm"], tmp_path / "x.mp4",
            ffmpeg=FFMPEG, duration_ms=1, timeout_s=20,
        )  # fmt: skip
    assert any("nowhere" in line for line in failed.value.details["said"])
    assert list(tmp_path.iterdir()) == []


def test_an_endless_ffmpeg_is_stopped_and_leaves_nothing(tmp_path: Path) -> None:
    before = time.monotonic()
    with pytest.raises(FfmpegFailed, match="too long"):
        ffmpeg.run(
            ["-re", "-f", "lavfi", "-i", "testsrc=s=64x64"], tmp_path / "x.mp4",
            ffmpeg=FFMPEG, duration_ms=1, timeout_s=1.5,
        )  # fmt: skip
    assert time.monotonic() - before < 15
    assert list(tmp_path.iterdir()) == []


def test_only_files_may_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FfmpegFailed) as failed:
        ffmpeg.run(
            ["-i", "http://127.0.0.1:9/a.webm"], tmp_path / "x.mp4",
            ffmpeg=FFMPEG, duration_ms=1, timeout_s=20,
        )  # fmt: skip
    assert "not on whitelist" in " ".join(failed.value.details["said"])


def test_a_broken_file_is_not_called_playable(tmp_path: Path) -> None:
    path = tmp_path / "x.webm"
    path.write_bytes(os.urandom(5000))
    with pytest.raises(FfmpegFailed):
        ffmpeg.decode_fully(path)


def test_composing_before_muxing_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(compose.NothingToCompose, match="not been made"):
        compose.compose(tmp_path, caption(), ffmpeg_path=FFMPEG)
