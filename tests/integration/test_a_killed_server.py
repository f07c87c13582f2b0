"""kill -9 in mid-call: what was recorded plays, the session goes on or is told to be over, and
exactly one case exists."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from app.caller import Caller
from app.rehearsal import ask, book
from app.seed_facts import PAST_VISITS
from core.clock import LOCAL_ZONE
from media.client import RtcClient, flash_and_beep, loopback_gathering
from signaling.client import SignalingRefused, open_signaling
from tests.support.prefecture_process import Living, living_prefecture

TALK_BEFORE_KILL_S = 5
GRACE_S = 6
VISIT = PAST_VISITS[0]

pytestmark = pytest.mark.timeout(180)


@dataclass
class Talk:
    """A live talk between two callers, and everything needed to look at it later."""

    living: Living
    kiosk: httpx.AsyncClient
    official: httpx.AsyncClient
    appointment_id: str
    session_id: str
    petitioner: Caller
    leader: Caller


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncIterator[Talk]:
    """A party admitted and heard for some seconds. Callers are cut off when the server dies."""
    async with AsyncExitStack() as stack:
        stack.enter_context(loopback_gathering())
        living = await stack.enter_async_context(
            living_prefecture(tmp_path / "var", RECEPTION_RESUME_GRACE_S=str(GRACE_S))
        )
        kiosk = await stack.enter_async_context(
            httpx.AsyncClient(base_url=living.server.url, timeout=30)
        )
        code = living.founding.kiosk_codes[VISIT.county]
        await ask(kiosk, "POST", "/api/kiosk/enrol", json={"code": code})
        day_id = await living.desk.publish("lingdao", *hours_from_now(), topics=["草场"])
        appointment = await book(kiosk, day_id, VISIT)
        await arrive(kiosk, appointment)
        official = await living.desk.as_("lingdao")
        petitioner = await stack.enter_async_context(enter(kiosk, appointment["id"]))
        leader = await stack.enter_async_context(enter(official, appointment["id"]))
        await petitioner.wait_ready()
        await leader.wait_ready()
        await leader.admit()
        session_id = await leader.wait_live()
        await asyncio.sleep(TALK_BEFORE_KILL_S)  # real media must flow for real seconds
        yield Talk(living, kiosk, official, appointment["id"], session_id, petitioner, leader)


def hours_from_now() -> tuple[Any, Any, Any]:
    """A reception day whose slots begin within minutes, on the local date of its start."""
    now = datetime.now(LOCAL_ZONE) + timedelta(minutes=4)  # time to book before they do
    start = (now + timedelta(minutes=5 - now.minute % 5)).replace(second=0, microsecond=0)
    end = start + timedelta(minutes=60)
    last = start.replace(hour=23, minute=59)
    return start.date(), start.time(), min(end, last).time()


async def arrive(kiosk: httpx.AsyncClient, appointment: dict[str, Any]) -> None:
    number = {"number": appointment["number"]}
    visit = await ask(kiosk, "POST", "/api/kiosk/check-in", json=number)
    notice = {"version": visit["notice_version"], "language": "zh-CN"}
    await ask(kiosk, "POST", f"/api/appointments/{appointment['id']}/notice", json=notice)


@asynccontextmanager
async def enter(client: httpx.AsyncClient, appointment_id: str) -> AsyncIterator[Caller]:
    seat = await ask(client, "POST", f"/api/appointments/{appointment_id}/enter")
    rtc = RtcClient(flash_and_beep())
    async with Caller.join(seat["ws_url"], seat["grant"], rtc) as caller:
        yield caller


async def case_of(talk: Talk) -> dict[str, Any]:
    """The session's case once its recording is finished."""
    scheduler = await talk.living.desk.as_("xinfang")
    async with asyncio.timeout(90):
        while True:
            outcome = await ask(talk.official, "GET", f"/api/sessions/{talk.session_id}")
            if outcome["case_id"] is not None:
                path = f"/api/cases/{outcome['case_id']}"
                case: dict[str, Any] = await ask(scheduler, "GET", path)
                if case["recording"]["state"] in ("ready", "failed"):
                    return case
            await asyncio.sleep(0.3)


def cases_in(var_dir: Path) -> int:
    with sqlite3.connect(var_dir / "reception.db") as connection:
        count: int = connection.execute("SELECT count(*) FROM cases").fetchone()[0]
        return count


def seconds_that_play(path: Path) -> float:
    """How much of a file decodes: the length of its sound."""
    samples = 0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples += frame.samples
            rate = frame.sample_rate
    return samples / rate


async def restart(talk: Talk) -> None:
    server = talk.living.server
    assert server.process is not None
    await asyncio.to_thread(server.kill)
    assert server.process.returncode == -9, "the fault did not happen"
    await asyncio.to_thread(server.start)


async def test_nobody_comes_back_after_a_kill(talk: Talk) -> None:
    await restart(talk)
    case = await case_of(talk)
    assert cases_in(talk.living.server.var_dir) == 1
    assert case["end_reason"] == "node_lost"
    parties = [f for f in case["recording"]["files"] if f["kind"] == "party"]
    assert len(parties) == 2
    for file in parties:
        [path] = talk.living.server.var_dir.glob(f"blobs/**/*{file['participant_id']}*.webm")
        assert seconds_that_play(path) > TALK_BEFORE_KILL_S - 1.0


async def test_who_comes_back_in_time_is_in_the_same_session(talk: Talk) -> None:
    await restart(talk)
    async with (
        enter(talk.kiosk, talk.appointment_id) as petitioner,
        enter(talk.official, talk.appointment_id) as leader,
    ):
        await petitioner.wait_ready()
        await leader.wait_ready()
        await asyncio.sleep(3)
        await leader.end()
        ended = await petitioner.wait_ended()
    assert ended.session_id == talk.session_id
    case = await case_of(talk)
    assert cases_in(talk.living.server.var_dir) == 1
    assert case["session_id"] == talk.session_id
    parties = [f for f in case["recording"]["files"] if f["kind"] == "party"]
    assert all(f["duration_ms"] > (TALK_BEFORE_KILL_S + 2) * 1000 for f in parties)
    assert case["recording"]["gaps"], "the outage is a gap that everyone can see"


async def test_who_comes_back_too_late_is_told_plainly(talk: Talk) -> None:
    token, seq = talk.leader.signaling.resume_token, talk.leader.signaling.last_seq
    seat = await ask(talk.official, "POST", f"/api/appointments/{talk.appointment_id}/enter")
    await restart(talk)
    await case_of(talk)
    assert token is not None
    async with open_signaling(seat["ws_url"]) as late:
        with pytest.raises(SignalingRefused) as refused:
            await late.resume(token, seq)
    assert refused.value.code == "session_ended"
