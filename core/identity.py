"""Who people and kiosks are: the org tree, accounts with roles bound to it, sessions, devices.

Staff sign in with a password (argon2id) and get an opaque session cookie; kiosks are enrolled with
a one-time code and get a device cookie. The database keeps only digests of both tokens. Villagers
have no accounts: the desk vouches for them.
"""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import ForeignKey, String, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db import Base
from core.errors import Gone, NotFound, Unauthenticated
from core.ids import AccountId, KioskId, OfficialId, OrgUnitId, new_id
from core.schemas import KioskView, OrgLevel, OrgUnitView, Role

ENROLMENT_TTL = timedelta(minutes=10)
# OWASP's floor for argon2id: 19 MiB, two passes, one lane.
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
_hasher = PasswordHash((Argon2Hasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES),))
# Two at a time: each takes 19 MiB and a core for tens of milliseconds, which is a lever for a
# flood.
_hashing = asyncio.Semaphore(2)


class WrongPassword(Unauthenticated):
    code = "wrong_password"


class EnrolmentRefused(Gone):
    code = "enrolment_refused"


class OrgUnit(Base):
    """A node of the org tree. `path` is the codes from the root, e.g. `/510000/513300/513328/`."""

    __tablename__ = "org_units"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    code: Mapped[str] = mapped_column(String(16), unique=True)
    level: Mapped[str] = mapped_column(String(16))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("org_units.id"))
    path: Mapped[str] = mapped_column(String(160), index=True)
    name_zh: Mapped[str] = mapped_column(String(80))
    name_bo: Mapped[str | None] = mapped_column(String(160))
    name_en: Mapped[str] = mapped_column(String(120))
    distance_km: Mapped[int | None]
    """Road distance to the prefecture seat, for a county: what the villager did not have to
    travel.
    """

    def view(self) -> OrgUnitView:
        return OrgUnitView(
            id=self.id, code=self.code, level=OrgLevel(self.level), parent_id=self.parent_id,
            name_zh=self.name_zh, name_bo=self.name_bo, name_en=self.name_en,
        )  # fmt: skip


class Official(Base):
    """An office that receives people (接访领导), not the person who holds it today."""

    __tablename__ = "officials"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    org_unit_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"))
    title_zh: Mapped[str] = mapped_column(String(80))
    title_bo: Mapped[str | None] = mapped_column(String(160))
    title_en: Mapped[str] = mapped_column(String(120))
    position: Mapped[int] = mapped_column(default=0)

    org_unit: Mapped[OrgUnit] = relationship(lazy="raise")


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    display_name: Mapped[str] = mapped_column(String(80))
    password_hash: Mapped[str] = mapped_column(String(200))
    official_id: Mapped[str | None] = mapped_column(ForeignKey("officials.id"))
    disabled_at: Mapped[datetime | None]

    bindings: Mapped[list["RoleBinding"]] = relationship(lazy="raise")


class RoleBinding(Base):
    """A role at a node of the org tree; it reaches every unit below."""

    __tablename__ = "role_bindings"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    org_unit_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"), primary_key=True)

    org_unit: Mapped[OrgUnit] = relationship(lazy="raise")


