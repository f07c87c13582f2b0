"""The steps from a captured recording to files that play, as a child process runs them.

`python -m media.finishing STEP…` reads its job as JSON from standard input, runs the steps in turn
and answers with JSON lines: `{"step": …, "percent": …}` while one works, `{"step": …, "done": …}`
when it is through, `{"step": …, "error": …, "code": …}` where it stops. A child, because this is
CPU work that must not disturb a room; at low priority and bounded, because a bad file must not take
the machine with it. Every step may be run again, at any time, from the start; one that is through
leaves a note in `work`, so that a crash after it does not cost its labour a second time. The caller
holds the recording's finishing lock.

After SEAL and MUX the parties' files can be watched: they open, seek and play at both ends. What
takes long, decoding everything and composing the one picture, comes after.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import av

from core.errors import ReceptionError
from media import ffmpeg as runner
from media import manifest, mux
from media.chain import Chain
from media.ffmpeg import Limits
from media.journal import JournalUnreadable
from media.mux import MuxedFile, MuxResult
from media.signing import Signer
from media.speech import Listener
from media.verification import verify

SEAL_PATIENCE_S: Final = 60.0
"""The hub that ended the session may still be closing its journals."""
DURATION_SLACK_MS: Final = 500
Tell = Callable[[int], None]


class Step(StrEnum):
    """In the order in which they run."""

    SEAL = "seal"
    MUX = "mux"
    VERIFY = "verify"
    POSTER = "poster"
    COMPOSE = "compose"


class NotVerified(ReceptionError):
    """What was made does not hold what was recorded, or what was recorded has changed."""

    code = "not_verified"


@dataclass(frozen=True, slots=True)
class Job:
    """What a child needs to know. Paths are absolute; `work` is below `recording`."""

    recording: str
    work: str
    ffmpeg: str
    started_at: str
    limits: Limits
    """What this child, and the ffmpeg below it, may take."""
    case_number: str = ""
    font: str = ""
    signing_key: str = ""
    """Empty: the book is closed without a signature."""
    is_chained: bool = False
    """Whether the book follows those of its neighbours, as a house's does."""
    leaves_out: bool = False
    """Whether to do without what the disk does not give, and to name it: not at the first try."""

    @classmethod
    def decode(cls, text: str) -> "Job":
        """What `json.dumps(asdict(job))` wrote. Raises ValueError, KeyError or TypeError."""
        value = json.loads(text)
        return cls(**{**value, "limits": Limits(**value["limits"])})


def perform(step: Step, job: Job, tell: Tell) -> dict[str, Any]:
    """Do one step, or find it done; its result is JSON-ready. Raises what the step raises, in
    words."""
    note = _Note.of(step, job)
    if note is not None and (known := note.read()) is not None:
        tell(100)
        return known
    done = _labour(step, job, tell)
    if note is not None:
        note.write(done)
    return done


def _labour(step: Step, job: Job, tell: Tell) -> dict[str, Any]:
    match step:
        case Step.SEAL:
            book = manifest.recover(
                Path(job.recording),
                patience_s=SEAL_PATIENCE_S,
                signer=Signer.at(Path(job.signing_key)) if job.signing_key else None,
                succession=Chain(Path(job.recording).parent) if job.is_chained else None,
                leaving_out=job.leaves_out,
            )
            return {"journals": len(book.journals), "sealed_by": book.sealed_by}
        case Step.MUX:
            return asdict(_playable(job, tell))
        case Step.VERIFY:
            return asdict(_verified(job, tell))
        case Step.POSTER:
            from media import compose  # noqa: PLC0415  not for the steps people wait for

            _files(job, _silent)
            checked = compose.poster(Path(job.work), ffmpeg_path=job.ffmpeg)
            return _described(Path(job.work) / compose.POSTER_NAME, checked)
        case Step.COMPOSE:
            from media import compose  # noqa: PLC0415  not for the steps people wait for

            _files(job, _silent)
            font = Path(job.font) if job.font else None
            caption = compose.Caption(job.case_number, datetime.fromisoformat(job.started_at), font)
            checked = compose.compose(
                Path(job.work), caption, ffmpeg_path=job.ffmpeg, progress=tell
            )
            return _described(Path(job.work) / compose.COMPOSED_NAME, checked)


@dataclass(frozen=True, slots=True)
class _Note:
    """That a long step is through, and with what: good for as long as the files that it was made
    from, the labels that it was made with, and what it made are the same."""

    path: Path
    made_from: str

    @classmethod
    def of(cls, step: Step, job: Job) -> "_Note | None":
        """None for the steps that find their own results, and before there is anything to note."""
        if step in (Step.SEAL, Step.MUX):
            return None
        work = Path(job.work)
        if mux.read_result(work) is None:
            return None
        files = manifest.digests(work / mux.RESULT_NAME)[0]
        labels = (job.case_number, job.started_at, job.font) if step is Step.COMPOSE else ()
        return cls(work / f"{step}.done.json", " ".join((files, *labels)))

    def read(self) -> dict[str, Any] | None:
        try:
            value = json.loads(self.path.read_bytes())
            done: dict[str, Any] = value["done"]
            is_good = value["made_from"] == self.made_from and self._stands(done)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return done if is_good else None

    def _stands(self, done: dict[str, Any]) -> bool:
        """Whether what the step made is still what it made."""
        if "path" not in done:
            return True
        path = self.path.with_name(done["path"])
        return path.is_file() and manifest.digests(path)[0] == done["sha256"]

    def write(self, done: dict[str, Any]) -> None:
        text = json.dumps({"made_from": self.made_from, "done": done}, ensure_ascii=False)
        manifest.write_durably(self.path, text.encode())


