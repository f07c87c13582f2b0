"""The one place that runs ffmpeg: bounded, quiet, killable, and honest about its progress.

Graphs come compiled from `media/compose.py`; this module owns the process. Only local files may be
opened, the child is polite and limited, output appears under its name whole or not at all, and what
ffmpeg said last is kept for the person who must find out why. `Limits` says what any child of the
finishing may take of the machine.
"""

import contextlib
import ctypes
import os
import resource
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Final

import av
from av.container.input import InputContainer
from av.stream import Stream

from core.errors import ReceptionError
from media import manifest

NICENESS: Final = 10
KEPT_LINES: Final = 40
_KILL_AFTER_S: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1
_FIRST_TO_GO: Final = "900"  # of 1000: the kernel that runs out of memory ends this, not the server
_AUTOGROUP: Final = "/proc/self/autogroup"
# Of a whole machine's ordinary users the kernel takes one such wish in 0.1 s.
_LOWERINGS: Final = 25
_LOWERING_PAUSE_S: Final = 0.02
GLANCE_PACKETS: Final = 50
"""A decoder may refuse a sender's own bad packets; a second of nothing else is a broken file."""
Progress = Callable[[int], None]
"""Called with whole per cent, rising, 100 last."""
Hear = Callable[[av.AudioFrame], None]
"""Called with every decoded sound, in order."""


_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child process may take; the kernel refuses or ends it beyond that.

    `memory_bytes` is address space, of which threads reserve far more than they use; `data_bytes`
    is what a process can truly fill. Each process below a child has them for itself.
    """

    memory_bytes: int
    data_bytes: int
    cpu_s: int
    file_bytes: int
    step_s: float
    """By the clock, for one step: at low priority beside live rooms it waits more than it works."""

    @classmethod
    def fit_for(cls, journal_bytes: int, talk_s: float) -> "Limits":
        """Several times what a talk of this size took when it was measured on two cores: 1.5 GiB
        of addresses, 0.4 GiB of data, 0.6 s of computing for a second of talk, and files no larger
        than the journals. Journals are mapped whole, and every core brings threads."""
        cores = os.cpu_count() or 1
        return cls(
            memory_bytes=(4096 + 256 * cores) * _MIB + 4 * journal_bytes,
            data_bytes=(1536 + 64 * cores) * _MIB + 2 * journal_bytes,
            cpu_s=300 + int(3 * talk_s),
            file_bytes=512 * _MIB + 4 * journal_bytes,
            step_s=600 + 4 * talk_s,
        )

    def confine(self) -> None:
        """Hold this process, and what it starts, to these. For child processes only."""
        for what, most in (
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_DATA, self.data_bytes),
            (resource.RLIMIT_CPU, self.cpu_s),
            (resource.RLIMIT_FSIZE, self.file_bytes),
        ):
            hard = resource.getrlimit(what)[1]
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(what, (least, least))


class FfmpegFailed(ReceptionError):
    """ffmpeg did not do it; `details["said"]` holds its last lines."""

    code = "ffmpeg_failed"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a full decode of a finished file found."""

    duration_ms: int
    width: int | None
    height: int | None
    video_frames: int
    audio_frames: int
    refused: int
    """Samples that the decoder would not take: a sender's own fault, which a player steps over."""


def ffmpeg_path(configured: Path | None) -> str:
    """The ffmpeg to run: the configured one, or the one inside the imageio-ffmpeg wheel."""
    if configured is not None:
        return str(configured)
    import imageio_ffmpeg  # noqa: PLC0415  a tenth of a second that children need not spend

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def file_url(path: Path) -> str:
    """How ffmpeg is told of a file, so that no name can be an option or a protocol."""
    return f"file:{path.resolve()}"


