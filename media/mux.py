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
from typing import TYPE_CHECKING, Any, Final, Literal

import av

from core.errors import ReceptionError
from core.ids import ParticipantId
from media import depayload, ffmpeg, journal, manifest, reel, scan, speech
from media.container import Format, Sample, write_container
from media.depayload import Frame, H264Depayloader, VideoDepayloader, Vp8Depayloader
from media.index import Leg, Placing, TrackIndex, index_leg, packets, timeline_maps
from media.journal import JournalDamaged, JournalReader, JournalUnreadable, MarkKind
from media.soundtrack import Sound, run_together
from media.tracks import CodecInfo, TrackName
from media.unread import Stretch
from media.webm import write_webm

if TYPE_CHECKING:
    from media import _reel

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
    unread: tuple[str, ...] = ()
    """What the disk did not give of the journals, and the files are therefore without, in words."""

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
        unread = tuple(value.get("unread", ()))
        problems = tuple(value["problems"])
        return cls(value["session_id"], value["duration_ms"], files, problems, unread)


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
    to_timeline_ns: Placing

    @property
    def plainly(self) -> tuple[Any, ...]:
        """In the words of `_reel.Reel.pictures` and `.sounds`."""
        leg, track, placing = self.leg, self.track, self.to_timeline_ns
        return (
            memoryview(track.keys).cast("B"),
            tuple(
                (reader.data, base, reader.header.t0_mono_ns)
                for reader, base in zip(leg.readers, leg.bases, strict=True)
            ),
            self.codec.clock_rate,
            track.first_rtp_time,
            track.first_arrival_ns,
            tuple((clock.origin_ns, clock.offset_ns, clock.drift) for clock in placing.clocks),
            placing.under_way_ns,
        )

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

    def sources(self) -> dict[TrackName, list[_Source]]:
        """The participant's tracks over all legs by name, in the order they began."""
        found: dict[TrackName, list[_Source]] = {name: [] for name in TrackName}
        for leg in self.legs:
            for index, placing in timeline_maps(leg).items():
                track = leg.tracks[index]
                found[track.described.name].append(_Source(leg, track, placing))
        for sources in found.values():
            sources.sort(key=lambda source: source.track.first_arrival_ns)
        return found


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
    sources = party.sources()
    audio = [s for s in sources[TrackName.MICROPHONE] if s.codec.mime.lower() == "audio/opus"]
    who = party.participant_id
    for name, stem in (
        (TrackName.CAMERA, "party"),
        (TrackName.DOCUMENT, "document"),
        (TrackName.SCREEN, "screen"),
    ):
        video = sources[name]
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
    leaving_out: bool = False,
) -> MuxResult:
    """Write every file of a recording and `mux.json`. Repeatable; replaces earlier files.

    The recording should be sealed (`media.manifest.recover`); an unsealed one is read as it stands.
    Raises `MuxFailed` if there is nothing to write, `OSError` if the disk refuses, and
    `JournalUnreadable` if it does not give a journal back, unless the files may do without
    (`leaving_out`): then the result says so.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULT_NAME).unlink(missing_ok=True)
    problems: list[str] = []
    left_out = _LeftOut.of(recording) if leaving_out else None
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
            party, session = _open_party(stack, participant_id, paths, problems, left_out)
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
    unread = tuple(left_out.words) if left_out else ()
    result = MuxResult(session_id, duration_ms, tuple(files), tuple(problems), unread)
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


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """What the files are without, because the disk does not give it: in `words`. `named`: what it
    did not give of each journal when the book was closed."""

    named: dict[str, tuple[Stretch, ...]]
    words: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, recording: Path) -> "_LeftOut":
        book = manifest.read_manifest(recording)
        return cls({entry.path: entry.blanks for entry in book.journals} if book else {})

    def look(self, reader: JournalReader) -> None:
        name = reader.path.name
        if blanks := self.named.get(name):
            scan.note_still_unread(reader, blanks)
        self.words.extend(f"{name}: {found.words}" for found in manifest.unread_in(reader))


def _open_party(
    stack: ExitStack,
    participant_id: ParticipantId,
    paths: list[Path],
    problems: list[str],
    left_out: "_LeftOut | None",
) -> tuple[_Party | None, str]:
    """What the disk does not give goes to `left_out`; None: that is raised."""
    by_leg: dict[int, list[JournalReader]] = {}
    opened: list[JournalReader | None] = []
    for path in paths:
        try:
            reader = stack.enter_context(
                journal.open_journal(path, leaving_out=left_out is not None)
            )
        except JournalDamaged as damaged:
            problems.append(f"{path.name}: {damaged.message}")
            continue
        except JournalUnreadable as refused:
            if left_out is None:
                raise
            left_out.words.append(refused.message)
            opened.append(None)
            continue
        if left_out is not None:
            left_out.look(reader)
        opened.append(reader)
        by_leg.setdefault(reader.header.leg, []).append(reader)
    if not by_leg:
        return None, ""
    legs = []
    for number, readers in sorted(by_leg.items()):
        legs.append(index_leg(number, readers))
        for reader in readers:
            if reader.damaged_bytes:
                problems.append(f"{reader.path.name}: {reader.damaged_bytes} bytes are damaged")
    for around in _around_missing(opened):
        legs[0].lost.append(around)
        legs[0].unread.append(around)
    header = by_leg[min(by_leg)][0].header
    return _Party(participant_id, header.role, header.label, legs), header.session_id


def _around_missing(opened: list[JournalReader | None]) -> Iterator[tuple[int, int]]:
    """Where journals are missing whole, `None` in the order of legs and segments: from the last
    that happened before to the first after, on the timeline in ns. What is missing at the end has
    no end that anyone knows."""
    if None not in opened:
        return
    before_ns, is_missing = 0, False
    for reader in opened:
        if reader is None:
            is_missing = True
            continue
        _, first_ns, last_ns = scan.survey(reader)
        if first_ns is None or last_ns is None:
            continue
        t0_ns = reader.header.t0_mono_ns
        if is_missing and first_ns - t0_ns > before_ns:
            yield before_ns, first_ns - t0_ns
        before_ns, is_missing = max(before_ns, last_ns - t0_ns), False


def _write_file(plan: _Plan, out: Path, meter: _Meter, with_speech: bool) -> MuxedFile | None:
    """Write one plan to `<stem>.webm|mp4`; None if nothing in it can be shown."""
    suffix: Format = "mp4" if plan.is_h264 else "webm"
    mime = f"video/{suffix}"
    if not plan.video:
        mime = "audio/webm"
    path = out / f"{plan.stem}.{suffix}"
    part = path.with_name(f".{path.name}.part")
    written = _written_quickly(plan, part, meter)
    if written is _UNUSUAL:
        written = _written(plan, part, suffix, meter)
    if written is None:
        return None
    manifest.publish(part, path)
    tally, has_audio, has_video = written.tally, written.has_audio, written.size is not None
    offset_ms = written.zero_us // 1000
    spans = speech.find_speech(path, offset_ms) if with_speech and has_audio else []
    return MuxedFile(
        kind=plan.kind,
        participant_id=plan.party.participant_id,
        role=plan.party.role,
        label=plan.party.label,
        path=path.name,
        mime=mime,
        bytes=path.stat().st_size,
        sha256=written.sha256,
        duration_ms=max(1, (tally.end_us - written.zero_us) // 1000),
        offset_ms=offset_ms,
        width=written.size[0] if written.size else None,
        height=written.size[1] if written.size else None,
        has_audio=has_audio,
        has_video=has_video,
        gaps=tuple(sorted(_all_gaps(plan, written), key=lambda gap: (gap.start_ms, gap.track))),
        speech=tuple(spans),
        audio_packets=tally.audio_packets,
        video_frames=tally.video_frames,
        lost_frames=tally.lost_frames,
    )


@dataclass(frozen=True, slots=True)
class _Written:
    """A file that is on the disk under its working name. `size` is None for sound alone."""

    tally: _Tally
    zero_us: int
    size: tuple[int, int] | None
    has_audio: bool
    sha256: str


def _written(plan: _Plan, part: Path, suffix: Format, meter: _Meter) -> _Written | None:
    """Write one plan's samples, each made when its turn comes; None if there are none."""
    tally = _Tally()
    video = _peek(_video_samples(plan.video, tally))
    audio = _peek(
        _within(run_together(_sounds(plan.audio)), plan.audio_from_us, plan.audio_until_us)
    )
    if video is None and audio is None:
        return None
    zero_us = _zero_us(samples[0].at_us for samples in (video, audio) if samples is not None)
    size = (_largest(plan) or _picture_size(plan, video[0].data)) if video else None
    merged = heapq.merge(
        video[1] if video else (), audio[1] if audio else (), key=lambda sample: sample.at_us
    )
    write_container(
        part,
        suffix,
        _measured(merged, plan, tally, meter),
        zero_us=zero_us,
        size=size,
        has_audio=audio is not None,
    )
    with part.open("rb") as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return _Written(tally, zero_us, size, audio is not None, sha256)


