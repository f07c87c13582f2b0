"""Who calls in a network drill: Debian's Chromium, or aiortc, each on a host of the lab.

Both are real clients with real encoders. Chromium is what petitioners and officials use: it adapts
its picture, conceals lost sound and counts its own freezes. aiortc is light and is there for tests
on small machines; it does not report freezes.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from bench.netlab import ROOT, Host

CHROMIUM: Final = "/usr/bin/chromium"
JOIN_TIMEOUT_S: Final = 20
# Any address will do: the request is answered here. https, because only a secure page has a camera.
PAGE: Final = "https://caller.invalid/"

Numbers = dict[str, float]
"""Counters since the call began, by the names in `NAMES`."""

NAMES: Final = (
    "audio_sent", "audio_resent", "video_bytes_sent", "video_resent",
    "nacks_heard", "plis_heard",
    "audio_received", "audio_lost", "concealed", "samples",
    "video_received", "frames", "freezes", "frozen_ms", "nacks_asked", "plis_asked",
    "video_bytes_received", "rtt_ms", "width",
)  # fmt: skip


class Caller(Protocol):
    """One party of one call after the other."""

    async def join(self, offer: dict[str, Any]) -> str:
        """Answer the server's offer; the answer's SDP."""
        ...

    async def numbers(self) -> Numbers: ...

    async def leave(self) -> None: ...


# -- Chromium ------------------------------------------------------------------------------------

SCRIPT: Final = """
<!doctype html><video id=v autoplay playsinline></video><script>
let pc = null, devices = null;
async function join(offer) {
  devices = devices || await navigator.mediaDevices.getUserMedia(
    {video: {width: 640, height: 480, frameRate: 25}, audio: true});
  pc = new RTCPeerConnection();
  const stream = new MediaStream();
  pc.ontrack = event => { stream.addTrack(event.track); v.srcObject = stream; };
  await pc.setRemoteDescription({type: 'offer', sdp: offer.sdp});
  for (const track of offer.tracks) {
    const transceiver = pc.getTransceivers().find(t => t.mid === track.mid);
    transceiver.direction = track.direction === 'send' ? 'sendonly' : 'recvonly';
    if (track.direction === 'send')
      await transceiver.sender.replaceTrack(
        devices.getTracks().find(t => (t.kind === 'video') === (track.name === 'camera')));
  }
  await pc.setLocalDescription(await pc.createAnswer());
  for (const sender of pc.getSenders()) {
    if (!sender.track || sender.track.kind !== 'video') continue;
    const parameters = sender.getParameters();
    for (const encoding of parameters.encodings) encoding.maxBitrate = 1200000;
    await sender.setParameters(parameters);
  }
  return pc.localDescription.sdp;
}
function leave() { if (pc) pc.close(); pc = null; }
async function numbers() {
  const n = {};
  const add = (name, value) => { n[name] = (n[name] || 0) + (value || 0); };
  for (const [, s] of await pc.getStats()) {
    if (s.type === 'outbound-rtp' && s.kind === 'audio') {
      add('audio_sent', s.packetsSent - (s.retransmittedPacketsSent || 0));
      add('audio_resent', s.retransmittedPacketsSent);
    } else if (s.type === 'outbound-rtp') {
      add('video_bytes_sent', s.bytesSent); add('video_resent', s.retransmittedPacketsSent);
      add('nacks_heard', s.nackCount); add('plis_heard', s.pliCount); add('width', s.frameWidth);
    } else if (s.type === 'inbound-rtp' && s.kind === 'audio') {
      add('audio_received', s.packetsReceived); add('audio_lost', s.packetsLost);
      add('concealed', s.concealedSamples - (s.silentConcealedSamples || 0));
      add('samples', s.totalSamplesReceived);
    } else if (s.type === 'inbound-rtp') {
      add('video_received', s.packetsReceived); add('frames', s.framesDecoded);
      add('freezes', s.freezeCount); add('frozen_ms', 1000 * s.totalFreezesDuration);
      add('nacks_asked', s.nackCount); add('plis_asked', s.pliCount);
      add('video_bytes_received', s.bytesReceived);
    } else if (s.type === 'candidate-pair' && s.nominated) {
      add('rtt_ms', 1000 * (s.currentRoundTripTime || 0));
    }
  }
  return n;
}
</script>
"""
FLAGS: Final = (
    "--no-sandbox",  # labs need root
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


class ChromiumCaller:
    """A page that answers offers; one browser process for all its calls."""

    def __init__(self, page: Any) -> None:  # Any: playwright is only there for tests and drills
        self._page = page

    async def join(self, offer: dict[str, Any]) -> str:
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            answer: str = await self._page.evaluate("offer => join(offer)", offer)
        return answer

    async def numbers(self) -> Numbers:
        found: Numbers = await self._page.evaluate("numbers()")
        return {name: found.get(name, 0) for name in NAMES}

    async def leave(self) -> None:
        await self._page.evaluate("leave()")


@asynccontextmanager
async def chromium_on(host: Host, camera: Path, microphone: Path) -> AsyncIterator[ChromiumCaller]:
    """A browser on `host` whose fake devices play these files in a loop."""
    from playwright.async_api import async_playwright

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reception-caller-")))
        wrapper = folder / "chromium"
        words = " ".join(host.command([CHROMIUM]))
        wrapper.write_text(f'#!/bin/sh\nexec {words} "$@" 2>/dev/null\n', encoding="ascii")
        wrapper.chmod(0o700)
        driver = await stack.enter_async_context(async_playwright())
        browser = await driver.chromium.launch(
            executable_path=wrapper,
            args=[
                *FLAGS,
                f"--use-file-for-fake-video-capture={camera}",
                f"--use-file-for-fake-audio-capture={microphone}",
            ],
        )
        stack.push_async_callback(browser.close)
        page = await browser.new_page()

        async def answer(route: Any) -> None:
            await route.fulfill(body=SCRIPT, content_type="text/html; charset=utf-8")

        await page.route("**/*", answer)
        await page.goto(PAGE)
        yield ChromiumCaller(page)


# -- aiortc --------------------------------------------------------------------------------------


class AiortcCaller:
    """A child process with media/client.py in it; one JSON line there, one back."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def join(self, offer: dict[str, Any]) -> str:
        answer = await self._ask({"verb": "join", "offer": offer})
        return str(answer["sdp"])

    async def numbers(self) -> Numbers:
        found = await self._ask({"verb": "numbers"})
        return {name: found.get(name, 0) for name in NAMES}

    async def leave(self) -> None:
        await self._ask({"verb": "leave"})

    async def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("A caller's process has ended early.")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def aiortc_on(host: Host, clip: Path | None) -> AsyncIterator[AiortcCaller]:
    """A Python client on `host` that plays `clip`, or flashes and beeps."""
    arguments = [sys.executable, "-m", "bench.callers", str(clip or "")]
    process = await asyncio.create_subprocess_exec(
        *host.command(arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield AiortcCaller(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _call(clip: str) -> None:
    """The child: obey until standard input closes."""
    from core.ids import ParticipantId
    from media.client import RtcClient, flash_and_beep, tracks_of
    from media.peer import Offer, OfferedTrack
    from media.tracks import TrackName

    def offer_of(values: dict[str, Any]) -> Offer:
        tracks = tuple(
            OfferedTrack(
                t["mid"], ParticipantId(t["participant_id"]), TrackName(t["name"]), t["direction"]
            )
            for t in values["tracks"]
        )
        return Offer(values["revision"], values["sdp"], tracks, values["leg"])

    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    client: RtcClient | None = None
    while line := await reader.readline():
        order: dict[str, Any] = json.loads(line)
        answer: dict[str, Any] = {}
        match order["verb"]:
            case "join":
                client = RtcClient(tracks_of(Path(clip), loop=True) if clip else flash_and_beep())
                answer = {"sdp": await client.accept(offer_of(order["offer"]))}
            case "numbers" if client is not None:
                answer = await _numbers_of(client)
            case "leave" if client is not None:
                await client.aclose()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


async def _numbers_of(client: Any) -> Numbers:
    """aiortc's statistics under the names that Chromium's have."""
    found: Numbers = {}
    for entry in (await client.pc.getStats()).values():
        if entry.type == "outbound-rtp" and entry.kind == "audio":
            found["audio_sent"] = entry.packetsSent
        elif entry.type == "outbound-rtp":
            found["video_bytes_sent"] = entry.bytesSent
        elif entry.type == "inbound-rtp" and entry.kind == "audio":
            found["audio_received"] = entry.packetsReceived
            found["audio_lost"] = entry.packetsLost
        elif entry.type == "inbound-rtp":
            found["video_received"] = entry.packetsReceived
    for track in client.received.values():
        if track.name.kind == "video":
            found["frames"] = track.frames
    return found


if __name__ == "__main__":
    asyncio.run(_call(sys.argv[1]))
