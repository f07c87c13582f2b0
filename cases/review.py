"""Review (复核): what a reviewer has watched, and what they found, pinned to a second.

Coverage is the union of watched stretches over the session's length, so watching the opening three
times is not watching the whole. Spans are appended as they are reported: together with the audit
log they answer who watched what.
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cases.model import Finding, Playback
from cases.schemas import FindingView, PlaybackSpan, PlaybackView
from core.errors import Refused
from core.identity import Account
from core.ids import AccountId, CaseId, new_id

Span = tuple[int, int]


class OutsideRecording(Refused):
    code = "outside_recording"


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The union of half-open `spans`, in order, touching ones joined. Empty spans vanish."""
    union: list[Span] = []
    for start, end in sorted(spans):
        if end <= start:
            continue
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((start, end))
    return tuple(union)


def coverage(spans: Iterable[Span], duration_ms: int) -> PlaybackView:
    """How much of `duration_ms` the union of `spans` covers; 100 percent only if all of it."""
    clipped = ((max(0, start), min(end, duration_ms)) for start, end in spans)
    watched_ms = sum(end - start for start, end in merged(clipped))
    percent = watched_ms * 100 // duration_ms if duration_ms else 0
    return PlaybackView(watched_ms=watched_ms, duration_ms=duration_ms, coverage_percent=percent)


async def report_playback(
    tx: AsyncSession,
    case_id: CaseId,
    account_id: AccountId,
    spans: Iterable[PlaybackSpan],
    *,
    duration_ms: int,
    now: datetime,
) -> PlaybackView:
    """Add what was watched since the last report; returns this person's coverage so far."""
    for start, end in merged((span.start_ms, min(span.end_ms, duration_ms)) for span in spans):
        tx.add(
            Playback(
                id=new_id(),
                case_id=case_id,
                account_id=account_id,
                start_ms=start,
                end_ms=end,
                reported_at=now,
            )
        )
    await tx.flush()
    rows = await tx.execute(
        select(Playback.start_ms, Playback.end_ms).where(
            Playback.case_id == case_id, Playback.account_id == account_id
        )
    )
    return coverage([(start, end) for start, end in rows], duration_ms)


async def add_finding(
    tx: AsyncSession,
    case_id: CaseId,
    account_id: AccountId,
    at_ms: int,
    text: str,
    *,
    duration_ms: int,
    now: datetime,
) -> Finding:
    """Pin a remark to `at_ms`. Raises `OutsideRecording` beyond the session's end."""
    if at_ms > duration_ms:
        raise OutsideRecording("The talk was shorter than that. Choose a second within it.")
    finding = Finding(
        id=new_id(), case_id=case_id, at_ms=at_ms, text=text, author_id=account_id, created_at=now
    )
    tx.add(finding)
    await tx.flush()
    return finding


async def findings(tx: AsyncSession, case_id: CaseId) -> tuple[FindingView, ...]:
    """Every reviewer's findings, in the order of the recording."""
    rows = await tx.execute(
        select(Finding, Account.display_name)
        .join(Account, Account.id == Finding.author_id)
        .where(Finding.case_id == case_id)
        .order_by(Finding.at_ms, Finding.created_at)
    )
    return tuple(finding_view(finding, author) for finding, author in rows)


def finding_view(finding: Finding, author: str) -> FindingView:
    return FindingView(
        id=finding.id, at_ms=finding.at_ms, text=finding.text, author=author,
        created_at=finding.created_at,
    )  # fmt: skip
