"""A live call whose disk fails: does the talk go on, is it told, is anything lost that need not be?

A real node records a real call (bench/crash_node.py, bench/crash_call.py: ICE, DTLS, SRTP on the
loopback). Its disk fails in two ways:

    full     a small tmpfs that another file fills, and that is freed again
    refuses  strace makes a system call on a journal fail with ENOSPC or EIO from its k-th time on

Mounting needs a mount namespace of our own: `python -m bench.sick_disk PLAN` runs one plan as JSON,
below `unshare --mount`, so that nothing stays mounted whatever happens.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from bench.circumstances import circumstances
from bench.clip import make_clip, read_clip
from bench.crash_call import Talk, new_calls
from bench.crash_node import Life
from core.clock import SystemClock
from core.ids import ParticipantId, RoomId, SessionId
from core.log import configure_logging
from media import journal, loop, manifest, party_tap, segment
from media.disk import OsDisk
from media.journal import LostPackets, RecordType
from media.node import MediaNode, MediaRoom, be_prompt
from media.recorder import Recorder
from media.rtp import HEADER
from media.tracks import TrackName
from media.verification import verify

HOUSE: Final = Path(__file__).resolve().parent.parent
LOOK_EVERY_S: Final = 0.05
BEFORE_S: Final = 1.5
FULL_S: Final = 5.0
AFTER_S: Final = 4.5
TOLD_WITHIN_MS: Final = 3000
HEARD_SHARE: Final = 0.9
TMPFS_MIB: Final = 6
BOOKED_BYTES: Final = 32 * 1024
"""Instead of the real figures, so that a fault is felt, and a buffer full, within seconds."""
BUFFERED_BYTES: Final = 192 * 1024


class CannotInject(Exception):
    """This machine does not let us mount, or trace."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One fault. An empty `call` is the full disk."""

    call: str = ""
    error: str = "ENOSPC"
    first: int = 1
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.call} {self.first}: {self.error}" if self.call else "a full disk"


WALK: Final = (
    *(Plan("write", error, first) for error in ("ENOSPC", "EIO") for first in (1, 2, 3, 8, 20)),
    *(Plan("fdatasync", error, first) for error in ("EIO", "ENOSPC") for first in (1, 2, 4)),
    *(Plan("fallocate", "ENOSPC", first) for first in (1, 2)),
    Plan("fallocate", "EOPNOTSUPP", 1),
)


# --- the life that records ------------------------------------------------------------------------


class _Witness(OsDisk):
    """The real disk; keeps when it refused something."""

    def __init__(self) -> None:
        self.refused_ns: list[int] = []

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.refused_ns.append(time.monotonic_ns())
            raise

    def create(self, path: Path) -> int:
        with self._noting():
            return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        with self._noting():
            return super().write(fd, data)

    def sync(self, fd: int) -> None:
        with self._noting():
            super().sync(fd)


def _record(pipe: Connection, directory: Path) -> None:
    """A life: one call, recorded in `directory`; its state is looked at all the time."""
    configure_logging(level="CRITICAL")
    segment.FIRST_BOOKED_BYTES = segment.MOST_BOOKED_BYTES = BOOKED_BYTES  # type: ignore[misc]
    party_tap.MAX_BUFFERED_BYTES = BUFFERED_BYTES  # type: ignore[misc]
    with contextlib.suppress(EOFError):
        loop.run(_Node(pipe, directory).run())


