"""Places outside of the rooms: who takes one, who gives it back, and who is refused."""

import pytest

from signaling.doorway import Doorway, DoorwayFull, TooManySockets

HOUSE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


def test_an_address_has_so_many_places_and_another_has_its_own() -> None:
    doorway = Doorway(most_of_an_address=3, most=10)
    for _ in range(3):
        doorway.come(HOUSE)
    with pytest.raises(TooManySockets):
        doorway.come(HOUSE)
    doorway.come(ELSEWHERE)
    assert (doorway.outside, doorway.refused) == (4, 1)


def test_all_addresses_together_have_so_many_places() -> None:
    doorway = Doorway(most_of_an_address=3, most=10)
    places = [doorway.come(f"192.0.2.{n // 2}") for n in range(10)]
    with pytest.raises(DoorwayFull):
        doorway.come(ELSEWHERE)
    places[0].go_in()
    doorway.come(ELSEWHERE)


def test_who_joins_gives_the_place_to_the_next() -> None:
    doorway = Doorway(most_of_an_address=1)
    for _ in range(100):
        doorway.come(HOUSE).go_in()
    assert (doorway.outside, doorway.refused) == (0, 0)


def test_who_comes_out_and_does_not_go_counts_again() -> None:
    doorway = Doorway(most_of_an_address=1)
    place = doorway.come(HOUSE)
    place.go_in()
    place.come_out()
    with pytest.raises(TooManySockets):
        doorway.come(HOUSE)


def test_going_twice_gives_one_place_back() -> None:
    doorway = Doorway(most_of_an_address=2)
    first, _second = doorway.come(HOUSE), doorway.come(HOUSE)
    first.go_in()
    first.go_in()
    assert doorway.outside == 1


def test_an_address_of_which_nobody_is_left_is_forgotten() -> None:
    doorway = Doorway()
    for n in range(1_000):
        doorway.come(f"2001:db8::{n:x}").go_in()
    with pytest.raises(TooManySockets):
        for _ in range(61):
            doorway.come(HOUSE)
    assert len(doorway._outside) == 1
