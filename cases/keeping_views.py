"""What the archivist's pages are shown of a recording, and what a person may do about it now."""

from collections.abc import Iterable
from datetime import date, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from cases import access, certificate, keeping, retention
from cases.keeping import Kept
from cases.keeping_model import Deletion, DeletionCertificate
from cases.keeping_schemas import (
    CertificateView,
    DeletionView,
    KeepingLine,
    KeepingView,
    LegalHoldView,
    RuleView,
)
from cases.retention import COOLING, Rule, State
from core.clock import local_date
from core.edge import Context
from core.identity import Staff
from core.policy import Verb


async def whole_view(tx: AsyncSession, ctx: Context, it: Kept) -> KeepingView:
    """Everything about one recording, for the person who asks."""
    past = await keeping.past_deletions(tx, it.recording.id)
    made = await keeping.certificate_of(tx, it.recording.id)
    names = await keeping.names_of(tx, _people(it, past))
    return KeepingView(
        case_id=it.case.id, case_number=it.case.number, title=it.case.title,
        county=it.case.county.view(), held_on=local_date(it.session.started_at),
        closed_on=it.closed_on, recording_id=it.recording.id,
        state=retention.state(it.keeping, local_date(ctx.now)), rule=rule_view(it.rule),
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
        certificate=certificate_view(it.case.id, made) if made else None,
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


def line_view(it: Kept, today: date) -> KeepingLine:
    """One recording in a list."""
    return KeepingLine(
        case_id=it.case.id, case_number=it.case.number, title=it.case.title,
        county=it.case.county.view(), held_on=local_date(it.session.started_at),
        closed_on=it.closed_on, state=retention.state(it.keeping, today),
        matter_class=it.rule.matter_class, keep_until=it.keeping.keep_until,
        is_estimated=it.rule.is_estimated,
    )  # fmt: skip


def rule_view(rule: Rule) -> RuleView:
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
        ended_words=row.ended_words, decided_at=row.decided_at, halted_at=row.halted_at,
        deleted_at=row.deleted_at,
        trouble=row.trouble,
    )  # fmt: skip


def certificate_view(case_id: str, row: DeletionCertificate) -> CertificateView:
    """What the case's page tells of it."""
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
    words = ["retry"] * (state is State.HALTED and may(Verb.RETRY_DELETION))
    if state in (State.DELETING, State.DELETED) or (it.deletion and it.deletion.decided_at):
        return tuple(words)
    words += ["hold"] * may(Verb.HOLD_RECORDING)
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
