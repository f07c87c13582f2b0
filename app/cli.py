"""`reception …`: what an operator types. Words for people, `--json` for programs.

Each command imports what it needs when it runs, so that `reception --help` is quick. What measures
and what proves (`bench`, `drill`) stands in cli_bench.py and cli_drill.py.
"""

import asyncio
import gc
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from app.cli_bench import bench
from app.cli_drill import drill
from core.errors import ReceptionError
from core.settings import Settings

if TYPE_CHECKING:
    from media.verification import Problem

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
recording = typer.Typer(no_args_is_help=True, help="Look into, check and repair recordings.")
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
    # A talk waits while a killed server loads again: nothing of what is loaded is garbage, and
    # looking through it takes a quarter of that time. app.serve turns it on when it has started.
    gc.disable()
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


Directory = Annotated[
    Path,
    typer.Argument(
        exists=True, file_okay=False, help="A recording's directory, e.g. var/recordings/<id>."
    ),
]


@recording.command("inspect")
def recording_inspect(directory: Directory, as_json: AsJson = False) -> None:
    """What is in a recording: journals, tracks, marks, gaps. Works on a live or torn one too."""
    from media import inspection

    if as_json:
        typer.echo(json.dumps(inspection.inspect(directory), ensure_ascii=False))
    else:
        typer.echo(inspection.inspect_text(directory))


@recording.command("verify")
def recording_verify(
    directory: Directory,
    key: Annotated[
        str, typer.Option(help="The public key (base64) by which it must be signed.")
    ] = "",
    chain: Annotated[
        bool,
        typer.Option("--chain", help="DIRECTORY holds all recordings: is one of them missing?"),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read everything again and compare it with the manifest. Changes nothing."""
    from media import erasure
    from media.verification import RESTORED, Problem, verify

    if chain:
        _verify_chain(directory, as_json=as_json)
        return
    result = verify(directory)
    is_erased = erasure.is_erased(directory)
    if is_erased:
        result = replace(result, problems=tuple(_beside_the_missing(directory, result.problems)))
    if key and result.signed_by != key:
        words = "This recording is not signed by that key."
        problem = Problem("manifest.sig", "other_key", words)
        result = replace(result, problems=(*result.problems, problem))
    if as_json:
        typer.echo(json.dumps(asdict(result), ensure_ascii=False))
    else:
        for problem in result.problems:
            typer.echo(f"{problem.path}: {problem.words}")
        typer.echo(f"{result.journals} journals, {len(result.problems)} problems")
        typer.echo(f"signed by {result.signed_by}" if result.signed_by else "not signed")
        if is_erased:
            typer.echo("deleted by the rules: certificate.json says when, and by whose word")
    if any(problem.code != RESTORED for problem in result.problems):
        raise typer.Exit(1)


def _beside_the_missing(directory: Path, problems: Iterable["Problem"]) -> Iterator["Problem"]:
    """Of a recording that was deleted by the rules only its certificate must be there and hold."""
    from cases import certificate
    from media import erasure
    from media.verification import Problem

    yield from (problem for problem in problems if problem.code != "missing")
    try:
        body = (directory / erasure.CERTIFICATE_NAME).read_bytes()
        is_whole = certificate.holds(
            body, (directory / erasure.CERTIFICATE_SIGNATURE_NAME).read_bytes()
        )
    except (OSError, ReceptionError):
        is_whole = False
    if not is_whole:
        words = "The certificate of the deletion is missing, or is not the one that was signed."
        yield Problem(erasure.CERTIFICATE_NAME, "certificate", words)


def _verify_chain(recordings: Path, *, as_json: bool) -> None:
    from media.chain import Chain

    result = Chain(recordings).verify()
    if as_json:
        typer.echo(json.dumps(asdict(result), ensure_ascii=False))
    else:
        for problem in result.problems:
            typer.echo(f"{problem.path}: {problem.words}")
        typer.echo(f"{result.links} in the chain, {result.unchained} from before it")
        typer.echo(f"the last is {result.head_sha256}" if result.head_sha256 else "no chain")
    if result.problems:
        raise typer.Exit(1)


@recording.command("recover")
def recording_recover(
    directory: Directory,
    leaving_out: Annotated[
        bool,
        typer.Option(
            "--leaving-out", help="Name in the manifest, for ever, what the disk does not give."
        ),
    ] = False,
) -> None:
    """Cut torn tails, seal, write the manifest: what a restart does by itself. Idempotent."""
    from media import manifest
    from media.chain import Chain
    from media.journal import JournalUnreadable
    from media.signing import Signer

    house = settings()
    # A recording that stands elsewhere, a copy for instance, is none of the house's chain.
    is_ours = directory.resolve().parent == house.recordings_dir.resolve()
    try:
        book = manifest.recover(
            directory,
            signer=Signer.at(house.signing_key_file),
            succession=Chain(directory.resolve().parent) if is_ours else None,
            leaving_out=leaving_out,
        )
    except JournalUnreadable as refused:
        typer.echo(refused.message, err=True)
        typer.echo("Restore it from a copy, or close the book --leaving-out that.", err=True)
        raise typer.Exit(1) from refused
    for entry in book.journals:
        for stretch in entry.unread:
            typer.echo(f"{entry.path}: left out {stretch.words}")
    for name in book.unreadable:
        typer.echo(f"{name}: left out")
    typer.echo(f"sealed: {len(book.journals)} journals")


@recording.command("scrub")
def recording_scrub(
    everything: Annotated[
        bool, typer.Option("--all", help="Not only what has not been looked at for six days.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read finished recordings again: has a bit flipped? What runs every night by itself."""
    from sqlalchemy.exc import DBAPIError

    from app.scrubbing import as_row, in_words, scrub_once
    from media.scrub import Look

    def tell(look: Look) -> None:
        if as_json:
            typer.echo(json.dumps(as_row(look), ensure_ascii=False))
        elif look.problems:
            typer.echo(in_words(look))

    try:
        report = asyncio.run(scrub_once(settings(), everything=everything, tell=tell))
    except DBAPIError as error:
        typer.echo(f"The database of this house does not answer: {error.orig}.", err=True)
        typer.echo("Is RECEPTION_VAR_DIR right? A new house is made by `serve`.", err=True)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(asdict(report), ensure_ascii=False))
    else:
        typer.echo(f"{report.recordings} looked at, {len(report.damaged)} damaged")
        typer.echo(f"{report.chain_links} in the chain, {report.chain_problems} problems")
    if report.damaged or report.chain_problems:
        raise typer.Exit(1)


@recording.command("recompose")
def recording_recompose(
    directory: Directory,
    out: Annotated[Path, typer.Argument(help="Where the files go; made if missing.")],
) -> None:
    """Make the playable files again from the journals, apart from the ones in use."""
    from media.mux import mux

    result = mux(directory, out, leaving_out=True)
    for words in result.unread:
        typer.echo(f"left out: {words}", err=True)
    for file in result.files:
        typer.echo(f"{out / file.path}  {file.duration_ms / 1000:.1f} s  {file.label}")


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
