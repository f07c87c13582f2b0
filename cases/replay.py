"""Replay (回放): the recording with its marks on one timeline, and its bytes by range.

Whoever sees a recording leaves an audit line (invariant 8): one for opening, one for each file when
its first byte goes out to this person. Every range is authorised anew; answers are never stored by
browsers in between. A file is opened once and read from that handle, so that its length and its
bytes belong together whatever happens to its name.
"""

import asyncio
import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Receive, Scope, Send

from cases import access, materials, minutes, recordings, review, views
from cases.model import Case, Demand, Material
from cases.ranges import Answer, ByteRange, byte_range, range_applies
from cases.recordings import NoRecording
from cases.schemas import (
    FindingCreate,
    FindingView,
    MarkView,
    PlaybackReport,
    PlaybackView,
    RecordingView,
    ReplayView,
)
from core import audit
from core.clock import LOCAL_ZONE
from core.edge import Context, allow
from core.errors import Forbidden
from core.identity import Principal, Staff
from core.ids import CaseId
from core.policy import Verb
from media.model import RecordingFile
from signaling.model import Attendance, Session

router = APIRouter(prefix="/api", tags=["replay"])

CHUNK_BYTES = 256 * 1024
SEEN_FOR = timedelta(hours=12)
"""A working day: who comes back to a file after that leaves a new line."""


@router.get("/cases/{case_id}/recording")
async def open_replay(case_id: str, ctx: Annotated[Context, allow(Verb.REPLAY)]) -> ReplayView:
    """Everything a reviewer's page needs. Asking for it is written down."""

    async def work(tx: AsyncSession) -> ReplayView:
        case, session = await _replayable(tx, ctx, case_id, Verb.REPLAY)
        view = await replay_view(tx, case, session, ctx.principal, now=ctx.now)
        await audit.record(
            tx, now=ctx.now, actor=ctx.principal.actor, action="replay_opened", object_kind="case",
            object_id=case.id, recording_id=view.recording.id,
        )  # fmt: skip
        return view

    return await ctx.database.run(work)


@router.head("/recording-files/{file_id}", include_in_schema=False)
@router.get("/recording-files/{file_id}")
async def stream_file(
    file_id: str, request: Request, ctx: Annotated[Context, allow(Verb.REPLAY)]
) -> Response:
    """A file of a recording: whole, or the range that is asked for."""
    async with ctx.database.reading() as tx:
        file, case_id = await recordings.file_and_case(tx, file_id)
        await _replayable(tx, ctx, case_id, Verb.REPLAY)
    path = await asyncio.to_thread(_local_path, ctx, file)
    if request.method == "GET":
        await _note_first_access(ctx, file)
    return FileBytes(path, file.mime, file.sha256)


@router.post("/cases/{case_id}/playback")
async def report_playback(
    case_id: str, report: PlaybackReport, ctx: Annotated[Context, allow(Verb.REVIEW)]
) -> PlaybackView:
    """Add what was watched since the last report; answers with the coverage so far."""

    async def work(tx: AsyncSession) -> PlaybackView:
        case, session = await _replayable(tx, ctx, case_id, Verb.REVIEW)
        return await review.report_playback(
            tx, CaseId(case.id), _staff(ctx).account_id, report.spans,
            duration_ms=await recordings.duration_ms(tx, session), now=ctx.now,
        )  # fmt: skip

    return await ctx.database.run(work)


@router.get("/cases/{case_id}/findings")
async def list_findings(
    case_id: str, ctx: Annotated[Context, allow(Verb.REVIEW)]
) -> tuple[FindingView, ...]:
    async with ctx.database.reading() as tx:
        case, _session = await _replayable(tx, ctx, case_id, Verb.REVIEW)
        return await review.findings(tx, CaseId(case.id))


