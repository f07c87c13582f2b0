"""`reception seed`: an empty database becomes a believable prefecture.

The org tree, offices, demo accounts and kiosks are written directly; everything after that happens
as it would for people: days are published and slots taken over HTTP, and the past talks are really
held, by two scripted participants, through the real signaling, relay and recorder, on a server
whose wall clock is set to that past day.
"""

import contextlib
import secrets
import socket
import tempfile
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import upgrade
from app.rehearsal import Desk, Rehearsal, serving
from app.seed_facts import (
    COMING_VISITS,
    KIOSKS,
    OFFICES,
    PAST_VISITS,
    PEOPLE,
    PREFECTURE,
    TOPICS,
    UNITS,
    Person,
)
from cases import keeping, keeping_clock
from core.clock import LOCAL_ZONE, Clock, ShiftedClock, SystemClock
from core.db import Database
from core.identity import (
    Account,
    Kiosk,
    Official,
    OrgUnit,
    RoleBinding,
    digest,
    hash_password,
    new_kiosk,
)
from core.ids import new_id
from core.log import configure_logging
from core.settings import Settings

log = structlog.get_logger()

DEMO_CODE_TTL = timedelta(days=1)
"""The code of `reception kiosk code` may be typed at leisure; the desk's lasts ten minutes."""
PAST_DAYS = (3, 8)
"""How many days ago the past talks were held."""
PAST_AT = time(9, 33)
TALK_S = 24
LAST_START = time(23, 15)
"""From here to midnight two visits find room, and from no quarter after it."""


@dataclass(frozen=True, slots=True)
class Founding:
    """What must be known to use a fresh prefecture: one password for all, a code per kiosk."""

    password: str
    kiosk_codes: dict[str, str]
    """County code → enrolment code of its kiosk."""


async def found(settings: Settings) -> Founding | None:
    """Write org tree, offices, accounts and kiosks into an empty database; None if it is not."""
    settings.var_dir.mkdir(parents=True, exist_ok=True)
    await upgrade(settings.database)
    database = Database(settings.database)
    try:
        async with database.transaction() as tx:
            if await tx.scalar(select(OrgUnit.id).limit(1)) is not None:
                return None
            password = secrets.token_urlsafe(9)
            await _write_prefecture(tx, password)
            codes = await _write_kiosks(tx, SystemClock())
    finally:
        await database.close()
    _keep_sign_ins(settings, password)
    return Founding(password, codes)


async def seed(settings: Settings) -> None:
    """Found the demo prefecture and live through some of its days; a founded one is left alone."""
    configure_logging(level="WARNING")
    founding = await found(settings)
    if founding is not None:
        _say("正在写入演示数据：真实进行并录制两次短通话，约两分钟。")
        _say("Seeding: two short talks are really being held and recorded, about two minutes.")
        await _live_through(settings, founding, SystemClock())


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201  someone waits at the console


def print_welcome(settings: Settings, codes: dict[str, str]) -> None:
    """Addresses and demo sign-ins, and each demo kiosk's fresh enrolment code."""
    path = _sign_ins_path(settings)
    url = settings.base_url
    lines = ["", f"  远程视频接访  Remote Reception   {url}", ""]
    if path.exists():
        password = path.read_text().strip()
        for person in PEOPLE:
            lines.append(f"  {person.username:<10} {password}   {person.shown_as}")
        lines += ["", f"  {url}/sign-in  任一账号 any account", f"  {url}/kiosk    一体机 kiosks:"]
        lines += [f"    {name}  {code}" for name, code in codes.items()]
        lines += [
            "",
            "  Ctrl-C 停止 stops it; reception kiosk code NAME 重新取登记码 makes a new code",
        ]
    print("\n".join(lines), flush=True)  # noqa: T201  this is the command's answer


async def fresh_kiosk_codes(settings: Settings) -> dict[str, str]:
    """A new enrolment code for each demo kiosk that is there, by the kiosk's name."""
    codes = {}
    for name, _ in KIOSKS:
        with contextlib.suppress(LookupError):
            codes[name] = await fresh_kiosk_code(settings, name)
    return codes


async def fresh_kiosk_code(settings: Settings, name: str) -> str:
    """A new enrolment code for the kiosk called `name`. Raises LookupError if there is none."""
    database = Database(settings.database)
    try:
        async with database.transaction() as tx:
            kiosk = await tx.scalar(select(Kiosk).where(Kiosk.name == name))
            if kiosk is None:
                raise LookupError(name)
            return renew_code(kiosk, SystemClock().now())
    finally:
        await database.close()


def renew_code(kiosk: Kiosk, now: datetime) -> str:
    code = f"{secrets.randbelow(10**8):08d}"
    kiosk.enrolment_digest = digest(code)
    kiosk.enrolment_expires_at = now + DEMO_CODE_TTL
    return code


