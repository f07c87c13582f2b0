"""The archivist's work over HTTP: what is due, legal holds, deletions that two people sign.

Nothing here deletes anything: the second signature starts a clock, and only the durable job of
app/keeping.py, which asks everything again, acts on it.
"""

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from cases import access, certificate, keeping, retention, views
from cases.keeping import Kept
from cases.keeping_model import Deletion, DeletionCertificate
from cases.keeping_schemas import (
    CertificateView,
    ClassChange,
    DeletionConfirm,
    DeletionView,
    KeepingLine,
    KeepingPage,
    KeepingView,
    LegalHoldView,
    Reason,
    RuleView,
    Shelf,
)
from cases.listing import BadCursor
from cases.retention import COOLING, Rule, State, Table
from core.clock import local_date
from core.edge import Context, allow
from core.errors import Forbidden, NotFound
from core.identity import Staff
from core.policy import Verb

router = APIRouter(prefix="/api", tags=["keeping"])

PAGE_SIZE = 50


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
        conditions.append(keeping.after(*_after(cursor)))
    async with ctx.database.reading() as tx:
        found = await keeping.page(tx, conditions, table, limit=PAGE_SIZE + 1)
    items = found[:PAGE_SIZE]
    return KeepingPage(
        items=tuple(
            KeepingLine(
                case_id=it.case.id, case_number=it.case.number, title=it.case.title,
                county=it.case.county.view(), held_on=local_date(it.session.started_at),
                closed_on=it.closed_on, state=retention.state(it.keeping, today),
                matter_class=it.rule.matter_class, keep_until=it.keeping.keep_until,
                is_estimated=it.rule.is_estimated,
            )
            for it in items
        ),
        next_cursor=_cursor(items[-1]) if len(found) > PAGE_SIZE else None,
        rules=tuple(_rule_view(rule) for rule in table.values()),
    )  # fmt: skip


def _on_shelf(shelf: Shelf, ctx: Context, table: Table) -> tuple[ColumnElement[bool], ...]:
    match shelf:
        case Shelf.DUE:
            return (keeping.shelf_due(table, local_date(ctx.now)),)
        case Shelf.ASKED:
            return (keeping.SHELF_ASKED,)
        case Shelf.HELD:
            return (keeping.SHELF_HELD,)
        case Shelf.DELETED:
            return (keeping.SHELF_DELETED,)
        case Shelf.ALL:
            return ()


@router.get("/cases/{case_id}/keeping")
async def read_keeping(
    case_id: str, ctx: Annotated[Context, allow(Verb.SEE_KEEPING)]
) -> KeepingView:
    async with ctx.database.reading() as tx:
        return await _view(tx, ctx, await _kept(tx, ctx, case_id, Verb.SEE_KEEPING))


@router.put("/cases/{case_id}/keeping/class")
async def put_class(
    case_id: str, change: ClassChange, ctx: Annotated[Context, allow(Verb.CLASS_RECORDING)]
) -> KeepingView:
    async def work(tx: AsyncSession) -> KeepingView:
        it = await _kept(tx, ctx, case_id, Verb.CLASS_RECORDING, lock=True)
        await keeping.classify(tx, it, change.matter_class, change.words, _staff(ctx), now=ctx.now)
        return await _after_act(tx, ctx, case_id)

    return await ctx.database.run(work)


@router.post("/cases/{case_id}/legal-holds", status_code=201)
async def post_hold(
    case_id: str, reason: Reason, ctx: Annotated[Context, allow(Verb.HOLD_RECORDING)]
) -> KeepingView:
    async def work(tx: AsyncSession) -> KeepingView:
        it = await _kept(tx, ctx, case_id, Verb.HOLD_RECORDING, lock=True)
        await keeping.place_hold(tx, it, reason.words, _staff(ctx), now=ctx.now)
        return await _after_act(tx, ctx, case_id)

    return await ctx.database.run(work)


@router.post("/cases/{case_id}/legal-holds/{hold_id}/lift")
async def lift_hold(
    case_id: str, hold_id: str, reason: Reason, ctx: Annotated[Context, allow(Verb.LIFT_HOLD)]
) -> KeepingView:
    async def work(tx: AsyncSession) -> KeepingView:
        it = await _kept(tx, ctx, case_id, Verb.LIFT_HOLD, lock=True)
        await keeping.lift_hold(tx, it, hold_id, reason.words, _staff(ctx), now=ctx.now)
        return await _after_act(tx, ctx, case_id)

    return await ctx.database.run(work)