def _silent(_percent: int) -> None:
    """For work whose progress is not this step's."""


def _files(job: Job, tell: Tell, *, hoping: bool = False) -> MuxResult:
    """The muxed files: those already there if they are complete, else new ones. `hoping`: and if
    nothing had to be left out of them, for it may be there again."""
    work = Path(job.work)
    existing = mux.read_result(work)
    if (
        existing is not None
        and all(_is_whole(work, file) for file in existing.files)
        and not (hoping and existing.unread)
    ):
        return existing
    return mux.mux(
        Path(job.recording),
        work,
        lambda done, total: tell(done * 100 // max(total, 1)),
        with_speech=False,  # VERIFY decodes the sound anyway
        leaving_out=job.leaves_out or _was_left_out(job),
    )


def _was_left_out(job: Job) -> bool:
    """Whether the book was closed over a disk that did not give everything."""
    book = manifest.read_manifest(Path(job.recording))
    return book is not None and (
        bool(book.unreadable) or any(entry.unread for entry in book.journals)
    )


def _is_whole(work: Path, file: MuxedFile) -> bool:
    path = work / file.path
    return path.is_file() and path.stat().st_size == file.bytes


def _playable(job: Job, tell: Tell) -> MuxResult:
    """The muxed files; each opens, seeks and plays at both ends. Raises `NotVerified`."""
    result = _files(job, tell, hoping=True)
    for file in result.files:
        _has_length(file, runner.glance(Path(job.work) / file.path))
    return result


def _has_length(file: MuxedFile, duration_ms: int) -> None:
    if abs(duration_ms - file.duration_ms) > DURATION_SLACK_MS:
        raise NotVerified(f"{file.path} does not have the length of what was recorded.")


def _verified(job: Job, tell: Tell) -> MuxResult:
    """The journals are what was sealed, and every file plays to its end; now also who spoke when.

    Raises `NotVerified`.
    """
    found = verify(Path(job.recording))
    if not found.is_intact:
        words = "; ".join(f"{problem.path}: {problem.words}" for problem in found.problems[:5])
        if all(problem.code == "disk" for problem in found.changes):
            raise JournalUnreadable(words)
        raise NotVerified(f"The journals have changed since they were sealed. {words}")
    result = _files(job, _silent)
    problems = list(result.problems)
    files: list[MuxedFile] = []
    for index, file in enumerate(result.files):
        path = Path(job.work) / file.path
        if manifest.digests(path)[0] != file.sha256:
            raise NotVerified(f"{file.path} has changed since it was made.")

        def share(percent: int, index: int = index) -> None:
            tell((index * 100 + percent) // len(result.files))

        listener = Listener()
        checked = runner.decode_fully(path, share, listener.hear)
        _has_length(file, checked.duration_ms)
        if checked.refused:
            problems.append(f"{file.path}: {checked.refused} samples cannot be decoded")
        files.append(replace(file, speech=listener.spans(file.offset_ms)))
    return replace(result, files=tuple(files), problems=tuple(problems))


def _described(path: Path, checked: runner.Checked) -> dict[str, Any]:
    return {
        **asdict(checked),
        "path": path.name,
        "bytes": path.stat().st_size,
        "sha256": manifest.digests(path)[0],
    }


def main(argv: Sequence[str]) -> int:
    """The child's whole life. Exit code 0 only after `done` has been said for every step."""
    if not argv or any(name not in list(Step) for name in argv):
        sys.stderr.write(f"usage: python -m media.finishing {'|'.join(Step)} … < job.json\n")
        return 2
    job = Job.decode(sys.stdin.read())
    job.limits.confine()
    return 0 if all(_try(Step(name), job) for name in argv) else 1


def _try(step: Step, job: Job) -> bool:
    """Run one step and say how it went. False if it failed."""
    told = -1

    def tell(percent: int) -> None:
        nonlocal told
        if percent > told:
            told = percent
            _say({"step": step, "percent": percent})

    tell(0)
    try:
        done = perform(step, job, tell)
    except ReceptionError as problem:
        details = problem.details
        _say({"step": step, "error": problem.message, "code": problem.code, "details": details})
        return False
    except (OSError, MemoryError, av.FFmpegError) as problem:
        words = f"The machine refused: {problem or 'not enough memory'}"
        _say({"step": step, "error": words, "code": "machine_refused", "details": {}})
        return False
    _say({"step": step, "done": done})
    return True


def _say(value: dict[str, Any]) -> None:
    # The parent may be gone; what was made stays and the step is repeated by the next one.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    runner.restrain()
    sys.exit(main(sys.argv[1:]))
