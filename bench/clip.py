"""Real pictures and real sound to send, encoded once before a run and sent round and round.

A benchmark that counts playable files in needs frames that play: VGA VP8 at 0.8 Mbit/s and 30
frames a second, and Opus at 32 kbit/s, which is what a call of two sends. Encoding is done by the
ffmpeg that the house already carries; callers then only cut and send.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av

from media.ffmpeg import ffmpeg_path

SECONDS: Final = 4
FRAMES_PER_S: Final = 30
SOUNDS_PER_S: Final = 50
PIECE_BYTES: Final = 1096
"""Of a picture in one packet: with the payload descriptor 1,100, as browsers cut them."""
# The first picture is the only keyframe, so the clip may begin anew at any time.
_VIDEO: Final = (
    *("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0"),
    *("-b:v", "800k", "-minrate", "800k", "-maxrate", "800k", "-bufsize", "400k"),
    *("-g", str(SECONDS * FRAMES_PER_S), "-keyint_min", str(SECONDS * FRAMES_PER_S)),
)
_AUDIO: Final = ("-c:a", "libopus", "-b:a", "32k", "-vbr", "off", "-frame_duration", "20")


@dataclass(frozen=True, slots=True)
class Clip:
    """`frames`: every picture, cut into pieces for packets. `sounds`: Opus packets of 20 ms."""

    frames: tuple[tuple[bytes, ...], ...]
    sounds: tuple[bytes, ...]


def make_clip(path: Path) -> None:
    """Encode the clip into `path`, a Matroska file. Takes a second or two.

    Raises CalledProcessError if ffmpeg refuses.
    """
    picture = f"testsrc2=size=640x480:rate={FRAMES_PER_S}:duration={SECONDS}"
    sound = f"sine=frequency=300:beep_factor=4:duration={SECONDS}"
    subprocess.run(
        [
            *(ffmpeg_path(None), "-v", "error", "-nostdin", "-y"),
            *("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-ac", "1"),
            *(*_VIDEO, *_AUDIO, "-f", "matroska", str(path)),
        ],
        check=True,
        timeout=120,
    )


def read_clip(path: Path) -> Clip:
    """The packets of a clip that `make_clip` has written."""
    frames: list[tuple[bytes, ...]] = []
    sounds: list[bytes] = []
    with av.open(str(path)) as container:
        for packet in container.demux():
            data = bytes(packet)
            if packet.stream.type == "video" and data:
                frames.append(_cut(data))
            elif data:
                sounds.append(data)
    return Clip(tuple(frames), tuple(sounds))


def _cut(frame: bytes) -> tuple[bytes, ...]:
    return tuple(frame[at : at + PIECE_BYTES] for at in range(0, len(frame), PIECE_BYTES))
