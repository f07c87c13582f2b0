"""Debian's Janus as a gateway under test: VideoRoom, recording on, on loopback, for this run only.

Configuration, sockets, recordings and log live in a directory that we make and remove; the
installed service is neither used nor touched. Only the VideoRoom plugin and the Unix-socket
transport are loaded, everything else is as Janus comes. A call is a room with two publishers, each
of whom subscribes to the other over a second transport, as Janus's own clients do it.

Janus gathers no loopback candidates, so it is spoken to at the machine's own address. What a
machine sends to its own address stays on the loopback device all the same.
"""

import itertools
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from aioice.ice import get_host_addresses

from bench.media_load import Load, Recipe, on_core

START_TIMEOUT_S: Final = 10.0
START_ATTEMPTS: Final = 5
READY: Final = ("Unix Sockets thread started", "Unix Sockets transport plugin initialized")
GAVE_UP: Final = "Unix Sockets thread ended"
ANSWER_TIMEOUT_S: Final = 20.0
MAX_MESSAGE_BYTES: Final = 256 * 1024
FEED_WITHIN_S: Final = 5.0
PARTIES: Final = 2
# Debian's multiarch directory differs by machine.
LIBRARIES: Final = "/usr/lib"
_MISSING: Final = {
    "janus": "janus is not installed. On Debian: apt install janus; then stop its own service: "
    "systemctl disable --now janus.",
    "janus-pp-rec": "janus-pp-rec is not installed. On Debian: apt install janus-tools.",
    "ffmpeg": "ffmpeg is not installed. On Debian: apt install ffmpeg.",
    "ffprobe": "ffprobe is not installed. On Debian: apt install ffmpeg.",
}


class JanusMissing(Exception):
    """Something that the comparison needs is not there. Its words say what to install."""


class JanusRefused(Exception):
    """Janus answered with an error, or not at all. Its words are in the message."""


def require() -> None:
    """Raises JanusMissing, naming everything that is not there."""
    words = [sentence for name, sentence in _MISSING.items() if shutil.which(name) is None]
    if not words and _libraries() is None:
        words.append("Janus's plugins are not under /usr/lib/*/janus. On Debian: apt install janus")
    if words:
        raise JanusMissing("\n".join(words))


