"""Paper: typst templates to PDF, and QR codes, for every slip the house prints.

What people typed reaches a template only as JSON data, never as template text, so nobody's words
can become markup. Compiling is CPU work and leaves the event loop.
"""

import asyncio
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import segno
import typst

_FONT_DIRECTORIES = (
    Path(__file__).resolve().parent.parent / "web" / ".fonts",
    Path("/usr/share/fonts"),
)
# Two at a time: a slip takes a core for a moment, and printers are slower than we are.
_compiling = asyncio.Semaphore(2)


async def compile_pdf(
    template: str, inputs: Mapping[str, Any], fonts: Sequence[Path] | None = None
) -> bytes:
    """The PDF that `template` (typst markup, ours) makes of `inputs` (JSON values of any shape).

    The template reads its inputs with `#let data = json(bytes(sys.inputs.data))`. `fonts`:
    directories to search, `font_paths()` if None.
    """
    data = json.dumps(inputs, ensure_ascii=False)
    found = tuple(fonts if fonts is not None else font_paths())
    async with _compiling:
        return await asyncio.to_thread(_compile, template, data, found)


def qr_svg(text: str) -> str:
    """A QR code as SVG, error correction M, without a border: the paper around it is the border."""
    svg: str = segno.make(text, error="m", micro=False).svg_inline(border=0, scale=4)
    return svg


def font_paths() -> tuple[Path, ...]:
    """Directories with fonts, the web pages' own first."""
    return tuple(path for path in _FONT_DIRECTORIES if path.is_dir())


def _compile(template: str, data: str, fonts: tuple[Path, ...]) -> bytes:
    pdf: bytes = typst.compile(
        template.encode(),
        font_paths=_font_book(fonts),
        sys_inputs={"data": data},
        format="pdf",
    )
    return pdf


@functools.cache
def _font_book(fonts: tuple[Path, ...]) -> Any:  # typst has no type information
    """The fonts below these directories; reading them once saves most of a slip's time."""
    return typst.Fonts(font_paths=[str(path) for path in fonts], include_system_fonts=False)
