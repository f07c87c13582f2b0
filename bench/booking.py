"""Question: do two parties ever get the same slot, and is a confirmed booking ever lost?

Several processes, each with several clerks, fight over one day's slots through the real hold,
confirm and cancel, on a real database. Some confirm at once, some twice, some at the very moment
their hold runs out, some walk away. Afterwards the database is compared with what each clerk was
told. Zero in N attempts means a true rate below 3/N with 95 % confidence.
"""

import asyncio
import multiprocessing
import random
import resource
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from datetime import time as local_time
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core import audit
from core.clock import local_date
from core.db import Base, Database
from core.events import Event, EventKind
from core.identity import Account, Official, OrgUnit, RoleAt, Staff
from core.ids import AccountId, OrgUnitId, new_id
from core.schemas import OrgLevel, Role
from scheduling import booking, days
from scheduling.model import OVER, Appointment, Hold, Slot
from scheduling.schemas import AppointmentCreate, AppointmentState, ReceptionDayCreate

CLERKS_PER_PROCESS = 4
HOT_SLOTS, HOT_SHARE = 8, 0.7
THINK_S = 0.05
"""A clerk types between hold and confirm, and between confirm and cancel, at most this long."""
LONG, SHORT = timedelta(minutes=5), timedelta(milliseconds=100)
_FOREVER_NS = 2**62


class NotEmpty(RuntimeError):
    """The drill writes thousands of invented bookings: it only runs on an empty database."""


@dataclass(frozen=True, slots=True)
class Arena:
    """What the clerks fight over."""

    county_id: str
    slot_ids: tuple[str, ...]
    account_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fight:
    """One process's part."""

    database_url: str
    arena: Arena
    process: int
    share: int
    keep: float
    """How likely an appointment is kept. Few are, so that slots stay worth fighting for."""
    seed: int


@dataclass(slots=True)
class Ledger:
    """What one process saw. Times are CLOCK_MONOTONIC, comparable between processes."""

    counts: Counter[str] = field(default_factory=Counter)
    attempts: "array[int]" = field(default_factory=lambda: array("q"))
    """Slot index, start and end in ns, of each attempt to hold, one after the other."""
    owned: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Appointment → slot index, told at, given back from; between the two nobody else owns it."""
    errors: Counter[str] = field(default_factory=Counter)


def run(database_url: str, attempts: int, processes: int, seed: int) -> dict[str, Any]:
    """Fight, then count. Blocking. Raises `NotEmpty` on a database that is in use.

    The result is JSON; `double`, `lost_confirmations`, `unexplained` and `errors` must be 0 or
    empty, and
    `overlapping_attempts` says how often contenders really met.
    """
    arena = asyncio.run(_prepare(database_url, clerks=processes * CLERKS_PER_PROCESS))
    share, rest = divmod(attempts, processes)
    keep = min(0.2, len(arena.slot_ids) / max(1, attempts))
    started, cpu_before_s = time.monotonic(), _children_cpu_s()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = [
            pool.submit(_fight, Fight(database_url, arena, n, share + (n < rest), keep, seed))
            for n in range(processes)
        ]
        ledgers = [future.result() for future in futures]
    seconds = time.monotonic() - started
    verdict = asyncio.run(_compare(database_url, arena, ledgers))
    counts = sum((ledger.counts for ledger in ledgers), Counter[str]())
    return {
        "engine": database_url.split(":", 1)[0].split("+", maxsplit=1)[0],
        "attempts": attempts, "processes": processes, "clerks": processes * CLERKS_PER_PROCESS,
        "slots": len(arena.slot_ids), "seed": seed, "seconds": round(seconds, 2),
        "attempts_per_s": round(attempts / seconds),
        # On a busy machine the one figure that still means something.
        "cpu_s": round(_children_cpu_s() - cpu_before_s, 2),
        **{name: counts[name] for name in
           ("held", "taken", "confirmed", "confirmed_twice", "expired", "cancelled", "abandoned")},
        "overlapping_attempts": overlapping(ledgers),
        **verdict,
        "errors": dict(sum((ledger.errors for ledger in ledgers), Counter[str]())),
        "true_rate_below": 3 / attempts,
    }  # fmt: skip


def _children_cpu_s() -> float:
    """CPU seconds of child processes that have ended; a database server's are not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_scratch(attempts: int, processes: int, seed: int) -> dict[str, Any]:
    """`run` on a SQLite file that is thrown away afterwards."""
    with tempfile.TemporaryDirectory(prefix="reception-drill-") as scratch:
        return run(f"sqlite+aiosqlite:///{scratch}/drill.db", attempts, processes, seed)


# ── the fight ────────────────────────────────────────────────────────────────────────────────────


