"""How long from a Grant to the other party's picture?

A talk is live; one party stays, the other comes back again and again, each time with a fresh Grant
and nothing kept: the socket, the offer, ICE, DTLS and the first picture are all waited for.

    chromium   two pages; until the first decoded frame is on the screen (requestVideoFrameCallback)
    thin       a client that does not decode; from the socket's opening to the first packet of a
               picture that can be decrypted

    run(count, kinds) -> {"rows": [{"kind", "p50_ms", "p90_ms", "p95_ms", …}], …}
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from bench.circumstances import circumstances
from bench.clip import read_clip
from bench.house import HouseProcess, running_house
from bench.media_caller import Caller, Counts
from bench.media_load import clip_file
from core.clock import SystemClock
from core.grants import GrantKey, new_grant
from core.ids import AppointmentId, ParticipantId, RoomId, new_id
from signaling import protocol
from signaling.client import SignalingClient, SignalingRefused, open_signaling

KINDS: Final = ("thin", "chromium")
TARGET_P95_MS: Final = {"chromium": 700.0, "thin": None}
STUCK_MS: Final = 1000.0
JOIN_WITHIN_S: Final = 20.0
CHROMIUM: Final = "/usr/bin/chromium"
FRAME_S: Final = 1 / 30
CONSENT_EVERY_FRAMES: Final = 75


class Talk:
    """One room of a served house, and the Grants for its two seats."""

    def __init__(self, house: HouseProcess) -> None:
        self.url = f"ws://127.0.0.1:{house.port}/signal"
        self._key = GrantKey((house.var_dir / "secret").read_text().strip().encode())
        self._room, self._appointment = RoomId(new_id()), AppointmentId(new_id())
        self._official, self._county = new_id(), new_id()
        self._seats = {role: ParticipantId(new_id()) for role in ("official", "petitioner")}

    def grant(self, role: str) -> str:
        """A fresh, unused Grant for this role's seat."""
        return self._key.sign(
            new_grant(
                room_id=self._room, appointment_id=self._appointment,
                participant_id=self._seats[role], role=role, label_zh=role, label_bo=None,
                label_en=role, publish=("camera", "microphone"), may_admit=role == "official",
                may_end=role == "official", slot_ends_at=None, official_id=self._official,
                county_id=self._county, now=SystemClock().now(), ttl=timedelta(seconds=60),
            )
        )  # fmt: skip


