"""From the door of the county hall to the door of the room: check-in, device check, wait, Grant.

The room is the appointment's own (`room_id` is its id). What is known about who is inside comes
from the shared store, where signaling writes it; a store that lost it reads as "nobody there".
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core import audit, given_grants
from core.clock import LOCAL_ZONE, local_date
from core.errors import Conflict, Forbidden, NotFound, Refused
from core.grants import Grant, GrantKey, new_grant
from core.identity import Anyone, KioskDevice, Principal, Staff
from core.ids import AppointmentId, ParticipantId, RoomId
from core.policy import Verb
from core.store import Store
from scheduling.access import county_reach, presides, serves
from scheduling.booking import AppointmentOver
from scheduling.model import Appointment, ReceptionDay, Slot
from scheduling.notice import NotCheckedIn
from scheduling.numbering import QR_PREFIX, read_number, read_qr
from scheduling.queue import ENDED, InQueue, before_me, estimate_minutes, next_step
from scheduling.schemas import (
    AppointmentState,
    DeskAlarms,
    DeviceCheck,
    DeviceGrantView,
    DeviceKind,
    GivenDeviceView,
    RecordingAlarm,
    SideAway,
    TalkView,
    TooMuchSent,
    WaitingView,
)

PETITIONER, OFFICIAL, DESK = "petitioner", "official", "desk"
DEVICE, DISPLAY = "device", "display"
"""Seats in a room; the words are those of signaling.protocol.ParticipantRole."""
DEVICE_GRANT_TTL = timedelta(hours=12)
"""A reception day, set-up included: nobody stands beside a hall camera to enter again."""
ADMITTED = (AppointmentState.CHECKED_IN, AppointmentState.CALLED)


class NoSuchAppointment(NotFound):
    code = "no_such_appointment"


class NoSuchDeviceGrant(NotFound):
    code = "no_such_device_grant"


class NotToday(Conflict):
    code = "not_today"


class OtherCounty(Refused):
    code = "other_county"


class NoticeMissing(Conflict):
    code = "notice_missing"


@dataclass(frozen=True, slots=True)
class _Seat:
    """What someone may do in the room, and how everyone there is told who it is."""

    role: str
    who: str
    label_zh: str
    label_bo: str | None
    label_en: str
    publish: tuple[str, ...]
    presides: bool = False


_DEVICES: dict[DeviceKind, _Seat] = {
    DeviceKind.HALL_CAMERA: _Seat(
        DEVICE, DeviceKind.HALL_CAMERA, "大厅摄像机", None, "Hall camera", ("camera", "microphone")
    ),
    DeviceKind.DOCUMENT_CAMERA: _Seat(
        DEVICE, DeviceKind.DOCUMENT_CAMERA, "高拍仪", None, "Document camera", ("document",)
    ),
    DeviceKind.HALL_SCREEN: _Seat(
        DISPLAY, DeviceKind.HALL_SCREEN, "大厅屏幕", None, "Hall screen", ()
    ),
}


def number_typed(typed: str, secret: bytes) -> str:
    """The appointment number in what was typed or scanned. Raises `NoSuchAppointment`."""
    scanned = typed.strip().startswith(f"{QR_PREFIX}:")
    number = read_qr(typed, secret) if scanned else read_number(typed)
    if number is None:
        raise no_such_appointment()
    return number


def no_such_appointment() -> NoSuchAppointment:
    """The same words for a typo and for a number nobody has."""
    return NoSuchAppointment(
        "We find no appointment with this number. Compare it with the slip, or ask the desk."
    )


async def check_in(
    tx: AsyncSession, appointment: Appointment, *, by: Staff | KioskDevice, now: datetime
) -> None:
    """The party is here. At a kiosk, that kiosk serves the visit from now on.

    Checking in again re-opens the visit and changes nothing else. Raises `OtherCounty`, `NotToday`,
    `AppointmentOver`.
    """
    if isinstance(by, KioskDevice) and appointment.county_id != by.county_id:
        raise OtherCounty(
            "This appointment is for another county's reception room. Please go there, "
            "or ask the desk to move it.",
            county=appointment.county.name_zh, county_en=appointment.county.name_en,
        )  # fmt: skip
    if appointment.reception_day.day != local_date(now):
        raise NotToday(
            f"This appointment is for {appointment.reception_day.day.isoformat()}. "
            "Please come on that day, or ask the desk.",
            day=appointment.reception_day.day.isoformat(),
            starts=f"{appointment.slot.starts_at.astimezone(LOCAL_ZONE):%H:%M}",
        )  # fmt: skip
    if appointment.state not in (AppointmentState.CONFIRMED, *ADMITTED, AppointmentState.HELD):
        raise AppointmentOver(
            "This appointment is no longer open. Please ask the desk.", state=appointment.state
        )
    if isinstance(by, KioskDevice):
        appointment.kiosk_id = by.kiosk_id
    if appointment.state != AppointmentState.CONFIRMED:
        return
    appointment.state = AppointmentState.CHECKED_IN
    appointment.checked_in_at = now
    await tx.flush()
    await audit.record(
        tx, now=now, actor=by.actor, action="appointment_checked_in",
        object_kind="appointment", object_id=appointment.id,
    )  # fmt: skip


def record_device_check(appointment: Appointment, check: DeviceCheck, *, now: datetime) -> None:
    """Keep the three answers; a later check replaces an earlier one. Raises `NotCheckedIn`."""
    if appointment.state not in ADMITTED:
        raise NotCheckedIn("Please check in first.")
    appointment.device_check = check.model_dump()
    appointment.device_checked_at = now


async def waiting(
    tx: AsyncSession, store: Store, appointment: Appointment, *, now: datetime
) -> WaitingView:
    """Where the party stands. The room is open once the official is in it."""
    room = await _queue_of(tx, appointment)
    me = next(one for one in room if one.appointment_id == appointment.id)
    official_present = await is_official_present(store, RoomId(appointment.id))
    people_before = 0 if me.state in ENDED else len(before_me(me, room))
    estimate = estimate_minutes(me, room, official_present=official_present, now=now)
    ready = me.state in ADMITTED and appointment.notice_shown_at is not None
    room_open = ready and (official_present or me.state is AppointmentState.CALLED)
    return WaitingView(
        number=appointment.number, state=me.state, people_before=people_before,
        estimate_minutes=0 if room_open else estimate, official_present=official_present,
        room_open=room_open,
        next_step=next_step(
            me.state, room_open=room_open, people_before=people_before, estimate=estimate,
            starts_at=me.starts_at, official_present=official_present, now=now,
        ),
    )  # fmt: skip


async def enter(
    tx: AsyncSession,
    appointment: Appointment,
    principal: Principal,
    *,
    now: datetime,
    ttl: timedelta,
) -> Grant:
    """Permission to join the appointment's room, as what this principal is to it.

    The petitioner's side needs check-in and notice. Whoever comes back gets the seat it had.
    Raises `NotCheckedIn`, `NoticeMissing`, `AppointmentOver`, `Forbidden`.
    """
    seat = _seat(appointment, principal)
    if appointment.state in ENDED:
        raise AppointmentOver("This talk is over or will not take place.", state=appointment.state)
    if appointment.state not in ADMITTED:
        raise NotCheckedIn("The party has not checked in yet.")
    if seat.role == PETITIONER and appointment.notice_shown_at is None:
        raise NoticeMissing("Please show the notice about the recording first.")
    grant = new_grant(
        room_id=RoomId(appointment.id), appointment_id=AppointmentId(appointment.id),
        participant_id=participant_id(appointment.id, seat.role, seat.who), role=seat.role,
        label_zh=seat.label_zh, label_bo=seat.label_bo, label_en=seat.label_en,
        publish=seat.publish, may_admit=seat.presides, may_end=seat.presides,
        slot_ends_at=appointment.slot.ends_at, official_id=appointment.reception_day.official_id,
        county_id=appointment.county_id, now=now, ttl=ttl,
    )  # fmt: skip
    await audit.record(
        tx, now=now, actor=principal.actor, action="room_entered",
        object_kind="appointment", object_id=appointment.id, role=seat.role,
    )  # fmt: skip
    return grant


async def admit_device(
    tx: AsyncSession,
    appointment: Appointment,
    kind: DeviceKind,
    *,
    by: str,
    now: datetime,
    first: str = PETITIONER,
) -> Grant:
    """Permission for a device to be plugged into the appointment's talk, until it is used up.

    Whoever may plug in a camera may do so before the party comes: a device opens no room and is
    told to wait while nobody is there. The same kind in the same room is the same participant, so
    a new Grant for it replaces nothing and adds no second seat. `by`: the actor, for the audit.
    Raises `AppointmentOver`.
    """
    if appointment.state in ENDED:
        raise AppointmentOver("This talk is over or will not take place.", state=appointment.state)
    device = _DEVICES[kind]
    others = tuple(role for role in (PETITIONER, OFFICIAL) if role != first)
    grant = new_grant(
        room_id=RoomId(appointment.id), appointment_id=AppointmentId(appointment.id),
        participant_id=participant_id(appointment.id, device.role, device.who), role=device.role,
        label_zh=device.label_zh, label_bo=device.label_bo, label_en=device.label_en,
        publish=device.publish, may_admit=False, may_end=False,
        slot_ends_at=appointment.slot.ends_at, official_id=appointment.reception_day.official_id,
        county_id=appointment.county_id, now=now, ttl=DEVICE_GRANT_TTL, watch=(first, *others),
    )  # fmt: skip
    await given_grants.note_given(tx, grant, kind.value, by=by, now=now)
    return grant


async def take_device_back(
    tx: AsyncSession, appointment: Appointment, grant_id: str, *, by: str, now: datetime
) -> None:
    """Nothing new begins with this Grant. Repeatable. Raises `NoSuchDeviceGrant`."""
    appointment_id = AppointmentId(appointment.id)
    given = await given_grants.given_for(tx, appointment_id)
    found = next((one for one in given if one.grant_id == grant_id), None)
    if found is None:
        raise NoSuchDeviceGrant("There is no such permission for a device. Reload the list.")
    if found.taken_back_at is None:
        await given_grants.note_taken_back(tx, appointment_id, grant_id, by=by, now=now)


async def devices_given(tx: AsyncSession, appointment: Appointment) -> tuple[GivenDeviceView, ...]:
    """Permissions made for this talk's devices, newest first. The Grants themselves are shown once
    and kept nowhere.
    """
    return tuple(
        GivenDeviceView(
            grant_id=one.grant_id, kind=DeviceKind(one.device), given_at=one.given_at,
            expires_at=one.expires_at, taken_back_at=one.taken_back_at,
        )
        for one in await given_grants.given_for(tx, AppointmentId(appointment.id))
    )  # fmt: skip


def device_grant_view(
    grant: Grant, kind: DeviceKind, *, key: GrantKey, base_url: str
) -> DeviceGrantView:
    """What to type into the device: the signed Grant, and where it sends its offer."""
    door = "whep" if grant.role == DISPLAY else "whip"
    return DeviceGrantView(
        grant_id=grant.grant_id, kind=kind,
        url=f"{base_url}/{door}/{grant.room_id}", grant=key.sign(grant),
        room_id=grant.room_id, participant_id=grant.participant_id, publishes=grant.publish,
        expires_at=grant.expires_at,
    )  # fmt: skip


def participant_id(appointment_id: str, role: str, who: str) -> ParticipantId:
    """The same person or kiosk in the same role of the same room is the same participant."""
    named = hashlib.sha256(f"{appointment_id}/{role}/{who}".encode())
    return ParticipantId(named.hexdigest()[:32])


async def is_official_present(store: Store, room_id: RoomId) -> bool:
    """Whether signaling last said that the official is in the room."""
    return bool(await store.sismember(f"room:{room_id}:roles", OFFICIAL))


async def desk_alarms(store: Store, admitted: Sequence[Appointment]) -> DeskAlarms:
    """What signaling says of these appointments, whose parties have come: whose side it has missed
    for a minute or more, and whose recording is in trouble.
    """
    away = [
        (role, one, since)
        for role in (PETITIONER, OFFICIAL)
        for one, since in await _said(store, admitted, f"away:{role}")
    ]
    recording = await _said(store, admitted, "recording")
    excess = await _said(store, admitted, "excess")
    return DeskAlarms(
        away=tuple(
            SideAway(talk=_talk(one), role=role, since=datetime.fromisoformat(since))
            for role, one, since in away
        ),
        recording=tuple(
            RecordingAlarm.model_validate({"talk": _talk(one), **json.loads(words)})
            for one, words in recording
        ),
        excess=tuple(
            TooMuchSent.model_validate({"talk": _talk(one), **json.loads(words)})
            for one, words in excess
        ),
        is_anyone_talking=any(one.state == AppointmentState.CALLED for one in admitted),
    )


async def _said(
    store: Store, admitted: Sequence[Appointment], what: str
) -> list[tuple[Appointment, str]]:
    if not admitted:
        return []
    said = await store.mget([f"room:{one.id}:{what}" for one in admitted])
    return [
        (one, str(words)) for one, words in zip(admitted, said, strict=True) if words is not None
    ]


def _talk(appointment: Appointment) -> TalkView:
    return TalkView(
        appointment_id=appointment.id, number=appointment.number,
        names=tuple(person.name for person in appointment.party),
    )  # fmt: skip


def signal_url(base_url: str) -> str:
    """The WebSocket address beside an http(s) address."""
    return f"{base_url.replace('http', 'ws', 1)}/signal"


def _seat(appointment: Appointment, principal: Principal) -> _Seat:
    county, official = appointment.county, appointment.reception_day.official
    match principal:
        case KioskDevice() if serves(principal, appointment):
            # One seat for the petitioner's side, whichever kiosk of the hall serves it.
            return _Seat(
                PETITIONER, PETITIONER, "来访人", None, "Petitioner",
                ("camera", "microphone", "document"),
            )  # fmt: skip
        case Staff() if presides(principal, appointment):
            return _Seat(
                OFFICIAL, principal.actor, official.title_zh, official.title_bo,
                official.title_en, ("camera", "microphone", "screen"), presides=True,
            )  # fmt: skip
        case Staff() if any(county.path.startswith(p) for p in county_reach(principal, Verb.ENTER)):
            return _Seat(
                DESK, principal.actor, f"{county.name_zh}接待室工作人员", None,
                f"{county.name_en} reception desk", ("camera", "microphone"),
            )  # fmt: skip
        case KioskDevice() | Staff() | Anyone():
            raise Forbidden("This appointment belongs to another place or another official.")


async def _queue_of(tx: AsyncSession, appointment: Appointment) -> list[InQueue]:
    """Everyone with a slot in the same room on the same day, this appointment included."""
    rows = await tx.execute(
        select(Appointment, Slot)
        .join(Slot, Slot.id == Appointment.slot_id)
        .join(ReceptionDay, ReceptionDay.id == Appointment.reception_day_id)
        .where(
            Appointment.reception_day_id == appointment.reception_day_id,
            Slot.room_no == appointment.slot.room_no,
        )
    )
    return [
        InQueue(
            appointment_id=one.id, state=AppointmentState(one.state), starts_at=slot.starts_at,
            slot_length=slot.ends_at - slot.starts_at, called_at=one.called_at,
            ended_at=one.ended_at,
        )
        for one, slot in rows
    ]  # fmt: skip