def _fight(fight: Fight) -> Ledger:
    ledger = Ledger()
    asyncio.run(_clerks(fight, ledger))
    return ledger


async def _clerks(fight: Fight, ledger: Ledger) -> None:
    database = Database(fight.database_url)
    share, rest = divmod(fight.share, CLERKS_PER_PROCESS)
    try:
        async with asyncio.TaskGroup() as tg:
            for n in range(CLERKS_PER_PROCESS):
                clerk = Clerk(database, fight, n, ledger)
                tg.create_task(clerk.work(share + (n < rest)), name=f"clerk {n}")
    finally:
        await database.close()


class Clerk:
    """One desk account that keeps trying."""

    def __init__(self, database: Database, fight: Fight, n: int, ledger: Ledger) -> None:
        index = fight.process * CLERKS_PER_PROCESS + n
        self.database = database
        self.arena = fight.arena
        self.ledger = ledger
        self.chance = random.Random(f"{fight.seed}/{index}")
        self.keep = fight.keep
        at = RoleAt(Role.DESK, OrgUnitId(fight.arena.county_id), "/")
        self.staff = Staff(AccountId(fight.arena.account_ids[index]), "", None, (at,))

    async def work(self, attempts: int) -> None:
        for _ in range(attempts):
            try:
                await self._attempt()
            except Exception as error:  # whatever it is, it is a finding
                self.ledger.errors[f"{type(error).__name__}: {str(error)[:80]}"] += 1

    async def _attempt(self) -> None:
        slots = self.arena.slot_ids
        hot = self.chance.random() < HOT_SHARE
        index = self.chance.randrange(min(HOT_SLOTS, len(slots)) if hot else len(slots))
        style = self.chance.choices(
            ("straight", "twice", "late", "abandon"), weights=(70, 10, 12, 8)
        )[0]
        ttl = SHORT if style in ("late", "abandon") else LONG
        started_ns = time.monotonic_ns()
        try:
            held = await self._hold(slots[index], ttl)
        except booking.SlotTaken:
            self.ledger.counts["taken"] += 1
            return
        except booking.HoldLimit:
            self.ledger.counts["limited"] += 1
            return
        finally:
            self.ledger.attempts.extend((index, started_ns, time.monotonic_ns()))
        self.ledger.counts["held"] += 1
        if style == "abandon":
            self.ledger.counts["abandoned"] += 1
            return
        if style == "late":
            # Just before, at, or just after the hold runs out, when others reach for it.
            wait = (held.expires_at - datetime.now(UTC)).total_seconds()
            await asyncio.sleep(max(0.0, wait + self.chance.uniform(-0.01, 0.01)))
        else:
            await asyncio.sleep(self.chance.uniform(0, THINK_S))
        await self._confirm_and_maybe_cancel(held, index, twice=style == "twice")

    async def _confirm_and_maybe_cancel(
        self, held: booking.HeldSlot, index: int, *, twice: bool
    ) -> None:
        clicks = [self._confirm(held.token) for _ in range(1 + twice)]
        answers = await asyncio.gather(*clicks, return_exceptions=True)
        told_ns = time.monotonic_ns()
        if all(isinstance(one, booking.HoldExpired | booking.SlotTaken) for one in answers):
            self.ledger.counts["expired"] += 1
            return
        first = answers[0]
        if not isinstance(first, str) or any(one != first for one in answers):
            raise AssertionError(f"a double click was answered with {answers!r}")
        self.ledger.counts["confirmed"] += 1
        self.ledger.counts["confirmed_twice"] += twice
        back_ns = _FOREVER_NS
        if self.chance.random() >= self.keep:
            await asyncio.sleep(self.chance.uniform(0, THINK_S))
            back_ns = time.monotonic_ns()
            await self._cancel(first)
            self.ledger.counts["cancelled"] += 1
        self.ledger.owned[first] = (index, told_ns, back_ns)

    async def _hold(self, slot_id: str, ttl: timedelta) -> booking.HeldSlot:
        async def work(tx: AsyncSession) -> booking.HeldSlot:
            return await booking.hold_slot(
                tx, slot_id, holder=self.staff, now=datetime.now(UTC), ttl=ttl
            )

        return await self.database.run(work)

    async def _confirm(self, token: str) -> str:
        form = AppointmentCreate.model_validate(
            {
                "hold_token": token, "matter": "演练", "county_id": self.arena.county_id,
                "party": [{"name": "演练", "relation": "petitioner"}],
            }
        )  # fmt: skip

        async def work(tx: AsyncSession) -> str:
            county = await tx.get_one(OrgUnit, self.arena.county_id)
            made = await booking.confirm(
                tx, form, county=county, actor=self.staff.actor, max_representatives=5,
                now=datetime.now(UTC),
            )  # fmt: skip
            return made.id

        return await self.database.run(work)

    async def _cancel(self, appointment_id: str) -> None:
        async def work(tx: AsyncSession) -> None:
            found = await booking.appointment_for_change(tx, appointment_id)
            await booking.cancel(tx, found, "演练", actor=self.staff.actor, now=datetime.now(UTC))

        await self.database.run(work)


