"""A scripted day in the life, over the wires that people use: HTTP, the signaling socket, media.

For the seed's past talks and for tests. Nothing here reaches into the database: what the pages can
do, a rehearsal can do, in the same order and under the same rules.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any, Self

import httpx

from app.caller import Caller
from app.clips import Speaker, talking_clip
from app.seed_facts import Visit
from app.serve import make_server
from core.clock import Clock
from core.settings import Settings
from media.client import RtcClient, loopback_gathering, tracks_of

READY_WITHIN_S = 180
POLL_S = 0.3

PETITIONER = Speaker("领导您好。我家的草场被征用以后，补偿款一直没有到户。请您帮忙看一看。", "cmn")
OFFICIAL = Speaker("您好，请慢慢说。这件事由州里的部门核对，按期给您书面答复。", "cmn", True)


class Desk:
    """Staff work over HTTP: each account signs in once and keeps its own cookies."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self._password = password
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def as_(self, username: str) -> httpx.AsyncClient:
        """The signed-in client of `username`."""
        if username not in self._clients:
            client = httpx.AsyncClient(base_url=self.url, timeout=30)
            self._clients[username] = client
            await ask(
                client, "POST", "/api/sign-in",
                json={"username": username, "password": self._password},
            )  # fmt: skip
        return self._clients[username]

    async def publish(
        self, official: str, day: date, starts: time, ends: time, *, topics: Sequence[str]
    ) -> str:
        """Publish a reception day of the account's office, for every county; its id."""
        me = await ask(await self.as_(official), "GET", "/api/me")
        scheduler = await self.as_("xinfang")
        counties = await ask(scheduler, "GET", "/api/org-units", params={"level": "county"})
        made = await ask(
            scheduler, "POST", "/api/reception-days",
            json={
                "official_id": me["official_id"], "day": day.isoformat(),
                "starts": starts.isoformat(), "ends": ends.isoformat(), "slot_minutes": 15,
                "rooms": 1, "place": "州群众工作局视频接访室", "topics": list(topics),
                "county_ids": [county["id"] for county in counties],
            },
        )  # fmt: skip
        return str(made["id"])

    async def book(self, day_id: str, visit: Visit) -> dict[str, Any]:  # AppointmentView, as JSON
        """Take the day's next free slot for `visit`, as its county's desk would."""
        return await book(await self.as_(visit.desk), day_id, visit)


async def ask(
    client: httpx.AsyncClient, method: str, path: str, **arguments: Any
) -> Any:  # JSON of the route's own shape
    """One request; anything but success is raised with the problem's own words."""
    response = await client.request(method, path, **arguments)
    if response.is_error:
        raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:300]}")
    return response.json() if response.content else None


async def book(client: httpx.AsyncClient, day_id: str, visit: Visit) -> dict[str, Any]:
    slots = await ask(client, "GET", f"/api/reception-days/{day_id}/slots")
    free = next(slot for slot in slots if slot["state"] == "free")
    hold = await ask(client, "POST", f"/api/slots/{free['id']}/hold")
    counties = await ask(client, "GET", "/api/org-units", params={"level": "county"})
    county = next(unit for unit in counties if unit["code"] == visit.county)
    made: dict[str, Any] = await ask(
        client, "POST", "/api/appointments",
        json={
            "hold_token": hold["token"], "matter": visit.matter, "language": visit.language,
            "county_id": county["id"], "village": visit.village, "people_total": 1,
            "party": [{"name": visit.name, "relation": "petitioner"}],
        },
    )  # fmt: skip
    return made


@dataclass(frozen=True, slots=True)
class Held:
    """What a rehearsed talk left behind."""

    appointment_id: str
    session_id: str
    case_id: str
    case_number: str
    recording_state: str