def _zero_us(firsts: Iterable[int]) -> int:
    """Whole milliseconds, so that file time and session time differ by exactly `offset_ms`."""
    return min(firsts) // 1000 * 1000


_UNUSUAL: Final = _Written(_Tally(), 0, None, False, "")
"""Said instead of a file: this is for the Python path."""


def _written_quickly(plan: _Plan, part: Path, meter: _Meter) -> _Written | None:
    """The same as `_written`, the same bytes, by media/_reel.c; `_UNUSUAL` where that cannot."""
    if reel.built is None or plan.is_h264:
        return _UNUSUAL
    wound: _reel.Reel = reel.built.Reel()
    try:
        return _wind(wound, plan, part, meter)
    except (reel.Unusual, OverflowError):
        return _UNUSUAL
    finally:
        wound.close()


def _wind(wound: "_reel.Reel", plan: _Plan, part: Path, meter: _Meter) -> _Written | None:
    tally = _Tally()
    for source in plan.video:
        tally.lost_frames += wound.pictures(*source.plainly)
    for source in plan.audio:
        wound.sounds(*source.plainly)
    wound.within(
        -_FOR_EVER_US if plan.audio_from_us is None else plan.audio_from_us,
        _FOR_EVER_US if plan.audio_until_us is None else plan.audio_until_us,
    )
    first_picture_us, first_sound_us, *sides = wound.begins()
    firsts = [at_us for at_us in (first_picture_us, first_sound_us) if at_us is not None]
    if not firsts:
        return None
    zero_us = _zero_us(firsts)
    has_audio = first_sound_us is not None
    size = None
    if first_picture_us is not None:
        size = _largest(plan) or (sides[0], sides[1])
    tally.audio_packets, tally.video_frames, tally.end_us, gaps = wound.measured(
        AUDIO_GAP_MS * 1000, VIDEO_GAP_MS * 1000
    )
    tally.gaps = [_gap(plan, *gap) for gap in gaps]
    sha256 = write_webm(
        part, wound, zero_us=zero_us, size=size, has_audio=has_audio, meter=meter.add
    )
    return _Written(tally, zero_us, size, has_audio, sha256)


