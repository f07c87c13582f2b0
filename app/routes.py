"""People, kiosks, the org tree, the operator's report and the audit log over HTTP."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app import storage
from app.health import health_report
from cases.schemas import AuditLineView
from core import audit
from core.edge import KIOSK_COOKIE, STAFF_COOKIE, Context, allow
from core.errors import NotFound
from core.identity import (
    Account,
    Kiosk,
    KioskDevice,
    OrgUnit,
    RoleBinding,
    Staff,
    enrol_kiosk,
    new_kiosk,
    org_unit,
    sign_in,
    sign_out,
)
from core.policy import Verb, reach
from core.schemas import (
    KioskCreate,
    KioskCreated,
    KioskEnrol,
    KioskMe,
    KioskView,
    Me,
    OrgLevel,
    OrgUnitView,
    Role,
    RoleView,
    SignIn,
)
from core.store import limit

router = APIRouter(tags=["people"])

KIOSK_COOKIE_AGE = timedelta(days=400)
# The pages a role opens, in the order in which a person with several roles wants them.
PLACES: dict[Role, tuple[str, ...]] = {
    Role.OFFICIAL: ("office", "cases"),
    Role.DESK: ("desk", "cases"),
    Role.SCHEDULER: ("schedule", "cases"),
    Role.DEPARTMENT: ("cases",),
    Role.REVIEWER: ("review", "archive", "cases"),
    Role.ARCHIVIST: ("archive", "cases"),
    Role.ADMIN: ("admin",),
}


@router.post("/api/sign-in")
async def post_sign_in(
    body: SignIn, response: Response, ctx: Annotated[Context, allow(Verb.SIGN_IN)]
) -> Me:
    """Open a staff session; the token travels only in an HttpOnly cookie."""
    minute = timedelta(minutes=1)
    await limit(ctx.services.store, f"sign-in:address:{ctx.address}", most=30, per=minute)
    await limit(ctx.services.store, f"sign-in:name:{body.username}", most=10, per=minute)
    ttl = timedelta(hours=ctx.settings.staff_session_h)
    async with ctx.database.transaction() as tx:
        account_id, token = await sign_in(tx, body.username, body.password, now=ctx.now, ttl=ttl)
        await audit.record(
            tx, now=ctx.now, actor=f"account:{account_id}", action="sign_in",
            object_kind="account", object_id=account_id,
        )  # fmt: skip
        me = await _me(tx, account_id)
    _set_cookie(response, ctx, STAFF_COOKIE, token, ttl)
    return me


@router.post("/api/sign-out", status_code=204)
async def post_sign_out(
    request: Request, response: Response, ctx: Annotated[Context, allow(Verb.USE_OWN_ACCOUNT)]
) -> None:
    async with ctx.database.transaction() as tx:
        await sign_out(tx, request.cookies[STAFF_COOKIE])
    response.delete_cookie(STAFF_COOKIE)


@router.get("/api/me")
async def get_me(ctx: Annotated[Context, allow(Verb.USE_OWN_ACCOUNT)]) -> Me:
    assert isinstance(ctx.principal, Staff)
    async with ctx.database.reading() as tx:
        return await _me(tx, ctx.principal.account_id)


@router.get("/api/org-units")
async def get_org_units(
    ctx: Annotated[Context, allow(Verb.READ_PUBLIC)],
    level: OrgLevel | None = None,
    parent_id: str | None = None,
) -> list[OrgUnitView]:
    """The org tree is public: anyone may know which counties and departments there are."""
    query = select(OrgUnit).order_by(OrgUnit.code)
    if level:
        query = query.where(OrgUnit.level == level)
    if parent_id:
        query = query.where(OrgUnit.parent_id == parent_id)
    async with ctx.database.reading() as tx:
        return [unit.view() for unit in await tx.scalars(query)]


@router.get("/api/kiosks")
async def get_kiosks(ctx: Annotated[Context, allow(Verb.MANAGE_KIOSKS)]) -> list[KioskView]:
    paths = reach(ctx.principal, Verb.MANAGE_KIOSKS)
    query = select(Kiosk).options(selectinload(Kiosk.county)).order_by(Kiosk.name)
    async with ctx.database.reading() as tx:
        kiosks = await tx.scalars(query)
        return [k.view() for k in kiosks if any(k.county.path.startswith(p) for p in paths)]


@router.post("/api/kiosks", status_code=201)
async def post_kiosk(
    body: KioskCreate, ctx: Annotated[Context, allow(Verb.MANAGE_KIOSKS)]
) -> KioskCreated:
    async with ctx.database.transaction() as tx:
        county = await org_unit(tx, body.county_id)
        ctx.require(Verb.MANAGE_KIOSKS, county.path)
        kiosk, code = new_kiosk(body.name, county.id, now=ctx.now)
        kiosk.county = county
        tx.add(kiosk)
        await _audit_kiosk(tx, ctx, kiosk.id, "kiosk_created")
        assert kiosk.enrolment_expires_at is not None
        return KioskCreated(
            kiosk=kiosk.view(), enrolment_code=code, expires_at=kiosk.enrolment_expires_at
        )


@router.post("/api/kiosks/{kiosk_id}/revoke")
async def post_kiosk_revoke(
    kiosk_id: str, ctx: Annotated[Context, allow(Verb.MANAGE_KIOSKS)]
) -> KioskView:
    async with ctx.database.transaction() as tx:
        kiosk = await _kiosk(tx, kiosk_id)
        ctx.require(Verb.MANAGE_KIOSKS, kiosk.county.path)
        kiosk.revoked_at = ctx.now
        kiosk.token_digest = None
        kiosk.enrolment_digest = None
        await _audit_kiosk(tx, ctx, kiosk_id, "kiosk_revoked")
        return kiosk.view()


@router.post("/api/kiosks/{kiosk_id}/help-answered")
async def post_help_answered(
    kiosk_id: str, ctx: Annotated[Context, allow(Verb.MANAGE_KIOSKS)]
) -> KioskView:
    async with ctx.database.transaction() as tx:
        kiosk = await _kiosk(tx, kiosk_id)
        ctx.require(Verb.MANAGE_KIOSKS, kiosk.county.path)
        kiosk.help_asked_at = None
        return kiosk.view()


@router.post("/api/kiosk/enrol")
async def post_enrol(
    body: KioskEnrol, response: Response, ctx: Annotated[Context, allow(Verb.ENROL_KIOSK)]
) -> KioskMe:
    """Trade the one-time code for a device cookie."""
    await limit(ctx.services.store, f"enrol:{ctx.address}", most=10, per=timedelta(minutes=1))
    async with ctx.database.transaction() as tx:
        kiosk, token = await enrol_kiosk(tx, body.code, now=ctx.now)
        await audit.record(
            tx, now=ctx.now, actor=f"kiosk:{kiosk.id}", action="kiosk_enrolled",
            object_kind="kiosk", object_id=kiosk.id,
        )  # fmt: skip
        me = await _kiosk_me(tx, ctx, kiosk.id)
    _set_cookie(response, ctx, KIOSK_COOKIE, token, KIOSK_COOKIE_AGE)
    return me


@router.get("/api/kiosk/me")
async def get_kiosk_me(ctx: Annotated[Context, allow(Verb.BE_KIOSK)]) -> KioskMe:
    """Who this kiosk is. Asking is also its sign of life on the desk's board."""
    assert isinstance(ctx.principal, KioskDevice)
    async with ctx.database.transaction() as tx:
        await tx.execute(
            update(Kiosk).where(Kiosk.id == ctx.principal.kiosk_id).values(last_seen_at=ctx.now)
        )
        return await _kiosk_me(tx, ctx, ctx.principal.kiosk_id)


