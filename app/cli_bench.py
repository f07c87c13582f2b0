"""`reception bench …`: what measures. One question, one answer; each imports what it needs."""

from typing import Annotated

import typer

from app.reporting import Against, AsJson, Report, Save, cannot_run, is_against_janus, numbers_in

bench = typer.Typer(no_args_is_help=True, help="Measure: one question, one answer.")


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

    numbers = numbers_in(calls, 200)
    report = Report(in_words, as_json=as_json, save=save)
    if not is_against_janus(against):
        for number in numbers:
            report.row(run(number, seconds))
        report.keep()
        return
    try:
        report.result(run_beside(numbers, repeat, seconds, report.row))
    except JanusMissing as missing:
        raise cannot_run(missing) from missing


@bench.command("capacity")
def bench_capacity(against: Against = None, save: Save = None, as_json: AsJson = False) -> None:
    """How many recorded calls one core holds: nothing lost, p99 of the delay below 5 ms."""
    from bench.capacity import TooFewCores, in_words, run
    from bench.janus import JanusMissing

    report = Report(in_words, as_json=as_json, save=save)
    try:
        report.result(run(report.row, with_janus=is_against_janus(against)))
    except (JanusMissing, TooFewCores) as missing:
        raise cannot_run(missing) from missing


@bench.command("scale")
def bench_scale(
    seconds: Annotated[int, typer.Option(min=1, max=600)] = 10,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """CPU per packet at 1 to 40 calls, and per copy in rooms of 2, 4 and 8."""
    from bench.scale import in_words, run

    report = Report(in_words, as_json=as_json, save=save)
    report.result(run(seconds, report.row))


@bench.command("runs")
def bench_runs(
    flushes: Annotated[int, typer.Option(min=1, max=100_000)] = 2_000,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """A packet of a picture on its way to the kernel: one by one, and in runs."""
    from bench.runs import in_words, run

    Report(in_words, as_json=as_json, save=save).rows_and_result(run(flushes))


@bench.command("soak")
def bench_soak(
    minutes: Annotated[float, typer.Option(min=0.1, max=1440)] = 60,
    calls: Annotated[int, typer.Option(min=1, max=40)] = 4,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Call, talk, hang up, again and again: does memory, do files or threads grow?"""
    from bench.soak import in_words, run

    report = Report(in_words, as_json=as_json, save=save)
    report.result(run(minutes, calls, tell=report.row))


@bench.command("idle")
def bench_idle(
    seconds: Annotated[int, typer.Option(min=5, max=3600)] = 30,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """CPU of a house in which nothing happens, for each of three kinds of process in turn."""
    from bench.idle import in_words, run

    Report(in_words, as_json=as_json, save=save).rows_and_result(run(seconds))


@bench.command("finalise")
def bench_finalise(
    *,
    minutes: Annotated[str, typer.Option(help="Lengths of the calls, e.g. 1,10,60.")] = "1,10,60",
    picture_up_to: Annotated[
        int, typer.Option(help="Compose the one picture for calls up to this many minutes.")
    ] = 1,
    seconds: Annotated[str, typer.Option(help="Short calls before those, e.g. 20.")] = "",
    at_once: Annotated[str, typer.Option(help="How many end together, e.g. 1,10.")] = "1",
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """From the end of a call to files that play, and to the one picture: time and CPU."""
    from bench.finalise import in_words, run

    lengths = numbers_in(seconds, 600) if seconds else []
    lengths += [60 * number for number in numbers_in(minutes, 600)]
    found = run(lengths, with_picture_up_to_s=60 * picture_up_to, at_once=numbers_in(at_once, 100))
    Report(in_words, as_json=as_json, save=save).rows_and_result(found)


@bench.command("join")
def bench_join(
    count: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    kinds: Annotated[str, typer.Option(help="thin, chromium or both.")] = "thin,chromium",
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """From a Grant to the other party's picture, over and over; Chromium and a thin client."""
    from bench.join import in_words, run

    Report(in_words, as_json=as_json, save=save).rows_and_result(run(count, kinds.split(",")))


@bench.command("mixed")
def bench_mixed(
    calls: Annotated[int, typer.Option(min=1, max=100)] = 10,
    seconds: Annotated[int, typer.Option(min=2, max=600)] = 20,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Calls while the API is asked and a recording is finished; one room process and two."""
    from bench.mixed import in_words, run

    Report(in_words, as_json=as_json, save=save).rows_and_result(run(calls, seconds))