def run(count: int, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """Join `count` times with each kind of client. Raises RuntimeError, TimeoutError."""
    rows = []
    for kind in kinds:
        with (
            tempfile.TemporaryDirectory(prefix="reception-join-") as var_dir,
            running_house(
                Path(var_dir), "-m", "bench.rooms",
                RECEPTION_ROLES='["room"]', RECEPTION_COUNTDOWN_S="0",
            ) as house,
        ):  # fmt: skip
            joins = _thin(Talk(house), count) if kind == "thin" else _chromium(Talk(house), count)
            rows.append(_summary(kind, asyncio.run(joins)))
    targets = [(row["p95_ms"], TARGET_P95_MS[row["kind"]]) for row in rows]
    met = all(target is None or p95_ms < target for p95_ms, target in targets)
    return {"rows": rows, "met": met}


def in_words(row: dict[str, Any]) -> str:
    """A row as a line for people."""
    return (
        f"{row['kind']}: p50 {row['p50_ms']:.0f} ms, p95 {row['p95_ms']:.0f} ms, "
        f"worst {row['worst_ms']:.0f} ms over {row['joins']} joins"
    )


def _summary(kind: str, joins: list[dict[str, float]]) -> dict[str, Any]:
    """Quantiles of the whole, medians of the way there."""
    whole = sorted(join["picture"] for join in joins)
    marks = {name: round(statistics.median(join[name] for join in joins), 1) for name in joins[0]}
    return {
        "kind": kind,
        "joins": len(joins),
        "p50_ms": round(_quantile(whole, 0.5), 1),
        "p90_ms": round(_quantile(whole, 0.9), 1),
        "p95_ms": round(_quantile(whole, 0.95), 1),
        "worst_ms": round(whole[-1], 1),
        "stuck": sum(each > STUCK_MS for each in whole),
        "median_marks_ms": marks,
        **circumstances(),
    }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# -- The client that does not decode -------------------------------------------------------------


class Marks:
    """How far a join has come, in ms after its beginning."""

    def __init__(self) -> None:
        self.at_ms: dict[str, float] = {}
        self._began = time.perf_counter()

    def add(self, name: str) -> None:
        self.at_ms[name] = (time.perf_counter() - self._began) * 1000


class _Thin:
    """A seat taken by a caller that only counts. `answered`: its first offer has been."""

    def __init__(self, caller: Caller, counts: Counts) -> None:
        self.caller = caller
        self.counts = counts
        self.answered = asyncio.Event()

    async def answer_offers(self, signaling: SignalingClient) -> None:
        """Answer everything that is offered, until cancelled."""
        line = self.caller.out
        while True:
            offer = await signaling.next(protocol.Offer, within_s=float("inf"))
            if not self.answered.is_set():
                line.meet(offer.sdp, is_controlling=True)
            # An answer that a newer offer has overtaken is of no use to anyone.
            with contextlib.suppress(SignalingRefused):
                await signaling.answer(offer.revision, self.caller.answer(offer.sdp, line))
            self.answered.set()

    async def send_pictures(self) -> None:
        """Thirty pictures a second and no sound, so that whatever arrives is of a picture."""
        line = self.caller.out
        asyncio.get_running_loop().add_reader(line.socket.fileno(), line.read, self.counts)
        begin, count = time.monotonic(), 0
        while True:
            self.caller.send_frame(time.monotonic_ns())
            if count % CONSENT_EVERY_FRAMES == 0:
                self.caller.consent(time.monotonic_ns())
            count += 1
            await asyncio.sleep(max(0.0, begin + count * FRAME_S - time.monotonic()))

    async def first_picture(self) -> None:
        while not self.counts.received:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def _seated(
    talk: Talk, role: str, caller: Caller, counts: Counts
) -> AsyncIterator[tuple[_Thin, SignalingClient, Marks]]:
    """Come in and connect, and send from then on; hang up at the end of the block."""
    marks = Marks()
    thin = _Thin(caller, counts)
    async with open_signaling(talk.url) as signaling:
        marks.add("socket")
        answering = asyncio.create_task(thin.answer_offers(signaling), name="answer")
        sending: asyncio.Task[None] | None = None
        try:
            await signaling.join(talk.grant(role))
            marks.add("joined")
            await thin.answered.wait()
            marks.add("answered")
            await caller.out.join()
            marks.add("connected")
            sending = asyncio.create_task(thin.send_pictures(), name="send")
            yield thin, signaling, marks
        finally:
            tasks = [task for task in (answering, sending) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            asyncio.get_running_loop().remove_reader(caller.out.socket.fileno())
            caller.out.socket.close()


async def _thin(talk: Talk, count: int) -> list[dict[str, float]]:
    joins: list[dict[str, float]] = []
    with clip_file() as path:
        clip = read_clip(path)

        def caller(seed: int) -> tuple[Caller, Counts]:
            counts = Counts()
            return Caller(seed, "127.0.0.1", clip, counts, hears=1), counts

        async with _seated(talk, "official", *caller(1)) as (_, official, _):
            # The first join is also the talk's beginning and does not count.
            for number in range(count + 1):
                async with (
                    asyncio.timeout(JOIN_WITHIN_S),
                    _seated(talk, "petitioner", *caller(2 + number)) as (thin, _, marks),
                ):
                    if number == 0:
                        await _go_live(official)
                    await thin.first_picture()
                    marks.add("picture")
                    joins.append(marks.at_ms)
    return joins[1:]


async def _go_live(official: SignalingClient) -> None:
    """Admit as soon as the room takes it: everyone has to be ready."""
    while True:
        try:
            await official.ask("admit")
            break
        except SignalingRefused:
            await asyncio.sleep(0.1)
    await official.next(
        protocol.RoomChanged, lambda change: change.state is protocol.RoomState.LIVE
    )


# -- Chromium ------------------------------------------------------------------------------------

PAGE: Final = """
<!doctype html><video id=picture autoplay playsinline muted></video><script>
let socket = null, pc = null, devices = null, waiting = {}, listeners = [];
async function camera() {
  const video = {width: 640, height: 480};
  devices = await navigator.mediaDevices.getUserMedia({video, audio: true});
}
function say(message) { socket.send(JSON.stringify(message)); }
function ask(message) {
  return new Promise((resolve, reject) => {
    waiting[message.id] = m => m.type === 'error' ? reject(new Error(m.code)) : resolve(m);
    say(message);
  });
}
async function enter(url, grant) {
  const began = performance.now(), marks = {};
  const mark = name => { marks[name] = performance.now() - began; };
  const shown = new Promise(resolve => picture.requestVideoFrameCallback(resolve));
  pc = new RTCPeerConnection();
  const stream = new MediaStream();
  pc.ontrack = event => { stream.addTrack(event.track); picture.srcObject = stream; };
  pc.onconnectionstatechange = () => { if (pc.connectionState === 'connected') mark('connected'); };
  const leg = pc;
  socket = new WebSocket(url);
  let last = Promise.resolve();
  socket.onmessage = event => {
    const message = JSON.parse(event.data);
    if (message.type === 'offer') last = last.then(() => answer(leg, message, mark));
    const heard = message.id && waiting[message.id];
    if (heard) { delete waiting[message.id]; heard(message); }
    for (const listener of listeners) listener(message);
  };
  await new Promise(resolve => { socket.onopen = resolve; });
  mark('socket');
  say({type: 'hello', versions: [VERSION]});
  await ask({type: 'join', id: 'j', grant});
  mark('joined');
  window.shown = shown.then(() => { mark('picture'); return marks; });
  window.beating = setInterval(() => say({type: 'ping', t: 0}), 1000);
}
async function answer(leg, offer, mark) {
  await leg.setRemoteDescription({type: 'offer', sdp: offer.sdp});
  for (const track of offer.tracks) {
    const transceiver = leg.getTransceivers().find(each => each.mid === track.mid);
    if (track.direction !== 'send') { transceiver.direction = 'recvonly'; continue; }
    transceiver.direction = 'sendonly';
    const kind = track.track === 'microphone' ? 'audio' : 'video';
    await transceiver.sender.replaceTrack(devices.getTracks().find(each => each.kind === kind));
  }
  await leg.setLocalDescription(await leg.createAnswer());
  const id = 'a' + offer.revision;
  try { await ask({type: 'answer', id, revision: offer.revision, sdp: leg.localDescription.sdp}); }
  catch (refused) { if (refused.message !== 'stale_answer') throw refused; }
  mark('answered');
}
async function admit() {
  for (;;) {
    try { return await ask({type: 'admit', id: 'x' + Math.random().toString(36).slice(2)}); }
    catch (refused) { await new Promise(resolve => setTimeout(resolve, 100)); }
  }
}
function hangUp() {
  clearInterval(window.beating);
  if (socket) socket.close();
  if (pc) pc.close();
  picture.srcObject = null;
}
</script>
""".replace("VERSION", str(protocol.PROTOCOL_VERSION))
FLAGS: Final = (
    "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
    "--allow-loopback-in-peer-connection", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows", "--disable-background-timer-throttling",
    # The page is ours and came from no server, so Chromium takes it for one from outside.
    "--disable-features=LocalNetworkAccessChecks",
)  # fmt: skip


async def _chromium(talk: Talk, count: int) -> list[dict[str, float]]:
    # For tests and drills only, so not among the house's dependencies.
    from playwright.async_api import async_playwright

    joins: list[dict[str, float]] = []
    async with AsyncExitStack() as stack:
        driver = await stack.enter_async_context(async_playwright())
        pages = []
        for _ in range(2):
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            stack.push_async_callback(browser.close)
            page = await browser.new_page()

            async def blank(route: Any) -> None:  # Any: playwright's types come with playwright
                await route.fulfill(body=PAGE, content_type="text/html; charset=utf-8")

            # From the server's own origin: the signaling socket refuses every other.
            await page.route("**/join", blank)
            await page.goto(talk.url.replace("ws:", "http:").replace("/signal", "/join"))
            await page.evaluate("camera()")
            pages.append(page)
        stays, comes = pages
        await stays.evaluate(
            "([url, grant]) => enter(url, grant)", [talk.url, talk.grant("official")]
        )
        for number in range(count + 1):
            async with asyncio.timeout(JOIN_WITHIN_S):
                await comes.evaluate(
                    "([url, grant]) => enter(url, grant)", [talk.url, talk.grant("petitioner")]
                )
                if number == 0:
                    await stays.evaluate("admit()")
                marks: dict[str, float] = await comes.evaluate("window.shown")
            joins.append({name: marks[name] for name in sorted(marks, key=marks.__getitem__)})
            await comes.evaluate("hangUp()")
    return joins[1:]
