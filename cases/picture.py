"""One picture made harmless, in a process of its own: `python -m cases.picture <from> <to>`.

What someone uploads is decoded and encoded anew, so that nothing but pixels survives: no EXIF (a
phone writes where it was), no trailing archive, no second life as HTML. The parent waits with a
time limit; this process limits its own memory, time and files before it reads a byte. Prints one
JSON line: the finished picture, or why it was refused.
"""

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000
MAX_MEMORY_BYTES = 1024 * 1024 * 1024
"""Address space, of which 50 Mpx in four colours take some 450 MiB."""
MAX_CPU_S = 20
MAX_OUTPUT_BYTES = 200 * 1024 * 1024
JPEG_QUALITY = 90
PNG_LEVEL = 4
_FORMATS = ("JPEG", "PNG")
_SUFFIXES = {"JPEG": ("jpg", "image/jpeg"), "PNG": ("png", "image/png")}


@dataclass(frozen=True, slots=True)
class Picture:
    """What came out: its kind and size in pixels."""

    suffix: str
    mime: str
    width: int
    height: int


Fault = Literal["not_a_picture", "too_large"]


def remake(source: Path, target: Path) -> Picture | Fault:
    """Decode `source` and write it anew to `target`, upright and without metadata."""
    try:
        with Image.open(source, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return "too_large"
            image.load()
            return _write(image, target, image.format or "")
    # Pillow's decoders raise many kinds on hostile bytes; all of them mean the same to the sender.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        OverflowError,
        Image.DecompressionBombError,
    ):
        return "not_a_picture"


def _write(image: Image.Image, target: Path, kind: str) -> Picture:
    # The camera's own word on which way is up goes with the metadata, so it is obeyed first.
    # In place: a second copy of fifty megapixels is 200 MiB that nobody needs.
    ImageOps.exif_transpose(image, in_place=True)
    upright = _plain(image, kind)
    upright.info.clear()
    if kind == "JPEG":
        upright.save(target, "JPEG", quality=JPEG_QUALITY)
    else:
        upright.save(target, "PNG", compress_level=PNG_LEVEL)
    suffix, mime = _SUFFIXES[kind]
    return Picture(suffix, mime, upright.width, upright.height)


def _plain(image: Image.Image, kind: str) -> Image.Image:
    """`image` in a mode that every browser shows: grey or colour, in PNG also with transparency."""
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow would clip it to white instead of scaling.
        return image.point(lambda level: level / 256).convert("L")
    if kind == "PNG" and (image.mode in ("LA", "RGBA") or "transparency" in image.info):
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _limit() -> None:
    for what, most in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (most, most))


def main(source: str, target: str) -> None:
    _limit()
    # Refusal by size is ours, above, with words; Pillow's own warning would only add noise.
    Image.MAX_IMAGE_PIXELS = None
    made = remake(Path(source), Path(target))
    answer = asdict(made) if isinstance(made, Picture) else {"fault": made}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
