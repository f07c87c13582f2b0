"""What anyone may ask, without an account: how a case stands."""

from typing import Annotated

from fastapi import APIRouter

from cases import query
from cases.schemas import CaseQuery, CaseStatus
from core.edge import Context, allow
from core.policy import Verb
from core.schemas import Language

router = APIRouter(prefix="/api/public", tags=["public"])


@router.post("/case-query")
async def ask(
    asked: CaseQuery,
    ctx: Annotated[Context, allow(Verb.READ_PUBLIC)],
    lang: Language = Language.CHINESE,
) -> CaseStatus:
    """How a case stands. A POST, so that number and code stay out of addresses and logs."""
    await query.count_attempt(ctx.services.store, ctx.address, asked.number)
    async with ctx.database.reading() as tx:
        return await query.case_status(tx, asked.number, asked.code, now=ctx.now, language=lang)
