"""`reception drill …`: campaigns that prove a promise.

A drill ends with 1 if a promise was broken, and with 2 if this machine cannot run it.
"""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from app.reporting import (
    AsJson,
    Report,
    Row,
    Save,
    cannot_run,
    in_a_line,
    line_by_line,
    numbers_in,
    proving,
    tell_all,
    tell_as_they_come,
)

drill = typer.Typer(no_args_is_help=True, help="Campaigns that prove a promise.")


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
    Report(line_by_line, as_json=as_json).row(result)
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

    report = Report(in_words, as_json=as_json, save=save)
    with proving(report, LabUnavailable, ValueError):
        rows = asyncio.run(tell_as_they_come(run(seconds, only or (), client), report))
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
    report = Report(in_a_line, as_json=as_json, save=save, earlier=earlier)
    try:
        for row in run(Plan(count, lanes, chosen, tuple(numbers_in(outage, 600)))):
            report.row(row)
            report.keep()
    except RuntimeError as error:
        raise cannot_run(error) from error
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

    report = Report(in_words, as_json=as_json, save=save)
    campaign = run(minutes * 60, loss, skew_ppm, hall_delay_ms=delay_ms, keep=keep)
    with proving(report, LabUnavailable):
        asyncio.run(tell_as_they_come(campaign, report))


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
    report = Report(in_words, as_json=as_json, save=save, earlier=earlier)
    with proving(report, RuntimeError, TimeoutError):
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
    report = Report(in_words, as_json=as_json, save=save)
    with proving(report, ValueError):
        rows = tell_all(run(only or (), Budget(seconds, inputs), seed=seed, keep=keep), report)
        if reap and keep is not None:
            from bench.fuzz_corpus import reap_all

            reap_all([row["target"] for row in rows if "target" in row], keep)


def _fuzz_portion(
    only: list[str], seconds: float, resume: Path, seed: int, keep: Path | None, *, as_json: bool
) -> None:
    from bench.fuzz_portions import in_words, run

    report = Report(in_words, as_json=as_json)
    with proving(report, ValueError):
        tell_all(run(only, seconds, resume, seed=seed, keep=keep), report)


@drill.command("bitrot")
def drill_bitrot(
    files: Annotated[int, typer.Option(min=1)] = 1000,
    seed_number: Annotated[int, typer.Option("--seed")] = 1,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Flip one bit in each of many files: does the scrub find every one, and nothing else?"""
    from bench.bitrot import in_words, run

    report = Report(in_words, as_json=as_json, save=save)
    with proving(report):
        asyncio.run(tell_as_they_come(run(files, seed_number), report))


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

    report = Report(in_words, as_json=as_json, save=save)
    with proving(report):
        tell_all(run(rounds, processes, finish_rounds, seed_number), report)


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

    report = Report(in_words, as_json=as_json, save=save)
    with proving(report, StormUnavailable):
        tell_all(run(datagrams, per_second, seed), report)


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

    report = Report(in_words, as_json=as_json, save=save)
    with proving(report, ToolMissing, ValueError):
        scenarios = [Scenario(name) for name in only or Scenario]
        tell_all(run(seconds, seed, every=every, scenarios=scenarios), report)


@drill.command("disk")
def drill_disk(save: Save = None, as_json: AsJson = False) -> None:
    """A live call whose disk fills, or refuses call after call: does the talk go on, is it told?"""
    from bench.sick_disk import CannotInject, in_words, run

    report = Report(in_words, as_json=as_json, save=save)
    with proving(report, CannotInject):
        tell_all(run(), report)
