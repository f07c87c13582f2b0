"""A disk rebuilt from a log of system calls: what it surely holds, and what it may hold instead.

POSIX promises little: bytes are there once their file was synced, names once their directory was.
Before that each may be there or not, in any order. Nothing more is assumed here, whatever better a
file system may do.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

SECTOR_BYTES: Final = 512
TRACED: Final = (
    "openat,close,write,pwrite64,lseek,fsync,fdatasync,rename,renameat,renameat2,link,unlink,"
    "unlinkat,ftruncate,truncate,fallocate,mkdir"
)
"""For `strace -e trace=`: every call that `Disk` understands."""


class Fate(StrEnum):
    """What became of that which no sync had asked for."""

    KEPT = "kept"
    DROPPED = "dropped"
    TORN = "torn"
    HOLLOW = "hollow"
    REORDERED = "reordered"
    MIXED = "mixed"


# --- the log --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that succeeded. `begun` is its place in the log: syncs cover what is before."""

    name: str
    arguments: tuple[str, ...]
    result: int
    begun: int


_LINE = re.compile(r"^(?P<pid>\d+)\s+(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_ARGUMENT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"|([^,\s"][^,"]*)')


def read_log(path: Path) -> list[Call]:
    """The calls of a trace in the order in which they ended; failed ones are left out, for they
    have done nothing."""
    calls: list[Call] = []
    open_calls: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines()):
        found = _LINE.match(line)
        if found is None:
            continue
        pid, rest, begun = found["pid"], found["rest"], number
        if rest.endswith("<unfinished ...>"):
            open_calls[pid] = (rest.removesuffix("<unfinished ...>"), number)
            continue
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            head, begun = open_calls.pop(pid)
            rest = head + resumed["rest"]
        call = _CALL.match(rest)
        if call is None or int(call["result"]) < 0:
            continue
        arguments = tuple(_argument(*found) for found in _ARGUMENT.findall(call["arguments"]))
        calls.append(Call(call["name"], arguments, int(call["result"]), begun))
    return calls