@router.post("/cases/{case_id}/deletion", status_code=201)
async def propose_deletion(
    case_id: str, reason: Reason, ctx: Annotated[Context, allow(Verb.PROPOSE_DELETION)]
) -> KeepingView:
    """The first signature, with the appraisal."""

    async def work(tx: AsyncSession) -> KeepingView:
        it = await _kept(tx, ctx, case_id, Verb.PROPOSE_DELETION, lock=True)
        await keeping.propose(tx, it, reason.words, _staff(ctx), now=ctx.now)
        return await _after_act(tx, ctx, case_id)

    return await ctx.database.run(work)


@router.post("/cases/{case_id}/deletion/confirm")
async def confirm_deletion(
    case_id: str, agreed: DeletionConfirm, ctx: Annotated[Context, allow(Verb.CONFIRM_DELETION)]
) -> KeepingView:
    """The second signature. 72 counted hours later the durable job asks everything again."""

    async def work(tx: AsyncSession) -> KeepingView:
        it = await _kept(tx, ctx, case_id, Verb.CONFIRM_DELETION, lock=True)
        await keeping.confirm(
            tx, it, agreed.deletion_id, _staff(ctx), now=ctx.now,
            seen=keeping.look(ctx.services.clock),
        )  # fmt: skip
        return await _after_act(tx, ctx, case_id)

    return await ctx.database.run(work)


@router.post("/cases/{case_id}/deletion/cancel")
async def cancel_deletion(
    case_id: str, reason: Reason, ctx: Annotated[Context, allow(Verb.CANCEL_DELETION)]
) -> KeepingView:
    """Stop it: anyone who may see it on this page, at any time before the decision."""

    async def work(tx: AsyncSession) -> KeepingView:
        it = await _kept(tx, ctx, case_id, Verb.CANCEL_DELETION, lock=True)
        await keeping.cancel(tx, it, reason.words, _staff(ctx), now=ctx.now)
        return await _after_act(tx, ctx, case_id)

    return await ctx.database.run(work)


@router.get("/cases/{case_id}/deletion/certificate")
async def read_certificate(
    case_id: str, ctx: Annotated[Context, allow(Verb.SEE_CASES)]
) -> CertificateView:
    """What became of the recording, for everyone who may see the case."""
    return _certificate_view(case_id, await _certificate(ctx, case_id))


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
    async def work(tx: AsyncSession) -> DeletionCertificate:
        it = await _kept(tx, ctx, case_id, Verb.SEE_CASES)
        found = await keeping.certificate_of(tx, it.recording.id)
        if found is None:
            raise NoCertificate("This recording has not been deleted: there is no certificate.")
        return found

    async with ctx.database.reading() as tx:
        return await work(tx)


async def _kept(
    tx: AsyncSession, ctx: Context, case_id: str, verb: Verb, *, lock: bool = False
) -> Kept:
    """The recording of a case on which this person may do `verb`."""
    case = await views.case_with_units(tx, case_id)
    _, place = await access.session_place(tx, case.session_id)
    access.require(ctx.principal, verb, place, now=ctx.now)
    return await keeping.kept(tx, case_id, table_of(ctx), lock=lock)


async def _after_act(tx: AsyncSession, ctx: Context, case_id: str) -> KeepingView:
    await tx.flush()
    return await _view(tx, ctx, await keeping.kept(tx, case_id, table_of(ctx)))


def _staff(ctx: Context) -> Staff:
    if not isinstance(ctx.principal, Staff):
        raise Forbidden("Only staff keep recordings.")
    return ctx.principal


# What is shown.


