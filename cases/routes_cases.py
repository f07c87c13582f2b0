"""After the call: the list of cases, one case, its steps, promises kept, slip and recording."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from cases import access, handling, ledger, listing, minutes, promises, recordings, slip, views
from cases.access import Place
from cases.ledger import EventWord
from cases.listing import Wanted
from cases.model import Case
from cases.recordings import NoRecording, NothingToRetry
from cases.schemas import (
    CasePage,
    CaseState,
    CaseTransition,
    CaseView,
    DemandView,
    RecordingView,
)
from core import audit
from core.clock import local_date
from core.edge import Context, allow
from core.ids import CaseId
from core.policy import Verb
from core.schemas import Language
from signaling.model import Session

router = APIRouter(prefix="/api", tags=["cases"])


async def _placed(tx: AsyncSession, ctx: Context, case: Case, verb: Verb) -> tuple[Session, Place]:
    session, place = await access.session_place(tx, case.session_id)
    access.require(ctx.principal, verb, place, now=ctx.now)
    return session, place


@router.get("/cases")
async def list_cases(
    ctx: Annotated[Context, allow(Verb.SEE_CASES)],
    state: CaseState | None = None,
    county_id: str | None = None,
    q: Annotated[str | None, Query(max_length=100)] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> CasePage:
    wanted = Wanted(state, county_id, q.strip() if q else None, cursor)
    async with ctx.database.reading() as tx:
        return await listing.case_page(
            tx, wanted, access.visible(ctx.principal, Verb.SEE_CASES), today=local_date(ctx.now)
        )


@router.get("/cases/{case_id}")
async def read_case(
    case_id: str,
    ctx: Annotated[Context, allow(Verb.SEE_CASES)],
    lang: Language = Language.CHINESE,
) -> CaseView:
    async with ctx.database.reading() as tx:
        return await _view(tx, ctx, case_id, lang)


async def _view(tx: AsyncSession, ctx: Context, case_id: str, language: Language) -> CaseView:
    case = await views.case_with_units(tx, case_id)
    session, place = await _placed(tx, ctx, case, Verb.SEE_CASES)
    return await views.case_view(
        tx, case, session, place, ctx.principal, now=ctx.now, language=language
    )


@router.post("/cases/{case_id}/transitions")
async def take_step(
    case_id: str,
    change: CaseTransition,
    ctx: Annotated[Context, allow(Verb.HANDLE_CASE)],
    lang: Language = Language.CHINESE,
) -> CaseView:
    """Bring the case to its next state. The answer is the case as it was seen by who did it."""

    async def work(tx: AsyncSession) -> CaseView:
        case = await handling.locked(tx, case_id)
        session, place = await _placed(tx, ctx, case, Verb.HANDLE_CASE)
        move = handling.Move(change.to, change.words, change.holder_org_id)
        await handling.take_step(tx, case, move, now=ctx.now, actor=ctx.principal.actor)
        # A unit that has just given the matter away sees this answer and nothing after it, so
        # what it may still do is asked of the matter's new place.
        _, place = await access.session_place(tx, case.session_id)
        tx.expire(case)
        return await views.case_view(
            tx, await views.case_with_units(tx, case_id), session, place, ctx.principal,
            now=ctx.now, language=lang,
        )  # fmt: skip

    return await ctx.database.run(work)


@router.post("/demands/{demand_id}/kept")
async def keep_promise(
    demand_id: str, ctx: Annotated[Context, allow(Verb.KEEP_PROMISE)]
) -> DemandView:
    async def work(tx: AsyncSession) -> DemandView:
        row = await minutes.demand(tx, demand_id)
        _, place = await access.session_place(tx, row.session_id)
        place = await views.demand_place(tx, place, row)
        access.require(ctx.principal, Verb.KEEP_PROMISE, place, now=ctx.now)
        await promises.keep(tx, row, now=ctx.now, actor=ctx.principal.actor)
        return minutes.demand_view(row, today=local_date(ctx.now))

    return await ctx.database.run(work)


@router.get("/cases/{case_id}/slip.pdf")
async def print_slip(case_id: str, ctx: Annotated[Context, allow(Verb.PRINT_SLIP)]) -> Response:
    async with ctx.database.reading() as tx:
        case = await views.case_with_units(tx, case_id)
        await _placed(tx, ctx, case, Verb.PRINT_SLIP)
        inputs = await slip.slip_inputs(
            tx, case, base_url=ctx.settings.base_url, desk_phone=ctx.settings.desk_phone,
            today=local_date(ctx.now),
        )  # fmt: skip
    pdf = await slip.slip_pdf(inputs)
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'inline; filename="{case.number}.pdf"',
    }
    return Response(pdf, media_type="application/pdf", headers=headers)


@router.post("/cases/{case_id}/recording/retry")
async def retry_recording(
    case_id: str, request: Request, ctx: Annotated[Context, allow(Verb.RETRY_RECORDING)]
) -> RecordingView:
    """Finish a failed recording again. The work itself is durable and runs beside the house."""

    async def work(tx: AsyncSession) -> RecordingView:
        case = await handling.locked(tx, case_id)
        await _placed(tx, ctx, case, Verb.RETRY_RECORDING)
        view = await recordings.recording_view(tx, case.session_id)
        if view is None:
            raise NoRecording("Nothing was recorded of this talk. The minutes say what was said.")
        if view.state != "failed":
            raise NothingToRetry("This recording has not failed. Wait until it is ready.")
        await ledger.append(
            tx, CaseId(case.id), now=ctx.now, kind=EventWord.RECORDING_RETRIED,
            actor=ctx.principal.actor, words=view.error or "", is_public=False,
        )  # fmt: skip
        await audit.record(
            tx, now=ctx.now, actor=ctx.principal.actor, action="recording_retried",
            object_kind="recording", object_id=view.id,
        )  # fmt: skip
        return view

    view = await ctx.database.run(work)
    await request.app.state.retry_recording(view.id)
    return view
