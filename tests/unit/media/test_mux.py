"""What plays is what was sent: order, time, and no sound lost that arrived."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from media import journal, manifest, mux
from media.ffmpeg import decode_fully
from media.journal import RECORDER_LATE, MarkKind
from media.mux import MuxedFile, MuxFailed, MuxResult
from media.party_tap import PartyTap
from media.tracks import TrackName
from tests.support.media_material import (
    HEIGHT,
    WIDTH,
    Clip,
    Coded,
    Line,
    Speaker,
    VideoCodec,
    beep_times_ms,
    decode_audio,
    encode_audio,
    encode_video,
    flash_and_beep,
    flash_times_ms,
    record,
    talking_head,
)

KIOSK, OFFICIAL = "a" * 32, "b" * 32
SECONDS = 10.0


def mux_of(tmp_path: Path, speakers: list[Speaker], **how: object) -> tuple[MuxResult, Path]:
    record(tmp_path / "rec", speakers, **how)  # type: ignore[arg-type]
    out = tmp_path / "out"
    return mux.mux(tmp_path / "rec", out, with_speech=False), out


def file_of(result: MuxResult, participant_id: str, kind: str = "party") -> MuxedFile:
    return next(f for f in result.files if f.participant_id == participant_id and f.kind == kind)


def session_flashes(result: MuxResult, out: Path, who: str) -> list[float]:
    found = file_of(result, who)
    return [t + found.offset_ms for t in flash_times_ms(out / found.path)]


def session_beeps(result: MuxResult, out: Path, who: str) -> list[float]:
    found = file_of(result, who)
    return [t + found.offset_ms for t in beep_times_ms(out / found.path)]


LINES = {
    "clean": Line(),
    "lossy": Line(loss=0.05, duplicates=0.02, jitter_ms=60, seed=3),
    "slow": Line(delay_ms=80, jitter_ms=120, seed=4),
}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_sound_and_picture_and_parties_stay_together(
    tmp_path: Path, codec: VideoCodec, line: str
) -> None:
    clip = flash_and_beep(SECONDS, codec)
    result, out = mux_of(
        tmp_path,
        [
            Speaker(KIOSK, clip, clock_offset_s=3600.5, line=LINES[line], padding=codec == "vp8"),
            Speaker(OFFICIAL, clip, role="official", clock_offset_s=-7200.25, line=Line(seed=9)),
        ],
    )
    flashes, beeps = {}, {}
    for who in (KIOSK, OFFICIAL):
        flashes[who] = session_flashes(result, out, who)
        beeps[who] = session_beeps(result, out, who)
        assert len(flashes[who]) == len(beeps[who]) == SECONDS
        for flash, beep in zip(flashes[who], beeps[who], strict=True):
            assert abs(flash - beep) <= 60
        file = file_of(result, who)
        assert abs(file.duration_ms - SECONDS * 1000) <= 60
        assert file.mime == ("video/webm" if codec == "vp8" else "video/mp4")
        assert (file.width, file.height) == (WIDTH, HEIGHT)
        assert file.gaps == () and file.lost_frames == 0
    for mine, other in zip(beeps[KIOSK], beeps[OFFICIAL], strict=True):
        assert abs(mine - other) <= 100
    for mine, other in zip(flashes[KIOSK], flashes[OFFICIAL], strict=True):
        assert abs(mine - other) <= 100


def test_a_late_joiner_stands_where_they_joined(tmp_path: Path) -> None:
    clip = flash_and_beep(6.0)
    result, out = mux_of(
        tmp_path,
        [
            Speaker(KIOSK, clip, clock_offset_s=99.0),
            Speaker(OFFICIAL, clip, starts_ms=3000, clock_offset_s=-5.0, line=Line(seed=5)),
        ],
    )
    late = file_of(result, OFFICIAL)
    assert abs(late.offset_ms - 3000) <= 60
    assert abs(session_beeps(result, out, OFFICIAL)[0] - 3500) <= 60
    assert (
        abs(session_beeps(result, out, KIOSK)[3] - session_beeps(result, out, OFFICIAL)[0]) <= 100
    )
    assert abs(result.duration_ms - 9000) <= 80


def test_without_sender_reports_arrival_times_serve(tmp_path: Path) -> None:
    clip = flash_and_beep(SECONDS)
    result, out = mux_of(tmp_path, [Speaker(KIOSK, clip, reports=False, line=LINES["lossy"])])
    flashes, beeps = session_flashes(result, out, KIOSK), session_beeps(result, out, KIOSK)
    assert max(abs(f - b) for f, b in zip(flashes, beeps, strict=True)) <= 60
    assert abs(beeps[0] - 500) <= 60


def test_a_far_party_is_placed_by_its_round_trip(tmp_path: Path) -> None:
    clip = flash_and_beep(6.0)

    def marks(taps: dict[str, PartyTap], t0_ns: int) -> None:
        for who, shortest_ms in ((KIOSK, "604.0"), (OFFICIAL, "41.5")):
            for second, detail in enumerate(("900.0", shortest_ms, "nan", "?"), 1):
                at_ns = t0_ns + second * 1_000_000_000
                taps[who].mark(MarkKind.ROUND_TRIP, at_ns, None, detail)

    result, out = mux_of(
        tmp_path,
        [
            Speaker(KIOSK, clip, clock_offset_s=10, line=Line(delay_ms=300)),
            Speaker(OFFICIAL, clip, line=Line(seed=5)),
        ],
        marks=marks,
    )
    for who in (KIOSK, OFFICIAL):
        times = session_beeps(result, out, who)
        assert times == pytest.approx([500 + 1000 * n for n in range(6)], abs=20)


def test_absurd_sender_reports_are_not_believed(tmp_path: Path) -> None:
    def lie(taps: dict[str, PartyTap], t0_ns: int) -> None:
        for at_s in range(1, 9):
            taps[KIOSK].rtcp_sr(0, at_s << 33, 12345 + at_s, t0_ns + at_s * 10**9)

    clip = flash_and_beep(SECONDS)
    result, out = mux_of(tmp_path, [Speaker(KIOSK, clip, reports=False)], marks=lie)
    flashes, beeps = session_flashes(result, out, KIOSK), session_beeps(result, out, KIOSK)
    assert max(abs(f - b) for f, b in zip(flashes, beeps, strict=True)) <= 60


def test_repaired_loss_costs_no_sound_and_no_picture(tmp_path: Path) -> None:
    clip = talking_head(6.0)
    result, _ = mux_of(tmp_path / "a", [Speaker(KIOSK, clip, line=Line(loss=0.05, jitter_ms=80))])
    clean, _ = mux_of(tmp_path / "b", [Speaker(KIOSK, clip)])
    assert file_of(result, KIOSK).audio_packets == len(clip.audio)
    assert file_of(result, KIOSK).video_frames == len(clip.video)
    assert file_of(clean, KIOSK).video_frames == len(clip.video)


def test_unrepaired_loss_loses_only_what_never_arrived(tmp_path: Path) -> None:
    clip = talking_head(8.0)
    line = Line(loss=0.02, is_repaired=False, seed=11)
    result, out = mux_of(tmp_path, [Speaker(KIOSK, clip, line=line)])
    found = file_of(result, KIOSK)
    with journal.open_journal(journal.journals_in(tmp_path / "rec")[0]) as reader:
        arrived = sum(
            1
            for r in reader.records()
            if r.type is journal.RecordType.RTP and r.payload[1] & 0x7F == 111
        )
    assert arrived < len(clip.audio)
    assert found.audio_packets == arrived
    # Holes in the sound are filled, so the file is as long as what was said.
    samples, _ = decode_audio(out / found.path)
    assert abs(len(samples) / 48 - 8000) <= 40
    # Nothing broken is shown: what is left decodes, and begins again with keyframes.
    assert 0 < found.lost_frames < len(clip.video)
    assert found.video_frames + found.lost_frames >= len(clip.video) * 0.8


def test_a_picture_that_the_end_of_the_recording_cut_is_left_out(tmp_path: Path) -> None:
    clip = talking_head(3.0)
    last = max(i for i, coded in enumerate(clip.video) if len(coded.data) > 1500)
    clip = replace(clip, video=clip.video[: last + 1])
    result, out = mux_of(tmp_path, [Speaker(KIOSK, clip, ends_mid_picture=True)])
    checked = decode_fully(out / file_of(result, KIOSK).path)
    assert (checked.video_frames, checked.refused) == (len(clip.video) - 1, 0)


def test_a_silent_stretch_keeps_true_times(tmp_path: Path) -> None:
    clip = flash_and_beep(SECONDS)
    hole = Clip("vp8", clip.video, tuple(c for c in clip.audio if not 2000 <= c.at_ms < 6000))
    result, out = mux_of(tmp_path, [Speaker(KIOSK, hole)])
    beeps = session_beeps(result, out, KIOSK)
    expected = [500, 1500, 6500, 7500, 8500, 9500]
    assert [round(b / 10) * 10 for b in beeps] == pytest.approx(expected, abs=60)
    # Players run sound packets together, so the hole must be filled, not only stepped over.
    with av.open(str(out / file_of(result, KIOSK).path)) as container:
        times = [p.pts for p in container.demux(audio=0) if p.pts is not None]
    assert max(b - a for a, b in pairwise(times)) <= 41
    gap = file_of(result, KIOSK).gaps[0]
    assert gap.track == "microphone" and gap.cause == "loss"
    assert abs(gap.start_ms - 2000) <= 60 and abs(gap.end_ms - 6000) <= 60


def test_legs_continue_one_file_and_the_gap_is_marked(tmp_path: Path) -> None:
    clip = flash_and_beep(4.0)

    def marks(taps: dict[str, PartyTap], t0_ns: int) -> None:
        taps[KIOSK].mark(MarkKind.SILENT, t0_ns + 5_500_000_000)

    result, out = mux_of(
        tmp_path,
        [
            Speaker(KIOSK, clip, leg=1, clock_offset_s=10),
            Speaker(KIOSK, clip, leg=2, starts_ms=7000, clock_offset_s=10, line=Line(seed=8)),
        ],
        marks=marks,
    )
    assert len(result.files) == 1
    assert session_beeps(result, out, KIOSK) == pytest.approx(
        [500, 1500, 2500, 3500, 7500, 8500, 9500, 10500], abs=60
    )
    assert session_flashes(result, out, KIOSK) == pytest.approx(
        [500, 1500, 2500, 3500, 7500, 8500, 9500, 10500], abs=60
    )
    causes = {(gap.track, gap.cause) for gap in result.files[0].gaps}
    assert causes == {("microphone", "network"), ("camera", "network")}
    for gap in result.files[0].gaps:
        assert gap.start_ms == pytest.approx(4000, abs=80)
        assert gap.end_ms == pytest.approx(7000, abs=80)


def test_what_a_late_recorder_missed_is_missing_by_the_disk(tmp_path: Path) -> None:
    """A server has come back, its callers have too, and the disk gives no recorder for 3 s."""
    clip = flash_and_beep(4.0)

    def marks(taps: dict[str, PartyTap], t0_ns: int) -> None:
        taps[KIOSK].mark(MarkKind.BACK, t0_ns + 6_900_000_000)
        taps[KIOSK].mark(MarkKind.GAP, t0_ns + 7_000_000_000, None, RECORDER_LATE)

    speakers = [Speaker(KIOSK, clip, leg=1), Speaker(KIOSK, clip, leg=2, starts_ms=7000)]
    result, _ = mux_of(tmp_path, speakers, marks=marks)
    assert {gap.cause for gap in result.files[0].gaps} == {"disk"}


def test_a_codec_change_starts_a_second_file_with_its_sound(tmp_path: Path) -> None:
    result, out = mux_of(
        tmp_path,
        [
            Speaker(KIOSK, flash_and_beep(4.0, "vp8"), leg=1),
            Speaker(KIOSK, flash_and_beep(4.0, "h264"), leg=2, starts_ms=5000, line=Line(seed=8)),
        ],
    )
    first, second = result.files
    assert (first.mime, second.mime) == ("video/webm", "video/mp4")
    assert second.path == f"party-{KIOSK}-2.mp4"
    assert [b + first.offset_ms for b in beep_times_ms(out / first.path)] == pytest.approx(
        [500, 1500, 2500, 3500], abs=60
    )
    assert [b + second.offset_ms for b in beep_times_ms(out / second.path)] == pytest.approx(
        [5500, 6500, 7500, 8500], abs=60
    )


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_a_picture_that_changes_size_stays_in_one_file(tmp_path: Path, codec: VideoCodec) -> None:
    def picture(index: int) -> np.ndarray:  # type: ignore[type-arg]
        scale = 1 if index < 60 else 2
        rng = np.random.default_rng(index)
        return rng.integers(0, 255, (120 * scale, 160 * scale), np.uint8)

    video = encode_video(picture, 5.0, codec)
    # Each encoder counts from its own start; the camera's clock goes on.
    video = tuple(Coded(i * 40, c.data, c.is_keyframe) for i, c in enumerate(video))
    clip = Clip(codec, video, flash_and_beep(5.0).audio)
    result, out = mux_of(tmp_path, [Speaker(KIOSK, clip)])
    found = file_of(result, KIOSK)
    with av.open(str(out / found.path)) as container:
        sizes = [(f.width, f.height) for f in container.decode(video=0)]
    assert set(sizes) == {(160, 120), (320, 240)}
    assert len(sizes) == found.video_frames == len(video)


def test_document_camera_is_its_own_file_and_sound_alone_is_a_file_too(tmp_path: Path) -> None:
    clip = flash_and_beep(4.0)
    result, out = mux_of(
        tmp_path,
        [
            Speaker(KIOSK, clip, has_video=False),
            Speaker(
                KIOSK, clip, leg=2, video_name=TrackName.DOCUMENT, has_audio=False, starts_ms=100
            ),
        ],
    )
    party, document = file_of(result, KIOSK), file_of(result, KIOSK, "document")
    assert (party.has_audio, party.has_video, party.mime) == (True, False, "audio/webm")
    assert (document.has_audio, document.has_video) == (False, True)
    assert document.path == f"document-{KIOSK}.webm"
    assert len(beep_times_ms(out / party.path)) == 4


def test_clock_drift_over_a_long_call_is_followed(tmp_path: Path) -> None:
    # 200 ppm is a poor quartz: 60 ms over five minutes if nobody followed it.
    seconds = 300
    silence = encode_audio(lambda index: np.zeros(960, np.float32), 1.0)[5].data
    audio = tuple(Coded(i * 20, silence) for i in range(seconds * 50))
    clip = Clip("vp8", (), audio)
    speakers = [
        Speaker(KIOSK, clip, has_video=False, clock_drift=200e-6, clock_offset_s=5),
        Speaker(OFFICIAL, clip, has_video=False, line=Line(seed=2)),
    ]
    result, _ = mux_of(tmp_path, speakers)
    ends = [f.offset_ms + f.duration_ms for f in result.files]
    assert abs(ends[0] - seconds * 1000) <= 40
    assert abs(ends[0] - ends[1]) <= 40


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_muxing_twice_gives_identical_files(tmp_path: Path, codec: VideoCodec) -> None:
    record(tmp_path / "rec", [Speaker(KIOSK, talking_head(4.0, codec), line=LINES["lossy"])])
    first = mux.mux(tmp_path / "rec", tmp_path / "one")
    second = mux.mux(tmp_path / "rec", tmp_path / "two")
    third = mux.mux(tmp_path / "rec", tmp_path / "one")
    assert first == second == third
    assert mux.read_result(tmp_path / "one") == first
    assert first.files[0].sha256 == manifest.digests(tmp_path / "two" / first.files[0].path)[0]


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_files_can_be_seeked(tmp_path: Path, codec: VideoCodec) -> None:
    result, out = mux_of(tmp_path, [Speaker(KIOSK, flash_and_beep(SECONDS, codec))])
    path = out / result.files[0].path
    head = path.read_bytes()[:4096]
    assert (b"\x1c\x53\xbb\x6b" in head) if codec == "vp8" else (b"moov" in head)
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(SECONDS * 1e6, abs=60_000)
        container.seek(7_000_000)
        frame = next(container.decode(video=0))
        assert frame.time is not None and 4.0 < frame.time <= 7.0


def test_speech_is_found_where_it_is(tmp_path: Path) -> None:
    record(tmp_path / "rec", [Speaker(KIOSK, talking_head(8.0), starts_ms=2000)])
    result = mux.mux(tmp_path / "rec", tmp_path / "out")
    spans = result.files[0].speech
    spoken = sum(span.end_ms - span.start_ms for span in spans)
    assert 2500 < spoken < 4300
    assert spans[0].start_ms >= 2000 and spans[-1].end_ms <= 6200


def test_a_recording_without_media_is_refused_in_words(tmp_path: Path) -> None:
    record(
        tmp_path / "rec", [Speaker(KIOSK, Clip("vp8", (), ()), has_video=False, has_audio=False)]
    )
    with pytest.raises(MuxFailed):
        mux.mux(tmp_path / "rec", tmp_path / "out")
    assert not (tmp_path / "out" / mux.RESULT_NAME).exists()


def test_a_damaged_journal_is_muxed_around_its_damage(tmp_path: Path) -> None:
    record(tmp_path / "rec", [Speaker(KIOSK, flash_and_beep(6.0))])
    path = journal.journals_in(tmp_path / "rec")[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    result = mux.mux(tmp_path / "rec", tmp_path / "out", with_speech=False)
    assert any("damaged" in problem for problem in result.problems)
    assert result.files[0].audio_packets + result.files[0].video_frames > 400


def test_progress_rises_to_its_end_and_never_falls(tmp_path: Path) -> None:
    record(
        tmp_path / "rec",
        [Speaker(KIOSK, flash_and_beep(4.0)), Speaker(OFFICIAL, flash_and_beep(4.0))],
    )
    told: list[float] = []
    mux.mux(tmp_path / "rec", tmp_path / "out", lambda done, total: told.append(done / total))
    assert told == sorted(told) and told[-1] == 1.0 and len(told) > 20


def test_the_command_speaks_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "rec", [Speaker(KIOSK, flash_and_beep(4.0))])
    assert mux.main([str(tmp_path / "rec"), str(tmp_path / "out")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"stage": "mux", "percent": 100}
    assert mux.main([str(tmp_path / "none"), str(tmp_path / "out2")]) == 1
    assert "error" in json.loads(capsys.readouterr().out.splitlines()[-1])
    assert mux.main([]) == 2
