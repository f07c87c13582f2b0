"""One process from which finishing's children are forked: what each of them is, and how they end.

Real processes throughout: killed, halted, refused, forgotten.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from media import manifest, warm
from media.ffmpeg import NICENESS
from media.warm import Child, WarmParent

STEPS = ("seal", "mux")


@pytest.fixture
async def parent() -> AsyncIterator[WarmParent]:
    made = WarmParent()
    yield made
    await asyncio.to_thread(made.end)


async def until(fact: Callable[[], bool], within_s: float = 30.0) -> bool:
    end_s = time.monotonic() + within_s
    while not fact() and time.monotonic() < end_s:
        await asyncio.sleep(0.01)
    return fact()


def is_gone(pid: int) -> bool:
    """Not even a zombie is left."""
    return not Path(f"/proc/{pid}").exists()


def status(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(line for line in text.splitlines() if line.startswith(f"{name}:")).split()[1]


def files(pid: int) -> dict[int, str]:
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found[int(link.name)] = str(link.readlink())
    return found


async def fails(child: Child) -> tuple[int, str]:
    """Give it a job that is none: it says so and ends."""
    child.give(b"no job")
    await child.lines.read()
    return await child.ended(), await child.last_words()


async def test_each_child_is_a_process_of_its_own_below_one_parent(parent: WarmParent) -> None:
    first, second = await parent.fork(STEPS), await parent.fork(STEPS)
    assert first.pid != second.pid
    for child in (first, second):
        assert int(status(child.pid, "PPid")) == parent.pid
        assert await until(lambda pid=child.pid: os.getsid(pid) == pid)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == NICENESS
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "900\n"
    os.kill(first.pid, signal.SIGKILL)
    assert await first.ended() == -signal.SIGKILL
    code, words = await fails(second)
    assert code == 1 and "JSONDecodeError" in words, "the other one is none the worse"
    await first.end()
    await second.end()


async def test_nothing_of_the_server_s_is_in_the_parent_or_its_children(
    parent: WarmParent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEPTION_SECRET", "not for children")
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        child, sibling = await parent.fork(STEPS), await parent.fork(STEPS)
        assert parent.pid is not None
        assert await until(lambda: set(files(sibling.pid)) == {0, 1, 2}), files(sibling.pid)
        for pid in (parent.pid, child.pid):
            assert b"not for children" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert str(ours.name) not in files(pid).values()
            assert int(status(pid, "Threads")) == 1
    await child.end()
    await sibling.end()


async def test_a_child_that_is_let_go_of_ends_and_leaves_nothing(parent: WarmParent) -> None:
    child = await parent.fork(STEPS)
    await child.end()
    assert is_gone(child.pid)
    await child.end()


async def test_a_child_that_does_not_listen_is_killed(parent: WarmParent) -> None:
    child = await parent.fork(STEPS)
    os.kill(child.pid, signal.SIGSTOP)
    await child.end()
    assert is_gone(child.pid)
    assert await child.ended() == -signal.SIGKILL


async def test_the_lock_is_the_child_s_alone_and_free_when_it_is_gone(
    parent: WarmParent, tmp_path: Path
) -> None:
    lock = manifest.lock_directory(tmp_path, manifest.FINISHING_LOCK)
    assert lock is not None
    child = await parent.fork(STEPS, lock_fd=lock)
    sibling = await parent.fork(STEPS)
    os.close(lock)
    assert manifest.lock_directory(tmp_path, manifest.FINISHING_LOCK) is None
    await child.end()
    again = manifest.lock_directory(tmp_path, manifest.FINISHING_LOCK)
    assert again is not None, "neither the parent nor a sibling may hold it"
    os.close(again)
    await sibling.end()


async def test_a_killed_parent_takes_its_children_with_it_and_is_replaced(
    parent: WarmParent,
) -> None:
    child = await parent.fork(STEPS)
    before = parent.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert await child.ended() == -signal.SIGKILL
    assert await until(lambda: is_gone(child.pid))
    await child.end()
    another = await parent.fork(STEPS)
    assert parent.pid != before
    assert await fails(another)
    await another.end()


async def test_a_parent_that_hangs_is_ended_with_its_children(
    parent: WarmParent, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await parent.fork(STEPS)
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGSTOP)
    monkeypatch.setattr(warm, "END_PATIENCE_S", 0.2)
    await child.end()
    assert await until(lambda: is_gone(child.pid))
    another = await parent.fork(STEPS)
    assert await fails(another)
    await another.end()


async def test_a_parent_that_nobody_wants_goes_and_comes_again() -> None:
    parent = WarmParent(idle_s=0.05)
    child = await parent.fork(STEPS)
    first = parent.pid
    assert first is not None
    await asyncio.sleep(0.2)
    assert not is_gone(first), "it has a child"
    await child.end()
    assert await until(lambda: is_gone(first)), "not even a zombie"
    another = await parent.fork(STEPS)
    assert parent.pid != first
    await another.end()
    await asyncio.to_thread(parent.end)


async def test_a_parent_that_may_open_no_more_files_is_replaced(parent: WarmParent) -> None:
    child = await parent.fork(STEPS)
    full = parent.pid
    assert full is not None
    resource.prlimit(full, resource.RLIMIT_NOFILE, (3, 3))
    another = await parent.fork(STEPS)
    assert int(status(another.pid, "PPid")) != full
    await another.end()
    await child.end()


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
async def test_a_parent_that_cannot_be_started_is_the_machine_s_refusal(
    parent: WarmParent, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", program)
        with pytest.raises(OSError):
            await parent.fork(STEPS)
    child = await parent.fork(STEPS)
    await child.end()


SERVER = """
import asyncio, os, sys, time
from media.warm import WarmParent

async def main():
    parent = WarmParent()
    lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    child = await parent.fork(["seal"], lock_fd=lock)
    print(parent.pid, child.pid, flush=True)
    await asyncio.sleep(300)

asyncio.run(main())
"""


async def test_a_killed_server_leaves_neither_parent_nor_child(tmp_path: Path) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(tmp_path / "lock"),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    pids = [int(word) for word in (await server.stdout.readline()).split()]
    assert len(pids) == 2
    server.kill()
    await server.wait()
    for pid in pids:
        assert await until(lambda pid=pid: is_gone(pid) or status(pid, "State") == "Z")
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_forked_process_does_not_keep_its_parent_s_warm_one(parent: WarmParent) -> None:
    await (await parent.fork(STEPS)).end()
    warm_pid = parent.pid
    assert warm_pid is not None
    release, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 0 if parent.pid is None else 1
        os.close(hold)
        os.read(release, 1)  # still there when the other one lets go
        os._exit(code)
    os.close(release)
    await asyncio.to_thread(parent.end)
    # Not killed: it went by itself, since nobody else could ask it for anything.
    assert is_gone(warm_pid)
    os.close(hold)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


async def test_what_parent_and_children_cost_is_counted_before_and_after_they_end() -> None:
    def waited_for_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before_s = waited_for_s()
    parent = WarmParent()
    for _ in range(10):
        child = await parent.fork(STEPS)
        await fails(child)
        await child.end()
    assert waited_for_s() - before_s == 0, "the kernel tells of it only when it has ended"
    living_s = parent.cpu_s
    await asyncio.to_thread(parent.end)
    assert parent.cpu_s == 0
    ended_s = waited_for_s() - before_s
    assert living_s > 0.05
    # What is left is the end of the warm parent itself.
    assert living_s <= ended_s < living_s + 0.1, json.dumps([living_s, ended_s])
