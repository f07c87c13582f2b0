"""Journals to files that play: one seekable file per party, without transcoding.

Runs in a child process: `python -m media.mux <recording_dir> <out_dir>`. The same journals always
give the same bytes. Packets are put in order by sequence number (late repairs land in place), made
into whole frames, and set on the session's timeline by all sender reports together. Nothing is
dropped for having been late, and memory holds an index of the packets, never the call.
`mux.json` is written last: where it stands, the files it names are complete.
"""

import hashlib
import heapq
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import av

from core.errors import ReceptionError
from core.ids import ParticipantId
from media import depayload, ffmpeg, journal, manifest, speech
from media.container import Format, Sample, write_container
from media.depayload import Frame, H264Depayloader, VideoDepayloader, Vp8Depayloader
from media.index import Leg, TrackIndex, index_leg, packets, timeline_maps
from media.journal import JournalDamaged, JournalReader, MarkKind
from media.soundtrack import Sound, run_together
from media.tracks import CodecInfo, TrackName

RESULT_NAME: Final = "mux.json"
RESULT_VERSION: Final = 1
AUDIO_GAP_MS: Final = 500
"""Longer than a discontinuous sender's comfort interval (400 ms), shorter than a person notices."""
VIDEO_GAP_MS: Final = 1500
LAST_FRAME_MS: Final = 40
"""A picture stands until the next one; this much is granted to the last. Without a duration there
an MP4 player would leave the last picture out."""
_MS_NS: Final = 1_000_000

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class MuxFailed(ReceptionError):
    """The journals could not be made into files."""

    code = "mux_failed"


@dataclass(frozen=True, slots=True)
class Gap:
    """Time without this track, on the session's timeline."""

    track: str
    start_ms: int
    end_ms: int
    cause: str  # mute | away | network | disk | loss


@dataclass(frozen=True, slots=True)
class MuxedFile:
    """One finished file. `offset_ms` is where its time 0 lies on the session's timeline."""

    kind: Literal["party", "document"]
    participant_id: str
    role: str
    label: str
    path: str
    mime: str
    bytes: int
    sha256: str
    duration_ms: int
    offset_ms: int
    width: int | None
    height: int | None
    has_audio: bool
    has_video: bool
    gaps: tuple[Gap, ...]
    speech: tuple[speech.Span, ...]
    audio_packets: int
    video_frames: int
    lost_frames: int


@dataclass(frozen=True, slots=True)
class MuxResult:
    """What `mux.json` says."""

    session_id: str
    duration_ms: int
    files: tuple[MuxedFile, ...]
    problems: tuple[str, ...]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "MuxResult":
        """Raises KeyError or TypeError for another shape."""
        files = tuple(
            MuxedFile(
                **{
                    **item,
                    "gaps": tuple(Gap(**gap) for gap in item["gaps"]),
                    "speech": tuple(speech.Span(**span) for span in item["speech"]),
                }
            )
            for item in value["files"]
        )
        return cls(value["session_id"], value["duration_ms"], files, tuple(value["problems"]))


# --- samples -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """What the writing of one file found out."""

    audio_packets: int = 0
    video_frames: int = 0
    lost_frames: int = 0
    gaps: list[Gap] = field(default_factory=list)
    end_us: int = 0


@dataclass(frozen=True, slots=True)
class _Source:
    """One track of one leg with its place on the timeline."""

    leg: Leg
    track: TrackIndex
    to_timeline_ns: Callable[[int], int]

    @property
    def codec(self) -> CodecInfo:
        return self.track.described.codec

    @property
    def starts_ns(self) -> int:
        return self.to_timeline_ns(self.track.first_rtp_time)


def _video_samples(sources: Iterable[_Source], tally: _Tally) -> Iterator[Sample]:
    """All frames of a video track over all its legs, times strictly rising."""
    last_us: int | None = None
    for source in sources:
        depayloader: VideoDepayloader = (
            Vp8Depayloader() if source.codec.mime.lower() == "video/vp8" else H264Depayloader()
        )
        for frame in _frames(source, depayloader):
            at_us = source.to_timeline_ns(frame.rtp_time) // 1000
            if last_us is not None and at_us < last_us + 1000:
                at_us = last_us + 1000  # containers refuse equal times, and WebM counts in ms
            last_us = at_us
            yield Sample(at_us, LAST_FRAME_MS * 1000, frame.data, frame.is_keyframe, is_audio=False)
        tally.lost_frames += depayloader.lost_frames