async def _write_prefecture(tx: AsyncSession, password: str) -> None:
    ids = {unit.code: new_id() for unit in UNITS}
    paths: dict[str, str] = {}
    for unit in UNITS:
        paths[unit.code] = f"{paths[unit.parent] if unit.parent else '/'}{unit.code}/"
        tx.add(
            OrgUnit(
                id=ids[unit.code], code=unit.code, level=unit.level,
                parent_id=ids[unit.parent] if unit.parent else None, path=paths[unit.code],
                name_zh=unit.zh, name_bo=unit.bo, name_en=unit.en, distance_km=unit.km,
            )
        )  # fmt: skip
    await tx.flush()
    offices = {office.key: new_id() for office in OFFICES}
    for position, office in enumerate(OFFICES):
        tx.add(
            Official(
                id=offices[office.key], org_unit_id=ids[PREFECTURE], title_zh=office.zh,
                title_bo=None, title_en=office.en, position=position,
            )
        )  # fmt: skip
    await tx.flush()
    password_hash = await hash_password(password)
    for person in PEOPLE:
        _write_person(tx, person, password_hash, ids, offices)


def _write_person(
    tx: AsyncSession,
    person: Person,
    password_hash: str,
    ids: dict[str, str],
    offices: dict[str, str],
) -> None:
    account_id = new_id()
    tx.add(
        Account(
            id=account_id, username=person.username, display_name=person.shown_as,
            password_hash=password_hash, disabled_at=None,
            official_id=offices[person.office] if person.office else None,
        )
    )  # fmt: skip
    tx.add(RoleBinding(account_id=account_id, role=person.role, org_unit_id=ids[person.unit]))


async def _write_kiosks(tx: AsyncSession, clock: Clock) -> dict[str, str]:
    """The demo kiosks, not yet enrolled: county code → enrolment code."""
    codes: dict[str, str] = {}
    for name, county in KIOSKS:
        unit = await tx.scalar(select(OrgUnit).where(OrgUnit.code == county))
        assert unit is not None
        kiosk, _ = new_kiosk(name, unit.id, now=clock.now())
        codes[county] = renew_code(kiosk, clock.now() + timedelta(days=30))
        tx.add(kiosk)
    return codes


async def _live_through(settings: Settings, founding: Founding, clock: Clock) -> None:
    """Hold the past talks, then publish and book what is to come."""
    today = clock.now().astimezone(LOCAL_ZONE).date()
    with tempfile.TemporaryDirectory() as folder:
        for visit, ago, official in zip(
            PAST_VISITS, PAST_DAYS, ("lingdao", "lingdao2"), strict=True
        ):
            day = _working_day(today - timedelta(days=ago))
            then = ShiftedClock(datetime.combine(day, PAST_AT, LOCAL_ZONE) - clock.now())
            await _vouch_for(settings, then)
            async with (
                serving(_apart(settings), clock=then) as url,
                Desk(url, founding.password) as desk,
            ):
                day_id = await desk.publish(official, day, time(9), time(12), topics=TOPICS)
                rehearsal = Rehearsal(desk, official, visit, founding.kiosk_codes[visit.county])
                await rehearsal.hold(day_id, TALK_S, Path(folder))
    await _vouch_for(settings, clock)
    async with serving(_apart(settings), clock=clock) as url, Desk(url, founding.password) as desk:
        await _publish_coming(desk, today, clock)


async def _vouch_for(settings: Settings, clock: Clock) -> None:
    """That this server's clock leaps from day to day is meant: nobody need look at it."""
    database = Database(settings.database)
    try:
        await database.run(lambda tx: keeping_clock.vouch(tx, keeping.look(clock), None))
    finally:
        await database.close()


async def _publish_coming(desk: Desk, today: date, clock: Clock) -> None:
    """Reception days around today, and a few appointments on them."""
    first = first_hours(clock.now().astimezone(LOCAL_ZONE))
    days = [await desk.publish("lingdao", *first, topics=TOPICS)]
    for official, ahead in (("lingdao2", 2), ("lingdao", 5), ("lingdao2", 9), ("lingdao", 14)):
        day = _working_day(today + timedelta(days=ahead))
        days.append(await desk.publish(official, day, time(9), time(12), topics=TOPICS))
    for visit, day_id in zip(COMING_VISITS, (days[0], days[1], days[0]), strict=True):
        await desk.book(day_id, visit)


def first_hours(now: datetime) -> tuple[date, time, time]:
    """Hours that still have slots to give for two visits: today's usual ones, the next three hours,
    or those of the morning after."""
    today, start = now.date(), _next_quarter(now)
    if now.time() < time(15, 0):
        return today, max(time(9, 0), start), time(17, 30)
    if start < now.time() or start > LAST_START:
        return today + timedelta(days=1), time(9, 0), time(17, 30)
    end = datetime.combine(today, start) + timedelta(hours=3)
    return today, start, end.time() if end.date() == today else time(23, 59)


def _next_quarter(now: datetime) -> time:
    rounded = now + timedelta(minutes=15 - now.minute % 15)
    return rounded.time().replace(second=0, microsecond=0)


def _working_day(day: date) -> date:
    """`day`, or the Monday after it."""
    return day + timedelta(days=7 - day.weekday()) if day.weekday() >= 5 else day


def _apart(settings: Settings) -> Settings:
    """The same data on ports of its own, so that a running server is not disturbed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return settings.model_copy(
        update={
            "host": "127.0.0.1", "port": port, "public_url": "", "media_port": 0,
            "media_host": "127.0.0.1", "media_addresses": ("127.0.0.1",), "countdown_s": 1,
        }
    )  # fmt: skip


def _sign_ins_path(settings: Settings) -> Path:
    return settings.var_dir / "demo-password"


def _keep_sign_ins(settings: Settings, password: str) -> None:
    path = _sign_ins_path(settings)
    path.touch(mode=0o600)
    path.write_text(password + "\n")
