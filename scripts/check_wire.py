"""Fail if web/src/wire is not what `make wire` would write."""

import sys
import tempfile
from pathlib import Path

from scripts.wire import ROOT, write

with tempfile.TemporaryDirectory() as folder:
    write(Path(folder))
    stale = [
        file.name
        for file in sorted(Path(folder).iterdir())
        if not (ROOT / "web/src/wire" / file.name).is_file()
        or (ROOT / "web/src/wire" / file.name).read_text() != file.read_text()
    ]
if stale:
    sys.exit(f"web/src/wire is out of step: {', '.join(stale)}. Run: make wire")
print("wire types in sync")  # noqa: T201