class Rehearsal:
    """One talk from booking to a playable recording, by two scripted participants."""

    def __init__(self, desk: Desk, official: str, visit: Visit, kiosk_code: str) -> None:
        self._desk = desk
        self._official = official
        self._visit = visit
        self._kiosk_code = kiosk_code

    async def hold(self, day_id: str, talk_s: int, folder: Path) -> Held:
        """Book, arrive, talk for `talk_s` seconds, end, and wait for the files."""
        async with httpx.AsyncClient(base_url=self._desk.url, timeout=30) as kiosk:
            await ask(kiosk, "POST", "/api/kiosk/enrol", json={"code": self._kiosk_code})
            appointment = await book(kiosk, day_id, self._visit)
            await self._arrive(kiosk, appointment)
            official = await self._desk.as_(self._official)
            session_id = await self._talk(kiosk, official, appointment["id"], talk_s, folder)
            return await self._after(appointment["id"], session_id)

    async def _arrive(self, kiosk: httpx.AsyncClient, appointment: dict[str, Any]) -> None:
        path = f"/api/appointments/{appointment['id']}"
        visit = await ask(
            kiosk, "POST", "/api/kiosk/check-in", json={"number": appointment["number"]}
        )
        notice = {"version": visit["notice_version"], "language": self._visit.language}
        await ask(kiosk, "POST", f"{path}/notice", json=notice)
        check = {"picture": True, "bar_moves": True, "heard_self": True}
        await ask(kiosk, "POST", f"{path}/device-check", json=check)

    async def _talk(
        self,
        kiosk: httpx.AsyncClient,
        official: httpx.AsyncClient,
        appointment_id: str,
        talk_s: int,
        folder: Path,
    ) -> str:
        clips = [
            await asyncio.to_thread(
                talking_clip, folder / f"{appointment_id}-{name}.mkv", speaker, seconds=talk_s + 30
            )
            for name, speaker in (("petitioner", PETITIONER), ("official", OFFICIAL))
        ]
        with loopback_gathering():
            async with (
                self._caller(kiosk, appointment_id, clips[0].path) as petitioner,
                self._caller(official, appointment_id, clips[1].path) as leader,
            ):
                await petitioner.wait_ready()
                await leader.wait_ready()
                await leader.admit()
                session_id = await leader.wait_live()
                await self._write_minutes(official, session_id, talk_s)
                await leader.end()
                await petitioner.wait_ended()
        return session_id

    @asynccontextmanager
    async def _caller(
        self, client: httpx.AsyncClient, appointment_id: str, clip: Path
    ) -> AsyncIterator[Caller]:
        entered = await ask(client, "POST", f"/api/appointments/{appointment_id}/enter")
        rtc = RtcClient(tracks_of(clip))
        async with Caller.join(entered["ws_url"], entered["grant"], rtc) as caller:
            yield caller

    async def _write_minutes(
        self, official: httpx.AsyncClient, session_id: str, talk_s: int
    ) -> None:
        """Each demand is noted while it is being said; the talk lasts as long as it lasts."""
        departments = await ask(official, "GET", "/api/org-units", params={"level": "department"})
        today = date.fromisoformat((await self._session(official, session_id))["started_at"][:10])
        pause_s = talk_s / (len(self._visit.demands) + 1)
        for text, answer, owner, days in self._visit.demands:
            await asyncio.sleep(pause_s)
            demand = await ask(
                official, "POST", f"/api/sessions/{session_id}/demands", json={"text": text}
            )
            change: dict[str, str] = {"answer": answer, "outcome": "on_the_spot"}
            if owner is not None and days is not None:
                unit = next(unit for unit in departments if unit["code"] == owner)
                due = (today + timedelta(days=days)).isoformat()
                change |= {"outcome": "by_date", "owner_org_id": unit["id"], "due_on": due}
            await ask(official, "PATCH", f"/api/demands/{demand['id']}", json=change)
        await asyncio.sleep(pause_s)

    async def _session(self, client: httpx.AsyncClient, session_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await ask(client, "GET", f"/api/sessions/{session_id}")
        return found

    async def _after(self, appointment_id: str, session_id: str) -> Held:
        official = await self._desk.as_(self._official)
        scheduler = await self._desk.as_("xinfang")
        async with asyncio.timeout(READY_WITHIN_S):
            outcome = await self._session(official, session_id)
            while outcome["case_id"] is None:
                await asyncio.sleep(POLL_S)
                outcome = await self._session(official, session_id)
            path = f"/api/cases/{outcome['case_id']}"
            recording = (await ask(scheduler, "GET", path))["recording"]
            while recording["state"] not in ("ready", "failed"):
                await asyncio.sleep(POLL_S)
                recording = (await ask(scheduler, "GET", path))["recording"]
        return Held(
            appointment_id, session_id, outcome["case_id"], outcome["case_number"],
            recording["state"],
        )  # fmt: skip


@asynccontextmanager
async def serving(settings: Settings, *, clock: Clock) -> AsyncIterator[str]:
    """A server in this process for as long as the block lasts; its address."""
    started = asyncio.Event()
    server = make_server(settings, clock=clock, on_started=started.set)
    # The process's own signals stay with whoever runs us.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(), name="serve")
    waiting = asyncio.create_task(started.wait(), name="wait until started")
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            raise RuntimeError("the server did not start; its log says why")
        yield f"http://{settings.host}:{settings.port}"
    finally:
        waiting.cancel()
        server.should_exit = True
        await task
