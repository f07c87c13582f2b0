"""One table decides who may do what; reaching over to another county is never in it."""

import pytest

from core.errors import Forbidden, Unauthenticated
from core.identity import Anyone, KioskDevice, Principal, RoleAt, Staff
from core.ids import AccountId, KioskId, OrgUnitId
from core.policy import TABLE, Verb, Who, reach, require
from core.schemas import Role

PREFECTURE, GANZI, LITANG = "/510000/513300/", "/510000/513300/513328/", "/510000/513300/513334/"


def staff(role: Role, path: str) -> Staff:
    return Staff(AccountId("x"), "x", None, (RoleAt(role, OrgUnitId("u"), path),))


def kiosk(path: str) -> KioskDevice:
    return KioskDevice(KioskId("k"), "k", OrgUnitId("u"), path)


def may(principal: Principal, verb: Verb, *paths: str) -> bool:
    try:
        require(principal, verb, *paths)
    except (Forbidden, Unauthenticated):
        return False
    return True


def test_every_verb_is_in_the_table() -> None:
    assert set(TABLE) == set(Verb)


def test_a_role_reaches_its_own_unit_and_everything_below() -> None:
    scheduler = staff(Role.SCHEDULER, PREFECTURE)
    assert may(scheduler, Verb.PUBLISH_DAYS, PREFECTURE)
    assert may(scheduler, Verb.PUBLISH_DAYS, GANZI)


def test_a_county_desk_does_not_reach_the_next_county() -> None:
    desk = staff(Role.DESK, GANZI)
    assert may(desk, Verb.BOOK, GANZI)
    assert not may(desk, Verb.BOOK, LITANG)
    assert not may(desk, Verb.BOOK, PREFECTURE)


def test_a_kiosk_acts_in_its_own_county_only() -> None:
    assert may(kiosk(GANZI), Verb.BOOK, GANZI)
    assert not may(kiosk(GANZI), Verb.BOOK, LITANG)
    assert not may(kiosk(GANZI), Verb.REPLAY, GANZI)


def test_the_public_is_asked_to_sign_in_rather_than_turned_away() -> None:
    with pytest.raises(Unauthenticated):
        require(Anyone(), Verb.SEE_CASES)
    require(Anyone(), Verb.READ_PUBLIC)


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_what_the_table_says_and_nothing_else(role: Role, verb: Verb) -> None:
    allowed = TABLE[verb]
    expected = role in allowed or Who.ANYONE in allowed or Who.ANY_STAFF in allowed
    assert may(staff(role, PREFECTURE), verb, GANZI) == expected


def test_reach_lists_where_a_query_may_look() -> None:
    assert reach(staff(Role.DESK, GANZI), Verb.SEE_APPOINTMENTS) == (GANZI,)
    assert reach(staff(Role.ADMIN, PREFECTURE), Verb.SEE_APPOINTMENTS) == ()
    assert reach(kiosk(LITANG), Verb.SEE_APPOINTMENTS) == (LITANG,)
