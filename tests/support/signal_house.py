"""A room server inside the test's own loop: the real endpoint, hub, media node, database and store,
under a real uvicorn on a free loopback port. No pages, no workflows.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from sqlalchemy import delete, select

from app.api import Guard, install_errors
from app.serve import PatientHttp, PatientSocket
from core.blobs import DirectoryBlobs
from core.clock import SystemClock
from core.db import Database
from core.edge import Services
from core.events import Event, EventKind
from core.grants import GrantKey, new_grant
from core.ids import AppointmentId, ParticipantId, RoomId
from core.settings import Settings
from core.store import open_store
from media.node import MediaNode
from signaling.endpoint import make_router
from signaling.hub import Hub
from signaling.model import Attendance, Session
from signaling.ports import OpenRecorder
from signaling.protocol import MAX_MESSAGE_BYTES
from signaling.routes import make_device_router
from tests.support.matters import Prefecture, make_prefecture, make_talk


@dataclass(frozen=True, slots=True)
class House:
    """A running room server."""

    services: Services
    hub: Hub
    port: int
    prefecture: Prefecture

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/signal"

    @property
    def database(self) -> Database:
        return self.services.database

    async def appointment(self) -> str:
        """A checked-in appointment that has not been called yet; its id is its room's."""
        return await make_appointment(self.database, self.prefecture)

    def grant(self, appointment_id: str, role: str, *, ttl: timedelta | None = None) -> str:
        """A signed Grant as `enter` would give it."""
        now = self.services.clock.now()
        presides = role == "official"
        tracks = ("camera", "microphone")
        grant = new_grant(
            room_id=RoomId(appointment_id), appointment_id=AppointmentId(appointment_id),
            participant_id=ParticipantId(f"{role}-1"), role=role, label_zh=f"{role}席",
            label_bo=None, label_en=role,
            publish=(*tracks, "document") if role == "petitioner" else tracks,
            may_admit=presides, may_end=presides, slot_ends_at=now + timedelta(minutes=20),
            official_id=self.prefecture.official_id, county_id=self.prefecture.units["513328"],
            now=now, ttl=ttl or timedelta(minutes=1),
        )  # fmt: skip
        return self.services.grant_key.sign(grant)

    def device_grant(
        self,
        appointment_id: str,
        publish: tuple[str, ...] = ("camera", "microphone"),
        *,
        ttl: timedelta = timedelta(hours=12),
        watch: tuple[str, ...] = (),
    ) -> str:
        """A signed Grant as staff make for a device; a screen publishes nothing."""
        now = self.services.clock.now()
        role = "device" if publish else "display"
        grant = new_grant(
            room_id=RoomId(appointment_id), appointment_id=AppointmentId(appointment_id),
            participant_id=ParticipantId(f"{role}-1"), role=role, label_zh="大厅设备",
            label_bo=None, label_en=role, publish=publish, may_admit=False, may_end=False,
            slot_ends_at=None, official_id=self.prefecture.official_id,
            county_id=self.prefecture.units["513328"], now=now, ttl=ttl, watch=watch,
        )  # fmt: skip
        return self.services.grant_key.sign(grant)

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def session_of(self, appointment_id: str) -> Session | None:
        async with self.database.reading() as tx:
            return await tx.scalar(select(Session).where(Session.appointment_id == appointment_id))

    async def ended_events(self) -> list[Event]:
        async with self.database.reading() as tx:
            rows = await tx.scalars(select(Event).where(Event.kind == EventKind.SESSION_ENDED))
            return list(rows)


async def make_appointment(database: Database, prefecture: Prefecture) -> str:
    """An appointment without a session."""
    talk = await make_talk(database, prefecture)
    async with database.transaction() as tx:
        await tx.execute(delete(Attendance).where(Attendance.session_id == talk.session_id))
        await tx.execute(delete(Session).where(Session.id == talk.session_id))
    return talk.appointment_id


@asynccontextmanager
async def running_house(
    var_dir: Path,
    database_url: str,
    *,
    redis_url: str = "",
    prefecture: Prefecture | None = None,
    open_recorder: OpenRecorder | None = None,
    **changes: object,
) -> AsyncIterator[House]:
    """A started house; drained and closed at the end."""
    fast = {"countdown_s": 0, "resume_grace_s": 5, "min_free_disk_mib": 64}
    settings = Settings.model_validate(
        {
            "var_dir": var_dir,
            "database_url": database_url,
            "redis_url": redis_url,
            **fast,
            **changes,
        }
    )
    services = Services(
        settings=settings, database=Database(database_url), store=open_store(redis_url),
        blobs=DirectoryBlobs(settings.blobs_dir), clock=SystemClock(),
        grant_key=GrantKey(b"k" * 32),
    )  # fmt: skip
    node = await MediaNode.start(
        host="127.0.0.1", port=0, public_addresses=["127.0.0.1"], clock=services.clock
    )
    hub = Hub(services, node, open_recorder=open_recorder)
    await hub.start()
    app = FastAPI()
    app.state.services = services
    install_errors(app)
    app.add_middleware(Guard)
    app.include_router(make_router(lambda: hub))
    app.include_router(make_device_router(lambda: hub))
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=0, http=PatientHttp, ws=PatientSocket,
            ws_max_size=MAX_MESSAGE_BYTES, ws_per_message_deflate=False, lifespan="off",
            log_config=None, timeout_graceful_shutdown=3,
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
            assert not serving.done(), "uvicorn did not start"
        port: int = server.servers[0].sockets[0].getsockname()[1]
        yield House(services, hub, port, prefecture or await make_prefecture(services.database))
    finally:
        server.should_exit = True
        await serving
        await hub.aclose()
        await node.aclose()
        await services.database.close()
        await services.store.aclose()


async def eventually(
    check: Callable[[], Awaitable[bool]], *, within_s: float = 10.0, every_s: float = 0.05
) -> None:
    """Wait until `check` holds; TimeoutError if it never does."""
    async with asyncio.timeout(within_s):
        while not await check():
            await asyncio.sleep(every_s)
