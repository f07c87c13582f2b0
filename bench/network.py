"""Question: what is left of a call on a bad line, for the ears, for the eyes and in the recording?

A hall and an office talk through the real relay and recorder. The hall sits behind a bad line
(bench/link.py), the office has a perfect one; each is a host of its own (bench/netlab.py) with a
real client (bench/callers.py). Per condition: a few good seconds, then the line goes bad; what is
measured begins there, and "settled" begins `SETTLE_S` later, when senders have had time to adapt.

    run(seconds, only, client) -> Iterator of rows, the last one the summary
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from bench.callers import Caller, Numbers, aiortc_on, chromium_on
from bench.circumstances import circumstances
from bench.lab_child import Child
from bench.link import Burst, Impairment
from bench.netlab import UNIMPAIRED, Host, Link, NetLab
from bench.network_server import PARTIES

WARM_UP_S: Final = 5.0
SETTLE_S: Final = 6.0
SAMPLE_EVERY_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 20
SEED: Final = 20
RELAY_SAYS: Final = ("allowed_bps", "limit_bps", "freezes", "frozen_ms", "is_picture_held")
QUEUE_BYTES: Final = 20_000  # at 300 kbit/s half a second: a home router's

CLIENTS: Final = ("chromium", "aiortc")


Party = Literal["hall", "office"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What the hall's line does in each direction, and what must hold on it."""

    name: str
    words: str
    up: Impairment = UNIMPAIRED
    down: Impairment = UNIMPAIRED
    recorded: float = 0.99  # share of the hall's sound in the recording, from the first bad second
    settled: float = 0.99  # the same after adaptation
    heard: float = 0.95  # of the sound played live, settled: not concealed
    wait_p95_ms: float = 300  # on the line, beyond its own delay, settled: a queue delays sound


def _both(name: str, words: str, impairment: Impairment, **goals: float) -> Condition:
    return Condition(name, words, impairment, impairment, **goals)


