"""Make TTF files for paper out of the woff2 files of the pages.

The slip is set by typst, which reads TTF, while browsers get the typefaces as many small woff2
subsets. This joins the subsets of each weight into one file under web/.fonts/, so that screen and
paper use the same letters and nothing has to be installed. Run `npm ci` first.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from fontTools.merge import Merger, Options
from fontTools.ttLib import TTFont

WEB = Path(__file__).resolve().parent.parent
SOURCES = WEB / "node_modules" / "@fontsource"
TARGET = WEB / ".fonts"
FAMILIES = {
    # family folder: (file name of the result, weights)
    "noto-sans-sc": ("NotoSansSC", (400, 700)),
    "noto-serif-tibetan": ("NotoSerifTibetan", (400, 700)),
}
# Hinting and digital signatures describe a single subset; they mean nothing after joining.
DROPPED = ("fpgm", "prep", "cvt ", "gasp", "DSIG", "STAT", "vhea", "vmtx", "VORG", "BASE")


def subsets(family: str, weight: int) -> list[Path]:
    """The woff2 files of one weight, the Latin ones first so that their metrics win."""
    files = (SOURCES / family / "files").glob(f"{family}-*-{weight}-normal.woff2")
    return sorted(files, key=lambda path: ("-latin-" not in path.name, path.name))


def join(files: list[Path], target: Path) -> None:
    """Write one TTF holding every glyph of `files`. Overlaps keep the first file's glyph."""
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for position, path in enumerate(files):
            font = TTFont(path)
            font.flavor = None
            for tag in DROPPED:
                if tag in font:
                    del font[tag]
            part = Path(folder, f"{position:03}.ttf")
            font.save(part)
            parts.append(str(part))
        merged = Merger(Options(drop_tables=list(DROPPED))).merge(parts)
        partial = target.with_suffix(".part")
        merged.save(partial)
        partial.replace(target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="make them again")
    arguments = parser.parse_args()
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    if not SOURCES.is_dir():
        print("Run `npm ci` in web/ first.", file=sys.stderr)  # noqa: T201
        return 1
    TARGET.mkdir(exist_ok=True)
    for family, (name, weights) in FAMILIES.items():
        shutil.copy(SOURCES / family / "LICENSE", TARGET / f"{name}-LICENSE.txt")
        for weight in weights:
            target = TARGET / f"{name}-{weight}.ttf"
            if target.exists() and not arguments.force:
                continue
            join(subsets(family, weight), target)
            print(f"{target.relative_to(WEB)}  {target.stat().st_size // 1024} kB")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
