"""Whose appointment is whose: what the org tree alone does not say.

A role at a place reaches the counties below it (core/policy). Beyond that an official reaches the
days that he presides over, and only those; a kiosk reaches the visits it booked or serves.
"""

from core.errors import Forbidden
from core.identity import Anyone, KioskDevice, Principal, Staff
from core.policy import TABLE, Verb, require
from core.schemas import Role
from scheduling.model import Appointment


def require_appointment(principal: Principal, verb: Verb, appointment: Appointment) -> None:
    """Raise unless `principal` may do `verb` with this appointment (loaded with its details)."""
    require(principal, verb)
    match principal:
        case Staff():
            allowed = presides(principal, appointment) or any(
                appointment.county.path.startswith(path) for path in county_reach(principal, verb)
            )
        case KioskDevice():
            require(principal, verb, appointment.county.path)
            allowed = serves(principal, appointment)
        case Anyone():
            return  # a verb that anyone may do
    if not allowed:
        raise Forbidden("This appointment belongs to another place or another official.")


def presides(staff: Staff, appointment: Appointment) -> bool:
    """Whether this member of staff is the official who receives this party."""
    return (
        staff.official_id is not None
        and staff.official_id == appointment.reception_day.official_id
        and any(at.role is Role.OFFICIAL for at in staff.roles)
    )


def serves(kiosk: KioskDevice, appointment: Appointment) -> bool:
    """Whether the visit was booked at this kiosk or is being served by it."""
    return kiosk.kiosk_id == appointment.kiosk_id or kiosk.actor == appointment.booked_by


def county_reach(staff: Staff, verb: Verb) -> tuple[str, ...]:
    """Paths under which staff may do `verb` by office rather than by presiding."""
    return tuple(
        sorted({at.path for at in staff.roles if at.role in TABLE[verb] - {Role.OFFICIAL}})
    )