@router.post("/cases/{case_id}/findings", status_code=201)
async def add_finding(
    case_id: str, finding: FindingCreate, ctx: Annotated[Context, allow(Verb.REVIEW)]
) -> FindingView:
    staff = _staff(ctx)

    async def work(tx: AsyncSession) -> FindingView:
        case, session = await _replayable(tx, ctx, case_id, Verb.REVIEW)
        row = await review.add_finding(
            tx, CaseId(case.id), staff.account_id, finding.at_ms, finding.text,
            duration_ms=await recordings.duration_ms(tx, session), now=ctx.now,
        )  # fmt: skip
        return review.finding_view(row, staff.display_name)

    return await ctx.database.run(work)


async def replay_view(
    tx: AsyncSession, case: Case, session: Session, principal: Principal, *, now: datetime
) -> ReplayView:
    """The recording of `case` with every mark on its timeline. Raises `NoRecording`."""
    recording = await recordings.recording_view(tx, session.id)
    if recording is None:
        raise NoRecording("Nothing was recorded of this talk. The minutes say what was said.")
    return ReplayView(
        case_id=case.id, case_number=case.number, title=case.title, session_id=session.id,
        started_at=session.started_at, duration_ms=await recordings.duration_ms(tx, session),
        recording=recording, marks=await _marks(tx, session, recording),
        minutes=await minutes.minutes_view(tx, session.id, now=now),
        watermark=watermark(principal, now),
    )  # fmt: skip


def watermark(principal: Principal, now: datetime) -> str:
    """Who is looking, and when: drawn over the picture, so that filming the screen names them."""
    who = principal.display_name if isinstance(principal, Staff) else principal.actor
    return f"{who} · {now.astimezone(LOCAL_ZONE):%Y-%m-%d %H:%M}"


async def _marks(
    tx: AsyncSession, session: Session, recording: RecordingView
) -> tuple[MarkView, ...]:
    """Demands, promises, pages and comings and goings, in the order of the timeline."""
    stays = await tx.scalars(select(Attendance).where(Attendance.session_id == session.id))
    marks = [
        *_demand_marks(await minutes.demands(tx, session.id)),
        *_material_marks(await materials.materials(tx, session.id)),
        *_stay_marks(stays, session, recording),
    ]
    return tuple(sorted(marks, key=lambda mark: (mark.at_ms, mark.kind)))


def _demand_marks(demands: Iterable[Demand]) -> list[MarkView]:
    marks: list[MarkView] = []
    for demand in demands:
        marks.append(
            MarkView(kind="demand", at_ms=demand.marked_at_ms, label=demand.text, ref_id=demand.id)
        )
        if demand.owner is not None and demand.due_on is not None:
            marks.append(
                MarkView(
                    kind="promise",
                    at_ms=demand.answered_at_ms or demand.marked_at_ms,
                    label=minutes.demand_words(demand),
                    ref_id=demand.id,
                )
            )
    return marks


def _material_marks(pages: Iterable[Material]) -> list[MarkView]:
    return [
        MarkView(kind="material", at_ms=page.marked_at_ms, label=page.title, ref_id=page.id)
        for page in pages
        if page.marked_at_ms is not None
    ]


def _stay_marks(
    stays: Iterable[Attendance], session: Session, recording: RecordingView
) -> list[MarkView]:
    """Who came and went after the talk had begun and before it ended."""
    marks: list[MarkView] = []
    for stay in stays:
        for kind, at in (("join", stay.joined_at), ("leave", stay.left_at)):
            if at is None or at <= session.started_at or at == session.ended_at:
                continue
            at_ms = (at - session.started_at) // timedelta(milliseconds=1)
            marks.append(
                MarkView.model_validate(
                    {"kind": kind, "at_ms": at_ms, "label": stay.label_zh,
                     "ref_id": stay.participant_id}
                )
            )  # fmt: skip
    return marks


