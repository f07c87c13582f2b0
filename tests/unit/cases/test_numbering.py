"""Case numbers are read back as they were meant, and a slip of the pen is noticed."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases.numbering import (
    MOST_SERIALS,
    CaseNumber,
    NotACaseNumber,
    check_character,
    new_query_code,
    parse_case_number,
    plain_query_code,
)

numbers = st.builds(
    CaseNumber,
    county_code=st.from_regex(r"[0-9]{6}", fullmatch=True),
    day=st.dates(min_value=date(1990, 1, 1), max_value=date(2199, 12, 31)),
    serial=st.integers(1, MOST_SERIALS),
)


def test_a_number_looks_as_the_slip_prints_it() -> None:
    assert str(CaseNumber("513328", date(2026, 5, 25), 1)).startswith("513328-SP-20260525-00001-")


def test_the_check_character_is_that_of_the_identity_card() -> None:
    # The example of GB 11643-1999, section 4.3: 11010519491231002X.
    assert check_character("11010519491231002") == "X"


@given(numbers)
def test_a_printed_number_reads_back_as_itself(number: CaseNumber) -> None:
    assert parse_case_number(str(number)) == number


@given(numbers)
def test_width_case_and_dashes_do_not_matter(number: CaseNumber) -> None:
    printed = str(number)
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else "－" for c in printed.lower())
    for typed in (printed.lower(), printed.replace("-", ""), printed.replace("-", " — "), wide):
        assert parse_case_number(typed) == number


@given(numbers, st.data())
def test_any_single_wrong_character_is_noticed(number: CaseNumber, data: st.DataObject) -> None:
    printed = str(number)
    digits = [place for place, c in enumerate(printed) if c.isdigit() or place == len(printed) - 1]
    place = data.draw(st.sampled_from(digits))
    other = data.draw(st.sampled_from([c for c in "0123456789" if c != printed[place]]))
    with pytest.raises(NotACaseNumber):
        parse_case_number(printed[:place] + other + printed[place + 1 :])


@given(numbers, st.integers(0, 17))
def test_two_swapped_neighbours_are_noticed(number: CaseNumber, place: int) -> None:
    digits = str(number).replace("-", "").replace("SP", "")
    swapped = digits[:place] + digits[place + 1] + digits[place] + digits[place + 2 :]
    if swapped == digits:
        return
    with pytest.raises(NotACaseNumber):
        parse_case_number(swapped[:6] + "SP" + swapped[6:])


@given(st.text(max_size=64))
def test_whatever_is_typed_is_a_number_or_refused(typed: str) -> None:
    try:
        number = parse_case_number(typed)
    except NotACaseNumber:
        return
    assert parse_case_number(str(number)) == number


@pytest.mark.parametrize("serial", [0, -1, MOST_SERIALS + 1])
def test_a_serial_out_of_range_is_refused(serial: int) -> None:
    with pytest.raises(ValueError, match="serial"):
        CaseNumber("513328", date(2026, 5, 25), serial)


def test_a_county_code_that_is_no_code_is_refused() -> None:
    with pytest.raises(ValueError, match="six digits"):
        CaseNumber("5133", date(2026, 5, 25), 1)


def test_query_codes_are_eight_digits_and_hardly_ever_the_same() -> None:
    codes = {new_query_code() for _ in range(1000)}
    assert all(len(code) == 8 and code.isdecimal() for code in codes)
    assert len(codes) > 990


def test_a_query_code_may_be_typed_in_groups_and_full_width() -> None:
    assert plain_query_code(" １２３４-5678 ") == "12345678"
