"""The Session's life in the database: started once, ended once, whatever crashes in between.

`end_session` is one transaction: the Session is ended, its Recording captured, every open
Attendance closed and SESSION_ENDED published, or none of it. A second call changes nothing, so
recovery may race with a late hub. Functions take `tx` and never commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.events import EventKind, publish
from core.grants import Grant
from core.ids import AppointmentId, ParticipantId, RecordingId, RoomId, SessionId, new_id
from media.model import Recording, RecordingState
from signaling.model import Attendance, Session, SessionState
from signaling.protocol import EndReason


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a Session starts with. `recording_id` is None when nothing can be recorded."""

    session_id: SessionId
    appointment_id: AppointmentId
    room_id: RoomId
    official_id: str
    county_id: str
    node: str
    started_at: datetime
    slot_ends_at: datetime | None
    recording_id: RecordingId | None


@dataclass(frozen=True, slots=True)
class Survivor:
    """A live Session whose node has been restarted, taken over under a new epoch."""

    session_id: SessionId
    appointment_id: AppointmentId
    room_id: RoomId
    official_id: str
    epoch: int
    started_at: datetime
    slot_ends_at: datetime | None
    recording_id: RecordingId | None
    participants: frozenset[ParticipantId]


async def start_session(tx: AsyncSession, begin: Beginning, present: Sequence[Grant]) -> None:
    """Insert the live Session, its Recording and who is there; publish SESSION_STARTED.

    Repeatable with the same `session_id`: an attempt whose commit was not confirmed is replaced.
    Raises `IntegrityError` on uq_sessions_appointment_id if the appointment already has another
    Session, or on its foreign key if there is no such appointment.
    """
    for earlier in (
        delete(Attendance).where(Attendance.session_id == begin.session_id),
        delete(Recording).where(Recording.session_id == begin.session_id),
        delete(Session).where(Session.id == begin.session_id),
    ):
        await tx.execute(earlier)
    tx.add(
        Session(
            id=begin.session_id, appointment_id=begin.appointment_id, room_id=begin.room_id,
            official_id=begin.official_id, county_id=begin.county_id, node=begin.node, epoch=1,
            state=SessionState.LIVE, started_at=begin.started_at, ended_at=None, end_reason=None,
            recording_id=begin.recording_id, slot_ends_at=begin.slot_ends_at,
        )
    )  # fmt: skip
    await tx.flush()
    if begin.recording_id is not None:
        tx.add(
            Recording(
                id=begin.recording_id, session_id=begin.session_id,
                state=RecordingState.CAPTURING, started_at=begin.started_at,
            )
        )  # fmt: skip
    for grant in present:
        tx.add(_attendance(begin.session_id, grant, begin.started_at))
    publish(
        tx, EventKind.SESSION_STARTED, begin.session_id, now=begin.started_at,
        appointment_id=begin.appointment_id,
    )  # fmt: skip


async def note_arrival(
    tx: AsyncSession,
    session_id: SessionId,
    grant: Grant,
    *,
    now: datetime,
    epoch: int,
) -> None:
    """Someone joined a live Session. Noting it twice, after the end, or after the Session has been
    taken over by an owner of a later `epoch`, changes nothing."""
    if not await _is_still_ours(tx, session_id, epoch):
        return
    already = await tx.scalar(
        select(Attendance.id).where(
            Attendance.session_id == session_id,
            Attendance.participant_id == grant.participant_id,
            Attendance.left_at.is_(None),
        )
    )
    if already is None:
        tx.add(_attendance(session_id, grant, now))


async def note_departure(
    tx: AsyncSession,
    session_id: SessionId,
    participant_id: ParticipantId,
    *,
    now: datetime,
    epoch: int,
) -> None:
    """Someone left a live Session. As `note_arrival`: to an owner that was replaced and wakes up
    everybody has fallen silent, who is in the talk with the next one."""
    if not await _is_still_ours(tx, session_id, epoch):
        return
    await tx.execute(
        update(Attendance)
        .where(
            Attendance.session_id == session_id,
            Attendance.participant_id == participant_id,
            Attendance.left_at.is_(None),
        )
        .values(left_at=now)
    )


async def _is_still_ours(tx: AsyncSession, session_id: SessionId, epoch: int) -> bool:
    """Whether the Session is live, and still this owner's. Both then stay so until the transaction
    is through: whoever ends the Session or takes it over waits for it."""
    ours = (Session.id == session_id, Session.state == SessionState.LIVE, Session.epoch == epoch)
    return await tx.scalar(select(Session.id).where(*ours).with_for_update()) is not None


