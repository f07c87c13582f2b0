"""`create_app`: the house put together, from settings to a running ASGI application.

One process takes the roles `web` (pages, API, workflows), `room` (signaling and media) or both.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from app import routes as people_routes
from app import routes_probe, storage
from app.api import Guard, install_errors
from app.database import upgrade
from app.keeping import Keeper
from app.workflows import Workflows
from cases import routes as case_routes
from core.blobs import DirectoryBlobs
from core.clock import Clock, SystemClock
from core.db import Database
from core.edge import Services
from core.errors import NotFound
from core.grants import GrantKey
from core.settings import Settings
from core.store import open_store
from media.node import MediaNode
from scheduling import routes as scheduling_routes
from scheduling import routes_attend
from signaling.endpoint import make_router
from signaling.hub import Hub
from signaling.routes import make_device_router

log = structlog.get_logger()


def create_app(settings: Settings, *, clock: Clock | None = None) -> FastAPI:
    """The application for `settings`. Nothing is opened before the lifespan starts."""
    services = Services(
        settings=settings,
        database=Database(settings.database),
        store=open_store(settings.redis_url),
        blobs=DirectoryBlobs(settings.blobs_dir),
        clock=clock or SystemClock(),
        grant_key=GrantKey(settings.secret_bytes),
    )
    app = FastAPI(
        title="Remote Reception 远程视频接访",
        version="1",
        lifespan=lambda app: _lifespan(app, services),
        docs_url=None,  # Swagger's page loads scripts from elsewhere; /openapi.json is enough
        redoc_url=None,
    )
    app.state.services = services
    install_errors(app)
    app.add_middleware(Guard)
    app.include_router(routes_probe.router)
    if "web" in settings.roles:
        app.include_router(people_routes.router)
        app.include_router(scheduling_routes.router)
        app.include_router(routes_attend.router)
        app.include_router(case_routes.router)
    if "room" in settings.roles:
        app.include_router(make_router(lambda: app.state.hub))
        app.include_router(make_device_router(lambda: app.state.hub))
    if "web" in settings.roles:
        _mount_pages(app, settings.web_dir)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, services: Services) -> AsyncIterator[None]:
    """Open from the ground up, close from the top down."""
    settings = services.settings
    settings.var_dir.mkdir(parents=True, exist_ok=True)
    await upgrade(settings.database)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(services.database.close)
        stack.push_async_callback(services.store.aclose)
        poke = _nobody
        if "web" in settings.roles:
            workflows = Workflows(services)
            await workflows.start()
            stack.push_async_callback(workflows.stop)
            app.state.retry_recording = workflows.retry_recording
            poke = workflows.poke
            await stack.enter_async_context(storage.watched(services))
            keeper = Keeper(services)
            await keeper.start()
            stack.push_async_callback(keeper.stop)
            app.state.keeper = keeper
        if "room" in settings.roles:
            node = await MediaNode.start(
                host=settings.media_host, port=settings.media_port,
                public_addresses=settings.media_addresses, clock=services.clock,
                video_codecs=settings.video_codecs,
            )  # fmt: skip
            stack.push_async_callback(node.aclose)
            hub = Hub(services, node, on_session_event=poke)
            await hub.start()
            stack.push_async_callback(hub.aclose)
            app.state.hub = hub
            log.info("media_listening", port=node.port)
        log.info("started", roles=settings.roles, address=settings.base_url)
        yield
        log.info("stopping")


def _nobody() -> None:
    """Another process dispatches; it looks by itself within a second."""


# Pages of the single-page application; deeper paths belong to its router.
PLACES = ("kiosk", "desk", "office", "schedule", "cases", "review", "archive", "admin", "sign-in")


def _mount_pages(app: FastAPI, web_dir: Path) -> None:
    if not (web_dir / "index.html").is_file():
        log.warning("pages_missing", hint="run: make web")
        return
    app.mount("/assets", Assets(directory=web_dir / "assets"), name="assets")

    @app.api_route("/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(path: str) -> Response:
        """The page of a place, or a file that the build put beside it."""
        place = path.split("/", 1)[0]
        if not path or place in PLACES:
            return FileResponse(web_dir / "index.html", headers={"Cache-Control": "no-cache"})
        file = (web_dir / path).resolve()
        if file.is_file() and file.is_relative_to(web_dir.resolve()):
            return FileResponse(file)
        raise NotFound("There is no such page. Begin at the first page.")


class Assets(StaticFiles):
    """Built files carry their hash in the name, so a browser may keep them for ever."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
