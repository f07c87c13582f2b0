"""From the end of a call to one playable file for each party: what it costs, and that it plays.

The cost is the server's, for closing its recordings, and that of everything its recipe names. Ours
is what the house does after a call, but for the rows in its database: one child for each recording,
forked from one warm parent (media/warm.py), whose start is counted, once. Whether the files are
whole is then looked at outside the measurement.
"""

import asyncio
import json
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bench.media_load import Gateway
    from media.warm import WarmParent

COMMAND_TIMEOUT_S: Final = 600
# A call begins and ends anywhere within a picture's and a sound's time, and a report's.
SLACK_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Finished:
    """`server_cpu_s` went into closing, `recipe_cpu_s` into what the recipe names."""

    server_cpu_s: float
    recipe_cpu_s: float
    files: list[Path]
    parties: int


def finish(gateway: "Gateway") -> Finished:
    """End a gateway's calls and make its recordings playable.

    Raises CalledProcessError if a command of the recipe fails, RuntimeError if a child of the
    house's own does.
    """
    from bench.media_load import HOUSE, cpu_s

    before_s = cpu_s(gateway.pid)
    recipe = gateway.hang_up()
    server_s = cpu_s(gateway.pid) - before_s
    before_s = _children_cpu_s()
    for command in recipe.commands:
        subprocess.run(
            command, check=True, capture_output=True, cwd=HOUSE, timeout=COMMAND_TIMEOUT_S
        )
    recipe_s = _children_cpu_s() - before_s
    if recipe.recordings:
        recipe_s += as_the_house_does(recipe.recordings)
    return Finished(server_s, recipe_s, sorted(recipe.folder.rglob("party-*")), recipe.parties)


def as_the_house_does(recordings: Sequence[Path]) -> float:
    """Close each recording's book and make its files, in `work` below it, one after another. What
    it cost in CPU seconds: asking for children, their warm parent, and themselves.

    Raises RuntimeError if a child fails.
    """
    from media.ffmpeg import Limits
    from media.finishing import Job
    from media.warm import WarmParent

    before_s = time.process_time() + _children_cpu_s()
    parent = WarmParent()
    limits = Limits.fit_for(0, COMMAND_TIMEOUT_S)
    try:
        for recording in recordings:
            job = Job(
                recording=str(recording), work=str(recording / "work"), ffmpeg="", started_at="",
                limits=limits, signing_key=str(recording.parent / "signing-key"), is_chained=True,
            )  # fmt: skip
            asyncio.run(_make_playable(parent, json.dumps(asdict(job)).encode()))
    finally:
        # Waited for: from now on it and all that it waited for are among our children.
        parent.end()
    return time.process_time() + _children_cpu_s() - before_s


async def _make_playable(parent: "WarmParent", job: bytes) -> None:
    child = await parent.fork(("seal", "mux"))
    try:
        child.give(job)
        said = await asyncio.wait_for(child.lines.read(), COMMAND_TIMEOUT_S)
        code = await child.ended()
        words = await child.last_words()
    finally:
        await child.end()
    if code != 0:
        raise RuntimeError(f"a child failed ({code}): {said.decode()} {words}")


def _children_cpu_s() -> float:
    # Of children that have been waited for; gateway and callers are not among them meanwhile.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def look_at(finished: Finished, sent_s: float, frames_per_s: int, sounds_per_s: int) -> str:
    """What is wrong with the files, in words; empty if each holds all of a call of `sent_s`.

    Every file is counted through; one is decoded from beginning to end.
    """
    if len(finished.files) != finished.parties:
        return f"{len(finished.files)} files for {finished.parties} parties"
    least_s = sent_s - SLACK_S
    for number, path in enumerate(finished.files):
        pictures, sounds, length_s = probe(path, decode=number == 0)
        if pictures < least_s * frames_per_s or sounds < least_s * sounds_per_s:
            return f"{path.name}: {pictures} pictures and {sounds} sounds of {sent_s:.0f} s"
        if abs(length_s - sent_s) > SLACK_S:
            return f"{path.name}: {length_s:.2f} s long instead of {sent_s:.0f}"
    return ""


def probe(path: Path, *, decode: bool) -> tuple[int, int, float]:
    """Pictures, packets of sound and seconds in a file, by ffprobe; counted by decoding or not."""
    count = "frames" if decode else "packets"
    said = subprocess.run(
        [
            *("ffprobe", "-v", "error", f"-count_{count}", "-of", "json"),
            *("-show_entries", f"stream=codec_type,nb_read_{count}:format=duration", str(path)),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    found: dict[str, Any] = json.loads(said.stdout)
    counted = {s["codec_type"]: int(s[f"nb_read_{count}"]) for s in found["streams"]}
    return counted.get("video", 0), counted.get("audio", 0), float(found["format"]["duration"])