def version() -> str:
    """What `janus --version` calls itself, e.g. `1.1.2`."""
    said = subprocess.run(
        ["janus", "--version"], check=False, capture_output=True, text=True, timeout=10
    )
    found = re.search(r"\d+(?:\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else "unknown"


def _own_address() -> str:
    addresses = get_host_addresses(use_ipv4=True, use_ipv6=False)
    if not addresses:
        raise JanusMissing("Janus needs an IPv4 address besides 127.0.0.1 on this machine.")
    return str(addresses[0])


def _libraries() -> Path | None:
    found = sorted(Path(LIBRARIES).glob("*/janus/plugins/libjanus_videoroom.so"))
    return found[0].parent.parent if found else None


class Janus:
    """A Janus process with `rooms` two-party rooms, from the constructor to `close`."""

    name = "janus"

    def __init__(self, rooms: int, core: int | None = None) -> None:
        require()
        self._rooms = rooms
        self._core = core
        self._address = _own_address()
        self._transactions = itertools.count(1)
        self._handles: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        self.directory = Path(tempfile.mkdtemp(prefix="janus-bench-"))
        try:
            self._configure()
            self.pid = self._start()
            self._socket.connect(str(self.directory / "api"))
            self._session = self._ask({"janus": "create"})["data"]["id"]
        except BaseException:
            self.close()
            raise

    # -- Setting up ------------------------------------------------------------------------------

    def _configure(self) -> None:
        libraries = _libraries()
        assert libraries is not None, "`require` has been called"
        for kind, wanted in (
            ("plugins", "libjanus_videoroom.so"),
            ("transports", "libjanus_pfunix.so"),
            ("events", None),
            ("loggers", None),
        ):
            folder = self.directory / kind
            folder.mkdir()
            if wanted is not None:
                (folder / wanted).symlink_to(libraries / kind / wanted)
        (self.directory / "recordings").mkdir()
        folders = "\n".join(
            f'  {kind}_folder = "{self.directory / kind}"'
            for kind in ("plugins", "transports", "events", "loggers")
        )
        self._write(
            "janus.jcfg",
            f"""general: {{
  configs_folder = "{self.directory}"
{folders}
  debug_level = 4
  session_timeout = 0
}}
nat: {{
  ice_enforce_list = "{self._address}"
}}
""",
        )
        self._write(
            "janus.transport.pfunix.jcfg",
            f"""general: {{
  enabled = true
  json = "compact"
  path = "{self.directory / "api"}"
}}
""",
        )
        self._write("janus.plugin.videoroom.jcfg", "general: {\n}\n")

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")

    def _start(self) -> int:
        """The pid of a Janus that listens.

        1.1.2 may give up while it starts: its socket thread ends at once if it runs before the
        plugin has marked itself as ready. That says nothing about calls, so it is started again.
        """
        for _ in range(START_ATTEMPTS):
            with on_core(self._core), (self.directory / "janus.log").open("wb") as log:
                self._process = subprocess.Popen(
                    # If we are killed, so is it: it would serve on for ever.
                    [
                        *("setpriv", "--pdeathsig", "TERM", "janus"),
                        *("--configs-folder", str(self.directory), "--disable-colors"),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            until = time.monotonic() + START_TIMEOUT_S
            while self._process.poll() is None and time.monotonic() < until:
                said = self._log()
                if all(word in said for word in READY) and GAVE_UP not in said:
                    return self._process.pid
                time.sleep(0.05)
            self._end_process()
        raise JanusRefused(f"Janus did not start:\n{self._last_words()}")

    def _end_process(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _log(self) -> str:
        return (self.directory / "janus.log").read_text(encoding="utf-8", errors="replace")

    def _last_words(self) -> str:
        return "\n".join(self._log().splitlines()[-12:])

    # -- Its API ---------------------------------------------------------------------------------

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for what finally answers it; `ack` only says that it came."""
        transaction = str(next(self._transactions))
        self._socket.send(json.dumps(message | {"transaction": transaction}).encode())
        while True:
            try:
                answer: dict[str, Any] = json.loads(self._socket.recv(MAX_MESSAGE_BYTES))
            except (OSError, ValueError):
                raise JanusRefused(f"Janus did not answer:\n{self._last_words()}") from None
            if answer.get("transaction") != transaction or answer["janus"] == "ack":
                continue  # an event: media began, a publisher joined
            said = answer.get("plugindata", {}).get("data", {})
            if answer["janus"] == "error" or "error" in said:
                raise JanusRefused(f"Janus refused {message}: {answer.get('error') or said}")
            return answer

    def _attach(self) -> int:
        answer = self._ask(
            {
                "janus": "attach",
                "session_id": self._session,
                "plugin": "janus.plugin.videoroom",
            }
        )
        handle = int(answer["data"]["id"])
        self._handles.append(handle)
        return handle

    def _tell_plugin(self, handle: int, body: dict[str, Any], **more: object) -> dict[str, Any]:
        return self._ask(
            {
                "janus": "message",
                "session_id": self._session,
                "handle_id": handle,
                "body": body,
                **more,
            }
        )

    # -- The gateway -----------------------------------------------------------------------------

    def connect(self, loads: Sequence[Load]) -> None:
        keeper = self._attach()
        for room in range(1, self._rooms + 1):
            self._tell_plugin(
                keeper,
                {
                    "request": "create",
                    "room": room,
                    "publishers": PARTIES,
                    "bitrate": 0,
                    "audiocodec": "opus",
                    "videocodec": "vp8",
                    "record": True,
                    "rec_dir": str(self.directory / "recordings"),
                },
            )
        first = 0
        for load in loads:
            offers = load.child.ask("publish", count=load.callers, host=self._address)["sdps"]
            answers = [self._publish(first + n, offer) for n, offer in enumerate(offers)]
            load.child.ask("accept", answers=answers)
            first += load.callers
        for load in loads:
            load.child.ask("connected")
        first = 0
        for load in loads:
            subscriptions = [self._subscribe(first + n) for n in range(load.callers)]
            answers = load.child.ask("subscribe", offers=[sdp for _, sdp in subscriptions])["sdps"]
            for (handle, _), answer in zip(subscriptions, answers, strict=True):
                jsep = {"type": "answer", "sdp": answer}
                self._tell_plugin(handle, {"request": "start"}, jsep=jsep)
            first += load.callers
        for load in loads:
            load.child.ask("connected")

    def _publish(self, caller: int, offer: str) -> str:
        answer = self._tell_plugin(
            self._attach(),
            {
                "request": "joinandconfigure",
                "ptype": "publisher",
                "room": 1 + caller // PARTIES,
                "id": 1 + caller,
                "filename": f"caller{caller}",
            },
            jsep={"type": "offer", "sdp": offer},
        )
        return str(answer["jsep"]["sdp"])

    def _subscribe(self, caller: int) -> tuple[int, str]:
        handle = self._attach()
        join = {
            "request": "join",
            "ptype": "subscriber",
            "room": 1 + caller // PARTIES,
            "streams": [{"feed": 1 + (caller ^ 1)}],
        }
        until = time.monotonic() + FEED_WITHIN_S
        while True:
            try:
                answer = self._tell_plugin(handle, join)
            except JanusRefused:
                # Our side of the publisher's handshake is through; Janus's may be a moment later.
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return handle, str(answer["jsep"]["sdp"])

    def count(self) -> dict[str, Any]:
        return {}

    def hang_up(self) -> Recipe:
        for handle in self._handles[1:]:  # the first keeps the rooms
            self._ask({"janus": "detach", "session_id": self._session, "handle_id": handle})
        folder = self.directory / "files"
        folder.mkdir()
        callers = PARTIES * self._rooms
        commands = [command for caller in range(callers) for command in self._finish(caller)]
        return Recipe(folder, callers, commands=commands)

    def _finish(self, caller: int) -> list[list[str]]:
        """Each track out of its own recording, then both into one file."""
        folder = self.directory / "files"
        sound, picture = folder / f"{caller}.opus", folder / f"{caller}.webm"
        party = folder / f"party-{caller}.webm"
        tracks = {"audio": sound, "video": picture}
        recordings = self.directory / "recordings"
        commands = [
            ["janus-pp-rec", str(next(recordings.glob(f"caller{caller}-{kind}-*.mjr"))), str(file)]
            for kind, file in tracks.items()
        ]
        mux = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(picture), "-i", str(sound)]
        return [*commands, [*mux, "-c", "copy", str(party)]]

    def close(self) -> None:
        self._socket.close()
        self._end_process()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