# ── before and after ─────────────────────────────────────────────────────────────────────────────


async def _prepare(database_url: str, *, clerks: int) -> Arena:
    """One county, one published day a week ahead with a few hundred slots, and the clerks."""
    database = Database(database_url)
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all, tables=_tables())
        return await database.run(lambda tx: _furnish(tx, clerks=clerks))
    finally:
        await database.close()


def _tables() -> list[Any]:
    """The tables of the kernel and of scheduling, which is all that is imported here."""
    wanted = {"core", "scheduling"}
    mappers = Base.registry.mappers
    return [m.local_table for m in mappers if m.class_.__module__.split(".")[0] in wanted]


async def _furnish(tx: AsyncSession, *, clerks: int) -> Arena:
    if await tx.scalar(select(func.count()).select_from(OrgUnit)):
        raise NotEmpty("This database is in use. The booking drill needs an empty one.")
    now = datetime.now(UTC)
    county = OrgUnit(
        id=new_id(), code="513328", level=OrgLevel.COUNTY, parent_id=None, path="/513328/",
        name_zh="甘孜县", name_bo=None, name_en="Garzê", distance_km=None,
    )  # fmt: skip
    tx.add(county)
    await tx.flush()
    official = Official(
        id=new_id(), org_unit_id=county.id, title_zh="县长", title_bo=None, title_en="Head",
        position=1,
    )  # fmt: skip
    accounts = [
        Account(
            id=new_id(), username=f"clerk-{n}", display_name="", password_hash="!",
            official_id=None, disabled_at=None,
        )
        for n in range(clerks)
    ]  # fmt: skip
    tx.add_all([official, *accounts])
    await tx.flush()
    form = ReceptionDayCreate(
        official_id=official.id, day=local_date(now) + timedelta(days=7), starts=local_time(9),
        ends=local_time(17), slot_minutes=10, rooms=4, place="演练", topics=[],
        county_ids=[county.id],
    )  # fmt: skip
    day = await days.create_day(tx, form, actor="drill", now=now)
    slots = await tx.scalars(
        select(Slot.id)
        .where(Slot.reception_day_id == day.id)
        .order_by(Slot.starts_at, Slot.room_no)
    )
    return Arena(county.id, tuple(slots), tuple(one.id for one in accounts))


async def _compare(database_url: str, arena: Arena, ledgers: list[Ledger]) -> dict[str, Any]:
    """What the database says, against what the clerks were told."""
    owned = {key: value for ledger in ledgers for key, value in ledger.owned.items()}
    database = Database(database_url)
    try:
        async with database.reading() as tx:
            rows = (
                await tx.execute(select(Appointment.id, Appointment.slot_id, Appointment.state))
            ).all()
            claimed = set(
                await tx.scalars(select(Hold.slot_id).where(Hold.confirmed_at.is_not(None)))
            )
            events = await tx.scalar(
                select(func.count())
                .select_from(Event)
                .where(Event.kind == EventKind.APPOINTMENT_BOOKED)
            )
            broken_at = await audit.verify(tx)
    finally:
        await database.close()
    states = {row.id: row.state for row in rows}
    live = Counter(row.slot_id for row in rows if row.state not in OVER)
    expected = {
        key: AppointmentState.CONFIRMED if value[2] == _FOREVER_NS else AppointmentState.CANCELLED
        for key, value in owned.items()
    }
    return {
        "double": sum(count - 1 for count in live.values()) + owned_twice(owned.values()),
        "lost_confirmations": sum(states.get(key) != state for key, state in expected.items()),
        "unexplained": len(states.keys() - owned.keys()) + len(claimed ^ live.keys())
        + abs((events or 0) - len(states)),
        "kept": sum(live.values()),
        "audit_broken_at": broken_at,
    }  # fmt: skip


def owned_twice(spans: Iterable[tuple[int, int, int]]) -> int:
    """How many spans (slot, from, to) begin while another of the same slot still runs."""
    doubles, ends = 0, dict[int, int]()
    for slot, start, end in sorted(spans):
        doubles += start < ends.get(slot, -1)
        ends[slot] = max(end, ends.get(slot, -1))
    return doubles


def overlapping(ledgers: list[Ledger]) -> int:
    """How many attempts began while another attempt on the same slot was still under way."""
    return owned_twice(
        (ledger.attempts[n], ledger.attempts[n + 1], ledger.attempts[n + 2])
        for ledger in ledgers
        for n in range(0, len(ledger.attempts), 3)
    )
