"""The kernel on both engines: transactions, the audit chain, sign-in, kiosks, the outbox."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from core import audit
from core.db import Database
from core.errors import TooMany
from core.events import EventKind, mark_handled, publish, unhandled
from core.identity import (
    Account,
    EnrolmentRefused,
    OrgUnit,
    WrongPassword,
    enrol_kiosk,
    hash_password,
    kiosk_by_token,
    new_kiosk,
    sign_in,
    sign_out,
    staff_by_token,
)
from core.ids import new_id
from core.store import limit, open_store, use_once

NOW = datetime(2026, 5, 25, 1, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def add_county(database: Database) -> str:
    unit_id = new_id()
    async with database.transaction() as tx:
        tx.add(
            OrgUnit(
                id=unit_id,
                code="513328",
                level="county",
                parent_id=None,
                path="/513328/",
                name_zh="甘孜县",
                name_bo=None,
                name_en="Garzê",
                distance_km=380,
            )
        )
    return unit_id


async def add_account(database: Database) -> str:
    account = Account(
        id=new_id(), username="xinfang", display_name="x", official_id=None, disabled_at=None,
        password_hash=await hash_password("right"),
    )  # fmt: skip
    async with database.transaction() as tx:
        tx.add(account)
    return account.id


async def test_a_chain_of_audit_lines_holds_under_concurrent_writers(database: Database) -> None:
    async def write(number: int) -> None:
        async def work(tx: object) -> None:
            await audit.record(
                tx, now=NOW, actor="x", action="look", object_kind="case", object_id=str(number)
            )  # type: ignore[arg-type]

        await database.run(work)

    await asyncio.gather(*(write(number) for number in range(20)))
    async with database.reading() as tx:
        assert await audit.verify(tx) is None


@pytest.mark.parametrize("change", [{"actor": "y"}, {"details": {"a": 1}}, {"object_id": "z"}])
async def test_a_changed_audit_line_is_found(
    sqlite_database: Database, change: dict[str, object]
) -> None:
    async with sqlite_database.transaction() as tx:
        for number in range(5):
            await audit.record(
                tx, now=NOW, actor="x", action="look", object_kind="case", object_id=str(number)
            )
    async with sqlite_database.transaction() as tx:
        await tx.execute(
            update(audit.AuditLine).where(audit.AuditLine.position == 3).values(**change)
        )
    async with sqlite_database.reading() as tx:
        assert await audit.verify(tx) == 3


async def test_a_reading_transaction_refuses_to_write(sqlite_database: Database) -> None:
    with pytest.raises(AssertionError, match="asked to write"):
        async with sqlite_database.reading() as tx:
            publish(tx, EventKind.CASE_OPENED, "x", now=NOW)


async def test_an_event_waits_until_someone_acted_on_it(database: Database) -> None:
    async with database.transaction() as tx:
        publish(tx, EventKind.SESSION_ENDED, "s1", now=NOW, appointment_id="a1")
    async with database.transaction() as tx:
        [event] = await unhandled(tx)
        assert event.payload == {"appointment_id": "a1"}
        await mark_handled(tx, event.id, now=NOW)
    async with database.reading() as tx:
        assert await unhandled(tx) == []


async def test_signing_in_opens_a_session_that_ends(database: Database) -> None:
    account_id = await add_account(database)
    async with database.transaction() as tx:
        who, token = await sign_in(tx, "xinfang", "right", now=NOW, ttl=HOUR)
    assert who == account_id
    async with database.transaction() as tx:
        staff = await staff_by_token(tx, token, now=NOW)
        assert staff is not None
        assert staff.account_id == account_id
        assert await staff_by_token(tx, token, now=NOW + HOUR) is None
        await sign_out(tx, token)
        assert await staff_by_token(tx, token, now=NOW) is None


@pytest.mark.parametrize(("name", "password"), [("xinfang", "wrong"), ("nobody", "right")])
async def test_a_wrong_name_and_a_wrong_password_get_the_same_words(
    sqlite_database: Database, name: str, password: str
) -> None:
    await add_account(sqlite_database)
    with pytest.raises(WrongPassword, match="The name or the password is wrong"):
        async with sqlite_database.transaction() as tx:
            await sign_in(tx, name, password, now=NOW, ttl=HOUR)


async def test_an_enrolment_code_works_once_and_for_ten_minutes(database: Database) -> None:
    county_id = await add_county(database)
    kiosk, code = new_kiosk("一号机", county_id, now=NOW)
    late, late_code = new_kiosk("二号机", county_id, now=NOW)
    async with database.transaction() as tx:
        tx.add_all([kiosk, late])
    async with database.transaction() as tx:
        _, token = await enrol_kiosk(tx, code, now=NOW)
    async with database.transaction() as tx:
        device = await kiosk_by_token(tx, token)
        assert device is not None
        assert device.county_path == "/513328/"
    for used, when in ((code, NOW), (late_code, NOW + timedelta(minutes=10)), ("00000000", NOW)):
        with pytest.raises(EnrolmentRefused):
            async with database.transaction() as tx:
                await enrol_kiosk(tx, used, now=when)


async def test_the_store_marks_single_use_and_counts() -> None:
    store = open_store("")
    assert await use_once(store, "grant", HOUR)
    assert not await use_once(store, "grant", HOUR)
    for _ in range(3):
        await limit(store, "query:1.2.3.4", most=3, per=timedelta(minutes=1))
    with pytest.raises(TooMany):
        await limit(store, "query:1.2.3.4", most=3, per=timedelta(minutes=1))
    await store.aclose()
