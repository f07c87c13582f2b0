"""Question: what does kill -9 cost a recording, wherever and whenever it comes?

Three kinds of kill, each of the real thing:

    live     a node that records several calls, at a random moment (talking, beginning, ending);
             the next life goes on with the same sessions, or they are finished
    syscall  the same node, and each step that finishes a recording, before an exact system call;
             steps are killed up to three times in a row before they may work
    house    a whole server with database and durable work, around the end of its talks

What was lost is what callers had given to the relay's socket and no journal holds after recovery:
from the oldest such packet to the kill, for each party of each kill. A recording that had its
manifest must not change by a byte, whatever is killed afterwards; whoever is heard in the journals
must be heard in a file that decodes to its end; and every session has one case.

    run(plan) -> rows {"kind", "phase", "kills", "lost_ms", …};  summary(rows) -> the result
"""

import math
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import crash_house, crash_proof
from bench.circumstances import circumstances
from bench.clip import Clip, read_clip
from bench.crash_call import Sent, Talk, new_calls
from bench.crash_node import Life, finish, record
from bench.crash_strace import Point, Traced, traced
from bench.media_load import clip_file
from core.ids import new_id
from media import journal, manifest
from media.chain import Chain
from media.ffmpeg import Limits, ffmpeg_path
from media.finishing import Job, Step
from media.mux import MuxResult

KINDS: Final = ("live", "syscall", "house")
HOUSE_SHARE: Final = 0.04
SYSCALL_SHARE: Final = 0.4
CALLS_AT_ONCE: Final = 2
LIVES_AT_MOST: Final = 6
TALK_S: Final = (0.05, 1.5)
TRACED_TALK_S: Final = 1.2
KILLS_IN_A_ROW: Final = 3
KEPT_RECORDINGS: Final = 60
PROMISED_MS: Final = 100.0
LIMITS: Final = Limits.fit_for(64 * 1024 * 1024, 60.0)
PLAYS: Final = (Step.SEAL, Step.MUX, Step.VERIFY)
_WEIGHTS: Final = {
    "record": 6, "end": 3, "seal": 6, "mux": 4, "poster": 1, "compose": 1,
}  # fmt: skip
"""How often each phase is chosen to be killed in at a system call."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign of `kills`, from a seed; no new bout begins after `seconds`.

    The seed decides what is tried. When packets and threads really run is the machine's.
    """

    kills: int
    seed: int
    kinds: tuple[str, ...] = KINDS
    seconds: float = math.inf

    def share(self, kind: str) -> int:
        """How many of the kills are of this kind."""
        shares = {
            "house": max(1, round(self.kills * HOUSE_SHARE)) if "house" in self.kinds else 0,
            "syscall": round(self.kills * SYSCALL_SHARE) if "syscall" in self.kinds else 0,
        }
        first = next(name for name in KINDS if name in self.kinds)
        shares[first] = self.kills - sum(n for name, n in shares.items() if name != first)
        return shares.get(kind, 0)


def run(plan: Plan, earlier: Sequence[Row] = ()) -> Iterator[Row]:
    """The rows of a campaign as they come. `earlier`: those of a part that has been run before.

    Needs root, strace and the loopback. Raises RuntimeError if this machine does not let it.
    """
    if set(plan.kinds) - {"live"} and shutil.which("strace") is None:
        raise RuntimeError("The crash drill needs strace to kill at system calls.")
    until = time.monotonic() + plan.seconds
    seed = random.Random(f"{plan.seed}/{len(earlier)}")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reception-crash-")))
        clip = read_clip(stack.enter_context(clip_file()))
        stage = _Stage(root, clip, seed)
        for kind in plan.kinds:
            left = plan.share(kind) - sum(row["kills"] for row in earlier if row["kind"] == kind)
            if left <= 0:
                continue
            match kind:
                case "live":
                    bouts = stage.live(left)
                case "syscall":
                    bouts = stage.syscall(left)
                case _:
                    bouts = crash_house.run(root / "house", seed, left, until)
            for row in bouts:
                yield row | {"kind": kind, "load_1min": round(os.getloadavg()[0], 2)}
                left -= row["kills"]
                # A house ends by itself: its last row is the verdict over all before.
                if kind != "house" and (left <= 0 or time.monotonic() > until):
                    break
        yield {"kind": "archive", "phase": "kept", "kills": 0} | stage.check_archive()