@router.post("/api/kiosk/help", status_code=204)
async def post_help(ctx: Annotated[Context, allow(Verb.BE_KIOSK)]) -> None:
    """Someone at the kiosk wants a person; the desk's board shows it until it is answered."""
    assert isinstance(ctx.principal, KioskDevice)
    async with ctx.database.transaction() as tx:
        await tx.execute(
            update(Kiosk).where(Kiosk.id == ctx.principal.kiosk_id).values(help_asked_at=ctx.now)
        )


@router.get("/api/admin/people")
async def get_people(ctx: Annotated[Context, allow(Verb.SEE_PEOPLE)]) -> list[Me]:
    async with ctx.database.reading() as tx:
        ids = await tx.scalars(select(Account.id).order_by(Account.username))
        return [await _me(tx, account_id) for account_id in ids]


@router.get("/api/admin/audit")
async def get_audit(
    ctx: Annotated[Context, allow(Verb.SEE_AUDIT)], before: int | None = None, most: int = 100
) -> list[AuditLineView]:
    """The newest lines first; `before` pages on."""
    query = select(audit.AuditLine).order_by(audit.AuditLine.position.desc())
    if before is not None:
        query = query.where(audit.AuditLine.position < before)
    async with ctx.database.reading() as tx:
        lines = await tx.scalars(query.limit(min(most, 500)))
        return [AuditLineView.model_validate(line) for line in lines]


