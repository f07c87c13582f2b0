"""A talk that ended becomes exactly one case, and steps move it with clocks and a ledger."""

import asyncio
from datetime import date, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from cases import clocks, ledger, minutes
from cases.handling import HolderMissing, HolderNotExpected, Move, locked, take_step
from cases.intake import SessionStillLive, open_case
from cases.minutes import DueInThePast, MinutesChanged, OutsideSession, SessionOver
from cases.model import (
    Case,
    CaseEvent,
    CaseParty,
    CaseSerial,
    ClockRow,
    MinutesRow,
)
from cases.numbering import parse_case_number
from cases.schemas import CaseState, DemandChange, Outcome
from cases.workflow import StepNotPermitted
from core import audit
from core.db import Database
from core.errors import NotFound
from core.events import Event, EventKind
from core.identity import org_unit
from core.ids import CaseId, SessionId, new_id
from signaling.model import Session
from tests.support.matters import START, TALK, Prefecture, Talk, make_prefecture, make_talk

NOW = START + TALK + timedelta(minutes=1)


@pytest.fixture
async def prefecture(database: Database) -> Prefecture:
    return await make_prefecture(database)


async def opened(database: Database, talk: Talk) -> Case:
    return await database.run(lambda tx: open_case(tx, SessionId(talk.session_id), now=NOW))


async def step_to(
    database: Database, case: Case, to: CaseState, holder: str | None = None, days: int = 0
) -> None:
    async def work(tx: AsyncSession) -> None:
        await take_step(
            tx, await locked(tx, case.id), Move(to, "按规定办理", holder),
            now=NOW + timedelta(days=days), actor="account:x",
        )  # fmt: skip

    await database.run(work)


async def reread(database: Database, case: Case) -> Case:
    async with database.reading() as tx:
        row = await tx.get(Case, case.id)
        assert row is not None
        return row


async def test_sixteen_racing_openings_make_one_case(
    database: Database, prefecture: Prefecture
) -> None:
    talk = await make_talk(database, prefecture)
    cases = await asyncio.gather(*(opened(database, talk) for _ in range(16)))
    assert len({case.id for case in cases}) == 1
    async with database.reading() as tx:
        for table in (Case, CaseParty, MinutesRow):
            assert await tx.scalar(select(func.count()).select_from(table)) == 1
        published = await tx.scalars(select(Event).where(Event.kind == EventKind.CASE_OPENED))
        assert [event.subject_id for event in published] == [cases[0].id]
        # Nobody who lost the race took a number with them.
        assert await tx.scalar(select(CaseSerial.last)) == 1


async def test_talks_that_end_together_get_numbers_of_their_own(
    database: Database, prefecture: Prefecture
) -> None:
    talks = [
        await make_talk(database, prefecture, started_at=START + timedelta(hours=n))
        for n in range(6)
    ]
    cases = await asyncio.gather(*(opened(database, talk) for talk in talks))
    serials = sorted(parse_case_number(case.number).serial for case in cases)
    assert serials == [1, 2, 3, 4, 5, 6]


async def test_the_database_itself_refuses_a_second_case_of_a_session(
    database: Database, prefecture: Prefecture
) -> None:
    talk = await make_talk(database, prefecture)
    case = await opened(database, talk)
    with pytest.raises(IntegrityError):
        async with database.transaction() as tx:
            values = {c.key: getattr(case, c.key) for c in Case.__table__.columns}
            tx.add(Case(**values | {"id": new_id(), "number": "513328-SP-20260525-00009-0"}))


async def test_a_case_is_registered_with_the_petition_office_and_its_clock_runs(
    database: Database, prefecture: Prefecture
) -> None:
    case = await opened(database, await make_talk(database, prefecture))
    assert case.state == CaseState.REGISTERED
    assert case.holder_id == case.first_holder_id == prefecture.units["513300-XF"]
    assert parse_case_number(case.number).county_code == "513328"
    assert (case.title, case.people_total) == ("通村公路塌方两年未修", 3)
    async with database.reading() as tx:
        running = await clocks.clocks(tx, CaseId(case.id))
        assert [(row.kind, row.due_on) for row in running] == [("route", date(2026, 6, 9))]
        lines = await ledger.lines(tx, CaseId(case.id))
        assert [line.kind for line in lines] == ["registered", "papers_joined", "clock_started"]
        assert ledger.first_break(lines) is None
        assert running[0].started_by == lines[-1].position
        party = (await tx.scalars(select(CaseParty))).one()
        assert (party.name, party.relation) == ("扎西", "petitioner")
        assert await audit.verify(tx) is None


async def test_a_tree_without_a_petition_office_leaves_the_case_with_the_officials_unit(
    sqlite_database: Database,
) -> None:
    prefecture = await make_prefecture(sqlite_database)
    async with sqlite_database.transaction() as tx:
        unit = await org_unit(tx, prefecture.units["513300-XF"])
        unit.name_zh = "州档案局"
    case = await opened(sqlite_database, await make_talk(sqlite_database, prefecture))
    assert case.holder_id == prefecture.units["513300"]