_FOR_EVER_US: Final = 1 << 62


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


def _largest(plan: _Plan) -> tuple[int, int] | None:
    """The largest picture of the file, if the index has met one."""
    return max((size for source in plan.video if (size := source.track.largest)), default=None)


def _picture_size(plan: _Plan, first: bytes) -> tuple[int, int]:
    """The size of a file's first frame."""
    if not plan.is_h264:
        return depayload.vp8_size(first) or _ANY_SIZE
    for unit in depayload.split_annex_b(first):
        if unit[0] & 0x1F == 7 and (size := depayload.h264_size(unit)):
            return size
    return _ANY_SIZE


_ANY_SIZE: Final = (640, 480)


def _measured(
    samples: Iterator[Sample], plan: _Plan, tally: _Tally, meter: _Meter
) -> Iterator[Sample]:
    """Pass samples on; count them and note the gaps."""
    last: dict[bool, int] = {}
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
            tally.gaps.append(_gap(plan, sample.is_audio, before, sample.at_us))
        last[sample.is_audio] = sample.at_us + (sample.duration_us if sample.is_audio else 0)
        yield sample


def _gap(plan: _Plan, is_audio: bool, from_us: int, to_us: int) -> Gap:
    name = TrackName.MICROPHONE.value if is_audio else _video_name(plan)
    cause = _cause(plan.party, from_us * 1000, to_us * 1000)
    return Gap(name, from_us // 1000, to_us // 1000, cause)


def _all_gaps(plan: _Plan, written: _Written) -> list[Gap]:
    """What was measured, and where the disk did not give a piece of the journal: that is named
    however short it is."""
    gaps = list(written.tally.gaps)
    tracks = [_video_name(plan)] * (written.size is not None)
    tracks += [TrackName.MICROPHONE.value] * written.has_audio
    first_ms, end_ms = written.zero_us // 1000, written.tally.end_us // 1000
    for from_ns, to_ns in (stretch for leg in plan.party.legs for stretch in leg.unread):
        from_ms, to_ms = from_ns // _MS_NS, max(to_ns // _MS_NS, from_ns // _MS_NS + 1)
        if to_ms <= first_ms or from_ms >= end_ms:
            continue  # another file's time
        gaps += [
            Gap(track, from_ms, to_ms, "disk")
            for track in tracks
            if not any(
                gap.track == track and gap.start_ms <= to_ms and gap.end_ms >= from_ms
                for gap in written.tally.gaps
            )
        ]
    return gaps


def _video_name(plan: _Plan) -> str:
    return plan.video[0].track.described.name.value if plan.video else TrackName.CAMERA.value


def _cause(party: _Party, from_ns: int, to_ns: int) -> str:
    """What the journal says about a stretch without media; "loss" if it says nothing."""
    slack = 2_000 * _MS_NS
    for leg in party.legs:
        if any(start <= to_ns and end >= from_ns for start, end in leg.lost):
            return "disk"
    marks = [
        mark
        for leg in party.legs
        for at_ns, _, mark in leg.marks
        if from_ns - slack <= at_ns <= to_ns + slack
    ]
    found = {mark.kind for mark in marks}
    causes = (
        # The talk waited for its recorder, and the recorder for the disk.
        ("disk", any(mark.detail == journal.RECORDER_LATE for mark in marks)),
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