def _frames(source: _Source, depayloader: VideoDepayloader) -> Iterator[Frame]:
    for packet in packets(source.leg, source.track):
        if (frame := depayloader.push(packet)) is not None:
            yield frame


def _sounds(sources: Iterable[_Source]) -> Iterator[Sound]:
    """All Opus packets over all legs at their true times."""
    for source in sources:
        for packet in packets(source.leg, source.track):
            duration_us = depayload.opus_duration_us(packet.payload)
            if duration_us:
                at_us = source.to_timeline_ns(packet.rtp_time) // 1000
                yield Sound(at_us, duration_us, packet.payload)


# --- parties and files ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Party:
    participant_id: ParticipantId
    role: str
    label: str
    legs: list[Leg]

    def sources(self, name: TrackName) -> list[_Source]:
        """The participant's tracks of this name over all legs, in the order they began."""
        found = []
        for leg in self.legs:
            maps = timeline_maps(leg)
            found += [
                _Source(leg, track, maps[index])
                for index, track in leg.tracks.items()
                if track.described.name is name and index in maps
            ]
        return sorted(found, key=lambda source: source.track.first_arrival_ns)


@dataclass(frozen=True, slots=True)
class _Plan:
    """One file to write: a run of legs with one video codec, and the sound of that time."""

    party: _Party
    kind: Literal["party", "document"]
    stem: str
    video: list[_Source]
    audio: list[_Source]
    audio_from_us: int | None
    audio_until_us: int | None

    @property
    def is_h264(self) -> bool:
        return bool(self.video) and self.video[0].codec.mime.lower() == "video/h264"


_VIDEO_MIMES: Final = ("video/vp8", "video/h264")


def _plans(party: _Party, problems: list[str]) -> Iterator[_Plan]:
    audio = [s for s in party.sources(TrackName.MICROPHONE) if s.codec.mime.lower() == "audio/opus"]
    who = party.participant_id
    for name, stem in (
        (TrackName.CAMERA, "party"),
        (TrackName.DOCUMENT, "document"),
        (TrackName.SCREEN, "screen"),
    ):
        video = party.sources(name)
        known = [source for source in video if source.codec.mime.lower() in _VIDEO_MIMES]
        if len(known) < len(video):
            problems.append(f"{stem}-{who}: a codec that cannot be written was left out")
        with_audio = audio if name is TrackName.CAMERA else []
        runs = _runs(known) or ([[]] if with_audio else [])
        for number, run in enumerate(runs):
            first, last = number == 0, number == len(runs) - 1
            yield _Plan(
                party=party,
                kind="party" if name is TrackName.CAMERA else "document",
                stem=f"{stem}-{who}" if first else f"{stem}-{who}-{number + 1}",
                video=run,
                audio=with_audio,
                audio_from_us=None if first else run[0].starts_ns // 1000,
                audio_until_us=None if last else runs[number + 1][0].starts_ns // 1000,
            )


def _runs(sources: list[_Source]) -> list[list[_Source]]:
    """Split where the codec changes: one container track holds one codec."""
    runs: list[list[_Source]] = []
    for source in sources:
        if runs and runs[-1][-1].codec.mime.lower() == source.codec.mime.lower():
            runs[-1].append(source)
        else:
            runs.append([source])
    return runs