async def begin_recording(
    tx: AsyncSession, session_id: SessionId, recording_id: RecordingId, *, epoch: int
) -> bool:
    """The recording of a live Session that could not begin with it; False if the Session is over,
    or another's by now. Its time 0 is the Session's. Saying it twice changes nothing."""
    began = await tx.execute(
        update(Session)
        .where(Session.id == session_id, Session.state == SessionState.LIVE, Session.epoch == epoch)
        .values(recording_id=recording_id)
        .returning(Session.started_at)
    )
    started_at = began.scalar_one_or_none()
    if started_at is None:
        return False
    if await tx.get(Recording, recording_id) is None:
        tx.add(
            Recording(
                id=recording_id, session_id=session_id, state=RecordingState.CAPTURING,
                started_at=started_at,
            )
        )  # fmt: skip
        await tx.flush()
    return True


async def end_session(
    tx: AsyncSession,
    session_id: SessionId,
    reason: EndReason,
    now: datetime,
    *,
    epoch: int | None = None,
) -> bool:
    """End a live Session; False, and nothing changed, if it had ended already.

    With `epoch`, also False if the Session has been taken over by a later owner.
    """
    still_ours = [Session.id == session_id, Session.state == SessionState.LIVE]
    if epoch is not None:
        still_ours.append(Session.epoch == epoch)
    # The update is the decision: of two that race, one finds the row no longer live.
    row = (
        await tx.execute(
            update(Session)
            .where(*still_ours)
            .values(state=SessionState.ENDED, ended_at=now, end_reason=reason)
            .returning(Session.appointment_id, Session.recording_id)
        )
    ).one_or_none()
    if row is None:
        return False
    await tx.execute(
        update(Attendance)
        .where(Attendance.session_id == session_id, Attendance.left_at.is_(None))
        .values(left_at=now)
    )
    await tx.execute(
        update(Recording)
        .where(
            Recording.session_id == session_id,
            Recording.state.in_((RecordingState.STARTING, RecordingState.CAPTURING)),
        )
        .values(state=RecordingState.CAPTURED, captured_at=now)
    )
    publish(
        tx, EventKind.SESSION_ENDED, session_id, now=now, appointment_id=row.appointment_id,
        recording_id=row.recording_id, reason=reason.value,
    )  # fmt: skip
    return True


async def session_of(tx: AsyncSession, appointment_id: AppointmentId) -> Session | None:
    """The one Session this appointment ever had, live or ended."""
    return await tx.scalar(select(Session).where(Session.appointment_id == appointment_id))


async def live_sessions(tx: AsyncSession, node: str) -> list[SessionId]:
    """The Sessions that `node` began and nobody has ended, oldest first."""
    rows = await tx.scalars(
        select(Session.id)
        .where(Session.state == SessionState.LIVE, Session.node == node)
        .order_by(Session.started_at)
    )
    return [SessionId(row) for row in rows]


async def take_over(tx: AsyncSession, session_id: SessionId) -> Survivor | None:
    """Become the owner of a live Session: the epoch rises and fences whoever had it before."""
    epoch = await tx.scalar(
        update(Session)
        .where(Session.id == session_id, Session.state == SessionState.LIVE)
        .values(epoch=Session.epoch + 1)
        .returning(Session.epoch)
    )
    if epoch is None:
        return None
    row = await tx.scalar(
        select(Session).where(Session.id == session_id).execution_options(populate_existing=True)
    )
    assert row is not None
    present = await tx.scalars(
        select(Attendance.participant_id).where(
            Attendance.session_id == session_id, Attendance.left_at.is_(None)
        )
    )
    return Survivor(
        session_id=session_id, appointment_id=AppointmentId(row.appointment_id),
        room_id=RoomId(row.room_id), official_id=row.official_id, epoch=epoch,
        started_at=row.started_at,
        slot_ends_at=row.slot_ends_at,
        recording_id=RecordingId(row.recording_id) if row.recording_id else None,
        participants=frozenset(ParticipantId(each) for each in present),
    )  # fmt: skip


def _attendance(session_id: SessionId, grant: Grant, now: datetime) -> Attendance:
    return Attendance(
        id=new_id(), session_id=session_id, participant_id=grant.participant_id, role=grant.role,
        label_zh=grant.label_zh, label_bo=grant.label_bo, label_en=grant.label_en, joined_at=now,
        left_at=None,
    )  # fmt: skip