def _argument(text: str, plain: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode("latin-1") if text else plain.strip()


# --- a disk that remembers what was asked of it ---------------------------------------------------


@dataclass(slots=True)
class _Change:
    """A write (`data`) or a new length (`data` is None) that no sync has covered."""

    at: int
    data: bytes | None
    begun: int


@dataclass(slots=True)
class _File:
    durable: bytes = b""
    pending: list[_Change] = field(default_factory=list)

    def now(self) -> bytes:
        return _applied(self.durable, self.pending)


@dataclass(slots=True)
class _Open:
    file: _File | None  # None: a directory
    path: str
    at: int = 0
    appends: bool = False


@dataclass(slots=True)
class _Rename:
    """`old` (None: it is new) becomes `new` (None: it is gone)."""

    file: "_File | None"
    old: str | None
    new: str | None
    begun: int


def _applied(durable: bytes, changes: Sequence[_Change]) -> bytes:
    data = bytearray(durable)
    for change in changes:
        if change.data is None:
            del data[change.at :]
            data.extend(bytes(change.at - len(data)))
        else:
            data.extend(bytes(max(0, change.at - len(data))))
            data[change.at : change.at + len(change.data)] = change.data
    return bytes(data)


class Disk:
    """What has been written below `root`, what is surely there, and what may be."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: dict[int, _Open] = {}
        self._names: dict[str, _File | None] = {}  # as processes see them
        self._durable: dict[str, _File | None] = {}
        self._pending: list[_Rename] = []
        self.at_ms = 0
        self.changed: Counter[str] = Counter()

    def perform(self, call: Call) -> bool:
        """Take in one call; whether it could matter to a disk."""
        handler = getattr(self, f"_do_{call.name}", None)
        return bool(handler is not None and handler(call))

    def is_below(self, path: str) -> bool:
        return path.startswith(self._root + "/")

    # One for each system call; each says whether it changed anything below the root.

    def _do_openat(self, call: Call) -> bool:
        path, flags = call.arguments[1], call.arguments[2]
        self._open.pop(call.result, None)
        if not self.is_below(path) and path != self._root:
            return False
        if "O_DIRECTORY" in flags:
            self._open[call.result] = _Open(None, path)
            return False
        known = self._names.get(path)
        is_new = path not in self._names
        if known is None:
            known = _File()
        self._open[call.result] = _Open(known, path, appends="O_APPEND" in flags)
        if is_new and "O_CREAT" in flags:
            self._names[path] = known
            self._pending.append(_Rename(known, None, path, call.begun))
            return True
        if "O_TRUNC" in flags:
            known.pending.append(_Change(0, None, call.begun))
            return True
        return False

    def _do_close(self, call: Call) -> bool:
        self._open.pop(int(call.arguments[0]), None)
        return False

    def _do_lseek(self, call: Call) -> bool:
        if (opened := self._open.get(int(call.arguments[0]))) is not None:
            opened.at = call.result
        return False

    def _do_write(self, call: Call) -> bool:
        fd, data = int(call.arguments[0]), call.arguments[1].encode("latin-1")
        if fd == 1 and data.startswith(b"T "):
            self.at_ms = int(data[2:])
        opened = self._open.get(fd)
        if opened is None or opened.file is None:
            return False
        at = len(opened.file.now()) if opened.appends else opened.at
        opened.file.pending.append(_Change(at, data[: call.result], call.begun))
        opened.at = at + call.result
        return True

    def _do_ftruncate(self, call: Call) -> bool:
        opened = self._open.get(int(call.arguments[0]))
        if opened is None or opened.file is None:
            return False
        opened.file.pending.append(_Change(int(call.arguments[1]), None, call.begun))
        return True

    def _do_truncate(self, call: Call) -> bool:
        file = self._names.get(call.arguments[0])
        if file is None:
            return False
        file.pending.append(_Change(int(call.arguments[1]), None, call.begun))
        return True

    def _do_fallocate(self, call: Call) -> bool:
        # Books space behind the end; if it changed a length, this drill would not know it.
        assert "FALLOC_FL_KEEP_SIZE" in call.arguments[1]
        return int(call.arguments[0]) in self._open

    def _do_fsync(self, call: Call) -> bool:
        opened = self._open.get(int(call.arguments[0]))
        if opened is None:
            return False
        if opened.file is None:
            self._sync_names(opened.path, call.begun)
        else:
            covered = [one for one in opened.file.pending if one.begun < call.begun]
            opened.file.durable = _applied(opened.file.durable, covered)
            opened.file.pending = opened.file.pending[len(covered) :]
        return True

    _do_fdatasync = _do_fsync

    def _sync_names(self, directory: str, begun: int) -> None:
        rest = []
        for one in self._pending:
            if one.begun < begun and _parent(one.new or one.old or "") == directory:
                _rename(self._durable, one)
            else:
                rest.append(one)
        self._pending = rest

    def _do_mkdir(self, call: Call) -> bool:
        path = call.arguments[0]
        if not self.is_below(path):
            return False
        self._names[path] = None
        self._pending.append(_Rename(None, None, path, call.begun))
        return True

    def _do_rename(self, call: Call) -> bool:
        old, new = (one for one in call.arguments[:4] if one.startswith("/"))
        if not self.is_below(new):
            return False
        change = _Rename(self._names[old], old, new, call.begun)
        _rename(self._names, change)
        self._pending.append(change)
        return True

    _do_renameat = _do_renameat2 = _do_rename

    def _do_link(self, call: Call) -> bool:
        old, new = call.arguments[:2]
        if not self.is_below(new):
            return False
        self._names[new] = self._names[old]
        self._pending.append(_Rename(self._names[old], None, new, call.begun))
        return True

    def _do_unlink(self, call: Call) -> bool:
        path = next(one for one in call.arguments if one.startswith("/"))
        if not self.is_below(path) or path not in self._names:
            return False
        change = _Rename(self._names[path], path, None, call.begun)
        _rename(self._names, change)
        self._pending.append(change)
        return True

    _do_unlinkat = _do_unlink

    # What a crash leaves.

    def surely(self) -> dict[str, bytes]:
        """What no crash can take: synced files under synced names, in synced directories."""
        return {
            path: file.durable
            for path, file in self._durable.items()
            if file is not None and _is_reachable(path, self._durable, self._root)
        }

    def now(self) -> dict[str, bytes]:
        """What processes see."""
        return {path: file.now() for path, file in self._names.items() if file is not None}

    def after(self, fate: Fate, dice: random.Random) -> tuple[dict[str, bytes], list[str]]:
        """Files, and directories, that are there when the power comes back."""
        names = dict(self._durable)
        for one in self._pending:
            if _keeps(fate, dice):
                _rename(names, one)
            else:
                self.changed["names"] += 1
        reachable = {
            path: file for path, file in names.items() if _is_reachable(path, names, self._root)
        }
        files = {
            path: self._data(file, fate, dice)
            for path, file in reachable.items()
            if file is not None
        }
        return files, [path for path, file in reachable.items() if file is None]

    def _data(self, file: _File, fate: Fate, dice: random.Random) -> bytes:
        if not file.pending or fate is Fate.KEPT:
            return file.now()
        if fate is Fate.MIXED:
            fate = dice.choice([each for each in Fate if each is not Fate.MIXED])
            return self._data(file, fate, dice)
        self.changed[fate.value] += 1
        match fate:
            case Fate.DROPPED:
                return file.durable
            case Fate.TORN:
                return _torn(file, dice)
            case Fate.HOLLOW:
                full = file.now()
                return file.durable[: len(full)] + bytes(max(0, len(full) - len(file.durable)))
            case _:
                return _reordered(file, dice)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _rename(names: dict[str, _File | None], change: _Rename) -> None:
    if change.old is not None:
        names.pop(change.old, None)
    if change.new is not None:
        names[change.new] = change.file


def _is_reachable(path: str, names: dict[str, _File | None], root: str) -> bool:
    above = _parent(path)
    return above == root or (above in names and _is_reachable(above, names, root))


def _keeps(fate: Fate, dice: random.Random) -> bool:
    if fate is Fate.DROPPED:
        return False
    return fate not in (Fate.REORDERED, Fate.MIXED) or dice.random() < 0.5


def _torn(file: _File, dice: random.Random) -> bytes:
    last = file.pending[-1]
    if last.data is None:
        return _applied(file.durable, file.pending[:-1])
    before = _applied(file.durable, file.pending[:-1])
    after = _applied(before, [last])
    first = -(-last.at // SECTOR_BYTES)
    end = (last.at + len(last.data)) // SECTOR_BYTES
    cut = dice.randint(first, max(first, end)) * SECTOR_BYTES
    return after[: max(min(cut, len(after)), last.at)]


def _reordered(file: _File, dice: random.Random) -> bytes:
    full = bytearray(file.now())
    old = file.durable[: len(full)] + bytes(max(0, len(full) - len(file.durable)))
    lowest = min((one.at for one in file.pending), default=len(full))
    last_kept = 0
    for at in range(lowest // SECTOR_BYTES * SECTOR_BYTES, len(full), SECTOR_BYTES):
        end = min(at + SECTOR_BYTES, len(full))
        if dice.random() < 0.5:
            full[at:end] = old[at:end]
        else:
            last_kept = end
    # The length may or may not have been written before the bytes.
    least = max(min(len(file.durable), len(full)), last_kept)
    return bytes(full[: dice.choice([least, len(full)])])
