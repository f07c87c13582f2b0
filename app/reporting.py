"""What `reception bench` and `reception drill` have in common: how they say what they found.

Every command prints its rows as they come and its result last, and `--save` keeps all of them as
they were printed: that file is what belongs into bench/results/.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Row = dict[str, Any]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; the last line is the result.")]
Against = Annotated[str | None, typer.Option(help="janus: Debian's Janus in turns with ours.")]
Save = Annotated[Path | None, typer.Option(help="Keep all rows, and last the result, here.")]


class Report:
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


def numbers_in(text: str, most: int) -> list[int]:
    """`1,10,20` as numbers from 1 to `most`."""
    numbers = [int(part) if part.isdecimal() else 0 for part in text.replace(" ", "").split(",")]
    if not all(1 <= number <= most for number in numbers):
        raise typer.BadParameter(f"Give numbers from 1 to {most}, with commas between them.")
    return numbers


def is_against_janus(against: str | None) -> bool:
    if against not in (None, "janus"):
        raise typer.BadParameter("Only janus can be measured against.")
    return against is not None


def cannot_run(why: Exception) -> typer.Exit:
    typer.echo(str(why), err=True)
    return typer.Exit(2)


@contextmanager
def proving(report: Report, *cannot: type[Exception]) -> Iterator[None]:
    """A drill's end: 2 if one of `cannot` says that this machine cannot run it, 1 if the result,
    which is the last row, says that a promise was broken."""
    try:
        yield
    except cannot as error:
        raise cannot_run(error) from error
    if not report.keep()[-1]["ok"]:
        raise typer.Exit(1)


async def tell_as_they_come(rows: AsyncIterator[Row], report: Report) -> list[Row]:
    """Tell each row as it comes, the result among them as the last."""
    async for row in rows:
        report.row(row)
    return report.keep()


def tell_all(rows: Iterable[Row], report: Report) -> list[Row]:
    for row in rows:
        report.row(row)
    return report.keep()


def in_a_line(row: Row) -> str:
    return "  ".join(f"{name}: {value}" for name, value in row.items())


def line_by_line(row: Row) -> str:
    return "\n".join(f"{name}: {value}" for name, value in row.items())
