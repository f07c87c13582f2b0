"""The archivist's work over HTTP: what is due, legal holds, deletions that two people sign.

Nothing here deletes anything: the second signature starts a clock, and only the durable job of
app/keeping.py, which asks everything again, acts on it.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from cases import access, certificate, keeping, keeping_clock, keeping_lists, retention, views
from cases.keeping import Kept
from cases.keeping_model import DeletionCertificate
from cases.keeping_schemas import (
    CertificateView,
    ClassChange,
    ClockConfirm,
    DeletionConfirm,
    KeepingPage,
    KeepingView,
    Reason,
    Shelf,
    WallClockView,
)
from cases.keeping_views import certificate_view, line_view, rule_view, whole_view
from cases.listing import BadCursor
from cases.retention import Seen, Table
from core.clock import local_date
from core.edge import Context, allow
from core.errors import Forbidden, NotFound
from core.identity import Staff
from core.policy import Verb

router = APIRouter(prefix="/api", tags=["keeping"])

PAGE_SIZE = 50
Deed = Callable[[AsyncSession, Kept, Staff], Awaitable[None]]
"""What one person does about one recording, which nobody else can act on meanwhile."""


class NoCertificate(NotFound):
    code = "no_certificate"


def table_of(ctx: Context) -> Table:
    return retention.table(ctx.settings.retention_years.items(), ctx.settings.retention_approval)


@router.get("/keeping")
async def list_keeping(
    ctx: Annotated[Context, allow(Verb.SEE_KEEPING)],
    shelf: Shelf = Shelf.DUE,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> KeepingPage:
    """Recordings by what may become of them. Nothing on any list goes by itself."""
    table, today = table_of(ctx), local_date(ctx.now)
    conditions = [access.visible(ctx.principal, Verb.SEE_KEEPING), *_on_shelf(shelf, ctx, table)]
    if cursor is not None:
        conditions.append(keeping_lists.after(*_after(cursor)))
    async with ctx.database.reading() as tx:
        found = await keeping_lists.page(tx, conditions, table, limit=PAGE_SIZE + 1)
    items = found[:PAGE_SIZE]
    return KeepingPage(
        items=tuple(line_view(it, today) for it in items),
        next_cursor=_cursor(items[-1]) if len(found) > PAGE_SIZE else None,
        rules=tuple(rule_view(rule) for rule in table.values()),
    )


def _on_shelf(shelf: Shelf, ctx: Context, table: Table) -> tuple[ColumnElement[bool], ...]:
    match shelf:
        case Shelf.DUE:
            return (keeping_lists.shelf_due(table, local_date(ctx.now)),)
        case Shelf.ASKED:
            return (keeping_lists.SHELF_ASKED,)
        case Shelf.HELD:
            return (keeping_lists.SHELF_HELD,)
        case Shelf.DELETED:
            return (keeping_lists.SHELF_DELETED,)
        case Shelf.ALL:
            return ()


@router.get("/cases/{case_id}/keeping")
async def read_keeping(
    case_id: str, ctx: Annotated[Context, allow(Verb.SEE_KEEPING)]
) -> KeepingView:
    async with ctx.database.reading() as tx:
        return await whole_view(tx, ctx, await _kept(tx, ctx, case_id, Verb.SEE_KEEPING))


async def _act(ctx: Context, case_id: str, verb: Verb, deed: Deed) -> KeepingView:
    """One deed on the recording of a case, in one transaction, and how it stands then."""

    async def work(tx: AsyncSession) -> KeepingView:
        await deed(tx, await _kept(tx, ctx, case_id, verb, lock=True), _staff(ctx))
        await tx.flush()
        return await whole_view(tx, ctx, await keeping.kept(tx, case_id, table_of(ctx)))

    return await ctx.database.run(work)


@router.put("/cases/{case_id}/keeping/class")
async def put_class(
    case_id: str, change: ClassChange, ctx: Annotated[Context, allow(Verb.CLASS_RECORDING)]
) -> KeepingView:
    async def deed(tx: AsyncSession, it: Kept, by: Staff) -> None:
        await keeping.classify(tx, it, change.matter_class, change.words, by, now=ctx.now)

    return await _act(ctx, case_id, Verb.CLASS_RECORDING, deed)


@router.post("/cases/{case_id}/legal-holds", status_code=201)
async def post_hold(
    case_id: str, reason: Reason, ctx: Annotated[Context, allow(Verb.HOLD_RECORDING)]
) -> KeepingView:
    async def deed(tx: AsyncSession, it: Kept, by: Staff) -> None:
        await keeping.place_hold(tx, it, reason.words, by, now=ctx.now)

    return await _act(ctx, case_id, Verb.HOLD_RECORDING, deed)


@router.post("/cases/{case_id}/legal-holds/{hold_id}/lift")
async def lift_hold(
    case_id: str, hold_id: str, reason: Reason, ctx: Annotated[Context, allow(Verb.LIFT_HOLD)]
) -> KeepingView:
    async def deed(tx: AsyncSession, it: Kept, by: Staff) -> None:
        await keeping.lift_hold(tx, it, hold_id, reason.words, by, now=ctx.now)

    return await _act(ctx, case_id, Verb.LIFT_HOLD, deed)


@router.post("/cases/{case_id}/deletion", status_code=201)
async def propose_deletion(
    case_id: str, reason: Reason, ctx: Annotated[Context, allow(Verb.PROPOSE_DELETION)]
) -> KeepingView:
    """The first signature, with the appraisal."""

    async def deed(tx: AsyncSession, it: Kept, by: Staff) -> None:
        await keeping.propose(tx, it, reason.words, by, seen=keeping.look(ctx.services.clock))

    return await _act(ctx, case_id, Verb.PROPOSE_DELETION, deed)


@router.post("/cases/{case_id}/deletion/confirm")
async def confirm_deletion(
    case_id: str, agreed: DeletionConfirm, ctx: Annotated[Context, allow(Verb.CONFIRM_DELETION)]
) -> KeepingView:
    """The second signature. 72 counted hours later the durable job asks everything again."""

    async def deed(tx: AsyncSession, it: Kept, by: Staff) -> None:
        seen = keeping.look(ctx.services.clock)
        await keeping.confirm(tx, it, agreed.deletion_id, by, seen=seen)

    return await _act(ctx, case_id, Verb.CONFIRM_DELETION, deed)


@router.post("/cases/{case_id}/deletion/cancel")
async def cancel_deletion(
    case_id: str, reason: Reason, ctx: Annotated[Context, allow(Verb.CANCEL_DELETION)]
) -> KeepingView:
    """Stop it: anyone who may see it on this page, at any time before the decision."""

    async def deed(tx: AsyncSession, it: Kept, by: Staff) -> None:
        await keeping.cancel(tx, it, reason.words, by, now=ctx.now)

    return await _act(ctx, case_id, Verb.CANCEL_DELETION, deed)


@router.post("/cases/{case_id}/deletion/retry")
async def retry_deletion(
    case_id: str, ctx: Annotated[Context, allow(Verb.RETRY_DELETION)]
) -> KeepingView:
    """What broke it off has been looked at: within a minute its job begins once more."""

    async def deed(tx: AsyncSession, it: Kept, by: Staff) -> None:
        await keeping.go_on(tx, it, by, now=ctx.now)

    return await _act(ctx, case_id, Verb.RETRY_DELETION, deed)


@router.get("/keeping/clock")
async def read_clock(ctx: Annotated[Context, allow(Verb.SEE_KEEPING)]) -> WallClockView:
    """What the server's clock says, and what speaks against it if anything does."""
    return await ctx.database.run(lambda tx: _clock_view(tx, keeping.look(ctx.services.clock)))


