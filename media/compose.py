"""The one picture people watch: all parties side by side, their sound mixed, time burnt in.

ffmpeg-python builds the graphs and only compiles them; `media/ffmpeg.py` runs them, in a child
process (`media/finishing.py`). Everything is placed by the files' `offset_ms`; a picture that stops
is held, a party that is not there is black.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import ffmpeg
from fontTools.ttLib import TTCollection, TTFont, TTLibError

from core.clock import LOCAL_ZONE
from core.errors import ReceptionError
from media import ffmpeg as runner
from media import mux
from media.mux import MuxedFile, MuxResult

COMPOSED_NAME: Final = "composed.mp4"
POSTER_NAME: Final = "poster.jpg"
CELL_WIDTH: Final = 640
CELL_HEIGHT: Final = 480
STRIP_HEIGHT: Final = 48
FPS: Final = 25
_FONT_PX: Final = 26
TIMEOUT_FACTOR: Final = 4.0
"""Composing runs several times faster than the talk even on one busy core."""
TIMEOUT_FLOOR_S: Final = 120.0
_FONT_DIRECTORIES: Final = (
    Path(__file__).resolve().parent.parent / "web" / ".fonts",
    Path("/usr/share/fonts"),
    Path("/usr/local/share/fonts"),
)
_PREFERRED_FONTS: Final = (
    "NotoSansSC",
    "NotoSansCJK-Regular",
    "SourceHanSans",
    "wqy",
    "DejaVuSans",
)

# ffmpeg-python builds chains of dynamically named filters; its nodes have no useful static type.
Node = Any


class NothingToCompose(ReceptionError):
    """No party has a picture or a sound."""

    code = "nothing_to_compose"


@dataclass(frozen=True, slots=True)
class Caption:
    """What is burnt in: the case's number and the wall clock at the timeline's time 0."""

    case_number: str
    started_at: datetime
    font: Path | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle of the canvas and the files that play in it, one after the other."""

    x: int
    y: int
    files: tuple[MuxedFile, ...]


def layout(files: Sequence[MuxedFile]) -> tuple[list[Cell], int, int]:
    """Cells in reading order and the canvas they need. Pure.

    Every party has one cell, officials last (right); every further camera one more. A party
    without a picture keeps its black cell, so that a voice has a place.
    """
    groups: dict[tuple[str, str, str], list[MuxedFile]] = {}
    for file in sorted(files, key=lambda f: (f.kind != "party", f.role == "official", f.path)):
        stem = file.path.split("-")[0]
        groups.setdefault((file.kind, file.participant_id, stem), []).append(file)
    columns = math.ceil(math.sqrt(len(groups)))
    rows = math.ceil(len(groups) / max(columns, 1))
    cells = [
        Cell(
            x=index % columns * CELL_WIDTH,
            y=STRIP_HEIGHT + index // columns * CELL_HEIGHT,
            files=tuple(sorted(group, key=lambda f: f.offset_ms)),
        )
        for index, group in enumerate(groups.values())
    ]
    return cells, columns * CELL_WIDTH, STRIP_HEIGHT + rows * CELL_HEIGHT


def composed_arguments(
    result: MuxResult, directory: Path, caption: Caption, words: Path
) -> list[str]:
    """The compiled argv for the whole talk, without the output file. Deterministic.

    `words` is an existing directory for the caption's text files: texts reach ffmpeg as files, so
    that no character of a case number can become part of the graph.
    """
    if not result.files:
        raise NothingToCompose("This recording has nothing that could be composed.")
    seconds = result.duration_ms / 1000
    cells, width, height = layout(result.files)
    canvas = ffmpeg.input(
        f"color=c=black:s={width}x{height}:r={FPS}:d={seconds:.3f}", format="lavfi"
    )
    sounds: list[Node] = []
    for cell in cells:
        for file in cell.files:
            source = _input(directory / file.path)
            if file.has_video:
                canvas = _laid_over(canvas, source.video, cell, file.offset_ms)
            if file.has_audio:
                sounds.append(_placed_sound(source.audio, file.offset_ms))
    picture = _captioned(canvas, caption, words).filter("format", "yuv420p")
    sound = _mixed(sounds, seconds)
    options = {
        "c:v": "libx264", "preset": "veryfast", "crf": 23, "g": 2 * FPS, "r": FPS,
        "c:a": "aac", "b:a": "128k", "ar": 48_000, "ac": 2,
        "t": f"{seconds:.3f}", "movflags": "+faststart", "threads": 2,
    }  # fmt: skip
    return _compiled(ffmpeg.output(picture, sound, "OUTPUT", **options))


