"""Beside the call: what it came to, minutes, demands, pages, the three faces, and the brief."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cases import access, materials, minutes, views
from cases.brief import brief
from cases.materials import NoSuchMaterial
from cases.model import Demand, Rating
from cases.schemas import (
    DemandChange,
    DemandCreate,
    DemandView,
    FaceRating,
    MaterialView,
    MinutesChange,
    MinutesView,
    SessionOutcome,
)
from core.clock import local_date
from core.edge import Context, allow
from core.ids import MaterialId
from core.policy import Verb
from core.schemas import Language, Line
from core.store import limit
from scheduling.access import require_appointment
from scheduling.schemas import BriefView
from scheduling.views import find_appointment
from signaling.model import Session

router = APIRouter(prefix="/api", tags=["session"])

MOST_UPLOADS = 40
PER_UPLOADS = timedelta(minutes=10)


async def _session(tx: AsyncSession, ctx: Context, session_id: str, verb: Verb) -> Session:
    session, place = await access.session_place(tx, session_id)
    access.require(ctx.principal, verb, place, now=ctx.now)
    return session


async def _demand(
    tx: AsyncSession, ctx: Context, demand_id: str, verb: Verb
) -> tuple[Session, Demand]:
    row = await minutes.demand(tx, demand_id)
    return await _session(tx, ctx, row.session_id, verb), row


def _view(ctx: Context, row: Demand) -> DemandView:
    return minutes.demand_view(row, today=local_date(ctx.now))


@router.get("/sessions/{session_id}")
async def session_outcome(
    session_id: str, ctx: Annotated[Context, allow(Verb.SEE_SESSION)]
) -> SessionOutcome:
    async with ctx.database.reading() as tx:
        session = await _session(tx, ctx, session_id, Verb.SEE_SESSION)
        return await views.session_outcome(tx, session, today=local_date(ctx.now))


@router.get("/appointments/{appointment_id}/outcome")
async def appointment_outcome(
    appointment_id: str, ctx: Annotated[Context, allow(Verb.SEE_SESSION)]
) -> SessionOutcome:
    """What an appointment came to; 404 `no_session` until it was called."""
    async with ctx.database.reading() as tx:
        session, place = await access.appointment_session(tx, appointment_id)
        access.require(ctx.principal, Verb.SEE_SESSION, place, now=ctx.now)
        return await views.session_outcome(tx, session, today=local_date(ctx.now))


@router.get("/appointments/{appointment_id}/brief")
async def appointment_brief(
    appointment_id: str,
    ctx: Annotated[Context, allow(Verb.SEE_APPOINTMENTS)],
    lang: Language = Language.CHINESE,
) -> BriefView:
    async with ctx.database.reading() as tx:
        appointment = await find_appointment(tx, appointment_id)
        require_appointment(ctx.principal, Verb.SEE_APPOINTMENTS, appointment)
        return await brief(tx, appointment, now=ctx.now, language=lang)


@router.get("/sessions/{session_id}/minutes")
async def read_minutes(
    session_id: str, ctx: Annotated[Context, allow(Verb.SEE_MINUTES)]
) -> MinutesView:
    async with ctx.database.reading() as tx:
        await _session(tx, ctx, session_id, Verb.SEE_MINUTES)
        return await minutes.minutes_view(tx, session_id, now=ctx.now)


@router.put("/sessions/{session_id}/minutes")
async def save_minutes(
    session_id: str, change: MinutesChange, ctx: Annotated[Context, allow(Verb.WRITE_MINUTES)]
) -> MinutesView:
    async def work(tx: AsyncSession) -> MinutesView:
        await _session(tx, ctx, session_id, Verb.WRITE_MINUTES)
        await minutes.save_minutes(
            tx, session_id, change.summary, change.revision, now=ctx.now, actor=ctx.principal.actor
        )
        return await minutes.minutes_view(tx, session_id, now=ctx.now)

    return await ctx.database.run(work)


@router.post("/sessions/{session_id}/demands", status_code=201)
async def note_demand(
    session_id: str, new: DemandCreate, ctx: Annotated[Context, allow(Verb.NOTE_DEMANDS)]
) -> DemandView:
    async def work(tx: AsyncSession) -> DemandView:
        session = await _session(tx, ctx, session_id, Verb.NOTE_DEMANDS)
        row = await minutes.add_demand(
            tx, session, new.text, new.marked_at_ms, now=ctx.now, actor=ctx.principal.actor
        )
        return _view(ctx, row)

    return await ctx.database.run(work)


@router.patch("/demands/{demand_id}")
async def change_demand(
    demand_id: str, change: DemandChange, ctx: Annotated[Context, allow(Verb.WRITE_MINUTES)]
) -> DemandView:
    async def work(tx: AsyncSession) -> DemandView:
        session, row = await _demand(tx, ctx, demand_id, Verb.WRITE_MINUTES)
        await minutes.change_demand(
            tx, session, row, change, now=ctx.now, actor=ctx.principal.actor
        )
        return _view(ctx, row)

    return await ctx.database.run(work)


@router.delete("/demands/{demand_id}", status_code=204)
async def delete_demand(
    demand_id: str, ctx: Annotated[Context, allow(Verb.WRITE_MINUTES)]
) -> Response:
    async def work(tx: AsyncSession) -> None:
        session, row = await _demand(tx, ctx, demand_id, Verb.WRITE_MINUTES)
        await minutes.delete_demand(tx, session, row)

    await ctx.database.run(work)
    return Response(status_code=204)


@router.post("/sessions/{session_id}/materials", status_code=201)
async def add_material(
    session_id: str,
    ctx: Annotated[Context, allow(Verb.ADD_MATERIAL)],
    file: Annotated[UploadFile, File()],
    title: Annotated[Line, Form()],
    marked_at_ms: Annotated[int | None, Form(), Field(ge=0)] = None,
) -> MaterialView:
    """A picture for the case: JPEG or PNG, at most 20 MiB and 50 megapixels."""
    async with ctx.database.reading() as tx:
        session = await _session(tx, ctx, session_id, Verb.ADD_MATERIAL)
        minutes.check_mark(session, marked_at_ms, now=ctx.now)
    await limit(
        ctx.services.store, f"materials:{ctx.principal.actor}", most=MOST_UPLOADS, per=PER_UPLOADS
    )
    with materials.temporary_directory() as directory:
        made = await materials.remake(file.read, Path(directory))
        material_id, key = materials.new_material(session_id, made)
        await materials.put(ctx.services.blobs, key, made)
    try:
        return await _write_material(
            ctx, session_id, made, key, material_id, title=title.strip(), marked_at_ms=marked_at_ms
        )
    except BaseException:
        # No row, no file: nothing half-written stays behind.
        await asyncio.to_thread(ctx.services.blobs.delete, key)
        raise


async def _write_material(
    ctx: Context,
    session_id: str,
    made: materials.RemadePicture,
    key: str,
    material_id: MaterialId,
    *,
    title: str,
    marked_at_ms: int | None,
) -> MaterialView:
    async def work(tx: AsyncSession) -> MaterialView:
        row = await materials.add_material(
            tx, session_id, made, key, material_id=material_id, title=title,
            marked_at_ms=marked_at_ms, now=ctx.now, actor=ctx.principal.actor,
        )  # fmt: skip
        return materials.material_view(row)

    return await ctx.database.run(work)


@router.get("/materials/{material_id}")
async def read_material(
    material_id: str, ctx: Annotated[Context, allow(Verb.SEE_CASES)]
) -> Response:
    async with ctx.database.reading() as tx:
        row = await materials.material(tx, material_id)
        await _session(tx, ctx, row.session_id, Verb.SEE_CASES)
    try:
        path = await asyncio.to_thread(ctx.services.blobs.local_path, row.blob_key)
    except FileNotFoundError as error:
        raise NoSuchMaterial("This page is not there. Tell the administrator.") from error
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type=row.mime, headers=headers)


@router.post("/sessions/{session_id}/rating", status_code=204)
async def rate(
    session_id: str, rating: FaceRating, ctx: Annotated[Context, allow(Verb.RATE)]
) -> Response:
    """One of three faces; a second answer replaces the first while the visit is open."""

    async def work(tx: AsyncSession) -> None:
        await _session(tx, ctx, session_id, Verb.RATE)
        # A double tap comes twice; the second waits here and then finds the first.
        await tx.execute(select(Session.id).where(Session.id == session_id).with_for_update())
        row = await tx.get(Rating, session_id)
        if row is None:
            row = Rating(session_id=session_id)
            tx.add(row)
        row.face, row.rated_at, row.rated_by = rating.face, ctx.now, ctx.principal.actor

    await ctx.database.run(work)
    return Response(status_code=204)
