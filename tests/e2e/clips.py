"""What the fake cameras show, and whether a picture on a page is that clip.

Two people: the same real talking head, once as it is and once mirrored and recoloured. A frame
grabbed from a page is compared with every frame of both clips by content; the clip it belongs to is
the one it is nearer to.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.clips import Speaker, capture_files
from tests.support.browser import Devices

PETITIONER = Speaker("领导您好。我家的草场被征用以后，补偿款一直没有到户。", "cmn")
OFFICIAL = Speaker("您好，请慢慢说。这件事由州里核对，按期给您书面答复。", "cmn", is_mirrored=True)

THUMB = (32, 24)
Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """One person's camera and microphone, and what every frame of it looks like."""

    devices: Devices
    frames: Frames  # [n, h, w, 3], each with zero mean and unit length


def make_clip(folder: Path, name: str, speaker: Speaker) -> Clip:
    camera, microphone = capture_files(folder, name, speaker, seconds=4)
    return Clip(Devices(camera, microphone), _frames_of(camera))


def likeness(picture: bytes, clip: Clip) -> float:
    """How much a PNG or JPEG looks like the nearest frame of `clip`: 1 is the same, 0 unrelated."""
    seen = _normal(np.asarray(Image.open(io.BytesIO(picture)).convert("RGB").resize(THUMB)))
    return float(np.max(np.tensordot(clip.frames, seen, axes=3)))


def _frames_of(mjpeg: Path) -> Frames:
    """A concatenation of JPEGs: each begins with FF D8 FF."""
    data = mjpeg.read_bytes()
    starts = [i for i in range(len(data) - 2) if data[i : i + 3] == b"\xff\xd8\xff"]
    ends = [*starts[1:], len(data)]
    pictures = [
        Image.open(io.BytesIO(data[start:end])).convert("RGB").resize(THUMB)
        for start, end in zip(starts, ends, strict=True)
    ]
    return np.stack([_normal(np.asarray(picture)) for picture in pictures[::3]])


def _normal(pixels: NDArray[np.uint8]) -> Frames:
    values = pixels.astype(np.float32)
    values -= values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length else values
