"""Devices without a browser: FFmpeg publishes by WHIP, a hall screen watches by WHEP, and whatever
a device can get wrong is refused in words. Real HTTP, real UDP, one real recording.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import av
import httpx
import imageio_ffmpeg
import pytest
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from app.caller import Caller
from core import given_grants
from core.db import Database
from core.ids import AppointmentId, ParticipantId, RoomId
from media.client import RtcClient, flash_and_beep, loopback_gathering
from media.mux import mux
from media.tracks import TrackName
from signaling.client import SignalingRefused, open_signaling
from signaling.protocol import ParticipantChanged, ParticipantState
from tests.support.databases import create_tables
from tests.support.signal_house import House, eventually, running_house
from tests.unit.media.test_offers import AUDIO, VIDEO, text

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
DEVICE = ParticipantId("device-1")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    database = Database(url)
    await create_tables(database)
    await database.close()
    with loopback_gathering():
        async with running_house(tmp_path, url) as made:
            yield made


@pytest.fixture
async def web(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.http_url, timeout=10) as client:
        yield client


@asynccontextmanager
async def talk(house: House, *, is_live: bool = True) -> AsyncIterator[tuple[str, Caller, Caller]]:
    """A room with a petitioner and an official in it."""
    room = await house.appointment()
    async with AsyncExitStack() as stack:
        callers = []
        for role in ("petitioner", "official"):
            rtc = RtcClient(flash_and_beep())
            joining = Caller.join(house.url, house.grant(room, role), rtc)
            callers.append(await stack.enter_async_context(joining))
        kiosk, official = callers
        await asyncio.gather(kiosk.wait_ready(), official.wait_ready())
        if is_live:
            await official.admit()
            await asyncio.gather(kiosk.wait_live(), official.wait_live())
        yield room, kiosk, official


async def post(
    web: httpx.AsyncClient, path: str, grant: str, sdp: str, **headers: str
) -> httpx.Response:
    return await web.post(
        path, content=sdp, headers={"Authorization": f"Bearer {grant}", **SDP, **headers}
    )


# ── FFmpeg publishes ─────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def encoder(
    house: House, room: str, grant: str, *options: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The encoder of docs/operations.md, with a test picture for a camera."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error",
        "-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=25",
        "-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000",
        "-pix_fmt", "yuv420p", "-c:v", "libx264", "-profile:v", "baseline",
        "-preset", "ultrafast", "-tune", "zerolatency", "-bf", "0", "-g", "25", "-b:v", "300k",
        "-c:a", "libopus", "-ar", "48000", "-ac", "2", *options,
        "-f", "whip", "-authorization", grant, f"{house.http_url}/whip/{room}",
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def hang_up(process: asyncio.subprocess.Process) -> None:
    """Press q, as an operator would: FFmpeg ends the session with DELETE."""
    async with asyncio.timeout(15):
        await process.communicate(b"q")


async def state_of(caller: Caller, wanted: ParticipantState, *, within_s: float = 20) -> None:
    await caller.signaling.next(
        ParticipantChanged,
        lambda m: m.participant.participant_id == DEVICE and m.participant.state is wanted,
        within_s=within_s,
    )


@pytest.mark.slow
async def test_ffmpeg_publishes_into_a_talk_and_is_recorded(house: House, tmp_path: Path) -> None:
    async with talk(house) as (room, kiosk, official):
        grant = house.device_grant(room)
        async with encoder(house, room, grant, "-whip_flags", "dtls_active") as process:
            await state_of(official, ParticipantState.READY)

            async def is_received() -> bool:
                picture = official.rtc.of(DEVICE, TrackName.CAMERA)
                sound = official.rtc.of(DEVICE, TrackName.MICROPHONE)
                return bool(picture and sound and picture.frames > 20 and sound.frames > 100)

            await eventually(is_received, within_s=30)
            await asyncio.sleep(4)
            await hang_up(process)
            assert process.returncode == 0
        await state_of(official, ParticipantState.LEFT)
        await official.end()
        session_id = (await kiosk.wait_ended()).session_id
    session = await house.session_of(room)
    assert session is not None and session.id == session_id
    files = mux(tmp_path / "recordings" / str(session.recording_id), tmp_path / "out").files
    (device,) = [file for file in files if file.participant_id == DEVICE]
    assert (device.role, device.label, device.kind) == ("device", "大厅设备", "party")
    assert device.has_video and device.has_audio
    with av.open(str(tmp_path / "out" / device.path)) as container:
        pictures = list(container.decode(video=0))
    assert len(pictures) > 4 * 25 * 0.8
    assert (pictures[0].width, pictures[0].height) == (320, 240)
    # Its file is as long as it was there, and shorter than the talk.
    assert 4_000 < device.duration_ms < max(f.duration_ms for f in files if f is not device) + 500


@pytest.mark.slow
async def test_an_encoder_that_offers_only_the_dtls_server_s_part_is_taken(house: House) -> None:
    async with (
        talk(house) as (room, _, official),
        encoder(house, room, house.device_grant(room)) as process,
    ):
        await state_of(official, ParticipantState.READY)
        process.kill()
        await process.wait()
        # Nobody said goodbye: it is silent, keeps its seat for the grace time, and is gone.
        await state_of(official, ParticipantState.SILENT)
        await state_of(official, ParticipantState.LEFT)


# ── a hall screen watches ────────────────────────────────────────────────────────────────────────


@dataclass
class Screen:
    """A WHEP player: receives what it is given and counts it."""

    pc: RTCPeerConnection
    frames: dict[str, int] = field(default_factory=dict)  # by mid
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    answer: httpx.Response | None = None

    def watch(self, track: MediaStreamTrack) -> None:
        (mid,) = [t.mid for t in self.pc.getTransceivers() if t.receiver.track is track]
        self.frames[mid or ""] = 0
        self.tasks.append(asyncio.create_task(self._count(track, mid or "")))

    async def _count(self, track: MediaStreamTrack, mid: str) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                await track.recv()
                self.frames[mid] += 1


@asynccontextmanager
async def screen(
    web: httpx.AsyncClient, room: str, grant: str, kinds: tuple[str, ...]
) -> AsyncIterator[Screen]:
    pc = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    made = Screen(pc)
    pc.on("track", made.watch)
    for kind in kinds:
        pc.addTransceiver(kind, direction="recvonly")
    try:
        await pc.setLocalDescription(await pc.createOffer())
        made.answer = await post(web, f"/whep/{room}", grant, pc.localDescription.sdp)
        assert made.answer.status_code == 201, made.answer.text
        await pc.setRemoteDescription(RTCSessionDescription(made.answer.text, "answer"))
        yield made
    finally:
        await pc.close()
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_hall_screen_shows_both_parties_once_the_talk_is_live(
    house: House, web: httpx.AsyncClient
) -> None:
    async with talk(house, is_live=False) as (room, _, official):
        grant = house.device_grant(room, ())
        async with screen(web, room, grant, ("audio", "video", "audio", "video")) as shown:
            await official.signaling.next(
                ParticipantChanged,
                lambda m: (
                    m.participant.role == "display"
                    and m.participant.state is ParticipantState.READY
                ),
            )
            # T7: connected, but nothing is forwarded before the talk is live.
            assert sum(shown.frames.values()) == 0
            await official.admit()
            await official.wait_live()

            async def all_play() -> bool:
                return len(shown.frames) == 4 and all(n > 10 for n in shown.frames.values())

            await eventually(all_play, within_s=30)


async def test_a_section_of_a_screen_goes_to_whoever_is_still_there(
    house: House, web: httpx.AsyncClient
) -> None:
    async with talk(house) as (room, kiosk, _):
        grant = house.device_grant(room, (), watch=("petitioner", "official"))
        async with screen(web, room, grant, ("audio", "video")) as shown:

            async def plays() -> bool:
                return len(shown.frames) == 2 and all(n > 10 for n in shown.frames.values())

            await eventually(plays, within_s=30)
            await kiosk.signaling.ask("leave")
            await asyncio.sleep(0.5)
            shown.frames.update(dict.fromkeys(shown.frames, 0))
            await eventually(plays, within_s=30)


# ── the session's life ───────────────────────────────────────────────────────────────────────────


async def test_the_life_of_a_device_session(house: House, web: httpx.AsyncClient) -> None:
    async with talk(house) as (room, _, official):
        grant = house.device_grant(room)
        auth = {"Authorization": f"Bearer {grant}"}
        begun = await post(web, f"/whip/{room}", grant, text(AUDIO, VIDEO))
        assert begun.status_code == 201
        assert begun.headers["content-type"].startswith("application/sdp")
        assert begun.headers["accept-patch"] == "application/trickle-ice-sdpfrag"
        etag, location = begun.headers["etag"], begun.headers["location"]
        assert etag.startswith('"') and etag.endswith('"')
        assert location.startswith(f"/whip/{room}/")
        assert "a=setup:passive" in begun.text and "m=video 9 UDP/TLS/RTP/SAVPF 96 97" in begun.text

        trickled = "a=ice-ufrag:theirs\r\na=end-of-candidates\r\n"
        restart = "a=ice-ufrag:fresh\r\na=ice-pwd:another-password-of-22\r\n"

        async def patch(body: str, **headers: str) -> httpx.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await web.patch(location, content=body, headers={**auth, **FRAGMENT, **named})

        known = await patch(trickled, If_Match=etag)
        assert (known.status_code, known.content, "etag" in known.headers) == (204, b"", False)
        assert (await patch(trickled)).status_code == 428
        assert (await patch(trickled, If_Match='"another"')).status_code == 412
        assert (await patch("nonsense", If_Match=etag)).status_code == 400
        assert (await patch(trickled, If_Match=etag, Content_Type="text/plain")).status_code == 415
        again = await patch(restart, If_Match="*")
        assert again.status_code == 200
        assert again.headers["etag"] != etag
        assert f"a=ice-ufrag:{again.headers['etag'].strip(chr(34))}" in again.text
        assert "a=candidate:" in again.text
        assert (await patch(trickled, If_Match=etag)).status_code == 412

        other = {"Authorization": f"Bearer {house.device_grant(room)}"}
        assert (await web.delete(location, headers=other)).status_code == 403
        assert (await web.delete(location)).status_code == 401
        # Entity tags mean nothing to DELETE (RFC 9725 §4.3.1).
        ended = await web.delete(location, headers={**auth, "If-Match": '"another"'})
        assert ended.status_code == 200
        assert (await web.delete(location, headers=auth)).status_code == 404
        await state_of(official, ParticipantState.LEFT)


async def test_a_grant_serves_one_connected_device_at_a_time(
    house: House, web: httpx.AsyncClient
) -> None:
    async with talk(house) as (room, _, _):
        grant = house.device_grant(room, ())
        async with screen(web, room, grant, ("video",)) as shown:
            first = shown.answer

            async def is_up() -> bool:
                return shown.pc.connectionState == "connected"

            await eventually(is_up)
            second = await post(web, f"/whep/{room}", grant, shown.pc.localDescription.sdp)
            assert (second.status_code, second.json()["code"]) == (409, "device_busy")
        # Its connection is closed: the same Grant begins anew, and the old session is gone.
        assert first is not None
        offer = text(VIDEO.replace("sendonly", "recvonly"), bundle="a=group:BUNDLE 1")

        async def is_let_in() -> bool:
            return (await post(web, f"/whep/{room}", grant, offer)).status_code == 201

        await eventually(is_let_in)
        gone = await web.delete(
            first.headers["location"], headers={"Authorization": f"Bearer {grant}"}
        )
        assert gone.status_code == 404


async def test_a_camera_left_running_keeps_no_talk_alive(
    house: House, web: httpx.AsyncClient
) -> None:
    async with talk(house) as (room, kiosk, official):
        grant = house.device_grant(room, ())
        async with screen(web, room, grant, ("video",)):
            await kiosk.signaling.ask("leave")
            await asyncio.sleep(1)  # the offer that follows is answered before the other leaves too
            await official.signaling.ask("leave")

            async def is_over() -> bool:
                session = await house.session_of(room)
                return session is not None and session.end_reason == "everyone_left"

            await eventually(is_over)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


async def refused(answer: httpx.Response, status: int, code: str) -> httpx.Response:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].endswith(".")
    return answer


async def test_whoever_brings_no_good_grant_is_refused(
    house: House, web: httpx.AsyncClient
) -> None:
    room, sdp = await house.appointment(), text(AUDIO, VIDEO)
    path = f"/whip/{room}"
    missing = await web.post(path, content=sdp, headers=SDP)
    await refused(missing, 401, "grant_missing")
    assert missing.headers["www-authenticate"] == 'Bearer realm="reception"'
    basic = await web.post(path, content=sdp, headers={**SDP, "Authorization": "Basic eA=="})
    await refused(basic, 401, "grant_missing")
    for bad in ("nonsense", house.device_grant(room, ttl=timedelta(seconds=-1))):
        answer = await refused(await post(web, path, bad, sdp), 401, "grant_refused")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    person = house.grant(room, "petitioner")
    await refused(await post(web, path, person, sdp), 403, "other_grant")
    await refused(await post(web, path, house.device_grant(room, ()), sdp), 403, "other_grant")
    elsewhere = house.device_grant("f" * 32)
    await refused(await post(web, path, elsewhere, sdp), 403, "other_grant")


async def test_a_device_opens_no_room(house: House, web: httpx.AsyncClient) -> None:
    room = await house.appointment()
    answer = await post(web, f"/whip/{room}", house.device_grant(room), text(AUDIO, VIDEO))
    await refused(answer, 409, "room_not_open")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_device_comes_to_a_talk_that_is_over(house: House, web: httpx.AsyncClient) -> None:
    async with talk(house) as (room, _, official):
        await official.end()
        await official.wait_ended()

        async def is_over() -> bool:
            sdp = text(AUDIO, VIDEO)
            answer = await post(web, f"/whip/{room}", house.device_grant(room), sdp)
            return (answer.status_code, answer.json()["code"]) == (410, "session_ended")

        await eventually(is_over)


@pytest.mark.parametrize(
    ("sdp", "wanted"),
    [
        ("hello", (422, "sdp_refused", "not_sdp")),
        (text(AUDIO, VIDEO, bundle="a=x"), (422, "sdp_refused", "bundle")),
        (text(AUDIO, VIDEO).replace("RTP/SAVPF", "RTP/SAVP"), (422, "sdp_refused", "media")),
        (text(AUDIO, VIDEO).replace("sendonly", "inactive"), (422, "sdp_refused", "direction")),
        (
            text(AUDIO, VIDEO.replace("H264", "H265").replace("VP8", "VP9")),
            (406, "offer_not_acceptable", None),
        ),
        (text(AUDIO, VIDEO) + "a=x:" + "x" * 33_000, (413, "too_large", None)),
    ],
)
async def test_an_offer_that_is_not_spoken_is_refused_in_words(
    house: House, web: httpx.AsyncClient, sdp: str, wanted: tuple[int, str, str | None]
) -> None:
    room = await house.appointment()
    answer = await post(web, f"/whip/{room}", house.device_grant(room), sdp)
    status, code, reason = wanted
    await refused(answer, status, code)
    assert answer.json().get("reason") == reason


async def test_only_sdp_is_taken(house: House, web: httpx.AsyncClient) -> None:
    room = await house.appointment()
    answer = await post(
        web, f"/whip/{room}", house.device_grant(room), "{}", **{"Content-Type": "application/json"}
    )
    await refused(answer, 415, "wrong_media_type")


async def test_a_device_whose_permission_is_taken_back_is_let_go_and_kept_out(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    database = Database(url)
    await create_tables(database)
    await database.close()
    with loopback_gathering():
        async with (
            # Its seat would outlast this test by far.
            running_house(tmp_path, url, resume_grace_s=300) as house,
            httpx.AsyncClient(base_url=house.http_url, timeout=10) as web,
            talk(house, is_live=False) as (room, _, official),
        ):
            token = house.device_grant(room)
            grant = house.services.grant_key.verify(token, now=house.services.clock.now())
            sdp = text(AUDIO, VIDEO)
            assert (await post(web, f"/whip/{room}", token, sdp)).status_code == 201
            async with house.database.transaction() as tx:
                await given_grants.note_taken_back(
                    tx, AppointmentId(room), grant.grant_id, by="account:desk",
                    now=house.services.clock.now(),
                )  # fmt: skip
            await given_grants.hint_taken_back(house.services.store, RoomId(room), grant.grant_id)
            await state_of(official, ParticipantState.LEFT)
            await refused(await post(web, f"/whip/{room}", token, sdp), 401, "grant_refused")
            another = house.device_grant(room)
            assert (await post(web, f"/whip/{room}", another, sdp)).status_code == 201


async def test_a_device_s_grant_opens_no_socket(house: House) -> None:
    room = await house.appointment()
    async with open_signaling(house.url) as client:
        with pytest.raises(SignalingRefused, match="grant_refused"):
            await client.join(house.device_grant(room))


@pytest.mark.parametrize("door", ["whip", "whep"])
async def test_methods_kept_for_later_and_preflights(web: httpx.AsyncClient, door: str) -> None:
    endpoint, session = f"/{door}/room", f"/{door}/room/session"
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        answer = await web.request(method, endpoint)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    for method in ("GET", "PUT", "POST"):
        answer = await web.request(method, session)
        assert (answer.status_code, answer.headers["allow"]) == (405, "PATCH, DELETE, OPTIONS")
    assert (await web.head(endpoint)).status_code == 405
    page = {"Origin": "https://studio.example", "Access-Control-Request-Method": "POST"}
    preflight = await web.options(endpoint, headers=page)
    assert preflight.status_code == 200
    assert preflight.headers["accept-post"] == "application/sdp"
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert (await web.options(session)).headers["accept-patch"]


async def test_a_page_of_elsewhere_may_bring_its_grant(
    house: House, web: httpx.AsyncClient
) -> None:
    room = await house.appointment()
    answer = await post(
        web, f"/whip/{room}", house.device_grant(room), text(AUDIO, VIDEO),
        Origin="https://studio.example", **{"Sec-Fetch-Site": "cross-site"},
    )  # fmt: skip
    await refused(answer, 409, "room_not_open")
    assert "Location" in answer.headers["access-control-expose-headers"]