def summary(rows: Iterable[Row]) -> Row:
    """What a campaign came to; `ok` if every promise was kept."""
    rows = [row for row in rows if "kind" in row]
    kills = sum(row["kills"] for row in rows)
    faults = {
        name: sum(len(row.get(name, ())) for row in rows)
        for name in ("unplayable", "finalised_lost", "cases_missing", "cases_doubled", "trouble")
    }
    lost = _quantiles(rows)
    return {
        "kills": kills,
        "lost_ms": lost,
        **faults,
        "ok": not any(faults.values()) and (lost["p999"] or 0) <= PROMISED_MS,
        "of_0_in": f"0 in {kills} means below {3 / max(kills, 1):.2%} (95 %)",
        "kinds": {
            kind: _of_kind([row for row in rows if row["kind"] == kind])
            for kind in KINDS
            if any(row["kind"] == kind for row in rows)
        },
        "recordings": sum(row.get("recordings", 0) for row in rows),
        "sessions_with_one_case": sum(row.get("sessions", 0) for row in rows),
        "callers_late_ms": max((row.get("late_ms", 0.0) for row in rows), default=0.0),
        "load_1min_most": max((row.get("load_1min", 0.0) for row in rows), default=0.0),
        **circumstances(),
    }


def _of_kind(rows: list[Row]) -> Row:
    phases: Counter[str] = Counter()
    for row in rows:
        if row["phase"] == "lives":
            phases.update(row["points"])
        elif row["kills"]:
            phases[row["phase"]] += row["kills"]
    return {
        "kills": sum(row["kills"] for row in rows),
        "points_not_reached": sum(row.get("missed", 0) for row in rows),
        "phases": dict(sorted(phases.items())),
        "lost_ms": _quantiles(rows),
    }


def _quantiles(rows: Iterable[Row]) -> Row:
    """Nearest rank: the p99.9 of less than a thousand is the worst."""
    lost = sorted(value for row in rows for value in row.get("lost_ms", ()))

    def at(share: float) -> float | None:
        return lost[math.ceil(share * len(lost)) - 1] if lost else None

    return {
        "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0), "samples": len(lost),
    }  # fmt: skip


def in_words(row: Row) -> str:
    """A row in a line, for people."""
    lost = max(row.get("lost_ms", ()), default=None)
    faults = [
        words
        for name in ("unplayable", "finalised_lost", "cases_missing", "cases_doubled", "trouble")
        for words in row.get(name, ())
    ]
    worst = "" if lost is None else f", at most {lost:.0f} ms lost"
    return f"{row['kind']} {row['phase']}: {row['kills']} kills{worst}. {'; '.join(faults)}".strip()


# -- The stage -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Bout:
    """Some sessions, and what the kills did to them."""

    phase: str
    calls: dict[str, tuple[str, ...]]
    kills: int = 0
    missed: int = 0
    late_ms: float = 0.0
    sent: list[tuple[int, list[Sent]]] = field(default_factory=list)
    """For each life: when it was killed (CLOCK_MONOTONIC ns), and what each party had sent."""
    points: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)


