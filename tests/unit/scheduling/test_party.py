"""Who may come along, papers, and what is shown of them."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.party import (
    IdNumberRefused,
    NobodySpeaks,
    PeopleMiscounted,
    TooManyRepresentatives,
    check_party,
    id_check_character,
    id_number_accepted,
    masked_id_number,
    masked_phone,
)
from scheduling.schemas import PartyMemberIn, Relation

first_17 = st.builds(
    lambda area, day, serial: f"{area}{day:%Y%m%d}{serial:03d}",
    st.integers(110000, 659999),
    st.dates(min_value=date(1900, 1, 1)),
    st.integers(0, 999),
)


def member(relation: Relation = Relation.PETITIONER, **fields: str) -> PartyMemberIn:
    return PartyMemberIn(name="测试", relation=relation, **fields)


def check(*party: PartyMemberIn, people_total: int = 9) -> None:
    check_party(party, people_total=people_total, max_representatives=5)


def test_five_representatives_may_come_and_a_sixth_may_not():
    check(*[member(Relation.REPRESENTATIVE)] * 5)
    with pytest.raises(TooManyRepresentatives) as refused:
        check(*[member(Relation.REPRESENTATIVE)] * 6)
    assert refused.value.details == {"limit": 5, "article": "《信访工作条例》第二十条"}


def test_companions_do_not_count_as_representatives():
    check(*[member(Relation.REPRESENTATIVE)] * 5, *[member(Relation.COMPANION)] * 4)


def test_companions_alone_cannot_speak():
    with pytest.raises(NobodySpeaks):
        check(member(Relation.COMPANION))
    check(member(Relation.AGENT))


def test_more_people_listed_than_counted_is_refused():
    with pytest.raises(PeopleMiscounted):
        check(member(), member(), people_total=1)


def test_a_wrong_identity_number_is_refused_by_its_place_and_not_repeated():
    with pytest.raises(IdNumberRefused) as refused:
        check(member(), member(id_number="110105194912310021"))
    assert refused.value.details == {"position": 1}
    assert "110105" not in refused.value.message


def test_the_standards_example_is_accepted_in_either_case_and_with_spaces():
    # The example number printed in GB 11643-1999.
    assert id_number_accepted("11010519491231002X")
    assert id_number_accepted("110105 19491231 002x")


@given(first_17)
def test_the_right_check_character_is_accepted_and_no_other(first):
    right = id_check_character(first)
    accepted = [c for c in "0123456789X" if id_number_accepted(first + c)]
    assert accepted == [right]


@given(first_17, st.data())
def test_one_wrong_digit_of_an_identity_number_is_noticed(first, data):
    number = first + id_check_character(first)
    at = data.draw(st.integers(0, 16))
    wrong = data.draw(st.sampled_from([d for d in "0123456789" if d != number[at]]))
    assert not id_number_accepted(number[:at] + wrong + number[at + 1 :])


def test_a_date_that_does_not_exist_is_refused():
    first = "51332819900230001"
    assert not id_number_accepted(first + id_check_character(first))


@pytest.mark.parametrize("paper", ["E12345678", "户口簿第12页", "H0123456700"])
def test_other_papers_are_taken_as_they_are(paper):
    assert id_number_accepted(paper)


def test_masks_show_the_ends_and_nothing_of_what_is_short():
    assert masked_id_number("11010519491231002X") == "**************002X"
    assert masked_phone("13812345678") == "138****5678"
    assert masked_phone("12345") == "*****"
    assert masked_phone(None) is None


@given(st.text(min_size=1, max_size=32))
def test_a_mask_hides_at_least_three_characters_and_keeps_the_length(text):
    masked = masked_id_number(text)
    assert masked is not None and len(masked) == len(text)
    assert masked.count("*") >= min(3, len(text))
