"""Write the TypeScript twins of our Python types: `wire.py OUT_DIR`.

api.ts comes from the application's OpenAPI document by openapi-typescript, signaling.ts from the
protocol's own models. `make wire` writes them into web/src/wire; `make check` compares.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from app.main import create_app
from core.settings import Settings
from signaling.wire import typescript

ROOT = Path(__file__).parents[1]
API_OPTIONS = (
    "--alphabetize",
    # Pages import schemas by their own names.
    "--root-types",
    "--root-types-no-schema-prefix",
    # The server sends every field; one with a default is not optional to a reader.
    "--default-non-nullable=false",
)


def openapi() -> str:
    with tempfile.TemporaryDirectory() as var:
        app = create_app(Settings(var_dir=Path(var), secret="0" * 32))  # type: ignore[arg-type]
        return json.dumps(app.openapi(), ensure_ascii=False, indent=1, sort_keys=True)


def write(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "signaling.ts").write_text(typescript())
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "openapi.json"
        document.write_text(openapi())
        node, tool = (
            ROOT / ".venv/bin/node",
            ROOT / "web/node_modules/openapi-typescript/bin/cli.js",
        )
        subprocess.run(  # noqa: S603  both are ours
            [node, tool, document, "--output", out / "api.ts", *API_OPTIONS],
            check=True,
            stdout=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