def poster_arguments(result: MuxResult, directory: Path, at_ms: int) -> list[str]:
    """The compiled argv for one still of the parties at `at_ms` of the timeline."""
    cells, width, height = layout([file for file in result.files if file.kind == "party"])
    if not cells:
        raise NothingToCompose("This recording has nothing that could be shown.")
    canvas = ffmpeg.input(f"color=c=black:s={width}x{height}:r={FPS}:d=1", format="lavfi")
    for cell in cells:
        for file in cell.files:
            inside_ms = at_ms - file.offset_ms
            if file.has_video and 0 <= inside_ms < file.duration_ms:
                source = _input(directory / file.path, ss=f"{inside_ms / 1000:.3f}")
                canvas = _laid_over(canvas, source.video, cell, 0)
    still = canvas.filter("crop", width, height - STRIP_HEIGHT, 0, STRIP_HEIGHT)
    # Seeking lands between two pictures: a few frames later one is surely there.
    still = still.filter("select", f"gte(n,{FPS // 5})")
    return _compiled(
        ffmpeg.output(still, "OUTPUT", **{"frames:v": 1, "q:v": 4, "update": 1, "c:v": "mjpeg"})
    )


def _input(path: Path, **options: Any) -> Node:
    # `reinit_filter 0`: when a camera changes size in mid-call the scaler follows by itself;
    # a rebuilt graph would begin its timeline again.
    return ffmpeg.input(runner.file_url(path), reinit_filter=0, **options)


def _laid_over(canvas: Node, video: Node, cell: Cell, offset_ms: int) -> Node:
    """The picture fitted into its cell from its time on: held while nothing new comes, gone at its
    end."""
    fitted = (
        video.filter(
            "scale", CELL_WIDTH, CELL_HEIGHT, force_original_aspect_ratio="decrease", eval="frame"
        )
        .filter("setsar", 1)
        .filter("pad", CELL_WIDTH, CELL_HEIGHT, "(ow-iw)/2", "(oh-ih)/2", eval="frame")
        .filter("setpts", f"PTS+({offset_ms / 1000:.3f})/TB")
    )
    return ffmpeg.overlay(canvas, fitted, x=cell.x, y=cell.y, eof_action="pass")


def _placed_sound(audio: Node, offset_ms: int) -> Node:
    """The sound on the session's timeline; small drifts are stretched away, holes are silence."""
    sound = audio.filter("aresample", 48_000, **{"async": 1000, "first_pts": 0})
    sound = sound.filter("aformat", channel_layouts="stereo", sample_fmts="fltp")
    if offset_ms > 0:
        return sound.filter("adelay", offset_ms, all=1)
    if offset_ms < 0:
        return sound.filter("atrim", start=-offset_ms / 1000).filter("asetpts", "PTS-STARTPTS")
    return sound


def _mixed(sounds: list[Node], seconds: float) -> Node:
    if not sounds:
        silence = f"anullsrc=r=48000:cl=stereo:d={seconds:.3f}"
        return ffmpeg.input(silence, format="lavfi").audio
    mixed = sounds[0]
    if len(sounds) > 1:
        mixed = ffmpeg.filter(
            sounds, "amix", inputs=len(sounds), duration="longest", normalize=0
        ).filter("alimiter", limit=0.95, level=0)
    return mixed.filter("apad", whole_dur=f"{seconds:.3f}")


def _captioned(picture: Node, caption: Caption, words: Path) -> Node:
    """Case number left, wall clock and time since the start right, in the strip above."""
    font = caption.font or find_font()
    if font is None:
        # Without any font nothing can be burnt in; the talk itself must not wait for one.
        return picture
    number = shown_text(caption.case_number, font)
    local = caption.started_at.astimezone(LOCAL_ZONE)
    shift = local.utcoffset() or timedelta(0)
    # Seconds since 1970 as the local clock shows them: gmtime prints them without a time zone file.
    shown_s = (caption.started_at.astimezone(UTC) + shift).timestamp()
    # A text file is expanded once: only the colons inside the format are escaped.
    clock = "%{pts:gmtime:" + f"{shown_s:.0f}" + r":%Y-%m-%d %H\:%M\:%S}  %{pts:hms}"
    common = {"fontfile": str(font), "fontsize": _FONT_PX, "fontcolor": "white"}
    middle = f"({STRIP_HEIGHT}-th)/2"
    if number:
        picture = picture.filter(
            "drawtext",
            textfile=_text_file(words, "number", number),
            expansion="none",
            x=16,
            y=middle,
            **common,
        )
    return picture.filter(
        "drawtext", textfile=_text_file(words, "clock", clock), x="w-tw-16", y=middle, **common
    )