@router.post("/keeping/clock/confirm")
async def confirm_clock(
    said: ClockConfirm, ctx: Annotated[Context, allow(Verb.CONFIRM_CLOCK)]
) -> WallClockView:
    """A person has looked, and their own computer says the same."""
    seen = keeping.look(ctx.services.clock)

    async def work(tx: AsyncSession) -> WallClockView:
        await keeping_clock.confirm(tx, seen, said.my_time, _staff(ctx))
        return await _clock_view(tx, seen)

    return await ctx.database.run(work)


async def _clock_view(tx: AsyncSession, seen: Seen) -> WallClockView:
    found = await keeping_clock.look(tx, seen)
    return WallClockView(
        server_time=seen.wall, against=found and found.against,
        off_s=None if found is None else round(found.off.total_seconds()),
    )  # fmt: skip


@router.get("/cases/{case_id}/deletion/certificate")
async def read_certificate(
    case_id: str, ctx: Annotated[Context, allow(Verb.SEE_CASES)]
) -> CertificateView:
    """What became of the recording, for everyone who may see the case."""
    return certificate_view(case_id, await _certificate(ctx, case_id))


@router.get("/cases/{case_id}/deletion/certificate.json")
async def certificate_json(
    case_id: str, ctx: Annotated[Context, allow(Verb.SEE_CASES)]
) -> Response:
    """The exact bytes that were signed; the signature is in the header beside them."""
    row = await _certificate(ctx, case_id)
    signed = base64.b64encode(row.signature.encode()).decode()
    headers = _paper(f"certificate-{row.deletion_id}.json", as_file=True)
    return Response(
        row.body, media_type="application/json", headers={**headers, "X-Signature": signed}
    )


