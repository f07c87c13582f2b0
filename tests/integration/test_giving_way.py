"""Whatever works beside live rooms is in nobody's way, also where sessions share the processor.

Niceness alone is no proof: with autogroup (sched(7)) it counts only inside of a session.
"""

import asyncio
import contextlib
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from media import ffmpeg, scrub
from media.ffmpeg import NICENESS
from media.warm import WarmParent

NOBODY = 65534
PR_SET_DUMPABLE = 4


def session_niceness(pid: int) -> int | None:
    """Of the session of `pid`; None where the kernel does not share out among sessions."""
    try:
        words = Path(f"/proc/{pid}/autogroup").read_text().split()
    except FileNotFoundError:
        return None
    return int(words[-1]) if words else None


OURS = session_niceness(os.getpid())
pytestmark = pytest.mark.skipif(
    OURS is None, reason="This kernel does not share a processor out among sessions (autogroup)."
)


def comes_to(niceness: int, pid: int, within_s: float = 60.0) -> bool:
    """Whether `pid` leads a session of this niceness, or does in a while."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if os.getsid(pid) == pid and session_niceness(pid) == niceness:
            return True
        time.sleep(0.01)
    return False


async def test_a_warm_parent_and_its_children_are_in_sessions_that_give_way() -> None:
    parent = WarmParent()
    child = await parent.fork(("seal", "mux"))
    try:
        assert parent.pid is not None
        for pid in (parent.pid, child.pid):
            assert await asyncio.to_thread(comes_to, NICENESS, pid)
    finally:
        await child.end()
        await asyncio.to_thread(parent.end)
    assert session_niceness(os.getpid()) == OURS


def test_ffmpeg_is_in_a_session_that_gives_way(tmp_path: Path) -> None:
    program, output = tmp_path / "ffmpeg", tmp_path / "said.txt"
    program.write_text(
        '#!/bin/sh\nfor last; do :; done\ncat /proc/self/autogroup > "${last#file:}"\n'
    )
    program.chmod(0o755)
    ffmpeg.run([], output, ffmpeg=str(program), duration_ms=1, timeout_s=60)
    assert int(output.read_text().split()[-1]) == NICENESS
    assert session_niceness(os.getpid()) == OURS


def test_the_nightly_look_gives_way_to_finishing_too() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", scrub.__name__], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as looking:  # fmt: skip
        try:
            assert comes_to(19, looking.pid)
            assert os.getpriority(os.PRIO_PROCESS, looking.pid) == 19
        finally:
            looking.kill()


def test_a_step_that_is_tried_by_hand_does_not_slow_the_shell() -> None:
    code = "import os; from media import ffmpeg; ffmpeg.give_way(); print(os.nice(0))"
    tried = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert int(tried.stdout) == NICENESS
    assert session_niceness(os.getpid()) == OURS


def test_who_was_lower_before_stays_so() -> None:
    code = "from media import ffmpeg; ffmpeg.give_way(); print(open('/proc/self/autogroup').read())"
    tried = subprocess.run(
        ["nice", "-n", "15", sys.executable, "-c", code], stdout=subprocess.PIPE, check=True,
        start_new_session=True,
    )  # fmt: skip
    # `nice` counts from what we have ourselves.
    assert int(tried.stdout.split()[-1]) == min(19, os.nice(0) + 15)


def test_several_ordinary_children_at_once_all_come_to_give_way() -> None:
    """The kernel takes one such wish in 0.1 s from all ordinary users of a machine."""
    start, go = os.pipe()
    children = [_ordinary_child(start, go) for _ in range(3)]
    os.close(start)
    os.close(go)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]


def _ordinary_child(start: int, go: int) -> int:
    """It ends with 0 if its session gives way. It begins when nobody holds `go` any more."""
    pid = os.fork()
    if pid > 0:
        return pid
    code = 1
    with contextlib.suppress(BaseException):
        os.close(go)
        os.read(start, 1)
        os.setsid()
        if os.getuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            # Else what is in /proc/self is root's, until the next exec.
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)
        ffmpeg.give_way()
        code = 0 if session_niceness(os.getpid()) == NICENESS else 1
    os._exit(code)