async def test_a_live_or_unknown_session_has_no_case(
    database: Database, prefecture: Prefecture
) -> None:
    talk = await make_talk(database, prefecture, ended=False)
    with pytest.raises(SessionStillLive):
        await opened(database, talk)
    with pytest.raises(NotFound):
        await opened(database, Talk(new_id(), new_id()))


async def test_promises_made_in_the_call_stand_in_the_ledger_and_in_the_draft(
    database: Database, prefecture: Prefecture
) -> None:
    talk = await make_talk(database, prefecture, ended=False)
    now = START + timedelta(minutes=3)

    async def note(tx: AsyncSession) -> None:
        session = await tx.get_one(Session, talk.session_id)
        row = await minutes.add_demand(tx, session, "修路", None, now=now, actor="account:x")
        assert row.marked_at_ms == 180_000
        change = DemandChange(
            outcome=Outcome.BY_DATE, owner_org_id=prefecture.units["513300-JT"],
            due_on=date(2026, 7, 1),
        )  # fmt: skip
        await minutes.change_demand(tx, session, row, change, now=now, actor="account:x")

    await database.run(note)
    async with database.transaction() as tx:
        session = await tx.get_one(Session, talk.session_id)
        session.state, session.ended_at = "ended", START + TALK
    case = await opened(database, talk)
    async with database.reading() as tx:
        lines = await ledger.lines(tx, CaseId(case.id))
        draft = await tx.get_one(MinutesRow, talk.session_id)
    assert [line.words for line in lines if line.kind == "promise_made"] == [
        "修路 · 州交通运输局 · 2026-07-01"
    ]
    assert "诉求1：修路 · 州交通运输局 · 2026-07-01" in draft.summary
    assert "09:00—09:14" in draft.summary


async def test_minutes_that_the_official_wrote_are_kept(
    database: Database, prefecture: Prefecture
) -> None:
    talk = await make_talk(database, prefecture)
    await database.run(
        lambda tx: minutes.save_minutes(
            tx, talk.session_id, "已当面说明", 0, now=NOW, actor="account:x"
        )
    )
    await opened(database, talk)
    async with database.reading() as tx:
        assert (await tx.get_one(MinutesRow, talk.session_id)).summary == "已当面说明"


async def test_two_editors_of_one_revision_one_wins_and_the_other_gets_the_text(
    database: Database, prefecture: Prefecture
) -> None:
    talk = await make_talk(database, prefecture)

    async def save(words: str, revision: int) -> str:
        row = await database.run(
            lambda tx: minutes.save_minutes(
                tx, talk.session_id, words, revision, now=NOW, actor="account:x"
            )
        )
        return row.summary

    for revision in (0, 1):
        results = await asyncio.gather(
            *(save(f"{revision}{n}", revision) for n in range(5)), return_exceptions=True
        )
        won = [result for result in results if isinstance(result, str)]
        lost = [result for result in results if isinstance(result, MinutesChanged)]
        assert (len(won), len(lost)) == (1, 4)
        assert {error.details["summary"] for error in lost} == set(won)
        assert {error.details["revision"] for error in lost} == {revision + 1}


async def test_two_people_who_note_at_once_get_two_positions(
    database: Database, prefecture: Prefecture
) -> None:
    talk = await make_talk(database, prefecture, ended=False)

    async def note(words: str) -> None:
        async def work(tx: AsyncSession) -> None:
            session = await tx.get_one(Session, talk.session_id)
            await minutes.add_demand(tx, session, words, 5, now=NOW, actor="account:x")

        await database.run(work)

    await asyncio.gather(*(note(f"诉求{n}") for n in range(8)))
    async with database.reading() as tx:
        rows = await minutes.demands(tx, talk.session_id)
    assert [row.position for row in rows] == list(range(1, 9))


async def test_demands_keep_to_the_talk_and_promises_to_the_future(
    sqlite_database: Database,
) -> None:
    prefecture = await make_prefecture(sqlite_database)
    talk = await make_talk(sqlite_database, prefecture)
    async with sqlite_database.transaction() as tx:
        session = await tx.get_one(Session, talk.session_id)
        with pytest.raises(OutsideSession):
            await minutes.add_demand(tx, session, "修路", 10**7, now=NOW, actor="account:x")
        row = await minutes.add_demand(tx, session, "修路", 5, now=NOW, actor="account:x")
        with pytest.raises(DueInThePast):
            await minutes.change_demand(
                tx, session, row, DemandChange(due_on=date(2026, 5, 24)), now=NOW, actor="x"
            )
        with pytest.raises(SessionOver):
            await minutes.delete_demand(tx, session, row)