def run(
    arguments: Sequence[str],
    output: Path,
    *,
    ffmpeg: str,
    duration_ms: int,
    timeout_s: float,
    progress: Progress | None = None,
) -> None:
    """Run ffmpeg with `arguments` (inputs, graph, codecs; the output file is added here).

    `output` appears whole and durable, or not at all. Blocks; call it in a child process. Raises
    `FfmpegFailed` with ffmpeg's last lines on a failure or after `timeout_s`.
    """
    part = output.with_name(f".{output.stem}.part{output.suffix}")
    command = [
        ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "warning", "-y",
        "-progress", "pipe:1", "-stats_period", "0.5",
        *_only_local_files(arguments), file_url(part),
    ]  # fmt: skip
    said: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        code = _supervise(command, duration_ms, timeout_s, progress, said)
        if code is None:
            raise FfmpegFailed("Making the picture took too long and was stopped.", said=[*said])
        if code != 0:
            raise FfmpegFailed("ffmpeg could not make the picture.", exit=code, said=[*said])
        with part.open("rb") as file:
            os.fsync(file.fileno())
        manifest.publish(part, output)
    finally:
        part.unlink(missing_ok=True)
    if progress is not None:
        progress(100)


def _only_local_files(arguments: Sequence[str]) -> list[str]:
    """Before every input: nothing but files, whatever a container's header may point to."""
    allowed: list[str] = []
    for argument in arguments:
        if argument == "-i":
            allowed += ["-protocol_whitelist", "file"]
        allowed.append(argument)
    return allowed