async def _view(tx: AsyncSession, ctx: Context, it: Kept) -> KeepingView:
    past = await keeping.past_deletions(tx, it.recording.id)
    made = await keeping.certificate_of(tx, it.recording.id)
    names = await keeping.names_of(tx, _people(it, past))
    return KeepingView(
        case_id=it.case.id, case_number=it.case.number, title=it.case.title,
        county=it.case.county.view(), held_on=local_date(it.session.started_at),
        closed_on=it.closed_on, recording_id=it.recording.id,
        state=retention.state(it.keeping, local_date(ctx.now)), rule=_rule_view(it.rule),
        keep_until=it.keeping.keep_until,
        holds=tuple(
            LegalHoldView(
                id=hold.id, words=hold.words, placed_at=hold.placed_at,
                placed_by=names.get(hold.placed_by, ""), lifted_at=hold.lifted_at,
                lifted_by=names.get(hold.lifted_by or ""), lifted_words=hold.lifted_words,
            )
            for hold in it.holds
        ),
        deletion=_deletion_view(it.deletion, names, it, ctx.now) if it.deletion else None,
        past=tuple(_deletion_view(row, names, None, ctx.now) for row in past),
        certificate=_certificate_view(it.case.id, made) if made else None,
        may=await _abilities(tx, ctx, it),
    )  # fmt: skip


def _people(it: Kept, past: Iterable[Deletion]) -> set[str | None]:
    people: set[str | None] = set()
    for hold in it.holds:
        people |= {hold.placed_by, hold.lifted_by}
    for row in (*past, *([it.deletion] if it.deletion else [])):
        people |= {row.proposed_by, row.confirmed_by, _account(row.ended_by)}
    return people


def _account(actor: str | None) -> str | None:
    return actor.removeprefix("account:") if actor else None


def _rule_view(rule: Rule) -> RuleView:
    return RuleView(
        matter_class=rule.matter_class, years=rule.years, source=rule.source,
        is_estimated=rule.is_estimated,
    )  # fmt: skip


def _deletion_view(
    row: Deletion, names: dict[str, str], it: Kept | None, now: datetime
) -> DeletionView:
    ended_by = _account(row.ended_by)
    return DeletionView(
        id=row.id, words=row.words, proposed_at=row.proposed_at,
        proposed_by=names.get(row.proposed_by, ""), confirmed_at=row.confirmed_at,
        confirmed_by=names.get(row.confirmed_by or ""), cooled_s=row.cooled_ms // 1000,
        cooling_s=int(COOLING.total_seconds()),
        earliest_at=keeping.earliest_cool(it, now) if it else None,
        ended_at=row.ended_at, ended_by=names.get(ended_by, ended_by) if ended_by else None,
        ended_words=row.ended_words, decided_at=row.decided_at, deleted_at=row.deleted_at,
        trouble=row.trouble,
    )  # fmt: skip


def _certificate_view(case_id: str, row: DeletionCertificate) -> CertificateView:
    body = certificate.read(row.body)
    address = f"/api/cases/{case_id}/deletion/certificate"
    return CertificateView(
        deleted_at=datetime.fromisoformat(body["deleted_at"]), files=len(body["files"]),
        bytes=sum(file["bytes"] for file in body["files"]),
        manifest_sha256=body["manifest_sha256"], sha256=row.sha256,
        pdf_url=f"{address}.pdf", json_url=f"{address}.json",
    )  # fmt: skip


async def _abilities(tx: AsyncSession, ctx: Context, it: Kept) -> tuple[str, ...]:
    """What this person may do, and the recording's state lets them."""
    _, place = await access.session_place(tx, it.session.id)

    def may(verb: Verb) -> bool:
        return access.may(ctx.principal, verb, place, now=ctx.now)

    state = retention.state(it.keeping, local_date(ctx.now))
    if state in (State.DELETING, State.DELETED):
        return ()
    words = ["hold"] * may(Verb.HOLD_RECORDING)
    words += ["lift"] * (bool(it.keeping.holds) and may(Verb.LIFT_HOLD))
    if it.deletion is None:
        words += ["class"] * may(Verb.CLASS_RECORDING)
        is_open = state is State.DUE and it.keeping.is_settled
        words += ["propose"] * (is_open and may(Verb.PROPOSE_DELETION))
        return tuple(words)
    is_other = isinstance(ctx.principal, Staff) and (
        ctx.principal.account_id != it.deletion.proposed_by
    )
    is_next = state is State.PROPOSED and is_other
    words += ["confirm"] * (is_next and may(Verb.CONFIRM_DELETION))
    words += ["cancel"] * may(Verb.CANCEL_DELETION)
    return tuple(words)


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
