"""`reception …`: what an operator types. Words for people, `--json` for programs.

Each command imports what it needs when it runs, so that `reception --help` is quick.
"""

import asyncio
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from core.errors import ReceptionError
from core.settings import Settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
bench = typer.Typer(no_args_is_help=True, help="Measure: one question, one answer.")
recording = typer.Typer(no_args_is_help=True, help="Look into, check and repair recordings.")
drill = typer.Typer(no_args_is_help=True, help="Campaigns that prove a promise.")
kiosk = typer.Typer(no_args_is_help=True, help="Devices in reception rooms.")
audit = typer.Typer(no_args_is_help=True, help="The audit log.")
cli.add_typer(bench, name="bench")
cli.add_typer(recording, name="recording")
cli.add_typer(drill, name="drill")
cli.add_typer(kiosk, name="kiosk")
cli.add_typer(audit, name="audit")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; the last line is the result.")]


@cli.callback()
def quietly() -> None:
    """Remote Reception 远程视频接访."""
    from core.log import configure_logging

    # Logs go to standard error; standard output is the command's answer.
    configure_logging(level="WARNING")


def settings() -> Settings:
    """The settings of this installation, or one clear line and exit code 2."""
    try:
        return Settings()
    except ValidationError as error:
        for fault in error.errors():
            where = "_".join(str(part) for part in fault["loc"]).upper() or "settings"
            typer.echo(f"RECEPTION_{where}: {fault['msg']}", err=True)
        raise typer.Exit(2) from error


@cli.command()
def serve() -> None:
    """Serve pages, rooms or both, as RECEPTION_ROLES says."""
    from app.serve import serve as run

    run(settings())


@cli.command()
def demo() -> None:
    """Seed the demo prefecture if the database is empty, print addresses and sign-ins, serve."""
    from app.seed import fresh_kiosk_codes, print_welcome, seed
    from app.serve import serve as run

    chosen = settings()
    asyncio.run(seed(chosen))
    codes = asyncio.run(fresh_kiosk_codes(chosen))
    run(chosen, on_started=lambda: print_welcome(chosen, codes))


@cli.command()
def seed() -> None:
    """Fill an empty database with a believable prefecture, recorded calls included."""
    from app.seed import seed as run

    asyncio.run(run(settings()))


@cli.command()
def migrate() -> None:
    """Bring the database to the newest revision."""
    from app.database import upgrade

    asyncio.run(upgrade(settings().database))


@cli.command()
def doctor(as_json: AsJson = False) -> None:
    """Is this machine fit to serve? Ports, codecs, disk, ffmpeg, database, store, clock."""
    from app.doctor import examine

    findings = asyncio.run(examine(settings()))
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], ensure_ascii=False))
    else:
        for finding in findings:
            typer.echo(finding.in_words())
    if not all(finding.is_well for finding in findings):
        raise typer.Exit(1)


Against = Annotated[str | None, typer.Option(help="janus: Debian's Janus in turns with ours.")]
Save = Annotated[Path | None, typer.Option(help="Keep all rows in this file.")]


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
    from bench.media_load import in_words, run

    numbers = _numbers(calls, 200)
    rows: list[dict[str, Any]] = []

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        typer.echo(json.dumps(row) if as_json else in_words(row))

    if _is_against_janus(against):
        from bench.janus import JanusMissing
        from bench.janus_beside import run as run_beside

        try:
            rows.append(run_beside(numbers, repeat, seconds, tell))
        except JanusMissing as missing:
            typer.echo(str(missing), err=True)
            raise typer.Exit(2) from missing
        typer.echo(json.dumps(rows[-1]))
    else:
        for number in numbers:
            tell(run(number, seconds))
    _save(save, rows)


@bench.command("capacity")
def bench_capacity(against: Against = None, save: Save = None, as_json: AsJson = False) -> None:
    """How many recorded calls one core holds: nothing lost, p99 of the delay below 5 ms."""
    from bench.capacity import TooFewCores, in_words, run
    from bench.janus import JanusMissing

    rows: list[dict[str, Any]] = []

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        typer.echo(json.dumps(row) if as_json else in_words(row))

    try:
        rows.append(run(tell, with_janus=_is_against_janus(against)))
    except (JanusMissing, TooFewCores) as missing:
        typer.echo(str(missing), err=True)
        raise typer.Exit(2) from missing
    typer.echo(json.dumps(rows[-1]))
    _save(save, rows)