class _Node:
    def __init__(self, pipe: Connection, directory: Path) -> None:
        self._pipe = pipe
        self._directory = directory
        self._disk = _Witness()
        self._states: list[tuple[int, str]] = []
        self._room: MediaRoom | None = None
        self._recorder: Recorder | None = None

    async def run(self) -> None:
        node = await MediaNode.start(
            host="127.0.0.1", port=0, public_addresses=[], clock=SystemClock()
        )
        be_prompt()
        looking = asyncio.create_task(self._look(), name="look at the state")
        try:
            while True:
                message = await asyncio.to_thread(self._pipe.recv)
                verb = message.pop("verb")
                if verb == "open":
                    self._room = node.open_room(RoomId("room"))
                self._pipe.send(await getattr(self, verb)(**message))
        finally:
            looking.cancel()
            await node.aclose()

    async def _look(self) -> None:
        """As a hub does, only more often: each change of the state, and when."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._recorder is None:
                continue
            state = self._recorder.status().state.value
            if not self._states or self._states[-1][1] != state:
                self._states.append((time.monotonic_ns(), state))

    async def open(self, calls: dict[str, Sequence[str]]) -> dict[str, Any]:
        assert self._room is not None
        ((self._session_id, participants),) = calls.items()
        offers = []
        for place, participant_id in enumerate(participants):
            peer = self._room.add_peer(
                ParticipantId(participant_id), label=f"party {place}",
                role="official" if place else "petitioner",
                publishes=[TrackName.CAMERA, TrackName.MICROPHONE], on_event=lambda event: None,
            )  # fmt: skip
            offers.append(peer.offer().sdp)
        return {"offers": offers}

    async def answer(self, answers: list[str]) -> dict[str, Any]:
        assert self._room is not None
        for peer, sdp in zip(self._room.peers(), answers, strict=True):
            peer.answer(1, sdp)
        return {}

    async def live(self) -> dict[str, Any]:
        assert self._room is not None
        self._recorder = Recorder.open(
            self._directory, session_id=SessionId(self._session_id),
            started_at=datetime.now(UTC), clock=SystemClock(), disk=self._disk,
        )  # fmt: skip
        self._room.go_live(self._recorder)
        return {}

    async def end(self) -> dict[str, Any]:
        assert self._room is not None and self._recorder is not None
        lost = self._recorder.status().lost_packets
        await self._room.end()
        await self._recorder.close()
        return {"states": self._states, "refused_ns": self._disk.refused_ns, "lost": lost}


# --- one plan -------------------------------------------------------------------------------------


class _Call(Talk):
    """Knows how much all of its callers have heard of each other."""

    @property
    def heard(self) -> int:
        return sum(caller._heard.received for caller in self._callers)

    @property
    def said(self) -> int:
        return sum(len(caller.sent.packets) for caller in self._callers)


def carry_out(plan: Plan, clip: Path, scratch: Path) -> dict[str, Any]:
    """Hold a call, let its disk fail, say what became of it. In a mount namespace of our own."""
    if not plan.call:
        _mount(scratch)
    directory = scratch / "recordings" / "rec"
    life = Life(_record, directory)
    talk = _Call(life, read_clip(clip), random.Random(plan.seed))
    try:
        calls = new_calls(1)
        talk.connect(calls)
        who = next(iter(calls.values()))
        with _fault(plan, life.pid, directory, who) as fault:
            life.ask("live")
            talk.count()
            usual = _heard_of_said(talk, BEFORE_S)
            fault.strike()
            share = _heard_of_said(talk, FULL_S) / usual
            fault.heal()
            talk.drive(AFTER_S)
            end = life.ask("end")
    finally:
        talk.hang_up()
        life.kill()
        life.ended()
    return {
        "fault": plan.name, "injected": fault.injected(), "heard_meanwhile": round(share, 3),
        **_judged(plan, end, talk, directory), **circumstances(),
    }  # fmt: skip


def _heard_of_said(talk: _Call, seconds: float) -> float:
    """Talk so long; what everyone heard, by what everyone said meanwhile."""
    heard, said = talk.heard, talk.said
    talk.drive(seconds)
    return (talk.heard - heard) / max(1, talk.said - said)


class _Fault:
    """The full disk; `_Injected` is the other one."""

    def __init__(self, scratch: Path) -> None:
        self._ballast = scratch / "ballast"
        self._filled = 0

    def strike(self) -> None:
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (65536, 4096, 512):
                with contextlib.suppress(OSError):
                    while True:
                        self._filled += file.write(bytes(size))

    def heal(self) -> None:
        self._ballast.unlink()

    def injected(self) -> int:
        return self._filled


class _Injected(_Fault):
    def __init__(self, log: Path, strace: "subprocess.Popen[str]") -> None:
        self._log = log
        self._strace = strace

    def strike(self) -> None:
        pass  # it counts by itself

    def heal(self) -> None:
        self._strace.terminate()
        self._strace.communicate()

    def injected(self) -> int:
        return self._log.read_text(errors="replace").count("(INJECTED)")


@contextmanager
def _fault(plan: Plan, pid: int, directory: Path, who: Sequence[str]) -> Iterator[_Fault]:
    if not plan.call:
        yield _Fault(directory.parents[1])
        return
    log = directory.parents[1] / "strace"
    paths = [directory / journal.journal_name(ParticipantId(one), 1, 0) for one in who]
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={plan.call}"]
    for path in paths:
        command += ["-P", str(path)]
    inject = f"inject={plan.call}:error={plan.error}:when={plan.first}+"
    process = subprocess.Popen(
        [*command, "-e", inject, "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_until_traced(process, pid)
        yield _Injected(log, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _wait_until_traced(process: "subprocess.Popen[str]", pid: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if process.poll() is not None:
            assert process.stderr is not None
            raise CannotInject(process.stderr.read())
        tasks = list(Path(f"/proc/{pid}/task").glob("*/status"))
        if tasks and all("TracerPid:\t0" not in task.read_text() for task in tasks):
            return
        time.sleep(0.02)
    raise CannotInject("strace did not attach in time.")


def _mount(place: Path) -> None:
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        raise CannotInject(f"No tmpfs can be mounted here: {made.stderr.strip()}")


def _judged(plan: Plan, end: dict[str, Any], talk: Talk, directory: Path) -> dict[str, Any]:
    """Compare what was sent with what the journals hold after the book is closed."""
    book = manifest.recover(directory)
    sent = {
        (one.participant_id, ssrc, seq): at_ns
        for one in talk.sent()
        for ssrc, seq, at_ns in one.packets
    }
    kept, gaps = _held(directory)
    missing = {key: at_ns for key, at_ns in sent.items() if key not in kept}
    told = sum(gap.packets for gap in gaps)
    unexplained = sum(
        not any(gap.from_ns - 50_000_000 <= at_ns <= gap.to_ns + 50_000_000 for gap in gaps)
        for at_ns in missing.values()
    )
    states = [state for _, state in end["states"]]
    is_felt = bool(end["refused_ns"])
    return {
        "refusals": len(end["refused_ns"]),
        "states": states,
        "told_after_ms": _told_after_ms(end) if is_felt else None,
        "is_felt": is_felt,
        "recording_again": states[-1] == "recording",
        "sent": len(sent),
        "missing": len(missing),
        "told_as_lost": told,
        "unexplained": unexplained,
        "segments": len(book.journals),
        "unreadable": len(book.unreadable),
        "intact": verify(directory).is_intact,
        "gap_ms": sum((gap.to_ns - gap.from_ns) // 1_000_000 for gap in gaps),
    }


def _told_after_ms(end: dict[str, Any]) -> int | None:
    first_ns = end["refused_ns"][0]
    told = [at_ns for at_ns, state in end["states"] if state == "trouble"]
    return None if not told else max(0, (told[0] - first_ns) // 1_000_000)


def _held(directory: Path) -> tuple[set[tuple[str, int, int]], list[LostPackets]]:
    kept: set[tuple[str, int, int]] = set()
    gaps: list[LostPackets] = []
    for path in journal.journals_in(directory):
        with journal.open_journal(path) as reader:
            for record in reader.records():
                if record.type is RecordType.RTP:
                    _, _, seq, _, ssrc = HEADER.unpack_from(record.payload)
                    kept.add((reader.header.participant_id, ssrc, seq))
                elif record.type is RecordType.GAP:
                    gaps.append(journal.parse_gap(record))
    return kept, gaps


# --- the drill ------------------------------------------------------------------------------------


def run(plans: Sequence[Plan] = (Plan(), *WALK)) -> Iterator[dict[str, Any]]:
    """Carry out one plan after the other; the last row sums up.

    Raises `CannotInject` if this machine lets us neither mount nor trace.
    """
    for tool in ("strace", "unshare", "mount"):
        if shutil.which(tool) is None:
            raise CannotInject(f"This drill needs {tool}.")
    rows = []
    with tempfile.TemporaryDirectory(prefix="reception-sick-disk-") as place:
        clip = Path(place) / "clip.mkv"
        make_clip(clip)
        for plan in plans:
            rows.append(_apart(plan, clip))
            yield rows[-1]
    yield {
        "faults": len(rows),
        "failed": sum(not row["ok"] for row in rows),
        "told_after_ms_max": max((row["told_after_ms"] or 0 for row in rows), default=0),
        "missing": sum(row["missing"] for row in rows),
        "told_as_lost": sum(row["told_as_lost"] for row in rows),
        **circumstances(),
        "ok": all(row["ok"] for row in rows),
    }


def _apart(plan: Plan, clip: Path) -> dict[str, Any]:
    """`carry_out` in a process below a mount namespace."""
    with tempfile.TemporaryDirectory(prefix="reception-sick-disk-") as scratch:
        done = subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private"),
                *(sys.executable, "-m", "bench.sick_disk"),
                *(json.dumps(asdict(plan)), str(clip), scratch),
            ],
            cwd=HOUSE, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    if done.returncode:
        raise CannotInject(done.stderr[-2000:])
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**row, "ok": is_well(plan, row)}


def is_well(plan: Plan, row: dict[str, Any]) -> bool:
    """Whether the fault happened and every promise was kept."""
    harmless = plan.call == "fallocate"
    told = row["told_after_ms"] is not None and row["told_after_ms"] <= TOLD_WITHIN_MS
    if not plan.call and not row["told_as_lost"]:
        return False  # so full a disk must cost something, or it was not full
    return bool(
        row["injected"]
        and (harmless or (row["is_felt"] and told))
        and row["recording_again"]
        and row["heard_meanwhile"] >= HEARD_SHARE
        and row["missing"] == row["told_as_lost"]
        and not row["unexplained"]
        and not row["unreadable"]
        and row["intact"]
    )


def in_words(row: dict[str, Any]) -> str:
    """A row in a line, for people."""
    if "fault" not in row:
        return f"{row['faults']} faults, {row['failed']} failed"
    after = "not felt" if row["told_after_ms"] is None else f"told after {row['told_after_ms']} ms"
    return (
        f"{row['fault']}: {after}, {row['missing']} of {row['sent']} packets missing, "
        f"{row['told_as_lost']} told; {'as promised' if row['ok'] else 'BROKEN'}"
    )


if __name__ == "__main__":
    wanted = Plan(**json.loads(sys.argv[1]))
    os.umask(0o027)
    print(json.dumps(carry_out(wanted, Path(sys.argv[2]), Path(sys.argv[3]))))
