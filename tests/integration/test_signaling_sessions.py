"""A Session begins once and ends once, on both databases, whoever races."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from core.db import Database, violates
from core.events import Event, EventKind
from core.ids import AppointmentId, ParticipantId, RecordingId, RoomId, SessionId, new_id
from media.model import Recording
from signaling.model import Attendance, Session
from signaling.protocol import EndReason
from signaling.session import (
    Beginning,
    end_session,
    live_sessions,
    note_arrival,
    note_departure,
    start_session,
    take_over,
)
from tests.support.matters import START, make_prefecture
from tests.support.rooms import make_grant
from tests.support.signal_house import make_appointment

NOW = START + timedelta(minutes=10)
PRESENT = (make_grant("petitioner"), make_grant("official"))


@pytest.fixture
async def begin(database: Database) -> Beginning:
    prefecture = await make_prefecture(database)
    appointment_id = await make_appointment(database, prefecture)
    return Beginning(
        session_id=SessionId(new_id()), appointment_id=AppointmentId(appointment_id),
        room_id=RoomId(appointment_id), official_id=prefecture.official_id,
        county_id=prefecture.units["513328"], node="node-1",
        started_at=START, slot_ends_at=None, recording_id=RecordingId(new_id()),
    )  # fmt: skip


async def started(database: Database, begin: Beginning) -> SessionId:
    await database.run(lambda tx: start_session(tx, begin, PRESENT))
    return begin.session_id


async def count(database: Database, kind: EventKind) -> int:
    async with database.reading() as tx:
        found = await tx.scalar(select(func.count()).where(Event.kind == kind))
    return found or 0


async def test_sixteen_racing_ends_make_one_end(database: Database, begin: Beginning) -> None:
    session_id = await started(database, begin)
    ends = await asyncio.gather(
        *(
            database.run(lambda tx: end_session(tx, session_id, EndReason.EVERYONE_LEFT, NOW))
            for _ in range(16)
        )
    )
    assert ends.count(True) == 1
    assert await count(database, EventKind.SESSION_ENDED) == 1


async def test_the_end_closes_everything_in_one_transaction(
    database: Database, begin: Beginning
) -> None:
    session_id = await started(database, begin)
    with pytest.raises(RuntimeError):
        async with database.transaction() as tx:
            assert await end_session(tx, session_id, EndReason.TIMED_OUT, NOW)
            raise RuntimeError("the process dies before the commit")
    async with database.reading() as tx:
        assert (await tx.get_one(Session, session_id)).state == "live"
        assert (await tx.get_one(Recording, begin.recording_id)).state == "capturing"
    await database.run(lambda tx: end_session(tx, session_id, EndReason.TIMED_OUT, NOW))
    async with database.reading() as tx:
        session = await tx.get_one(Session, session_id)
        assert (session.state, session.ended_at, session.end_reason) == ("ended", NOW, "timed_out")
        recording = await tx.get_one(Recording, begin.recording_id)
        assert (recording.state, recording.captured_at) == ("captured", NOW)
        stays = list(await tx.scalars(select(Attendance)))
        assert [stay.left_at for stay in stays] == [NOW, NOW]
        event = (await tx.scalars(select(Event).where(Event.kind == "session_ended"))).one()
        assert event.payload == {
            "appointment_id": begin.appointment_id,
            "recording_id": begin.recording_id,
            "reason": "timed_out",
        }


async def test_two_nodes_cannot_both_start_the_session_of_an_appointment(
    database: Database, begin: Beginning
) -> None:
    def other(n: int) -> Beginning:
        return Beginning(
            SessionId(new_id()), begin.appointment_id, begin.room_id, begin.official_id,
            begin.county_id, f"node-{n}", START, None, RecordingId(new_id()),
        )  # fmt: skip

    tries = [other(n) for n in range(8)]
    results = await asyncio.gather(
        *(started(database, each) for each in tries), return_exceptions=True
    )
    refusals = [result for result in results if isinstance(result, Exception)]
    assert len(refusals) == 7
    for refusal in refusals:
        assert isinstance(refusal, IntegrityError)
        assert violates(refusal, "uq_sessions_appointment_id", "sessions.appointment_id")
    assert await count(database, EventKind.SESSION_STARTED) == 1


async def test_a_start_that_was_committed_unnoticed_may_be_repeated(
    database: Database, begin: Beginning
) -> None:
    await started(database, begin)
    await started(database, begin)
    async with database.reading() as tx:
        for table, rows in ((Session, 1), (Recording, 1), (Attendance, 2)):
            assert await tx.scalar(select(func.count()).select_from(table)) == rows


async def test_an_unknown_appointment_is_not_called(database: Database, begin: Beginning) -> None:
    nobody = Beginning(
        begin.session_id, AppointmentId(new_id()), begin.room_id, begin.official_id,
        begin.county_id, "node-1", START, None, None,
    )  # fmt: skip
    with pytest.raises(IntegrityError):
        await started(database, nobody)


async def test_an_owner_that_was_replaced_cannot_end_the_session(
    database: Database, begin: Beginning
) -> None:
    session_id = await started(database, begin)
    survivor = await database.run(lambda tx: take_over(tx, session_id))
    assert survivor is not None
    assert survivor.epoch == 2
    assert survivor.participants == {"petitioner-1", "official-1"}
    assert survivor.recording_id == begin.recording_id
    woken = EndReason.ENDED_BY_OFFICIAL
    assert not await database.run(lambda tx: end_session(tx, session_id, woken, NOW, epoch=1))
    assert await database.run(
        lambda tx: end_session(tx, session_id, EndReason.NODE_LOST, NOW, epoch=2)
    )


async def stays(database: Database, session_id: SessionId) -> list[tuple[str, bool]]:
    """Who was in the Session, and whether they have left."""
    async with database.reading() as tx:
        rows = await tx.execute(
            select(Attendance.participant_id, Attendance.left_at)
            .where(Attendance.session_id == session_id)
            .order_by(Attendance.participant_id)
        )
        return [(who, left_at is not None) for who, left_at in rows]


async def test_an_owner_that_was_replaced_changes_nobody_s_attendance(
    database: Database, begin: Beginning
) -> None:
    session_id = await started(database, begin)
    before = await stays(database, session_id)
    await database.run(lambda tx: take_over(tx, session_id))
    # It wakes up, hears nobody any more, and still has a newcomer's line waiting.
    gone, late = ParticipantId(PRESENT[0].participant_id), make_grant("observer")
    await database.run(lambda tx: note_departure(tx, session_id, gone, now=NOW, epoch=1))
    await database.run(lambda tx: note_arrival(tx, session_id, late, now=NOW, epoch=1))
    assert await stays(database, session_id) == before
    await database.run(lambda tx: note_arrival(tx, session_id, late, now=NOW, epoch=2))
    assert (late.participant_id, False) in await stays(database, session_id)


async def test_an_arrival_beside_the_end_leaves_nobody_in_an_ended_session(
    database: Database, begin: Beginning
) -> None:
    session_id = await started(database, begin)
    late = make_grant("observer")
    async with database.transaction() as tx:
        assert await end_session(tx, session_id, EndReason.EVERYONE_LEFT, NOW)
        arriving = asyncio.create_task(
            database.run(lambda other: note_arrival(other, session_id, late, now=NOW, epoch=1))
        )
        # It cannot be through before the end is; if it could, it would be by now.
        await asyncio.wait({arriving}, timeout=0.5)
    await arriving
    assert all(has_left for _, has_left in await stays(database, session_id))


async def test_two_recoverers_never_hold_the_same_epoch(
    database: Database, begin: Beginning
) -> None:
    session_id = await started(database, begin)
    taken = await asyncio.gather(
        *(database.run(lambda tx: take_over(tx, session_id)) for _ in range(8))
    )
    assert sorted(each.epoch for each in taken if each is not None) == list(range(2, 10))


async def test_an_ended_session_is_not_taken_over(database: Database, begin: Beginning) -> None:
    session_id = await started(database, begin)
    await database.run(lambda tx: end_session(tx, session_id, EndReason.TIMED_OUT, NOW))
    assert await database.run(lambda tx: take_over(tx, session_id)) is None


async def test_a_node_finds_its_own_live_sessions_only(
    database: Database, begin: Beginning
) -> None:
    session_id = await started(database, begin)
    async with database.reading() as tx:
        assert await live_sessions(tx, "node-1") == [session_id]
        assert await live_sessions(tx, "node-2") == []
    await database.run(lambda tx: end_session(tx, session_id, EndReason.TIMED_OUT, NOW))
    async with database.reading() as tx:
        assert await live_sessions(tx, "node-1") == []


async def test_who_leaves_and_comes_again_has_two_stays(
    database: Database, begin: Beginning
) -> None:
    session_id = await started(database, begin)
    grant = PRESENT[0]
    who = ParticipantId(grant.participant_id)
    # Still there: this is no second stay.
    await database.run(lambda tx: note_arrival(tx, session_id, grant, now=NOW, epoch=1))
    await database.run(lambda tx: note_departure(tx, session_id, who, now=NOW, epoch=1))
    back = NOW + timedelta(minutes=1)
    await database.run(lambda tx: note_arrival(tx, session_id, grant, now=back, epoch=1))
    await database.run(lambda tx: end_session(tx, session_id, EndReason.TIMED_OUT, back))
    # Too late: the session is over.
    await database.run(lambda tx: note_arrival(tx, session_id, grant, now=back, epoch=1))
    async with database.reading() as tx:
        stays = await tx.scalars(
            select(Attendance)
            .where(Attendance.participant_id == who)
            .order_by(Attendance.joined_at)
        )
        assert [(s.joined_at, s.left_at) for s in stays] == [(START, NOW), (back, back)]