class _Stage:
    """Recordings below one directory, the clip that everybody sends, and the dice."""

    def __init__(self, root: Path, clip: Clip, seed: random.Random) -> None:
        self._root = root / "recordings"
        self._root.mkdir()
        self._signing_key = root / "signing-key"
        self._clip = clip
        self._seed = seed
        self._archive: dict[Path, dict[str, str]] = {}
        self._archived = 0
        self._archive_lost: list[str] = []

    # A node at random moments.

    def live(self, left: int) -> Iterator[Row]:
        """Bouts of one to six lives with the same sessions, until enough is enough."""
        while True:
            bout = _Bout("lives", new_calls(CALLS_AT_ONCE))
            for _ in range(min(self._seed.randint(1, LIVES_AT_MOST), left)):
                self._live_once(bout)
            left -= bout.kills
            yield self._judge(bout)

    def _live_once(self, bout: _Bout) -> None:
        """One life: everyone comes (back), talks, and the node is killed."""
        life, talk = self._meet(bout)
        moment = self._seed.choices(("talking", "beginning", "ending"), (7, 1, 2))[0]
        if moment == "beginning":
            life.tell("live")
            talk.drive(self._seed.uniform(0, 0.15))
        else:
            life.ask("live")
            talk.count()
            talk.drive(self._seed.uniform(*TALK_S))
        if moment == "ending":
            life.tell("end")
            time.sleep(self._seed.uniform(0, 0.03))
        bout.points.append(moment)
        life.kill()
        self._bury(bout, life, talk)

    def _meet(self, bout: _Bout) -> tuple[Life, Talk]:
        life = Life(record, self._root)
        talk = Talk(life, self._clip, self._seed)
        talk.connect(bout.calls)
        return life, talk

    def _bury(self, bout: _Bout, life: Life, talk: Talk) -> None:
        # Read after the signal was sent: what was given to the socket until now had arrived.
        killed_ns = time.monotonic_ns()
        code = life.ended()
        talk.hang_up()
        bout.late_ms = max(bout.late_ms, talk.late_ms)
        bout.sent.append((killed_ns, talk.sent()))
        if code == -9:
            bout.kills += 1
        else:
            bout.trouble.append(f"a node ended with {code} instead of by kill -9")

    # A node, and the steps after a call, at exact system calls.

    def syscall(self, left: int) -> Iterator[Row]:
        """Bouts at points that are drawn, without repetition, from all that there are."""
        torn, closed = self._specimens()
        points: dict[str, list[Point]] = {}
        while True:
            phase = self._seed.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            if not points.get(phase):
                points[phase] = self._points(phase, torn, closed)
            mine = points[phase]
            if phase in ("record", "end"):
                yield self._kill_node_at(phase, mine.pop())
            else:
                count = min(self._seed.randint(1, KILLS_IN_A_ROW), len(mine), left)
                chain = [mine.pop() for _ in range(count)]
                row = self._kill_step_at(Step(phase), chain, torn if phase == "seal" else closed)
                left -= row["kills"]
                yield row

    def _specimens(self) -> tuple["_Specimen", "_Specimen"]:
        """A recording as two killed lives left it, and one whose files are made."""
        bout = _Bout("specimen", new_calls(1))
        for _ in range(2):
            life, talk = self._meet(bout)
            life.ask("live")
            talk.count()
            talk.drive(1.5)
            life.kill()
            self._bury(bout, life, talk)
        [session_id] = bout.calls
        torn, closed = (self._root.parent / name / "recording" for name in ("torn", "closed"))
        torn.parent.mkdir()
        (self._root / session_id).rename(torn)
        shutil.copytree(torn, closed)
        self._finish(closed, [Step.SEAL, Step.MUX])
        sent = [one for _, sents in bout.sent for one in sents]
        return _Specimen(torn, sent), _Specimen(closed, sent)

    def _points(self, phase: str, torn: "_Specimen", closed: "_Specimen") -> list[Point]:
        """Where a phase touches the disk, found by watching it once unharmed; shuffled."""
        if phase in ("record", "end"):
            bout = _Bout(phase, new_calls(1))
            found = self._watch_node(phase, bout, None).points(self._root)
            self._discard(bout)
        else:
            copy = self._copy(torn if phase == "seal" else closed, Step(phase))
            life = Life(finish, self._job(copy), [Step(phase)])
            life.hear()
            with traced(life.pid) as watched:
                life.ask("go")
                life.ended()
            found = watched.points(copy.parent)
            shutil.rmtree(copy.parent)
        self._seed.shuffle(found)
        return found

    def _kill_node_at(self, phase: str, point: Point) -> Row:
        bout = _Bout(phase, new_calls(1), points=[_named(point)])
        self._watch_node(phase, bout, point)
        return self._judge(bout)

    def _watch_node(self, phase: str, bout: _Bout, kill_at: Point | None) -> Traced:
        """A life that begins to record, or ends, under strace, and is dead afterwards."""
        life, talk = self._meet(bout)
        if phase == "end":
            life.ask("live")
            talk.count()
            talk.drive(self._seed.uniform(0.3, 0.8))
        with traced(life.pid, kill_at=kill_at) as watched:
            if phase == "end":
                life.tell("end")
                life.last_words()
            else:
                life.tell("live")
                if life.last_words() is not None:
                    talk.count()
                    talk.drive(TRACED_TALK_S)
            # Who never came to that call is killed all the same, but not at it.
            bout.missed += not life.is_over()
            life.kill()
            self._bury(bout, life, talk)
        return watched

    def _kill_step_at(self, step: Step, chain: Sequence[Point], specimen: "_Specimen") -> Row:
        """Kill a step again and again in the same recording, then let everything through."""
        copy = self._copy(specimen, step)
        before = crash_proof.recorded(copy)
        finalised = crash_proof.fingerprint(copy) if step is not Step.SEAL else {}
        bout = _Bout(step.value, {}, points=[_named(point) for point in chain])
        lost: list[str] = []
        for point in chain:
            life = Life(finish, self._job(copy), [step])
            life.hear()
            with traced(life.pid, kill_at=point) as watched:
                life.tell("go")
                life.last_words()
                life.ended()
            bout.kills += watched.was_killed()
            bout.missed += not watched.was_killed()
            lost += crash_proof.changed(finalised, copy)
            if (copy / manifest.FILE_NAME).exists():
                finalised = crash_proof.fingerprint(copy)
        # VERIFY last: what it found is what is judged.
        steps = list(dict.fromkeys((Step.SEAL, Step.MUX, step, Step.VERIFY)))
        problems = self._finish_and_play(copy, steps, specimen.sent)
        lost += crash_proof.changed(finalised, copy)
        if not crash_proof.recorded(copy) >= before:
            bout.trouble.append("packets that could be read before are gone")
        bout.trouble += _chain_problems(copy.parent)
        shutil.rmtree(copy.parent)
        return self._row(bout, [], problems, recordings=1) | {"finalised_lost": lost}

    # What is left.

    def _judge(self, bout: _Bout) -> Row:
        """Finish every session of a bout, and hold what there is against what was sent."""
        lost: list[float] = []
        beyond: list[str] = []
        problems: list[str] = []
        recordings = 0
        for session_id, participants in bout.calls.items():
            directory = self._root / session_id
            if not directory.is_dir() or not journal.journals_in(directory):
                kept: set[crash_proof.RtpKey] = set()
            else:
                recordings += 1
                mine = [
                    sent for _, sents in bout.sent for sent in sents
                    if sent.participant_id in participants
                ]  # fmt: skip
                problems += self._finish_and_play(directory, list(PLAYS), mine)
                kept = crash_proof.recorded(directory)
                self._keep(directory)
            for killed_ns, sents in bout.sent:
                for sent in sents:
                    ms = crash_proof.lost_ms(sent, kept, killed_ns)
                    if sent.participant_id not in participants or ms is None:
                        continue
                    lost.append(round(ms, 1))
                    if ms > PROMISED_MS:
                        talked_ms = (killed_ns - sent.packets[0][2]) / 1e6
                        beyond.append(f"{ms:.0f} of {talked_ms:.0f} ms")
        return self._row(bout, lost, problems, recordings) | {"beyond": beyond}

    def _finish_and_play(self, directory: Path, steps: list[Step], sent: list[Sent]) -> list[str]:
        """Recover, make the files, decode them; what does not play, in words."""
        expected = crash_proof.expected_of(sent, crash_proof.recorded(directory))
        answer = self._finish(directory, steps)
        if "refused" in answer:
            # Nobody was heard or seen: then there is nothing to play.
            return [answer["refused"]] if any(e.sound or e.picture for e in expected) else []
        result = MuxResult.from_json(answer["done"])
        refused = [
            words for words in result.problems
            if any(words.startswith(f"{file.path}:") for file in result.files)
        ]  # fmt: skip
        return [*crash_proof.unplayable(expected, result.files), *refused]

    def _finish(self, directory: Path, steps: list[Step]) -> dict[str, Any]:
        life = Life(finish, self._job(directory), steps)
        life.hear()
        answer = life.ask("go")
        life.ended()
        return answer

    def _job(self, directory: Path) -> Job:
        return Job(
            recording=str(directory), work=str(directory / "work"), ffmpeg=ffmpeg_path(None),
            started_at="2026-01-01T00:00:00+00:00", limits=LIMITS,
            signing_key=str(self._signing_key), is_chained=True,
        )  # fmt: skip

    def _row(self, bout: _Bout, lost: list[float], problems: list[str], recordings: int) -> Row:
        return {
            "phase": bout.phase, "kills": bout.kills, "missed": bout.missed, "points": bout.points,
            "lost_ms": lost, "recordings": recordings, "unplayable": problems,
            "trouble": bout.trouble, "late_ms": round(bout.late_ms, 1),
        }  # fmt: skip

    # What was finished stays finished.

    def _keep(self, directory: Path) -> None:
        """Remember a finalised recording as it is; the oldest is looked at again, and goes."""
        shutil.rmtree(directory / "work", ignore_errors=True)
        self._archive[directory] = crash_proof.fingerprint(directory)
        if len(self._archive) > KEPT_RECORDINGS:
            self._look_again(next(iter(self._archive)))

    def _look_again(self, directory: Path) -> None:
        lost = crash_proof.changed(self._archive.pop(directory), directory)
        self._archive_lost += [f"{directory.name}: {name}" for name in lost]
        self._archived += 1
        shutil.rmtree(directory, ignore_errors=True)

    def check_archive(self) -> Row:
        """How many finalised recordings outlived later kills, and which did not."""
        problems = _chain_problems(self._root)
        while self._archive:
            self._look_again(next(iter(self._archive)))
        return {
            "looked_at_again": self._archived,
            "finalised_lost": self._archive_lost,
            "trouble": problems,
        }

    def _copy(self, specimen: "_Specimen", step: Step) -> Path:
        """A copy in a house of its own, as it was before `step`."""
        copy = self._root.parent / new_id() / "recording"
        shutil.copytree(specimen.directory, copy)
        if step is Step.MUX:
            shutil.rmtree(copy / "work")
        return copy

    def _discard(self, bout: _Bout) -> None:
        for session_id in bout.calls:
            shutil.rmtree(self._root / session_id, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Specimen:
    """A recording to make copies of, and what its parties had sent."""

    directory: Path
    sent: list[Sent]


def _chain_problems(recordings: Path) -> list[str]:
    """What is wrong with the chain of a house's books, but for recordings that we took away."""
    found = Chain(recordings).verify().problems
    return [f"chain: {problem.words}" for problem in found if problem.code != "gone"]


def _named(point: Point) -> str:
    return f"{point[0]} {point[1]}"