def _supervise(
    command: list[str],
    duration_ms: int,
    timeout_s: float,
    progress: Progress | None,
    said: deque[str],
) -> int | None:
    """Run to the end, reading both pipes. The exit code, or None if time ran out."""
    until = time.monotonic() + timeout_s
    told = -1
    with (
        subprocess.Popen(  # noqa: S603  our own argv: no shell, files only
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=restrain,  # noqa: PLW1509  the caller is a single-threaded child process
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None and process.stderr is not None
        for pipe, name in ((process.stdout, "progress"), (process.stderr, "words")):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, name)
        rests = {"progress": "", "words": ""}
        try:
            while selector.get_map():
                left_s = until - time.monotonic()
                if left_s <= 0:
                    _kill_group(process)
                    return None
                for key, _ in selector.select(left_s):
                    pipe = _as_pipe(key.fileobj)
                    data = pipe.read(65536)
                    if not data:
                        selector.unregister(pipe)
                        continue
                    *lines, rests[key.data] = (
                        rests[key.data] + data.decode(errors="replace")
                    ).split("\n")
                    if key.data == "words":
                        said.extend(line[:300] for line in lines)
                        continue
                    percent = _percent(lines, duration_ms)
                    if percent is not None and percent > told and progress is not None:
                        told = percent
                        progress(percent)
            return process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill_group(process)
            return None
        except BaseException:
            _kill_group(process)
            raise


def _as_pipe(fileobj: object) -> IO[bytes]:
    assert hasattr(fileobj, "read")
    return fileobj  # type: ignore[return-value]  # we registered nothing but pipes


def _percent(lines: list[str], duration_ms: int) -> int | None:
    """How far along the output is; at most 99 until it is durable."""
    for line in reversed(lines):
        name, _, value = line.partition("=")
        if name == "out_time_us" and value.strip().isdigit():
            return min(99, int(value) // 10 // max(duration_ms, 1))
    return None


def restrain(niceness: int = NICENESS) -> None:
    """Make this process polite, first to go when memory ends, and dead when its parent is.

    For child processes only. What it may take altogether is `Limits.confine`'s to say.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    give_way(niceness)


def give_way(niceness: int = NICENESS) -> None:
    """Make this process polite, and first to go when memory ends."""
    # Absolute: a child of a child is no lower. But nobody may raise what was lower before.
    niceness = max(niceness, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if os.getsid(0) == os.getpid():
        # Else the session is the server's, or the shell's of whoever tries a step by hand.
        _lower_session(niceness)
    with contextlib.suppress(OSError):  # not every kernel and container has it
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _lower_session(niceness: int) -> None:
    """Make the session of this process, which leads it, as polite as the process itself.

    Linux may share a processor out among sessions first (autogroup, sched(7)), and then niceness
    counts only inside of one: a child of niceness 10 in a session of its own has half of a core
    beside live rooms, not a tenth. In a cgroup that has a share of its own this changes nothing,
    nor is it needed there.
    """
    try:
        group = os.open(_AUTOGROUP, os.O_WRONLY)
    except OSError:  # not every kernel and container has it
        return
    try:
        for _ in range(_LOWERINGS):
            with contextlib.suppress(BlockingIOError):
                os.write(group, b"%d" % niceness)
                return
            time.sleep(_LOWERING_PAUSE_S)
        os.write(2, b"This session is as much in the way as any other: the kernel was busy.\n")
    except OSError:
        return
    finally:
        os.close(group)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End ffmpeg and whatever it started: asked first, then not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_AFTER_S)
            return


def glance(path: Path) -> int:
    """The length in ms of a file that opens, whose index leads to its end, and of which something
    decodes at its beginning and at its end. Takes the same time however long the file is.

    What a player needs to begin and to seek; whether everything between plays is `decode_fully`'s
    to say. Raises `FfmpegFailed`.
    """
    try:
        with av.open(str(path)) as container:
            streams = (*container.streams.video, *container.streams.audio)
            if not any(_decodes(container, stream, 0) for stream in streams):
                raise FfmpegFailed(f"Nothing plays at the beginning of {path.name}.")
            end = container.duration or 0
            # To the last keyframe before the end: a file cut short has none where its index says.
            if not any(_decodes(container, stream, end) for stream in streams):
                raise FfmpegFailed(f"Nothing plays at the end of {path.name}.")
            return end // 1000
    except av.FFmpegError as problem:
        raise FfmpegFailed("A finished file cannot be opened.", said=[str(problem)]) from problem


def _decodes(container: InputContainer, stream: Stream, at_us: int) -> bool:
    """Whether one of the next packets of `stream` gives a picture or a sound."""
    container.seek(at_us)
    for packet in islice(container.demux(stream), GLANCE_PACKETS):
        with contextlib.suppress(av.InvalidDataError):
            if packet.decode():
                return True
    return False


def decode_fully(path: Path, progress: Progress | None = None, hear: Hear | None = None) -> Checked:
    """Decode every frame of a file: the only proof that it plays to its end. `hear` gets the sound.

    What a decoder refuses is counted and stepped over, as players do: one bad picture from a camera
    may not keep an hour's talk from being seen. Raises `FfmpegFailed` if the file cannot be read to
    its end, or if nothing in it plays.
    """
    frames = {"video": 0, "audio": 0}
    refused = 0
    width = height = None
    end_s = 0.0
    told = -1
    try:
        with av.open(str(path)) as container:
            total = max(1, path.stat().st_size)
            for packet in container.demux():
                try:
                    decoded = packet.decode()
                except av.InvalidDataError:
                    refused += 1
                    continue
                for frame in decoded:
                    frames[packet.stream.type] += 1
                    if hear is not None and isinstance(frame, av.AudioFrame):
                        hear(frame)
                    if isinstance(frame, av.VideoFrame):
                        width, height = frame.width, frame.height
                    if isinstance(frame, av.VideoFrame | av.AudioFrame) and frame.time is not None:
                        end_s = max(end_s, frame.time)
                percent = (packet.pos or 0) * 99 // total
                if progress is not None and percent > told:
                    told = percent
                    progress(percent)
            duration_ms = (container.duration or 0) // 1000
    except (av.FFmpegError, ValueError) as problem:
        raise FfmpegFailed(
            "A finished file cannot be played to its end.", said=[str(problem)]
        ) from problem
    if not any(frames.values()):
        raise FfmpegFailed("A finished file holds nothing that plays.")
    if progress is not None:
        progress(100)
    return Checked(
        duration_ms=duration_ms or round(end_s * 1000),
        width=width,
        height=height,
        video_frames=frames["video"],
        audio_frames=frames["audio"],
        refused=refused,
    )
