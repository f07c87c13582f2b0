"""May this principal do this here? One function, one table; every route names its verb.

A verb needs one of some roles at a node of the org tree at or above the thing it touches. Kiosks
may do a few things for whoever stands before them; some verbs are open to anyone. What is not in
the table is refused. tests/integration/test_policy.py enumerates routes and fails on one without a
verb.
"""

from enum import StrEnum

from core.errors import Forbidden, Unauthenticated
from core.identity import Anyone, KioskDevice, Principal, Staff
from core.schemas import Role


class Verb(StrEnum):
    READ_PUBLIC = "read_public"
    SIGN_IN = "sign_in"
    USE_OWN_ACCOUNT = "use_own_account"
    ENROL_KIOSK = "enrol_kiosk"
    BE_KIOSK = "be_kiosk"
    MANAGE_KIOSKS = "manage_kiosks"
    SEE_HEALTH = "see_health"
    SEE_AUDIT = "see_audit"
    SEE_PEOPLE = "see_people"
    PUBLISH_DAYS = "publish_days"
    SEE_DAYS = "see_days"
    BOOK = "book"
    SEE_APPOINTMENTS = "see_appointments"
    ATTEND = "attend"  # check in, notice, device check, waiting
    ENTER = "enter"
    CANCEL_APPOINTMENT = "cancel_appointment"
    SEE_OFFICE = "see_office"
    SEE_DESK = "see_desk"
    SEE_SESSION = "see_session"
    SEE_MINUTES = "see_minutes"
    NOTE_DEMANDS = "note_demands"
    WRITE_MINUTES = "write_minutes"
    ADD_MATERIAL = "add_material"
    SEE_CASES = "see_cases"
    HANDLE_CASE = "handle_case"
    KEEP_PROMISE = "keep_promise"
    REPLAY = "replay"
    REVIEW = "review"
    RETRY_RECORDING = "retry_recording"
    RATE = "rate"
    PRINT_SLIP = "print_slip"
    GRANT_DEVICE = "grant_device"
    SEE_KEEPING = "see_keeping"
    CLASS_RECORDING = "class_recording"
    HOLD_RECORDING = "hold_recording"
    LIFT_HOLD = "lift_hold"
    PROPOSE_DELETION = "propose_deletion"
    CONFIRM_DELETION = "confirm_deletion"
    CANCEL_DELETION = "cancel_deletion"
    RETRY_DELETION = "retry_deletion"
    CONFIRM_CLOCK = "confirm_clock"
    BRING_GRANT = "bring_grant"  # the signed Grant in the request decides, not who asks


class Who(StrEnum):
    """Principals that are not staff."""

    ANYONE = "anyone"
    KIOSK = "kiosk"
    ANY_STAFF = "any_staff"


S, D, OF, P, R, A = (
    Role.SCHEDULER, Role.DESK, Role.OFFICIAL, Role.DEPARTMENT, Role.REVIEWER, Role.ADMIN,
)  # fmt: skip
AR = Role.ARCHIVIST
K = Who.KIOSK

TABLE: dict[Verb, frozenset[Role | Who]] = {
    Verb.READ_PUBLIC: frozenset({Who.ANYONE}),
    Verb.SIGN_IN: frozenset({Who.ANYONE}),
    Verb.ENROL_KIOSK: frozenset({Who.ANYONE}),
    Verb.USE_OWN_ACCOUNT: frozenset({Who.ANY_STAFF}),
    Verb.BE_KIOSK: frozenset({K}),
    Verb.MANAGE_KIOSKS: frozenset({D, A}),
    Verb.SEE_HEALTH: frozenset({A}),
    Verb.SEE_AUDIT: frozenset({A, R}),
    Verb.SEE_PEOPLE: frozenset({A}),
    Verb.PUBLISH_DAYS: frozenset({S}),
    Verb.SEE_DAYS: frozenset({S, D, OF, A, K}),
    Verb.BOOK: frozenset({D, K}),
    Verb.SEE_APPOINTMENTS: frozenset({S, D, OF, K}),
    Verb.ATTEND: frozenset({D, OF, K}),
    Verb.ENTER: frozenset({D, OF, K}),
    Verb.CANCEL_APPOINTMENT: frozenset({D, S, K}),
    Verb.SEE_OFFICE: frozenset({OF}),
    Verb.SEE_DESK: frozenset({D}),
    Verb.SEE_SESSION: frozenset({OF, D, K}),
    Verb.SEE_MINUTES: frozenset({OF, D, R, S}),
    Verb.NOTE_DEMANDS: frozenset({OF, D}),
    Verb.WRITE_MINUTES: frozenset({OF}),
    Verb.ADD_MATERIAL: frozenset({OF, D, K}),
    Verb.SEE_CASES: frozenset({S, D, OF, P, R, AR}),
    Verb.HANDLE_CASE: frozenset({S, P}),
    Verb.KEEP_PROMISE: frozenset({S, P}),
    Verb.REPLAY: frozenset({R, OF, S}),
    Verb.REVIEW: frozenset({R}),
    Verb.RETRY_RECORDING: frozenset({S, R, A}),
    Verb.RATE: frozenset({K}),
    Verb.PRINT_SLIP: frozenset({D, S, OF, K}),
    Verb.GRANT_DEVICE: frozenset({D, OF}),
    # Two roles, and by cases/retention.py always two people. Administrators run the machine and
    # have no part in what becomes of recordings.
    Verb.SEE_KEEPING: frozenset({AR, R, S}),
    Verb.CLASS_RECORDING: frozenset({AR}),
    Verb.HOLD_RECORDING: frozenset({AR, R, S}),
    Verb.LIFT_HOLD: frozenset({AR, R}),
    Verb.PROPOSE_DELETION: frozenset({AR}),
    Verb.CONFIRM_DELETION: frozenset({R}),
    Verb.CANCEL_DELETION: frozenset({AR, R, S}),
    Verb.RETRY_DELETION: frozenset({AR, R}),
    Verb.CONFIRM_CLOCK: frozenset({AR, R}),
    Verb.BRING_GRANT: frozenset({Who.ANYONE}),
}


def require(principal: Principal, verb: Verb, *paths: str) -> None:
    """Raise unless `principal` may do `verb`; with `paths`, on a thing that lies at any of them.

    Without `paths` only the role is asked for: use it where the query itself is scoped with
    `reach`. Raises `Unauthenticated` for the public, `Forbidden` for everyone else.
    """
    allowed = TABLE[verb]
    if Who.ANYONE in allowed:
        return
    match principal:
        case Anyone():
            raise Unauthenticated("Please sign in first.")
        case KioskDevice():
            if Who.KIOSK in allowed and (
                not paths or any(path.startswith(principal.county_path) for path in paths)
            ):
                return
        case Staff():
            if Who.ANY_STAFF in allowed:
                return
            nodes = reach(principal, verb)
            if nodes and (not paths or any(path.startswith(n) for path in paths for n in nodes)):
                return
    raise Forbidden("Your role does not include this. Ask your administrator if it should.")


def reach(principal: Principal, verb: Verb) -> tuple[str, ...]:
    """Paths of the org units under which `principal` may do `verb`; empty means nowhere."""
    allowed = TABLE[verb]
    match principal:
        case Anyone():
            return ()
        case KioskDevice():
            return (principal.county_path,) if Who.KIOSK in allowed else ()
        case Staff():
            return tuple(sorted({at.path for at in principal.roles if at.role in allowed}))