def mux(
    recording: Path,
    out: Path,
    progress: Progress | None = None,
    *,
    with_speech: bool = True,
) -> MuxResult:
    """Write every file of a recording and `mux.json`. Repeatable; replaces earlier files.

    The recording should be sealed (`media.manifest.recover`); an unsealed one is read as it stands.
    Raises `MuxFailed` if there is nothing to write, `OSError` if the disk refuses.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULT_NAME).unlink(missing_ok=True)
    problems: list[str] = []
    files: list[MuxedFile] = []
    session_id = ""
    by_party: dict[ParticipantId, list[Path]] = {}
    for path in journal.journals_in(recording):
        by_party.setdefault(ParticipantId(path.name.split(".")[0]), []).append(path)
    total = 2 * sum(path.stat().st_size for paths in by_party.values() for path in paths)
    done = 0
    for participant_id, paths in by_party.items():
        size = sum(path.stat().st_size for path in paths)
        with ExitStack() as stack:
            party, session = _open_party(stack, participant_id, paths, problems)
            session_id = session or session_id
            if party is None:
                continue
            done += size
            meter = _Meter(progress, done, size, total)
            meter.add(0)
            for plan in _plans(party, problems):
                written = _write_file(plan, out, meter, with_speech)
                if written is None:
                    problems.append(f"{plan.stem}: no media that can be shown")
                else:
                    files.append(written)
            done += size
    if not files:
        raise MuxFailed("This recording holds no media that can be played.")
    duration_ms = max(file.offset_ms + file.duration_ms for file in files)
    result = MuxResult(session_id, duration_ms, tuple(files), tuple(problems))
    text = json.dumps(
        {"version": RESULT_VERSION, **asdict(result)}, ensure_ascii=False, indent=1, sort_keys=True
    )
    manifest.write_durably(out / RESULT_NAME, text.encode())
    if progress:
        progress(total, total)
    return result


def read_result(out: Path) -> MuxResult | None:
    """The result of a completed mux, or None."""
    try:
        return MuxResult.from_json(json.loads((out / RESULT_NAME).read_bytes()))
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(slots=True)
class _Meter:
    """Turns bytes written into progress that never overtakes the party's share."""

    report: Progress | None
    base: int
    share: int
    total: int
    added: int = 0
    told: int = -1

    def add(self, size_bytes: int) -> None:
        self.added = min(self.added + size_bytes, self.share)
        percent = (self.base + self.added) * 100 // max(self.total, 1)
        if self.report is not None and percent != self.told:
            self.told = percent
            self.report(self.base + self.added, self.total)


def _open_party(
    stack: ExitStack, participant_id: ParticipantId, paths: list[Path], problems: list[str]
) -> tuple[_Party | None, str]:
    by_leg: dict[int, list[JournalReader]] = {}
    for path in paths:
        try:
            reader = stack.enter_context(journal.open_journal(path))
        except JournalDamaged as damaged:
            problems.append(f"{path.name}: {damaged.message}")
            continue
        by_leg.setdefault(reader.header.leg, []).append(reader)
    if not by_leg:
        return None, ""
    legs = []
    for number, readers in sorted(by_leg.items()):
        legs.append(index_leg(number, readers))
        for reader in readers:
            if reader.damaged_bytes:
                problems.append(f"{reader.path.name}: {reader.damaged_bytes} bytes are damaged")
    header = by_leg[min(by_leg)][0].header
    return _Party(participant_id, header.role, header.label, legs), header.session_id