async def test_a_matter_travels_its_whole_way_with_every_clock(
    database: Database, prefecture: Prefecture
) -> None:
    case = await opened(database, await make_talk(database, prefecture))
    transport, water = prefecture.units["513300-JT"], prefecture.units["513300-SL"]
    office = prefecture.units["513300-XF"]
    holders = []
    for day, (to, holder) in enumerate(
        [
            (CaseState.TRANSFERRED, water),
            (CaseState.OBJECTED, None),
            (CaseState.ASSIGNED, transport),
            (CaseState.ACCEPTED, None),
            (CaseState.EXTENDED, None),
            (CaseState.REPLIED, None),
            (CaseState.CLOSED, None),
        ]
    ):
        await step_to(database, case, to, holder, days=day)
        holders.append((await reread(database, case)).holder_id)
    assert holders == [water, office, transport, transport, transport, transport, transport]
    async with database.reading() as tx:
        rows = await clocks.clocks(tx, CaseId(case.id))
        lines = await ledger.lines(tx, CaseId(case.id))
        assert await audit.verify(tx) is None
    assert [row.kind for row in rows] == [
        "route", "notice", "objection", "route", "notice", "objection", "handle", "extension",
        "ask_review",
    ]  # fmt: skip
    # Only the person's right still runs; every duty was met.
    assert [row.kind for row in rows if row.met_at is None] == ["ask_review"]
    handle, extension = rows[6], rows[7]
    assert extension.started_on == handle.due_on
    assert extension.due_on == handle.started_on + timedelta(days=90)
    assert ledger.first_break(lines) is None


async def test_steps_out_of_order_and_without_a_holder_change_nothing(
    database: Database, prefecture: Prefecture
) -> None:
    case = await opened(database, await make_talk(database, prefecture))
    with pytest.raises(StepNotPermitted):
        await step_to(database, case, CaseState.CLOSED)
    with pytest.raises(HolderMissing):
        await step_to(database, case, CaseState.TRANSFERRED)
    with pytest.raises(HolderNotExpected):
        await step_to(database, case, CaseState.REDIRECTED, prefecture.units["513300-JT"])
    with pytest.raises(NotFound):
        await step_to(database, case, CaseState.TRANSFERRED, "unknown")
    assert (await reread(database, case)).state == CaseState.REGISTERED
    async with database.reading() as tx:
        assert len(await ledger.lines(tx, CaseId(case.id))) == 3


async def test_two_clerks_who_take_a_step_at_once_one_is_told(
    database: Database, prefecture: Prefecture
) -> None:
    case = await opened(database, await make_talk(database, prefecture))
    results = await asyncio.gather(
        step_to(database, case, CaseState.TRANSFERRED, prefecture.units["513300-JT"]),
        step_to(database, case, CaseState.TRANSFERRED, prefecture.units["513300-SL"]),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "StepNotPermitted"]
    async with database.reading() as tx:
        assert (
            await tx.scalar(
                select(func.count()).select_from(ClockRow).where(ClockRow.kind == "notice")
            )
            == 1
        )
        assert ledger.first_break(await ledger.lines(tx, CaseId(case.id))) is None


async def test_writers_to_one_ledger_keep_one_chain(
    database: Database, prefecture: Prefecture
) -> None:
    case = await opened(database, await make_talk(database, prefecture))

    async def write(n: int) -> None:
        await database.run(
            lambda tx: ledger.append(
                tx, CaseId(case.id), now=NOW, kind="minutes_changed", actor="x", words=str(n)
            )
        )

    await asyncio.gather(*(write(n) for n in range(12)))
    async with database.reading() as tx:
        lines = await ledger.lines(tx, CaseId(case.id))
    assert [line.position for line in lines] == list(range(1, 16))
    assert ledger.first_break(lines) is None


async def test_a_ledger_line_changed_in_the_database_is_found(
    database: Database, prefecture: Prefecture
) -> None:
    case = await opened(database, await make_talk(database, prefecture))
    async with database.transaction() as tx:
        line = await tx.get_one(CaseEvent, (case.id, 2))
        line.words = "诉求 0 项"
    async with database.reading() as tx:
        assert ledger.first_break(await ledger.lines(tx, CaseId(case.id))) == 2


async def test_words_outside_the_vocabulary_do_not_enter_the_database(
    database: Database, prefecture: Prefecture
) -> None:
    talk = await make_talk(database, prefecture)
    case = await opened(database, talk)
    with pytest.raises(IntegrityError):
        async with database.transaction() as tx:
            (await tx.get_one(Case, case.id)).state = "risk"
    with pytest.raises(IntegrityError):
        async with database.transaction() as tx:
            session = await tx.get_one(Session, talk.session_id)
            row = await minutes.add_demand(tx, session, "修路", 1, now=NOW, actor="x")
            row.outcome = "risk"