async def _replayable(
    tx: AsyncSession, ctx: Context, case_id: str, verb: Verb
) -> tuple[Case, Session]:
    case = await views.case_with_units(tx, case_id)
    session, place = await access.session_place(tx, case.session_id)
    access.require(ctx.principal, verb, place, now=ctx.now)
    return case, session


def _staff(ctx: Context) -> Staff:
    if not isinstance(ctx.principal, Staff):
        raise Forbidden("Only staff review recordings.")
    return ctx.principal


def _local_path(ctx: Context, file: RecordingFile) -> Path:
    try:
        return ctx.services.blobs.local_path(file.blob_key)
    except FileNotFoundError as error:
        raise NoRecording("This file is not there. Tell the administrator.") from error


async def _note_first_access(ctx: Context, file: RecordingFile) -> None:
    """One audit line per person, file and working day, committed before any byte goes out."""
    seen = f"recording-file-seen:{file.id}:{ctx.principal.actor}"
    if await ctx.services.store.get(seen):
        return

    async def work(tx: AsyncSession) -> None:
        await audit.record(
            tx, now=ctx.now, actor=ctx.principal.actor, action="recording_file_read",
            object_kind="recording_file", object_id=file.id, recording_id=file.recording_id,
        )  # fmt: skip

    await ctx.database.run(work)
    # After the line, never before: a lost line would be worse than a second one.
    await ctx.services.store.set(seen, "1", ex=int(SEEN_FOR.total_seconds()))


class FileBytes(Response):
    """A file, or one range of it, from one handle that lives as long as the answer."""

    def __init__(self, path: Path, mime: str, sha256: str) -> None:
        super().__init__(media_type=mime)
        self._path = path
        self._etag = f'"{sha256}"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        with await asyncio.to_thread(self._path.open, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            asked = self._asked(request, size_bytes)
            self._say(asked, size_bytes)
            start = {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
            await send(start)
            if request.method == "HEAD" or asked is Answer.UNSATISFIABLE:
                await send({"type": "http.response.body", "body": b""})
                return
            await _send_bytes(file, _extent(asked, size_bytes), send)

    def _asked(self, request: Request, size_bytes: int) -> ByteRange | Answer:
        # A range is defined for GET alone (RFC 9110 section 14.2).
        if request.method != "GET":
            return Answer.WHOLE
        if not range_applies(request.headers.get("if-range"), self._etag):
            return Answer.WHOLE
        return byte_range(request.headers.get("range"), size_bytes)

    def _say(self, asked: ByteRange | Answer, size_bytes: int) -> None:
        self.headers.update(
            {
                "Accept-Ranges": "bytes",
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Content-Disposition": "inline",
                "ETag": self._etag,
            }
        )
        if asked is Answer.UNSATISFIABLE:
            self.status_code = 416
            self.headers["Content-Range"] = f"bytes */{size_bytes}"
            self.headers["Content-Length"] = "0"
            return
        extent = _extent(asked, size_bytes)
        if isinstance(asked, ByteRange):
            self.status_code = 206
            self.headers["Content-Range"] = f"bytes {asked.start}-{asked.end - 1}/{size_bytes}"
        self.headers["Content-Length"] = str(extent[1] - extent[0])


def _extent(asked: ByteRange | Answer, size_bytes: int) -> tuple[int, int]:
    return (asked.start, asked.end) if isinstance(asked, ByteRange) else (0, size_bytes)


async def _send_bytes(file: BinaryIO, extent: tuple[int, int], send: Send) -> None:
    """Send bytes `extent[0]` up to `extent[1]`, a chunk at a time, read off the event loop."""
    position, end = extent
    while position < end:
        chunk = await asyncio.to_thread(
            os.pread, file.fileno(), min(CHUNK_BYTES, end - position), position
        )
        if not chunk:
            # Cut short under our hands: the length was promised, so the connection must fail.
            raise OSError("a recording file became shorter while it was read")
        position += len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": position < end})
    if extent[0] == end:
        await send({"type": "http.response.body", "body": b""})