@router.get("/api/admin/health")
async def get_health(
    request: Request, ctx: Annotated[Context, allow(Verb.SEE_HEALTH)]
) -> dict[str, Any]:  # a report of named checks, each its own shape
    return await health_report(ctx.services, request.app.state)


@router.get("/api/storage")
async def get_storage(
    ctx: Annotated[Context, allow(Verb.PUBLISH_DAYS)],
) -> dict[str, Any]:  # app/storage.py's Forecast; days are dates, or null
    """Whether the disk holds what is booked and on offer: for who is about to publish a day."""
    async with ctx.database.reading() as tx:
        return (await storage.look(tx, ctx.services.settings, ctx.now)).as_dict()


async def _me(tx: AsyncSession, account_id: str) -> Me:
    account = await tx.scalar(
        select(Account)
        .where(Account.id == account_id)
        .options(selectinload(Account.bindings).selectinload(RoleBinding.org_unit))
    )
    assert account is not None
    roles = tuple(
        RoleView(role=Role(binding.role), org_unit=binding.org_unit.view())
        for binding in sorted(account.bindings, key=lambda b: (b.role, b.org_unit.path))
    )
    held = {view.role for view in roles}
    places = [place for role, opens in PLACES.items() if role in held for place in opens]
    return Me(
        account_id=account.id,
        username=account.username,
        display_name=account.display_name,
        official_id=account.official_id,
        roles=roles,
        places=tuple(dict.fromkeys(places)),
    )


async def _kiosk(tx: AsyncSession, kiosk_id: str) -> Kiosk:
    kiosk = await tx.scalar(
        select(Kiosk).where(Kiosk.id == kiosk_id).options(selectinload(Kiosk.county))
    )
    if kiosk is None:
        raise NotFound("There is no such kiosk. Reload the list.")
    return kiosk


async def _kiosk_me(tx: AsyncSession, ctx: Context, kiosk_id: str) -> KioskMe:
    kiosk = await _kiosk(tx, kiosk_id)
    return KioskMe(
        id=kiosk.id,
        name=kiosk.name,
        county=kiosk.county.view(),
        desk_phone=ctx.settings.desk_phone,
        idle_wipe_s=ctx.settings.kiosk_idle_wipe_s,
    )


async def _audit_kiosk(tx: AsyncSession, ctx: Context, kiosk_id: str, action: str) -> None:
    await audit.record(
        tx, now=ctx.now, actor=ctx.principal.actor, action=action, object_kind="kiosk",
        object_id=kiosk_id,
    )  # fmt: skip


def _set_cookie(response: Response, ctx: Context, name: str, token: str, age: timedelta) -> None:
    response.set_cookie(
        name, token, max_age=int(age.total_seconds()), httponly=True, samesite="strict",
        secure=ctx.settings.base_url.startswith("https:"), path="/",
    )  # fmt: skip