class StaffSession(Base):
    __tablename__ = "staff_sessions"

    token_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Kiosk(Base):
    """An enrolled device in a county reception room."""

    __tablename__ = "kiosks"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    county_id: Mapped[str] = mapped_column(ForeignKey("org_units.id"))
    enrolment_digest: Mapped[str | None] = mapped_column(String(64), unique=True)
    enrolment_expires_at: Mapped[datetime | None]
    token_digest: Mapped[str | None] = mapped_column(String(64), unique=True)
    enrolled_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]
    help_asked_at: Mapped[datetime | None]

    county: Mapped[OrgUnit] = relationship(lazy="raise")

    def view(self) -> KioskView:
        return KioskView(
            id=self.id, name=self.name, county=self.county.view(), enrolled_at=self.enrolled_at,
            last_seen_at=self.last_seen_at, revoked_at=self.revoked_at,
            help_asked_at=self.help_asked_at,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RoleAt:
    role: Role
    org_unit_id: OrgUnitId
    path: str


@dataclass(frozen=True, slots=True)
class Staff:
    """A signed-in member of staff."""

    account_id: AccountId
    display_name: str
    official_id: OfficialId | None
    roles: tuple[RoleAt, ...]

    @property
    def actor(self) -> str:
        """How audit lines and ledgers name this principal."""
        return f"account:{self.account_id}"


@dataclass(frozen=True, slots=True)
class KioskDevice:
    """An enrolled kiosk; it acts for whoever stands before it, and only for its own county."""

    kiosk_id: KioskId
    name: str
    county_id: OrgUnitId
    county_path: str

    @property
    def actor(self) -> str:
        return f"kiosk:{self.kiosk_id}"


@dataclass(frozen=True, slots=True)
class Anyone:
    """Nobody signed in: the public."""

    @property
    def actor(self) -> str:
        return "public"


Principal = Staff | KioskDevice | Anyone


def digest(token: str) -> str:
    """What the database keeps of a bearer token. Tokens are 256 random bits: no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


async def hash_password(password: str) -> str:
    async with _hashing:
        return await asyncio.to_thread(_hasher.hash, password)


async def sign_in(
    tx: AsyncSession, username: str, password: str, *, now: datetime, ttl: timedelta
) -> tuple[AccountId, str]:
    """Check the password and open a session: the account and the cookie's token.

    Raises `WrongPassword`, in the same words and about the same time whether the name or the
    password was wrong.
    """
    account = await tx.scalar(select(Account).where(Account.username == username))
    known = account is not None and account.disabled_at is None
    stored = account.password_hash if account is not None else _DECOY_HASH
    async with _hashing:
        fits = await asyncio.to_thread(_hasher.verify, password, stored)
    if account is None or not known or not fits:
        raise WrongPassword("The name or the password is wrong. Please check both and try again.")
    token = secrets.token_urlsafe(32)
    tx.add(
        StaffSession(
            token_digest=digest(token), account_id=account.id, created_at=now, expires_at=now + ttl
        )
    )
    return AccountId(account.id), token


async def sign_out(tx: AsyncSession, token: str) -> None:
    await tx.execute(delete(StaffSession).where(StaffSession.token_digest == digest(token)))


async def staff_by_token(tx: AsyncSession, token: str, *, now: datetime) -> Staff | None:
    """Whose session this is, or None if it is unknown, over, or the account is disabled."""
    account = await tx.scalar(
        select(Account)
        .join(StaffSession, StaffSession.account_id == Account.id)
        .where(
            StaffSession.token_digest == digest(token),
            StaffSession.expires_at > now,
            Account.disabled_at.is_(None),
        )
    )
    return None if account is None else await _staff(tx, account)


async def staff_by_id(tx: AsyncSession, account_id: str) -> Staff | None:
    """Who this account stands for today, or None if it is unknown or disabled."""
    account = await tx.get(Account, account_id, populate_existing=True)
    if account is None or account.disabled_at is not None:
        return None
    return await _staff(tx, account)


async def _staff(tx: AsyncSession, account: Account) -> Staff:
    bindings = await tx.execute(
        select(RoleBinding.role, OrgUnit.id, OrgUnit.path)
        .join(OrgUnit, OrgUnit.id == RoleBinding.org_unit_id)
        .where(RoleBinding.account_id == account.id)
        .order_by(RoleBinding.role, OrgUnit.path)
    )
    return Staff(
        account_id=AccountId(account.id),
        display_name=account.display_name,
        official_id=OfficialId(account.official_id) if account.official_id else None,
        roles=tuple(RoleAt(Role(role), OrgUnitId(unit), path) for role, unit, path in bindings),
    )


def new_kiosk(name: str, county_id: str, *, now: datetime) -> tuple[Kiosk, str]:
    """A kiosk waiting to be enrolled, and its code: 8 digits, good for 10 minutes and one use."""
    code = f"{secrets.randbelow(10**8):08d}"
    kiosk = Kiosk(
        id=KioskId(new_id()), name=name, county_id=county_id, enrolment_digest=digest(code),
        enrolment_expires_at=now + ENROLMENT_TTL, token_digest=None, enrolled_at=None,
        revoked_at=None, last_seen_at=None, help_asked_at=None,
    )  # fmt: skip
    return kiosk, code


async def enrol_kiosk(tx: AsyncSession, code: str, *, now: datetime) -> tuple[Kiosk, str]:
    """Trade the one-time code for a device token. Raises `EnrolmentRefused`."""
    kiosk = await tx.scalar(
        select(Kiosk).where(Kiosk.enrolment_digest == digest(code)).with_for_update()
    )
    expired = (
        kiosk is None or kiosk.enrolment_expires_at is None or kiosk.enrolment_expires_at <= now
    )
    if kiosk is None or expired or kiosk.revoked_at:
        raise EnrolmentRefused(
            "This code is not known or is over ten minutes old. Ask the desk for a new one."
        )
    token = secrets.token_urlsafe(32)
    kiosk.enrolment_digest = None
    kiosk.enrolment_expires_at = None
    kiosk.token_digest = digest(token)
    kiosk.enrolled_at = now
    return kiosk, token


async def kiosk_by_token(tx: AsyncSession, token: str) -> KioskDevice | None:
    """Which kiosk this device token belongs to, or None if it is unknown or revoked."""
    row = (
        await tx.execute(
            select(Kiosk.id, Kiosk.name, Kiosk.county_id, OrgUnit.path)
            .join(OrgUnit, OrgUnit.id == Kiosk.county_id)
            .where(Kiosk.token_digest == digest(token), Kiosk.revoked_at.is_(None))
        )
    ).one_or_none()
    if row is None:
        return None
    return KioskDevice(KioskId(row[0]), row[1], OrgUnitId(row[2]), row[3])


async def org_unit(tx: AsyncSession, unit_id: str) -> OrgUnit:
    """The unit, or `NotFound`."""
    unit = await tx.get(OrgUnit, unit_id)
    if unit is None:
        raise NotFound("There is no such unit. Choose one from the list.")
    return unit


async def org_units(tx: AsyncSession, ids: Iterable[str]) -> dict[str, OrgUnit]:
    """The units with these ids, by id; unknown ids are absent."""
    wanted = set(ids)
    if not wanted:
        return {}
    rows = await tx.scalars(select(OrgUnit).where(OrgUnit.id.in_(wanted)))
    return {unit.id: unit for unit in rows}


def decoy_hash() -> str:
    """What looks like a password's hash and is none's. To compute a real one takes as long as to
    check it, and would be done at each start."""
    salt, result = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32)
    )
    return f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${result}"


# Verified against when the name is unknown, so that the answer takes as long as a wrong password's.
_DECOY_HASH = decoy_hash()