THIN: Final = Impairment(rate_bps=300_000, queue_bytes=QUEUE_BYTES)
CONDITIONS: Final = (
    _both("clean", "as it is", UNIMPAIRED),
    _both("loss-1", "1 % lost at random", Impairment(loss=0.01)),
    _both("loss-5", "5 % lost at random", Impairment(loss=0.05), recorded=0.94, settled=0.94),
    _both("loss-10", "10 % lost at random", Impairment(loss=0.10), recorded=0.89, settled=0.89),
    _both("loss-20", "20 % lost at random", Impairment(loss=0.20), recorded=0.79, settled=0.79),
    _both(
        "loss-20-far", "20 % lost, 30 ms each way", Impairment(loss=0.20, delay_ms=30),
        recorded=0.79, settled=0.79,
    ),
    _both(
        "bursts", "5 % lost in bursts of 5", Impairment(burst=Burst(0.0105, 0.2)),
        recorded=0.94, settled=0.94,
    ),
    _both("delay-30", "30 ms each way", Impairment(delay_ms=30)),
    _both("delay-150", "150 ms each way", Impairment(delay_ms=150)),
    _both("jitter-30", "20-50 ms each way", Impairment(delay_ms=20, jitter_ms=30)),
    _both("reorder-5", "5 % overtaken, 15 ms", Impairment(delay_ms=5, reorder=0.05)),
    Condition("thin-up", "300 kbit/s from the hall", up=THIN, recorded=0.9),
    Condition("thin-down", "300 kbit/s to the hall", down=THIN, recorded=0.99),
    _both("thin", "300 kbit/s each way", THIN, recorded=0.9),
    Condition(
        "thread-down", "100 kbit/s to the hall",
        down=Impairment(rate_bps=100_000, queue_bytes=QUEUE_BYTES // 2), wait_p95_ms=900,
    ),
)  # fmt: skip


@dataclass(slots=True)
class Moment:
    """Everything that was counted at one moment of a call."""

    at_ns: int
    server: list[dict[str, Any]]
    hall: Numbers
    office: Numbers


@dataclass(slots=True)
class Call:
    """One call through the lab's server."""

    server: Child
    link: Link
    hall: Caller
    office: Caller
    moments: list[Moment] = field(default_factory=list)

    async def begin(self) -> None:
        """Join both, go live. Raises TimeoutError if they do not connect."""
        offers = (await self.server.ask("open"))["offers"]
        for index, caller in enumerate((self.hall, self.office)):
            offer = offers[index]
            sdp = await caller.join(offer)
            await self.server.ask("answer", party=index, revision=offer["revision"], sdp=sdp)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            while (await self.server.ask("connected"))["connected"] < len(PARTIES):
                await asyncio.sleep(0.1)
        await self.server.ask("live")

    async def watch(self, seconds: float) -> None:
        """Let time pass, sampling once a second and at both ends."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self.moments.append(await self._moment())
        while (left_s := until - loop.time()) > 0:
            await asyncio.sleep(min(SAMPLE_EVERY_S, left_s))
            self.moments.append(await self._moment())

    async def end(self, windows: dict[str, tuple[int, int]]) -> dict[str, Any]:
        await self.hall.leave()
        await self.office.leave()
        return await self.server.ask("end", windows=windows)

    async def _moment(self) -> Moment:
        state, hall, office = await asyncio.gather(
            self.server.ask("state"), self.hall.numbers(), self.office.numbers()
        )
        return Moment(state["at_ns"], state["parties"], hall, office)


async def run(
    seconds: float = 20, only: Sequence[str] = (), client: str = "chromium"
) -> AsyncIterator[dict[str, Any]]:
    """A row per condition, and last the summary. `only` names conditions; empty means all.

    Raises LabUnavailable without root or TUN, ValueError for an unknown condition or client.
    """
    chosen = [c for c in CONDITIONS if not only or c.name in only]
    if unknown := set(only) - {c.name for c in CONDITIONS}:
        raise ValueError(f"No condition is called {', '.join(sorted(unknown))}.")
    if client not in CLIENTS:
        raise ValueError(f"A client is {' or '.join(CLIENTS)}.")
    rows = []
    async with AsyncExitStack() as stack:
        lab = stack.enter_context(NetLab())
        at_server, at_hall, at_office = lab.host("server"), lab.host("hall"), lab.host("office")
        link = lab.link(at_server, at_hall, seed=SEED)
        lab.wire(at_server, at_office)
        hall, office = await _callers(stack, client, at_hall, at_office)
        server = await Child.on(at_server, "bench.network_server", at_server.address)
        stack.push_async_callback(server.aclose)
        for condition in chosen:
            call = Call(server, link, hall, office)
            rows.append({**await measure(call, condition, seconds), "client": client})
            yield rows[-1]
    yield summary(rows, seconds)


async def _callers(
    stack: AsyncExitStack, client: str, at_hall: Host, at_office: Host
) -> tuple[Caller, Caller]:
    if client == "aiortc":
        one = await stack.enter_async_context(aiortc_on(at_hall, None))
        other = await stack.enter_async_context(aiortc_on(at_office, None))
        return one, other
    from app.clips import Speaker, capture_files

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reception-clips-")))
    made = []
    for name, host, words, mirrored in (
        ("hall", at_hall, "领导您好。我家的草场被征用以后，补偿款一直没有到户。", False),
        ("office", at_office, "您好，请慢慢说。这件事由州里核对，按期给您书面答复。", True),
    ):
        files = await asyncio.to_thread(
            capture_files, folder, name, Speaker(words, "cmn", is_mirrored=mirrored), seconds=6
        )
        made.append(await stack.enter_async_context(chromium_on(host, *files)))
    return made[0], made[1]


async def measure(call: Call, condition: Condition, seconds: float) -> dict[str, Any]:
    """One call on one line: good seconds, bad seconds, the verdict."""
    call.link.heal()
    await call.begin()
    await call.watch(WARM_UP_S)
    call.link.count()
    call.link.set(up=condition.up, down=condition.down)
    bad_from = len(call.moments)
    await call.watch(min(SETTLE_S, seconds / 2))
    settled_from = len(call.moments)
    first_counts = call.link.count()
    await call.watch(seconds - min(SETTLE_S, seconds / 2))
    counts = call.link.count()
    call.link.heal()
    bad, settled, last = (call.moments[i] for i in (bad_from, settled_from, -1))
    sound = await call.end({"bad": (bad.at_ns, last.at_ns), "settled": (settled.at_ns, last.at_ns)})
    before = call.moments[max(0, bad_from - 3)]
    own_delay_ms = condition.up.delay_ms
    row: dict[str, Any] = {
        "condition": condition.name,
        "words": condition.words,
        "seconds": seconds,
        "fault": {d: _fault(first_counts[d], counts[d]) for d in ("up", "down")},
        "hall_recorded": sound["hall"]["bad"]["share"],
        "hall_recorded_settled": sound["hall"]["settled"]["share"],
        "hall_sound_delay_p95_ms": _less(sound["hall"]["settled"]["delay_p95_ms"], own_delay_ms),
        "office_recorded": sound["office"]["bad"]["share"],
        "line_wait_p95_ms": {d: counts[d]["wait_p95_ms"] for d in ("up", "down")},
        "heard_in_hall": _heard(settled, last, "hall", "office"),
        "heard_in_office": _heard(settled, last, "office", "hall"),
        "picture_kbps": {
            "hall_before": _rate_kbps(before, call.moments[bad_from - 1], "hall"),
            "hall_settled": _rate_kbps(settled, last, "hall"),
            "office_before": _rate_kbps(before, call.moments[bad_from - 1], "office"),
            "office_settled": _rate_kbps(settled, last, "office"),
            "in_hall_settled": _rate_kbps(settled, last, "hall", "video_bytes_received"),
        },
        "seen_in_hall": _seen(bad.hall, last.hall, settled.hall),
        "seen_in_office": _seen(bad.office, last.office, settled.office),
        "repairs": _repairs(bad, last),
        "relay_at_the_end": {
            party: {
                name: state[name]
                for name in ("allowed_bps", "limit_bps", "freezes", "frozen_ms", "is_picture_held")
            }
            for party, state in zip(PARTIES, last.server, strict=True)
        },
    }
    row["goals"] = _goals(condition, row)
    row["ok"] = all(row["goals"].values())
    return row


def _fault(first: dict[str, Any], rest: dict[str, Any]) -> dict[str, int]:
    """What the line did, over the whole bad time."""
    names = ("packets", "lost", "overflowed", "reordered", "delayed", "unwritable")
    return {name: first[name] + rest[name] for name in names}


def _less(value: float | None, own_delay_ms: float) -> float | None:
    return None if value is None else round(max(0.0, value - own_delay_ms), 1)


def _heard(start: Moment, end: Moment, who: Party, whom: Party) -> dict[str, float | None]:
    """What one party heard of the other. `whole`: the share played as it was sent, by the client's
    own count: what came in time for the ear. `arrived`: of the packets sent, those that came."""
    before, after = getattr(start, who), getattr(end, who)
    samples = after["samples"] - before["samples"]
    concealed = after["concealed"] - before["concealed"]
    sent = getattr(end, whom)["audio_sent"] - getattr(start, whom)["audio_sent"]
    came = after["audio_received"] - before["audio_received"]
    return {
        "whole": round(1 - concealed / samples, 4) if samples else None,
        "arrived": round(came / sent, 3) if sent else None,
    }


def _rate_kbps(before: Moment, after: Moment, who: Party, what: str = "video_bytes_sent") -> int:
    first, last = getattr(before, who), getattr(after, who)
    seconds = (after.at_ns - before.at_ns) / 1e9
    return round((last[what] - first[what]) * 8 / 1000 / seconds) if seconds > 0 else 0


def _seen(bad: Numbers, last: Numbers, settled: Numbers) -> dict[str, float]:
    return {
        "frames": last["frames"] - bad["frames"],
        "freezes": last["freezes"] - bad["freezes"],
        "frozen_ms": round(last["frozen_ms"] - bad["frozen_ms"]),
        "freezes_settled": last["freezes"] - settled["freezes"],
        "plis": last["plis_asked"] - bad["plis_asked"],
    }


def _repairs(bad: Moment, last: Moment) -> dict[str, float]:
    """Holes of the hall's streams filled and given up here; what clients asked and were given."""

    def since(party: int, what: str, name: str) -> int:
        after, before = last.server[party][what], bad.server[party][what]
        return int(after.get(name, 0) - before.get(name, 0))

    return {
        "sound_recovered": since(0, "recovered", "MICROPHONE"),
        "sound_given_up": since(0, "unrecovered", "MICROPHONE"),
        "picture_recovered": since(0, "recovered", "CAMERA"),
        "picture_given_up": since(0, "unrecovered", "CAMERA"),
        "hall_nacks_heard": last.hall["nacks_heard"] - bad.hall["nacks_heard"],
        "hall_plis_heard": last.hall["plis_heard"] - bad.hall["plis_heard"],
        "hall_nacks_asked": last.hall["nacks_asked"] - bad.hall["nacks_asked"],
        "resent_to_hall": last.server[0]["resent"] - bad.server[0]["resent"],
    }


def _goals(condition: Condition, row: dict[str, Any]) -> dict[str, bool]:
    impaired = {"up": condition.up, "down": condition.down}
    goals = {
        f"fault_{direction}_happened": sum(row["fault"][direction].values())
        > row["fault"][direction]["packets"]
        for direction, impairment in impaired.items()
        if impairment != UNIMPAIRED
    }
    goals["recorded"] = row["hall_recorded"] >= condition.recorded
    goals["recorded_settled"] = row["hall_recorded_settled"] >= condition.settled
    goals["office_recorded"] = row["office_recorded"] >= 0.99
    for direction, impairment in impaired.items():
        wait_ms = row["line_wait_p95_ms"][direction]
        goals[f"{direction}_in_time"] = wait_ms is not None and (
            wait_ms - impairment.delay_ms <= condition.wait_p95_ms
        )
    for place in ("hall", "office"):
        whole = row[f"heard_in_{place}"]["whole"]
        if whole is not None:  # aiortc does not say
            goals[f"heard_in_{place}"] = whole >= condition.heard
    return goals


def summary(rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The campaign in one object, with where and when."""
    return {
        "summary": {
            row["condition"]: {
                "recorded": row["hall_recorded"],
                "settled": row["hall_recorded_settled"],
                "ok": row["ok"],
            }
            for row in rows
        },
        "failed": {
            row["condition"]: [name for name, held in row["goals"].items() if not held]
            for row in rows
            if not row["ok"]
        },
        "ok": all(row["ok"] for row in rows),
        "seconds": seconds,
        "seed": SEED,
        "conditions": {
            c.name: {"up": asdict(c.up), "down": asdict(c.down)}
            for c in CONDITIONS
            if any(row["condition"] == c.name for row in rows)
        },
        **circumstances(),
    }


def in_words(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    if "summary" in row:
        return "Every goal held." if row["ok"] else f"Goals missed: {row['failed']}"
    picture, office = row["picture_kbps"], row["seen_in_office"]
    return (
        f"{row['condition']:12} {row['words']:28} sound recorded {row['hall_recorded']:.1%}, "
        f"line wait p95 {row['line_wait_p95_ms']['up']}/{row['line_wait_p95_ms']['down']} ms, "
        f"picture {picture['hall_before']} → {picture['hall_settled']} kbit/s, "
        f"{office['freezes']:.0f} freezes of {office['frozen_ms'] / 1000:.1f} s in all"
        f"{'' if row['ok'] else '  ✗'}"
    )


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as the Markdown table of docs/recording.md."""
    lines = [
        "| the line | recorded | played hall / office | wait up / down ms | hall's picture kbit/s "
        "| office's kbit/s | frozen in the office | in the hall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "summary" in row:
            continue
        picture, wait = row["picture_kbps"], row["line_wait_p95_ms"]
        played = [row[f"heard_in_{place}"]["whole"] for place in PARTIES]
        words = [
            row["words"],
            f"{row['hall_recorded']:.1%}",
            " / ".join("–" if share is None else f"{share:.1%}" for share in played),
            f"{wait['up'] or 0:.0f} / {wait['down'] or 0:.0f}",
            f"{picture['hall_before']} → {picture['hall_settled']}",
            f"{picture['office_before']} → {picture['in_hall_settled']}",
            *(
                f"{row[seen]['freezes']:.0f}, {row[seen]['frozen_ms'] / 1000:.1f} s"
                for seen in ("seen_in_office", "seen_in_hall")
            ),
        ]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)
