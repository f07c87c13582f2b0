"""`reception bench …` and `reception drill …`: what measures, and what proves a promise.

Every command prints its rows as they come and its result last, and `--save` keeps all of them as
they were printed: that file is what belongs into bench/results/. A drill ends with 1 if a promise
was broken, and with 2 if this machine cannot run it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

bench = typer.Typer(no_args_is_help=True, help="Measure: one question, one answer.")
drill = typer.Typer(no_args_is_help=True, help="Campaigns that prove a promise.")

Row = dict[str, Any]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; the last line is the result.")]
Against = Annotated[str | None, typer.Option(help="janus: Debian's Janus in turns with ours.")]
Save = Annotated[Path | None, typer.Option(help="Keep all rows, and last the result, here.")]


class _Report:
    """Says and keeps what a measurement yields. `in_words` is for people, if nobody wants JSON."""

    def __init__(
        self,
        in_words: Callable[[Row], str],
        *,
        as_json: bool,
        save: Path | None = None,
        earlier: Iterable[Row] = (),
    ) -> None:
        """`earlier`: rows of a part that was run before; kept with the others, not said again."""
        self._in_words = in_words
        self._as_json = as_json
        self._save = save
        self._kept: list[Row] = list(earlier)

    def row(self, row: Row) -> None:
        self._kept.append(row)
        words = json.dumps(row, ensure_ascii=False) if self._as_json else self._in_words(row)
        typer.echo(words)

    def result(self, result: Row) -> None:
        """The last line, the same for people and programs."""
        self._kept.append(result)
        typer.echo(json.dumps(result, ensure_ascii=False))
        self.keep()

    def rows_and_result(self, found: Row) -> None:
        """For what answers at once with `rows` and what follows from them."""
        for row in found["rows"]:
            self.row(row)
        self.result({name: value for name, value in found.items() if name != "rows"})

    def keep(self) -> list[Row]:
        if self._save is not None:
            text = json.dumps(self._kept, indent=1, ensure_ascii=False)
            self._save.write_text(text + "\n", encoding="utf-8")
        return self._kept


def _numbers(text: str, most: int) -> list[int]:
    """`1,10,20` as numbers from 1 to `most`."""
    numbers = [int(part) if part.isdecimal() else 0 for part in text.replace(" ", "").split(",")]
    if not all(1 <= number <= most for number in numbers):
        raise typer.BadParameter(f"Give numbers from 1 to {most}, with commas between them.")
    return numbers


def _is_against_janus(against: str | None) -> bool:
    if against not in (None, "janus"):
        raise typer.BadParameter("Only janus can be measured against.")
    return against is not None


def _cannot_run(why: Exception) -> typer.Exit:
    typer.echo(str(why), err=True)
    return typer.Exit(2)


# -- bench ---------------------------------------------------------------------------------------


@bench.command("media")
def bench_media(
    *,
    calls: Annotated[str, typer.Option(help="How many at once; several by commas.")] = "10",
    seconds: Annotated[int, typer.Option(min=2, max=3600)] = 20,
    against: Against = None,
    repeat: Annotated[int, typer.Option(min=1, max=100, help="Rounds, with --against.")] = 1,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """CPU, loss and delay of recorded two-party calls through the relay, on loopback."""
    from bench.janus import JanusMissing
    from bench.janus_beside import run as run_beside
    from bench.media_load import in_words, run

    numbers = _numbers(calls, 200)
    report = _Report(in_words, as_json=as_json, save=save)
    if not _is_against_janus(against):
        for number in numbers:
            report.row(run(number, seconds))
        report.keep()
        return
    try:
        report.result(run_beside(numbers, repeat, seconds, report.row))
    except JanusMissing as missing:
        raise _cannot_run(missing) from missing


@bench.command("capacity")
def bench_capacity(against: Against = None, save: Save = None, as_json: AsJson = False) -> None:
    """How many recorded calls one core holds: nothing lost, p99 of the delay below 5 ms."""
    from bench.capacity import TooFewCores, in_words, run
    from bench.janus import JanusMissing

    report = _Report(in_words, as_json=as_json, save=save)
    try:
        report.result(run(report.row, with_janus=_is_against_janus(against)))
    except (JanusMissing, TooFewCores) as missing:
        raise _cannot_run(missing) from missing


@bench.command("scale")
def bench_scale(
    seconds: Annotated[int, typer.Option(min=1, max=600)] = 10,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """CPU per packet at 1 to 40 calls, and per copy in rooms of 2, 4 and 8."""
    from bench.scale import in_words, run

    report = _Report(in_words, as_json=as_json, save=save)
    report.result(run(seconds, report.row))


@bench.command("soak")
def bench_soak(
    minutes: Annotated[float, typer.Option(min=0.1, max=1440)] = 60,
    calls: Annotated[int, typer.Option(min=1, max=40)] = 4,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Call, talk, hang up, again and again: does memory, do files or threads grow?"""
    from bench.soak import in_words, run

    report = _Report(in_words, as_json=as_json, save=save)
    report.result(run(minutes, calls, tell=report.row))


