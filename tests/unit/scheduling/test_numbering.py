"""The number on the slip and what its QR code says."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.numbering import appointment_number, check_digit, qr_text, read_number, read_qr

SECRET = b"s" * 32
numbers = st.builds(
    appointment_number,
    st.integers(510000, 519999).map(str),
    st.dates(date(2020, 1, 1), date(2090, 1, 1)),
    st.integers(1, 9999),
)


def test_a_number_says_county_day_and_serial():
    number = appointment_number("513328", date(2026, 5, 25), 14)
    assert number.startswith("3328-260525-014-")
    assert number[-1] == check_digit("3328260525014")


def test_the_check_digit_is_damms():
    assert check_digit("572") == "4"  # Damm's own example


@given(numbers)
def test_a_printed_number_is_read_back(number):
    assert read_number(number) == number
    assert read_number(number.replace("-", "")) == number
    assert read_number(f"  {number.replace('-', ' ')} ") == number


def test_full_width_digits_from_a_chinese_keyboard_are_understood():
    number = appointment_number("513328", date(2026, 5, 25), 7)
    wide = number.translate(str.maketrans("0123456789-", "０１２３４５６７８９－"))
    assert read_number(wide) == number


@given(numbers, st.data())
def test_one_wrong_digit_is_refused(number, data):
    digits = number.replace("-", "")
    at = data.draw(st.integers(0, len(digits) - 1))
    wrong = data.draw(st.sampled_from([d for d in "0123456789" if d != digits[at]]))
    assert read_number(digits[:at] + wrong + digits[at + 1 :]) is None


@given(numbers, st.data())
def test_two_swapped_neighbours_are_refused(number, data):
    digits = number.replace("-", "")
    at = data.draw(st.integers(0, len(digits) - 2))
    swapped = digits[:at] + digits[at + 1] + digits[at] + digits[at + 2 :]
    assert swapped == digits or read_number(swapped) is None


@given(st.text(max_size=40))
def test_any_text_is_a_number_in_printed_form_or_nothing(text):
    number = read_number(text)
    assert number is None or read_number(number) == number


@pytest.mark.parametrize("code", ["5", "51333X", "局"])
def test_a_county_code_must_end_in_four_digits(code):
    with pytest.raises(ValueError, match="four digits"):
        appointment_number(code, date(2026, 5, 25), 1)


@given(numbers)
def test_a_qr_code_is_read_back_only_with_the_same_secret(number):
    text = qr_text(number, SECRET)
    assert read_qr(text, SECRET) == number
    assert read_qr(text, b"t" * 32) is None
    assert read_qr(text[:-1], SECRET) is None


def test_a_qr_code_needs_only_the_alphanumeric_set():
    text = qr_text(appointment_number("513328", date(2026, 5, 25), 14), SECRET)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:")


@given(st.text(max_size=60))
def test_a_strangers_qr_code_is_nothing(text):
    assert read_qr(text, SECRET) is None
    assert read_qr(f"RR1:{text}", SECRET) is None
