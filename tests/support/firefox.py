"""Debian's Firefox ESR as a person at a page, driven over WebDriver BiDi and nothing else.

Playwright drives only builds of its own, and Debian packages no geckodriver; Firefox itself speaks
BiDi on a WebSocket (https://w3c.github.io/webdriver-bidi/). Clicks and keys are real input events.
The camera and the microphone are Firefox's own fakes: colours that change, and a tone.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aioice.ice import get_host_addresses
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

FIREFOX = "/usr/bin/firefox-esr"
PULSEAUDIO = "/usr/bin/pulseaudio"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
COMMAND_TIMEOUT_S = 60
WAIT_S = 30.0
POLL_S = 0.1

BINDING_ABORTED = "status=2152398850"  # NS_BINDING_ABORTED

Pref = str | int | bool
QUIET: Mapping[str, Pref] = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.region.network.url": "",
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.push.connection.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.update.enabled": False,
    "intl.accept_languages": "zh-CN, zh",
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "http://127.0.0.1:1/",
    "toolkit.telemetry.enabled": False,
}
CALLING: Mapping[str, Pref] = {
    "media.autoplay.default": 0,
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
}
PLATFORM_H264: Mapping[str, Pref] = {
    "gfx.blacklist.webrtc.hw.acceleration.h264": 1,  # nsIGfxInfo.FEATURE_STATUS_OK
    "media.webrtc.encoder_creation_strategy": 1,
    "media.webrtc.hw.h264.enabled": True,
}

# Elements of a role whose words (label or text) contain, or are, the given ones. Hidden ones do not
# count. A subset of the accessible name computation that suffices for these pages.
FIND = """(role, words, exact) => {
  const tags = { button: 'button', link: 'a[href]', option: 'option', textbox: 'input, textarea' };
  const selector = [`[role=${role}]`, tags[role]].filter(Boolean).join(', ');
  const said = (e) => [e.getAttribute('aria-label'),
      ...(e.getAttribute('aria-labelledby') ?? '').split(' ').filter(Boolean)
        .map((id) => document.getElementById(id)?.textContent),
      ...[...(e.labels ?? [])].map((label) => label.innerText),
      e.innerText, e.getAttribute('placeholder')]
    .filter(Boolean).map((text) => text.replace(/\\s+/g, ' ').trim());
  return [...document.querySelectorAll(selector)].filter((e) =>
    e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0 &&
    said(e).some((text) => exact ? text === words : text.includes(words)));
}"""


class FirefoxTrouble(AssertionError):
    """What Firefox refused, or what a page did not show in time."""


def reachable_media() -> dict[str, str]:
    """Settings of a server whose media this machine's Firefox can reach.

    Firefox 153 gathers no 127.0.0.1, whatever `media.peerconnection.ice.loopback` says, and pairs
    no other address with it. Packets to an address of this machine's own never leave it either.
    """
    addresses = [a for a in get_host_addresses(use_ipv4=True, use_ipv6=False) if a != "127.0.0.1"]
    if not addresses:
        raise FirefoxTrouble("Firefox needs an address other than 127.0.0.1 on this machine")
    return {"RECEPTION_MEDIA_HOST": addresses[0], "RECEPTION_MEDIA_ADDRESSES": "[]"}


@dataclass
class FirefoxPage:
    """One tab. Everything a person does waits, up to `WAIT_S`, until it can be done."""

    _session: "_Session"
    _context: str
    complaints: list[str] = field(default_factory=list)

    async def goto(self, url: str) -> None:
        """Open `url` and wait until it is loaded."""
        await self._command("browsingContext.navigate", url=url, wait="complete")

    async def evaluate(self, function: str, *arguments: Any) -> Any:  # Any: JSON, either way
        """Call a JavaScript function in the page, await what it promises, and bring it back."""
        result = await self._command(
            "script.callFunction",
            functionDeclaration=f"""async (...given) => JSON.stringify(
                (await ({function})(...given.map((one) => JSON.parse(one)))) ?? null)""",
            arguments=[{"type": "string", "value": json.dumps(one)} for one in arguments],
            target={"context": self._context},
            awaitPromise=True,
        )
        if result["type"] != "success":
            raise FirefoxTrouble(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    async def until(self, function: str, *arguments: Any, wait_s: float = WAIT_S) -> Any:
        """Until a JavaScript function of the page gives something true; what it gives."""
        deadline = asyncio.get_running_loop().time() + wait_s
        # An element comes over as {}: whether something is true is asked over there.
        asked = f"async (...given) => [await ({function})(...given)].filter(Boolean)"
        while True:
            if found := await self.evaluate(asked, *arguments):
                return found[0]
            if asyncio.get_running_loop().time() > deadline:
                words = await self.evaluate("() => document.body.innerText.slice(0, 1500)")
                raise FirefoxTrouble(f"waited for {function} {arguments}; the page says:\n{words}")
            await asyncio.sleep(POLL_S)

    async def see(self, words: str, *, wait_s: float = WAIT_S) -> None:
        """Until the page shows these words."""
        await self.until("(words) => document.body.innerText.includes(words)", words, wait_s=wait_s)

    async def click(
        self, words: str, *, role: str = "button", exact: bool = False, last: bool = False,
        wait_s: float = WAIT_S,
    ) -> None:  # fmt: skip
        """Press the first (or last) element of `role` with these words, once it is enabled."""
        await self._press(
            f"(role, words, exact, last) => ({FIND})(role, words, exact).at(last ? -1 : 0)",
            role, words, exact, last, wait_s=wait_s,
        )  # fmt: skip

    async def click_test_id(self, test_id: str) -> None:
        """Press the element of that test id."""
        await self._press(
            "(id) => document.querySelector(`[data-testid='${CSS.escape(id)}']`)", test_id
        )

    async def fill(self, label: str, text: str) -> None:
        """Type into the field of that label, after what stands there is selected."""
        await self._press(f"(words) => ({FIND})('textbox', words, false)[0]", label)
        await self.evaluate("() => document.activeElement.select?.()")
        await self.type(text)

    async def type(self, text: str) -> None:
        """Press these keys, one after the other."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        await self._command(
            "input.performActions", actions=[{"type": "key", "id": "keys", "actions": keys}]
        )

    async def video(self, selector: str = "video", *, frames: int = 5) -> bytes:
        """Until a visible video has shown some frames; then what it shows, as PNG."""
        encoded = await self.evaluate(
            """async (selector, frames) => {
              const seen = () => [...document.querySelectorAll(selector)]
                .find((v) => v.checkVisibility() && v.readyState >= 2);
              const late = Date.now() + 15000;
              while (!seen()) {
                if (Date.now() > late) throw new Error('no picture');
                await new Promise((r) => setTimeout(r, 100));
              }
              const v = seen();
              for (let n = 0; n < frames; n++) {
                await new Promise((good, bad) => {
                  setTimeout(() => bad(new Error('the picture stands still')), 10000);
                  v.requestVideoFrameCallback(good);
                });
              }
              const c = document.createElement('canvas');
              c.width = v.videoWidth; c.height = v.videoHeight;
              c.getContext('2d').drawImage(v, 0, 0);
              return c.toDataURL('image/png').split(',')[1]; }""",
            selector,
            frames,
        )
        return base64.b64decode(encoded)

    async def screenshot(self, path: Path | None = None) -> bytes:
        """The viewport as PNG, also written to `path`."""
        result = await self._command("browsingContext.captureScreenshot")
        png = base64.b64decode(result["data"])
        if path is not None:
            path.write_bytes(png)
        return png

    async def _press(self, function: str, *arguments: Any, wait_s: float = WAIT_S) -> None:
        """Scroll to the element that `function` gives once it is enabled and at rest; click it."""
        where = await self.until(
            f"""async (...given) => {{
              const found = ({function})(...given);
              if (!found || found.disabled || found.ariaDisabled === 'true') return null;
              found.scrollIntoView({{ block: 'center', inline: 'center', behavior: 'instant' }});
              const at = () => found.getBoundingClientRect();
              const before = at();
              await new Promise((r) => setTimeout(r, 60));
              const box = at();
              if (!found.isConnected || box.x !== before.x || box.y !== before.y) return null;
              const x = Math.round(box.x + box.width / 2), y = Math.round(box.y + box.height / 2);
              const hit = document.elementFromPoint(x, y);
              return hit && (found.contains(hit) || hit.contains(found)) ? {{ x, y }} : null; }}""",
            *arguments,
            wait_s=wait_s,
        )
        moves = [
            {"type": "pointerMove", "x": where["x"], "y": where["y"]},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        await self._command(
            "input.performActions", actions=[{"type": "pointer", "id": "mouse", "actions": moves}]
        )

    async def _command(self, method: str, **parameters: Any) -> Any:
        # script.* names its context within `target`, everything else beside it.
        here = {} if method.startswith("script.") else {"context": self._context}
        return await self._session.command(method, **here, **parameters)


class _Session:
    """Commands and their answers over one socket; events become complaints of the page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []

    async def command(self, method: str, **parameters: Any) -> Any:
        """Send one command. Raises FirefoxTrouble with Firefox's words if it refuses."""
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        text = json.dumps({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            await self._socket.send(text)
            message = await answer
        if message["type"] == "error":
            raise FirefoxTrouble(f"{method}: {message['message']}")
        return message["result"]

    async def read(self) -> None:
        """Hand out what comes until the socket closes."""
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                message = json.loads(text)
                if message.get("method") == "log.entryAdded":
                    entry = message["params"]
                    # A font whose page was left while it loaded is nobody's fault.
                    if entry["level"] == "error" and BINDING_ABORTED not in entry["text"]:
                        self.complaints.append(f"{entry['type']}: {entry['text']}")
                elif (waiting := self._waiting.pop(message.get("id"), None)) is not None:
                    waiting.set_result(message)
        for waiting in self._waiting.values():
            waiting.set_exception(FirefoxTrouble("Firefox has gone away"))


@asynccontextmanager
async def firefox(
    profile: Path, *, size: tuple[int, int] = (1440, 900), with_h264: bool = False
) -> AsyncIterator[FirefoxPage]:
    """A Firefox process of its own with an empty page; ended by its pid.

    `with_h264` has it use the system's libavcodec, in place of the OpenH264 plugin that it would
    fetch from the network.
    """
    profile.mkdir(parents=True, exist_ok=True)
    chosen = {**QUIET, **CALLING, **(PLATFORM_H264 if with_h264 else {})}
    environment = {"HOME": str(profile), "TZ": "Asia/Shanghai"}
    if with_h264:
        environment["LD_PRELOAD"] = str(await _x264_at_once(profile))
    lines = [f"user_pref({json.dumps(key)}, {json.dumps(value)});" for key, value in chosen.items()]
    (profile / "user.js").write_text("\n".join(lines))
    async with AsyncExitStack() as stack:
        speaker = await stack.enter_async_context(silent_speaker(profile / "sound"))
        process = await asyncio.create_subprocess_exec(
            FIREFOX, "--headless", "--no-remote", "--remote-debugging-port=0",
            "--profile", str(profile),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment, "PULSE_SERVER": speaker},
        )  # fmt: skip
        stack.push_async_callback(_stop, process)
        async with asyncio.timeout(START_TIMEOUT_S):
            address = await _address_of(process)
        await stack.enter_async_context(_background(_drain(process)))
        socket = await stack.enter_async_context(
            connect(f"{address}/session", max_size=None, origin=None)
        )
        session = _Session(socket)
        await stack.enter_async_context(_background(session.read()))
        yield await _open_page(session, size)


@asynccontextmanager
async def silent_speaker(folder: Path) -> AsyncIterator[str]:
    """A sound server whose only device plays into nothing; its address.

    Without any output device Firefox never starts an AudioContext, and no level is measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "socket"
    process = await asyncio.create_subprocess_exec(
        PULSEAUDIO, "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1",
        "--disable-shm=yes", "--load=module-null-sink",
        f"--load=module-native-protocol-unix auth-anonymous=1 socket={socket}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)},
    )  # fmt: skip
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not socket.exists():
                if process.returncode is not None:
                    raise FirefoxTrouble("the sound server did not start")
                await asyncio.sleep(POLL_S)
        yield f"unix:{socket}"
    finally:
        await _stop(process)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that goes on while the block lasts. No task group: a fixture is begun by one task and
    ended by another."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _x264_at_once(folder: Path) -> Path:
    """x264_at_once.c, compiled."""
    library = folder / "x264_at_once.so"
    source = Path(__file__).with_name("x264_at_once.c")
    compiler = await asyncio.create_subprocess_exec(
        "cc", "-shared", "-fPIC", "-Wall", "-o", str(library), str(source), "-ldl"
    )
    if await compiler.wait() != 0:
        raise FirefoxTrouble("x264_at_once.c does not compile")
    return library


async def _open_page(session: _Session, size: tuple[int, int]) -> FirefoxPage:
    await session.command("session.new", capabilities={"alwaysMatch": {}})
    await session.command("session.subscribe", events=["log.entryAdded"])
    tree = await session.command("browsingContext.getTree")
    context = tree["contexts"][0]["context"]
    await session.command(
        "browsingContext.setViewport",
        context=context,
        viewport={"width": size[0], "height": size[1]},
    )
    return FirefoxPage(session, context, session.complaints)


async def _address_of(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = []
    while line := (await process.stderr.readline()).decode(errors="replace"):
        if (found := re.search(r"BiDi listening on (ws://\S+)", line)) is not None:
            return found[1]
        said.append(line)
    raise FirefoxTrouble("Firefox did not start:\n" + "".join(said))


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Its complaints about a missing display and bus would fill the pipe."""
    assert process.stderr is not None
    while await process.stderr.read(4096):
        pass


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
