"""Is our relay cheaper than Janus, and no slower? Both in one run, in turns, under the same load.

    run(calls, repeat, seconds, tell) -> the medians, as ratios of ours to Janus's

What a call costs is counted to the end: relaying and recording while it lasts, then all that it
takes until each party has one playable file. The files are looked at; a cheap one that does not
play is no saving.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.clip import FRAMES_PER_S, SOUNDS_PER_S
from bench.finish import finish, look_at
from bench.janus import Janus, require, version
from bench.media_load import WARM_UP_S, Gateway, Reception, clip_file, measure

Row = dict[str, Any]
Tell = Callable[[Row], None]


def run(calls: Sequence[int], repeat: int, seconds: int, tell: Tell) -> Row:
    """Measure both at each number of calls, ours first, then Janus, `repeat` times over.

    `tell` gets each row as soon as it is there. Raises JanusMissing, with words on what to install,
    before anything is started.
    """
    require()
    rows: list[Row] = []
    with clip_file() as clip:
        for round_number in range(1, repeat + 1):
            for number in calls:
                for make in (Reception, Janus):
                    with make(number) as gateway:
                        row = {"round": round_number} | _row(gateway, clip, number, seconds)
                    rows.append(row)
                    tell(row)
    return summary(rows)


def _row(gateway: Gateway, clip: Path, calls: int, seconds: int) -> Row:
    row = measure(gateway, clip, rooms=calls, seconds=seconds)
    finished = finish(gateway)
    call_min = calls * (WARM_UP_S + seconds) / 60  # all that was recorded, the warm-up too
    relay = row.pop("cpu_s_per_call_min")
    finishing = (finished.server_cpu_s + finished.recipe_cpu_s) / call_min
    return row | {
        **({"version": version()} if gateway.name == Janus.name else {}),
        "cpu_s_per_call_min": round(relay + finishing, 4),
        "relay_cpu_s_per_call_min": relay,
        "finish_cpu_s_per_call_min": round(finishing, 4),
        "finish_cpu_s_per_call": round((finished.server_cpu_s + finished.recipe_cpu_s) / calls, 4),
        "files": len(finished.files),
        "fault": look_at(finished, WARM_UP_S + seconds, FRAMES_PER_S, SOUNDS_PER_S),
    }


def summary(rows: Sequence[Row]) -> Row:
    """Ratios of medians, ours to Janus's, by number of calls; below 1 is ours.

    `cpu_ratio` is everything up to playable files; `relay_cpu_ratio` and `finish_cpu_ratio` are
    its parts. `lost` and `faults` are ours, `janus_…` theirs.
    """
    numbers = sorted({row["calls"] for row in rows})

    def ratios(read: Callable[[Row], float | None]) -> dict[str, float | None]:
        return {str(n): _ratio(*(_median(rows, n, who, read) for who in _SERVERS)) for n in numbers}

    ours, theirs = ([row for row in rows if row["server"] == who] for who in _SERVERS)
    return {
        "cpu_ratio": ratios(lambda row: row["cpu_s_per_call_min"]),
        "relay_cpu_ratio": ratios(lambda row: row["relay_cpu_s_per_call_min"]),
        "finish_cpu_ratio": ratios(lambda row: row["finish_cpu_s_per_call_min"]),
        "delay_p50_ratio": ratios(lambda row: row["delay_ms"]["p50"]),
        "delay_p99_ratio": ratios(lambda row: row["delay_ms"]["p99"]),
        "rss_per_call_ratio": ratios(lambda row: row["rss_mib_per_call"]),
        "lost": sum(row["lost"] for row in ours),
        "janus_lost": sum(row["lost"] for row in theirs),
        "faults": sorted({row["fault"] for row in ours} - {""}),
        "janus_faults": sorted({row["fault"] for row in theirs} - {""}),
        "busiest_load_1min": max(row["load_1min"] for row in rows),
        "srtp_profiles": sorted({row["srtp_profile"] for row in rows}),
    }


_SERVERS = (Reception.name, Janus.name)


def _median(
    rows: Sequence[Row], calls: int, server: str, read: Callable[[Row], float | None]
) -> float | None:
    values = [read(row) for row in rows if row["calls"] == calls and row["server"] == server]
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return round(ours / theirs, 3) if ours is not None and theirs else None