def _write_file(plan: _Plan, out: Path, meter: _Meter, with_speech: bool) -> MuxedFile | None:
    """Write one plan to `<stem>.webm|mp4`; None if nothing in it can be shown."""
    suffix: Format = "mp4" if plan.is_h264 else "webm"
    mime = f"video/{suffix}"
    if not plan.video:
        mime = "audio/webm"
    tally = _Tally()
    video = _peek(_video_samples(plan.video, tally))
    audio = _peek(
        _within(run_together(_sounds(plan.audio)), plan.audio_from_us, plan.audio_until_us)
    )
    if video is None and audio is None:
        return None
    firsts = [samples[0].at_us for samples in (video, audio) if samples is not None]
    # Whole milliseconds, so that file time and session time differ by exactly `offset_ms`.
    zero_us = min(firsts) // 1000 * 1000
    size = _picture_size(plan, video[0] if video else None)
    path = out / f"{plan.stem}.{suffix}"
    part = path.with_name(f".{path.name}.part")
    merged = heapq.merge(
        video[1] if video else (), audio[1] if audio else (), key=lambda sample: sample.at_us
    )
    write_container(
        part,
        suffix,
        _measured(merged, plan, tally, meter),
        zero_us=zero_us,
        size=size if video else None,
        has_audio=audio is not None,
    )
    with part.open("rb") as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    manifest.publish(part, path)
    offset_ms = zero_us // 1000
    spans = speech.find_speech(path, offset_ms) if with_speech and audio else []
    return MuxedFile(
        kind=plan.kind,
        participant_id=plan.party.participant_id,
        role=plan.party.role,
        label=plan.party.label,
        path=path.name,
        mime=mime,
        bytes=path.stat().st_size,
        sha256=sha256,
        duration_ms=max(1, (tally.end_us - zero_us) // 1000),
        offset_ms=offset_ms,
        width=size[0] if video else None,
        height=size[1] if video else None,
        has_audio=audio is not None,
        has_video=video is not None,
        gaps=tuple(sorted(tally.gaps, key=lambda gap: (gap.start_ms, gap.track))),
        speech=tuple(spans),
        audio_packets=tally.audio_packets,
        video_frames=tally.video_frames,
        lost_frames=tally.lost_frames,
    )


def _peek(samples: Iterator[Sample]) -> tuple[Sample, Iterator[Sample]] | None:
    """The first sample and all of them, or None if there are none."""
    first = next(samples, None)
    if first is None:
        return None

    def everything() -> Iterator[Sample]:
        yield first
        yield from samples

    return first, everything()


def _within(
    samples: Iterator[Sample], from_us: int | None, until_us: int | None
) -> Iterator[Sample]:
    for sample in samples:
        if (from_us is None or sample.at_us >= from_us) and (
            until_us is None or sample.at_us < until_us
        ):
            yield sample


def _picture_size(plan: _Plan, first: Sample | None) -> tuple[int, int]:
    sizes = [source.track.largest for source in plan.video if source.track.largest]
    if sizes:
        return max(sizes)
    if first is not None and not plan.is_h264 and (size := depayload.vp8_size(first.data)):
        return size
    if first is not None:
        for unit in depayload.split_annex_b(first.data):
            if unit[0] & 0x1F == 7 and (size := depayload.h264_size(unit)):
                return size
    return (640, 480)


def _measured(
    samples: Iterator[Sample], plan: _Plan, tally: _Tally, meter: _Meter
) -> Iterator[Sample]:
    """Pass samples on; count them and note the gaps."""
    last: dict[bool, int] = {}
    names = {True: TrackName.MICROPHONE.value, False: _video_name(plan)}
    limit_us = {True: AUDIO_GAP_MS * 1000, False: VIDEO_GAP_MS * 1000}
    for sample in samples:
        meter.add(len(sample.data))
        tally.end_us = max(tally.end_us, sample.at_us + sample.duration_us)
        if sample.is_filler:
            yield sample
            continue
        tally.audio_packets += sample.is_audio
        tally.video_frames += not sample.is_audio
        before = last.get(sample.is_audio)
        if before is not None and sample.at_us - before >= limit_us[sample.is_audio]:
            cause = _cause(plan.party, before * 1000, sample.at_us * 1000)
            gap = Gap(names[sample.is_audio], before // 1000, sample.at_us // 1000, cause)
            tally.gaps.append(gap)
        last[sample.is_audio] = sample.at_us + (sample.duration_us if sample.is_audio else 0)
        yield sample


def _video_name(plan: _Plan) -> str:
    return plan.video[0].track.described.name.value if plan.video else TrackName.CAMERA.value


def _cause(party: _Party, from_ns: int, to_ns: int) -> str:
    """What the journal says about a stretch without media; "loss" if it says nothing."""
    slack = 2_000 * _MS_NS
    for leg in party.legs:
        if any(start <= to_ns and end >= from_ns for start, end in leg.lost):
            return "disk"
    found = {
        mark.kind
        for leg in party.legs
        for at_ns, _, mark in leg.marks
        if from_ns - slack <= at_ns <= to_ns + slack
    }
    causes = (
        ("mute", bool(found & {MarkKind.MUTE, MarkKind.UNMUTE})),
        ("away", MarkKind.LEAVE in found),
        # A line that was lost for long comes back as a new leg, and joins again.
        ("network", bool(found & {MarkKind.SILENT, MarkKind.BACK})),
        ("away", MarkKind.JOIN in found and from_ns > slack),
        ("network", MarkKind.GAP in found),
    )
    return next((word for word, is_it in causes if is_it), "loss")


def main(argv: list[str]) -> int:
    """`python -m media.mux RECORDING OUT`: progress as JSON lines on standard output."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m media.mux RECORDING_DIR OUT_DIR\n")
        return 2

    def tell(done: int, total: int) -> None:
        percent = done * 100 // max(total, 1)
        sys.stdout.write(json.dumps({"stage": "mux", "percent": percent}) + "\n")
        sys.stdout.flush()

    try:
        mux(Path(argv[0]), Path(argv[1]), tell)
    except (ReceptionError, OSError, av.FFmpegError) as problem:
        words = problem.message if isinstance(problem, ReceptionError) else str(problem)
        sys.stdout.write(json.dumps({"error": words}) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    ffmpeg.restrain()
    sys.exit(main(sys.argv[1:]))