def _text_file(words: Path, name: str, text: str) -> str:
    path = words / f"{name}.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _compiled(output: Node) -> list[str]:
    """ffmpeg-python's argv without its own program name and output."""
    compiled: list[str] = ffmpeg.compile(output)
    assert compiled[-1] == "OUTPUT"
    return compiled[1:-1]


# --- fonts ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def find_font() -> Path | None:
    """A font on this machine, one with Chinese if there is one."""
    found = [
        path
        for directory in _FONT_DIRECTORIES
        if directory.is_dir()
        for pattern in ("*.ttf", "*.otf", "*.ttc")
        for path in sorted(directory.rglob(pattern))
    ]
    for name in _PREFERRED_FONTS:
        for path in found:
            if path.name.startswith(name):
                return path
    return found[0] if found else None


def shown_text(text: str, font: Path) -> str:
    """`text` without the characters `font` cannot draw: better short than boxes."""
    try:
        opened = TTCollection(str(font)).fonts[0] if font.suffix == ".ttc" else TTFont(str(font))
        known = opened.getBestCmap() or {}
    except (TTLibError, OSError):
        return text if text.isascii() else ""
    return "".join(letter for letter in text if ord(letter) in known).strip()


# --- the two products ----------------------------------------------------------------------------


def compose(
    directory: Path,
    caption: Caption,
    *,
    ffmpeg_path: str,
    progress: runner.Progress | None = None,
) -> runner.Checked:
    """Make `composed.mp4` beside the muxed files and decode it to its end.

    The second half of the progress is the decoding. Raises `NothingToCompose`, `FfmpegFailed`.
    """
    result = _muxed(directory)
    output = directory / COMPOSED_NAME
    with tempfile.TemporaryDirectory(prefix="words-") as words:
        runner.run(
            composed_arguments(result, directory, caption, Path(words)),
            output,
            ffmpeg=ffmpeg_path,
            duration_ms=result.duration_ms,
            timeout_s=max(TIMEOUT_FLOOR_S, result.duration_ms / 1000 * TIMEOUT_FACTOR),
            progress=None if progress is None else lambda p: progress(p * 8 // 10),
        )
    checked = runner.decode_fully(
        output, None if progress is None else lambda p: progress(80 + p * 2 // 10)
    )
    if checked.refused or abs(checked.duration_ms - result.duration_ms) > 500:
        output.unlink()
        raise runner.FfmpegFailed("The composed picture does not hold the whole talk.")
    return checked


def poster(directory: Path, *, ffmpeg_path: str) -> runner.Checked:
    """Make `poster.jpg`: the parties as they were when most of them could be seen."""
    result = _muxed(directory)
    output = directory / POSTER_NAME
    runner.run(
        poster_arguments(result, directory, poster_time_ms(result)),
        output,
        ffmpeg=ffmpeg_path,
        duration_ms=1000,
        timeout_s=TIMEOUT_FLOOR_S,
    )
    return runner.decode_fully(output)


def poster_time_ms(result: MuxResult) -> int:
    """A fifth into the time in which all parties have a picture, or into the talk. Pure."""
    seen = [file for file in result.files if file.kind == "party" and file.has_video]
    start = max((file.offset_ms for file in seen), default=0)
    end = min((file.offset_ms + file.duration_ms for file in seen), default=0)
    if end <= start:
        first = min(seen, key=lambda file: file.offset_ms, default=None)
        return 0 if first is None else first.offset_ms + first.duration_ms // 5
    return start + (end - start) // 5


def _muxed(directory: Path) -> MuxResult:
    result = mux.read_result(directory)
    if result is None:
        raise NothingToCompose("The recording's files have not been made yet.")
    return result
