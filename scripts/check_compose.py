"""Lint docker-compose.yml without an engine: it parses, and every name it uses exists."""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
faults: list[str] = []
services, volumes = compose["services"], compose.get("volumes", {})
settings = (ROOT / "core/settings.py").read_text()
for name, service in services.items():
    if "image" not in service and "build" not in service:
        faults.append(f"{name}: neither image nor build")
    for needed in service.get("depends_on", {}):
        if needed not in services:
            faults.append(f"{name}: depends on unknown {needed}")
    for volume in service.get("volumes", []):
        source = str(volume).split(":", 1)[0]
        if not source.startswith((".", "/")) and source not in volumes:
            faults.append(f"{name}: unknown volume {source}")
        if source.startswith("./") and not (ROOT / source).exists():
            faults.append(f"{name}: {source} does not exist")
    for variable in service.get("environment", {}):
        if variable.startswith("RECEPTION_"):
            field = variable.removeprefix("RECEPTION_").lower()
            if not re.search(rf"^    {field}:", settings, re.MULTILINE):
                faults.append(f"{name}: {variable} is no setting")
if faults:
    sys.exit("docker-compose.yml:\n" + "\n".join(faults))
print("docker-compose.yml: ok")  # noqa: T201