@router.get("/cases/{case_id}/deletion/certificate.pdf")
async def certificate_pdf(case_id: str, ctx: Annotated[Context, allow(Verb.SEE_CASES)]) -> Response:
    row = await _certificate(ctx, case_id)
    pdf = await certificate.certificate_pdf(row.body, row.signature)
    headers = _paper(f"certificate-{row.deletion_id}.pdf", as_file=False)
    return Response(pdf, media_type="application/pdf", headers=headers)


def _paper(name: str, *, as_file: bool) -> dict[str, str]:
    how = "attachment" if as_file else "inline"
    return {"Cache-Control": "no-store", "Content-Disposition": f'{how}; filename="{name}"'}


async def _certificate(ctx: Context, case_id: str) -> DeletionCertificate:
    async with ctx.database.reading() as tx:
        it = await _kept(tx, ctx, case_id, Verb.SEE_CASES)
        found = await keeping.certificate_of(tx, it.recording.id)
    if found is None:
        raise NoCertificate("This recording has not been deleted: there is no certificate.")
    return found


async def _kept(
    tx: AsyncSession, ctx: Context, case_id: str, verb: Verb, *, lock: bool = False
) -> Kept:
    """The recording of a case on which this person may do `verb`."""
    case = await views.case_with_units(tx, case_id)
    _, place = await access.session_place(tx, case.session_id)
    access.require(ctx.principal, verb, place, now=ctx.now)
    return await keeping.kept(tx, case_id, table_of(ctx), lock=lock)


def _staff(ctx: Context) -> Staff:
    if not isinstance(ctx.principal, Staff):
        raise Forbidden("Only staff keep recordings.")
    return ctx.principal


def _cursor(it: Kept) -> str:
    """Where a page ended: opaque to whoever carries it."""
    words = f"{it.session.started_at.isoformat()} {it.recording.id}"
    return base64.urlsafe_b64encode(words.encode()).decode()


def _after(cursor: str) -> tuple[datetime, str]:
    try:
        started_at, recording_id = base64.urlsafe_b64decode(cursor).decode().split(" ")
        instant = datetime.fromisoformat(started_at)
        if instant.tzinfo is None:
            raise ValueError("naive")
    except (ValueError, binascii.Error) as error:
        raise BadCursor("This page of the list is not known. Begin at the first.") from error
    return instant, recording_id
