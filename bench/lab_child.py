"""A module of ours as a process on one host of a lab: a JSON line there, a JSON line back.

For drills that run on an event loop; benchmarks without a lab have `media_load.Child`, which waits.
"""

import asyncio
import json
import sys
from typing import Any, Final

from bench.netlab import AHEAD, ROOT, Host

ANSWERS_WITHIN_S: Final = 60.0
ENDS_WITHIN_S: Final = 5.0


class Child:
    """Made by `on`, ended by `aclose`. Verbs are asked one at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    async def on(cls, host: Host, *arguments: str) -> "Child":
        return cls(
            await asyncio.create_subprocess_exec(
                *host.command([*AHEAD, sys.executable, "-m", *arguments]),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=16 * 1024 * 1024,
                cwd=ROOT,
            )
        )

    async def ask(self, verb: str, **values: object) -> dict[str, Any]:
        """Raises RuntimeError if the process has ended; its own words are on standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn, asyncio.timeout(ANSWERS_WITHIN_S):
            self._process.stdin.write(json.dumps({"verb": verb, **values}).encode() + b"\n")
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A process of the drill has ended at “{verb}”.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def aclose(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(ENDS_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