@bench.command("scale")
def bench_scale(
    seconds: Annotated[int, typer.Option(min=1, max=600)] = 10,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """CPU per packet at 1 to 40 calls, and per copy in rooms of 2, 4 and 8."""
    from bench.scale import in_words, run

    rows: list[dict[str, Any]] = []

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        typer.echo(json.dumps(row) if as_json else in_words(row))

    rows.append(run(seconds, tell))
    typer.echo(json.dumps(rows[-1]))
    _save(save, rows)


@bench.command("soak")
def bench_soak(
    minutes: Annotated[float, typer.Option(min=0.1, max=1440)] = 60,
    calls: Annotated[int, typer.Option(min=1, max=40)] = 4,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """Call, talk, hang up, again and again: does memory, do files or threads grow?"""
    from bench.soak import run

    def tell(row: dict[str, Any]) -> None:
        typer.echo(json.dumps(row) if as_json else f"round {row['round']}: {row['rss_mib']} MiB")

    summary = run(minutes, calls, tell=tell)
    typer.echo(json.dumps(summary))
    _save(save, [summary])


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


def _save(path: Path | None, rows: list[dict[str, Any]]) -> None:
    if path is not None:
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@bench.command("idle")
def bench_idle(
    seconds: Annotated[int, typer.Option(min=5, max=3600)] = 30, as_json: AsJson = False
) -> None:
    """CPU of a house in which nothing happens, per kind of process."""
    from bench.idle import run

    result = run(seconds)
    for row in result["rows"]:
        typer.echo(
            json.dumps(row)
            if as_json
            else f"{row['roles']}: {row['cpu_percent']:.2f} % of a core, {row['rss_mib']:.0f} MiB"
        )
    if as_json:
        typer.echo(json.dumps({key: value for key, value in result.items() if key != "rows"}))


@bench.command("finalise")
def bench_finalise(
    minutes: Annotated[str, typer.Option(help="Lengths of the calls, e.g. 1,10,60.")] = "1,10,60",
    picture_up_to: Annotated[
        int, typer.Option(help="Compose the one picture for calls up to this many minutes.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """From the end of a call to files that play, and to the one picture: time and CPU."""
    from bench.finalise import run

    result = run([int(each) for each in minutes.split(",")], with_picture_up_to=picture_up_to)
    for row in result["rows"]:
        typer.echo(
            json.dumps(row)
            if as_json
            else f"{row['minutes']:.0f} min: playable after {row['playable_s']:.2f} s "
            f"(target {row['target_s']:.2f}), {row['cpu_s_per_call_min']:.2f} CPU-s per call-minute"
        )
    if as_json:
        typer.echo(json.dumps({key: value for key, value in result.items() if key != "rows"}))


@bench.command("join")
def bench_join(
    count: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    kinds: Annotated[str, typer.Option(help="thin, chromium or both.")] = "thin,chromium",
    as_json: AsJson = False,
) -> None:
    """From a Grant to the other party's picture, over and over; Chromium and a thin client."""
    from bench.join import run

    result = run(count, kinds.split(","))
    for row in result["rows"]:
        typer.echo(
            json.dumps(row)
            if as_json
            else f"{row['kind']}: p50 {row['p50_ms']:.0f} ms, p95 {row['p95_ms']:.0f} ms, "
            f"worst {row['worst_ms']:.0f} ms over {row['joins']} joins"
        )
    if as_json:
        typer.echo(json.dumps({key: value for key, value in result.items() if key != "rows"}))


@bench.command("mixed")
def bench_mixed(
    calls: Annotated[int, typer.Option(min=1, max=100)] = 10,
    seconds: Annotated[int, typer.Option(min=2, max=600)] = 20,
    as_json: AsJson = False,
) -> None:
    """Calls while the API is asked and a recording is finished; one room process and two."""
    from bench.mixed import run

    result = run(calls, seconds)
    for row in result["rows"]:
        typer.echo(
            json.dumps(row)
            if as_json
            else f"{row['how']}: {row['lost']} lost, p99 {row['delay_ms']['p99']:.2f} ms"
        )
    if as_json:
        typer.echo(json.dumps({key: value for key, value in result.items() if key != "rows"}))


Directory = Annotated[
    Path, typer.Argument(help="A recording's directory, e.g. var/recordings/<id>.")
]


@recording.command("inspect")
def recording_inspect(directory: Directory, as_json: AsJson = False) -> None:
    """What is in a recording: journals, tracks, marks, gaps. Works on a live or torn one too."""
    from media import manifest

    if as_json:
        typer.echo(json.dumps(manifest.inspect(directory), ensure_ascii=False))
    else:
        typer.echo(manifest.inspect_text(directory))


@recording.command("verify")
def recording_verify(
    directory: Directory,
    key: Annotated[
        str, typer.Option(help="The public key (base64) by which it must be signed.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Read everything again and compare it with the manifest. Changes nothing."""
    from media import manifest

    result = manifest.verify(directory)
    if key and result.signed_by != key:
        words = "This recording is not signed by that key."
        problem = manifest.Problem("manifest.sig", "other_key", words)
        result = replace(result, problems=(*result.problems, problem))
    if as_json:
        typer.echo(json.dumps(asdict(result), ensure_ascii=False))
    else:
        for problem in result.problems:
            typer.echo(f"{problem.path}: {problem.words}")
        typer.echo(f"{result.journals} journals, {len(result.problems)} problems")
        typer.echo(f"signed by {result.signed_by}" if result.signed_by else "not signed")
    if result.problems:
        raise typer.Exit(1)


@recording.command("recover")
def recording_recover(directory: Directory) -> None:
    """Cut torn tails, seal, write the manifest: what a restart does by itself. Idempotent."""
    from media import manifest
    from media.signing import Signer

    book = manifest.recover(directory, signer=Signer.at(settings().signing_key_file))
    typer.echo(f"sealed: {len(book.journals)} journals")


@recording.command("recompose")
def recording_recompose(
    directory: Directory,
    out: Annotated[Path, typer.Argument(help="Where the files go; made if missing.")],
) -> None:
    """Make the playable files again from the journals, apart from the ones in use."""
    from media.mux import mux

    result = mux(directory, out)
    for file in result.files:
        typer.echo(f"{out / file.path}  {file.duration_ms / 1000:.1f} s  {file.label}")


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
    typer.echo(json.dumps(result) if as_json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    faults = ("double", "lost_confirmations", "unexplained", "errors", "audit_broken_at")
    if any(result.get(fault) for fault in faults):
        raise typer.Exit(1)


@drill.command("network")
def drill_network(
    *,
    seconds: Annotated[float, typer.Option(min=4, max=600)] = 20,
    only: Annotated[list[str] | None, typer.Option(help="A condition's name; repeatable.")] = None,
    client: Annotated[str, typer.Option(help="chromium or aiortc")] = "chromium",
    save: Annotated[Path | None, typer.Option(help="Keep all rows in this file.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Print a Markdown table too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Calls over bad lines (loss, bursts, delay, bottlenecks): what is heard, seen, recorded."""
    from bench.netlab import LabUnavailable
    from bench.network import as_table, in_words, run

    async def campaign() -> list[dict[str, Any]]:
        rows = []
        async for row in run(seconds, only or (), client):
            rows.append(row)
            typer.echo(json.dumps(row, ensure_ascii=False) if as_json else in_words(row))
        return rows

    try:
        rows = asyncio.run(campaign())
    except (LabUnavailable, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    if table:
        typer.echo(as_table(rows))
    if save is not None:
        save.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not rows[-1]["ok"]:
        raise typer.Exit(1)


@drill.command("outage")
def drill_outage(
    count: Annotated[int, typer.Option(min=1, help="Rounds of every kind on each lane.")] = 1,
    outage: Annotated[str, typer.Option(help="Lengths of link outages, s.")] = "5,10,20,30",
    kinds: Annotated[str, typer.Option()] = "link,reload,kill,nat,socket,clock,server",
    lanes: Annotated[int, typer.Option(min=1, max=16, help="Calls at the same time.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Cut lines, rebind NATs, kill browsers and the server under real pages: when is media back?"""
    from bench.outage import Plan, run

    lengths = tuple(int(word) for word in outage.split(","))
    last: dict[str, object] = {}
    for last in run(Plan(count, lanes, tuple(kinds.split(",")), lengths)):
        words = json.dumps(last) if as_json else "  ".join(f"{k}: {v}" for k, v in last.items())
        typer.echo(words)
    if last.get("failed") != 0:
        raise typer.Exit(1)


@drill.command("alignment")
def drill_alignment(
    *,
    minutes: Annotated[float, typer.Option(min=0.3, max=120)] = 10,
    loss: Annotated[float, typer.Option(min=0, max=20, help="Percent, each way.")] = 5,
    skew_ppm: Annotated[float, typer.Option(min=0, max=200)] = 100,
    delay_ms: Annotated[float, typer.Option(min=0, help="Of the hall's line, each way.")] = 30,
    keep: Annotated[Path | None, typer.Option(help="Leave the recording in this folder.")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep all rows in this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """A call with clocks that run wrong, loss and a rejoin: do its files still keep time?"""
    from bench.alignment import in_words, run
    from bench.netlab import LabUnavailable

    async def campaign() -> list[dict[str, object]]:
        rows = []
        async for row in run(minutes * 60, loss, skew_ppm, hall_delay_ms=delay_ms, keep=keep):
            rows.append(row)
            typer.echo(json.dumps(row, ensure_ascii=False) if as_json else in_words(row))
        return rows

    try:
        rows = asyncio.run(campaign())
    except LabUnavailable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    if save is not None:
        save.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not rows[-1]["ok"]:
        raise typer.Exit(1)


@kiosk.command("code")
def kiosk_code(
    name: Annotated[str, typer.Argument(help="The kiosk's name, e.g. 甘孜县一号机")],
) -> None:
    """A new one-time enrolment code for a kiosk that is already listed."""
    from app.seed import fresh_kiosk_code

    typer.echo(asyncio.run(fresh_kiosk_code(settings(), name)))


@cli.command("grant")
def grant_device(
    number: Annotated[str, typer.Argument(help="The appointment's number, as on the slip.")],
    kind: Annotated[
        str, typer.Option(help="hall_camera, document_camera or hall_screen")
    ] = "hall_camera",
    first: Annotated[
        str, typer.Option(help="Whose picture a screen shows first: petitioner or official")
    ] = "petitioner",
    as_json: AsJson = False,
) -> None:
    """Let a device without a browser into one talk: its address and its Grant."""
    from app.device_grants import device_grant, encoder_command
    from core.clock import SystemClock
    from scheduling.schemas import DeviceGrantCreate

    try:
        wanted = DeviceGrantCreate.model_validate({"kind": kind, "first": first})
    except ValidationError as error:
        for fault in error.errors():
            typer.echo(f"--{fault['loc'][0]}: {fault['msg']}", err=True)
        raise typer.Exit(2) from error
    now = SystemClock().now()
    made = asyncio.run(device_grant(settings(), number, wanted.kind, first=wanted.first, now=now))
    if as_json:
        typer.echo(made.model_dump_json())
        return
    typer.echo(f"address  {made.url}")
    typer.echo(f"Grant    {made.grant}")
    typer.echo(f"until    {made.expires_at:%Y-%m-%d %H:%M} UTC")
    if made.publishes:
        typer.echo(f"\n{encoder_command(made)}")


@audit.command("verify")
def audit_verify() -> None:
    """Walk the whole chain; say where it breaks, if it does."""
    from core.audit import verify
    from core.db import Database

    async def walk() -> int | None:
        database = Database(settings().database)
        try:
            async with database.reading() as tx:
                return await verify(tx)
        finally:
            await database.close()

    broken_at = asyncio.run(walk())
    if broken_at is not None:
        typer.echo(f"The chain breaks at line {broken_at}. Keep this database as it is.")
        raise typer.Exit(1)
    typer.echo("Every line fits the chain.")


def main() -> None:
    """The console script. Known errors are one line; a traceback is a bug."""
    try:
        cli()
    except ReceptionError as error:
        typer.echo(error.message, err=True)
        sys.exit(1)