@bench.command("idle")
def bench_idle(
    seconds: Annotated[int, typer.Option(min=5, max=3600)] = 30,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """CPU of a house in which nothing happens, for each of three kinds of process in turn."""
    from bench.idle import in_words, run

    _Report(in_words, as_json=as_json, save=save).rows_and_result(run(seconds))


@bench.command("finalise")
def bench_finalise(
    minutes: Annotated[str, typer.Option(help="Lengths of the calls, e.g. 1,10,60.")] = "1,10,60",
    picture_up_to: Annotated[
        int, typer.Option(help="Compose the one picture for calls up to this many minutes.")
    ] = 1,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """From the end of a call to files that play, and to the one picture: time and CPU."""
    from bench.finalise import in_words, run

    found = run(_numbers(minutes, 600), with_picture_up_to=picture_up_to)
    _Report(in_words, as_json=as_json, save=save).rows_and_result(found)


@bench.command("join")
def bench_join(
    count: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    kinds: Annotated[str, typer.Option(help="thin, chromium or both.")] = "thin,chromium",
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """From a Grant to the other party's picture, over and over; Chromium and a thin client."""
    from bench.join import in_words, run

    _Report(in_words, as_json=as_json, save=save).rows_and_result(run(count, kinds.split(",")))


@bench.command("mixed")
def bench_mixed(
    calls: Annotated[int, typer.Option(min=1, max=100)] = 10,
    seconds: Annotated[int, typer.Option(min=2, max=600)] = 20,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Calls while the API is asked and a recording is finished; one room process and two."""
    from bench.mixed import in_words, run

    _Report(in_words, as_json=as_json, save=save).rows_and_result(run(calls, seconds))


# -- drill ---------------------------------------------------------------------------------------


@drill.command("booking")
def drill_booking(
    attempts: Annotated[int, typer.Option(min=1)] = 5_000,
    processes: Annotated[int, typer.Option(min=1, max=64)] = 4,
    seed_number: Annotated[int, typer.Option("--seed")] = 1,
    as_json: AsJson = False,
) -> None:
    """Contended bookings against a scratch database: no slot twice, no confirmation lost."""
    from bench.booking import run_scratch

    result = run_scratch(attempts, processes, seed_number)
    _Report(_line_by_line, as_json=as_json).row(result)
    faults = ("double", "lost_confirmations", "unexplained", "errors", "audit_broken_at")
    if any(result.get(fault) for fault in faults):
        raise typer.Exit(1)


@drill.command("network")
def drill_network(
    *,
    seconds: Annotated[float, typer.Option(min=4, max=600)] = 20,
    only: Annotated[list[str] | None, typer.Option(help="A condition's name; repeatable.")] = None,
    client: Annotated[str, typer.Option(help="chromium or aiortc")] = "chromium",
    save: Save = None,
    table: Annotated[bool, typer.Option("--table", help="Print a Markdown table too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Calls over bad lines (loss, bursts, delay, bottlenecks): what is heard, seen, recorded."""
    from bench.netlab import LabUnavailable
    from bench.network import as_table, in_words, run

    report = _Report(in_words, as_json=as_json, save=save)
    with _proving(report, LabUnavailable, ValueError):
        rows = asyncio.run(_campaign(run(seconds, only or (), client), report))
        if table:
            typer.echo(as_table(rows))


@drill.command("outage")
def drill_outage(
    *,
    count: Annotated[int, typer.Option(min=1, help="Rounds of every kind on each lane.")] = 1,
    outage: Annotated[str, typer.Option(help="Lengths of link outages, s.")] = "5,10,20,30",
    kinds: Annotated[
        str, typer.Option(help="Of link, reload, kill, tab, nat, socket, clock, hang, server.")
    ] = "",
    lanes: Annotated[int, typer.Option(min=1, max=16, help="Calls at the same time.")] = 1,
    go_on: Annotated[bool, typer.Option("--go-on", help="Add to what --save has.")] = False,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Cut lines, close tabs, kill browsers and the server under real pages: when is media back?"""
    from bench.outage import KINDS, Plan, run
    from bench.outage_summary import summary

    chosen = tuple(kind for kind in KINDS if not kinds or kind in kinds.split(","))
    if not chosen or (go_on and save is None):
        raise typer.BadParameter("Give some of the kinds, and with --go-on a file to --save.")
    earlier: list[Row] = []
    if go_on and save is not None and save.exists():
        kept = json.loads(save.read_text(encoding="utf-8"))
        earlier = [row for row in kept if "summary" not in row]
    report = _Report(_in_a_line, as_json=as_json, save=save, earlier=earlier)
    try:
        for row in run(Plan(count, lanes, chosen, tuple(_numbers(outage, 600)))):
            report.row(row)
            report.keep()
    except RuntimeError as error:
        raise _cannot_run(error) from error
    result = summary(report.keep())
    report.result(result)
    if result["failed"]:
        raise typer.Exit(1)


@drill.command("alignment")
def drill_alignment(
    *,
    minutes: Annotated[float, typer.Option(min=0.3, max=120)] = 10,
    loss: Annotated[float, typer.Option(min=0, max=20, help="Percent, each way.")] = 5,
    skew_ppm: Annotated[float, typer.Option(min=0, max=200)] = 100,
    delay_ms: Annotated[float, typer.Option(min=0, help="Of the hall's line, each way.")] = 30,
    keep: Annotated[Path | None, typer.Option(help="Leave the recording in this folder.")] = None,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """A call with clocks that run wrong, loss and a rejoin: do its files still keep time?"""
    from bench.alignment import in_words, run
    from bench.netlab import LabUnavailable

    report = _Report(in_words, as_json=as_json, save=save)
    campaign = run(minutes * 60, loss, skew_ppm, hall_delay_ms=delay_ms, keep=keep)
    with _proving(report, LabUnavailable):
        asyncio.run(_campaign(campaign, report))


@drill.command("recording")
def drill_recording(
    *,
    kills: Annotated[int, typer.Option(min=1)] = 100,
    kinds: Annotated[str, typer.Option(help="Of live, syscall, house.")] = "live,syscall,house",
    seed_number: Annotated[int, typer.Option("--seed")] = 1,
    seconds: Annotated[float, typer.Option(help="Begin nothing new after so long; 0: no end.")] = 0,
    go_on: Annotated[bool, typer.Option("--go-on", help="Add to what --save has.")] = False,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """kill -9 a recording node, its finishing and a house, anywhere: what is lost, what doubled?"""
    from bench.crash import KINDS, Plan, in_words, run, summary

    chosen = tuple(name for name in KINDS if name in kinds.split(","))
    if not chosen or (go_on and save is None):
        raise typer.BadParameter("Give some of the kinds, and with --go-on a file to --save.")
    earlier: list[Row] = []
    if go_on and save is not None and save.exists():
        earlier = [row for row in json.loads(save.read_text(encoding="utf-8")) if "kind" in row]
    report = _Report(in_words, as_json=as_json, save=save, earlier=earlier)
    with _proving(report, RuntimeError, TimeoutError):
        for row in run(Plan(kills, seed_number, chosen, seconds or float("inf")), earlier):
            report.row(row)
            report.keep()
        report.result(summary(report.keep()))


@drill.command("fuzz")
def drill_fuzz(
    *,
    seconds: Annotated[float, typer.Option(min=0, help="For each target; 0: no limit.")] = 10,
    inputs: Annotated[int, typer.Option(min=0, help="For each target; 0: no limit.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="A target's name; repeatable.")] = None,
    seed: Annotated[int, typer.Option()] = 1,
    keep: Annotated[Path | None, typer.Option(help="Leave corpora and faults here.")] = None,
    reap: Annotated[
        bool, typer.Option(help="Then keep of the corpora what reaches something.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the portions that this file sums up.")
    ] = None,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Feed damaged input to every parser of outside bytes: does any raise what it may not?

    With --resume without coverage, which is quicker: portions that add up to 10^8 for each parser.
    """
    if not seconds and not inputs:
        raise typer.BadParameter("Limit the seconds or the inputs.")
    if resume is not None:
        if inputs or reap or save is not None:
            raise typer.BadParameter("A portion is limited by --seconds, and --resume keeps it.")
        _fuzz_portion(only or [], seconds, resume, seed, keep, as_json=as_json)
        return
    from bench.fuzz import Budget, in_words, run

    if reap and keep is None:
        raise typer.BadParameter("Say with --keep where the corpora are.")
    report = _Report(in_words, as_json=as_json, save=save)
    with _proving(report, ValueError):
        rows = _all(run(only or (), Budget(seconds, inputs), seed=seed, keep=keep), report)
        if reap and keep is not None:
            from bench.fuzz_corpus import reap_all

            reap_all([row["target"] for row in rows if "target" in row], keep)


def _fuzz_portion(
    only: list[str], seconds: float, resume: Path, seed: int, keep: Path | None, *, as_json: bool
) -> None:
    from bench.fuzz_portions import in_words, run

    report = _Report(in_words, as_json=as_json)
    with _proving(report, ValueError):
        _all(run(only, seconds, resume, seed=seed, keep=keep), report)


@drill.command("bitrot")
def drill_bitrot(
    files: Annotated[int, typer.Option(min=1)] = 1000,
    seed_number: Annotated[int, typer.Option("--seed")] = 1,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Flip one bit in each of many files: does the scrub find every one, and nothing else?"""
    from bench.bitrot import in_words, run

    report = _Report(in_words, as_json=as_json, save=save)
    with _proving(report):
        asyncio.run(_campaign(run(files, seed_number), report))


@drill.command("race")
def drill_race(
    *,
    rounds: Annotated[int, typer.Option(min=0, help="Books closed.")] = 10_000,
    processes: Annotated[int, typer.Option(min=2, max=64)] = 8,
    finish_rounds: Annotated[
        int, typer.Option(min=0, help="Recordings taken to the composed picture.")
    ] = 20,
    seed_number: Annotated[int, typer.Option("--seed")] = 1,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Many processes close and finish the same crashed recordings; some are killed at it."""
    from bench.race import in_words, run

    report = _Report(in_words, as_json=as_json, save=save)
    with _proving(report):
        _all(run(rounds, processes, finish_rounds, seed_number), report)


@drill.command("storm")
def drill_storm(
    *,
    datagrams: Annotated[int, typer.Option(min=1000)] = 200_000,
    per_second: Annotated[float, typer.Option(min=100, max=100_000)] = 20_000,
    seed: Annotated[int, typer.Option()] = 1,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Hostile datagrams at the port of a live, recorded call: does anyone in it notice?"""
    from bench.storm import StormUnavailable, in_words, run

    report = _Report(in_words, as_json=as_json, save=save)
    with _proving(report, StormUnavailable):
        _all(run(datagrams, per_second, seed), report)


@drill.command("powerloss")
def drill_powerloss(
    *,
    seconds: Annotated[float, typer.Option(min=1, max=120, help="Of talk, recorded.")] = 6,
    every: Annotated[int, typer.Option(min=1, help="Cut at every so many system calls.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="A scenario's name; repeatable.")] = None,
    seed: Annotated[int, typer.Option()] = 1,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Cut the power at every system call of a recording, six ways each: what is left of it?"""
    from bench.powerloss import ToolMissing, in_words, run
    from bench.powerloss_talk import Scenario

    report = _Report(in_words, as_json=as_json, save=save)
    with _proving(report, ToolMissing, ValueError):
        scenarios = [Scenario(name) for name in only or Scenario]
        _all(run(seconds, seed, every=every, scenarios=scenarios), report)


@drill.command("disk")
def drill_disk(save: Save = None, as_json: AsJson = False) -> None:
    """A live call whose disk fills, or refuses call after call: does the talk go on, is it told?"""
    from bench.sick_disk import CannotInject, in_words, run

    report = _Report(in_words, as_json=as_json, save=save)
    with _proving(report, CannotInject):
        _all(run(), report)


@contextmanager
def _proving(report: _Report, *cannot: type[Exception]) -> Iterator[None]:
    """A drill's end: 2 if one of `cannot` says that this machine cannot run it, 1 if the result,
    which is the last row, says that a promise was broken."""
    try:
        yield
    except cannot as error:
        raise _cannot_run(error) from error
    if not report.keep()[-1]["ok"]:
        raise typer.Exit(1)


async def _campaign(rows: AsyncIterator[Row], report: _Report) -> list[Row]:
    """Tell each row as it comes, the result among them as the last."""
    async for row in rows:
        report.row(row)
    return report.keep()


def _all(rows: Iterable[Row], report: _Report) -> list[Row]:
    for row in rows:
        report.row(row)
    return report.keep()


def _in_a_line(row: Row) -> str:
    return "  ".join(f"{name}: {value}" for name, value in row.items())


def _line_by_line(row: Row) -> str:
    return "\n".join(f"{name}: {value}" for name, value in row.items())
