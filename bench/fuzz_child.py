"""One fuzz target in a process of its own, under atheris: `python -m bench.fuzz_child NAME …`.

What follows the name is libFuzzer's. Coverage is counted in our own packages and in the libraries
that parse for us, which is why atheris has to be there before any of them is imported.
"""

import sys
from typing import Final

import atheris

OURS: Final = ["media", "signaling", "cases.ranges", "core.grants"]
THEIRS: Final = ["aioice.stun", "aiortc.rtp", "aiortc.sdp", "joserfc"]


def main(argv: list[str]) -> None:
    """Does not return: libFuzzer ends the process, with 77 after a fault."""
    name = argv[1]
    with atheris.instrument_imports(include=OURS + THEIRS, enable_loader_override=False):
        from bench.fuzz_targets import TARGETS
    from core.log import configure_logging

    configure_logging(level="CRITICAL")
    taste = TARGETS[name].prepare()

    def taste_only(data: bytes) -> None:
        taste(data)  # what it returns would mean something to libFuzzer

    atheris.Setup([argv[0], *argv[2:]], taste_only)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
