"""Numbers that people read aloud: the case number on the slip, and the query code beside it.

A number is `<county code>-SP-<yyyymmdd>-<serial>-<check>`, e.g. 513328-SP-20260525-00001-7: where,
by video (视频), which day, the how-manieth there that day, and a check character that catches every
single wrong character and every swap of neighbours. The query code is random and has nothing to do
with the number: knowing one says nothing about the other. Pure; see intake.py for who counts.
"""

import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import date

from core.errors import Refused

FORM = "SP"
MOST_SERIALS = 99_999
QUERY_CODE_DIGITS = 8

_NUMBER = re.compile(r"(\d{6})-?SP-?(\d{8})-?(\d{5})-?([\dX])", re.ASCII)
# Dashes and spaces that phones, printers and Chinese keyboards put in place of a hyphen.
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−－ー", "-") | dict.fromkeys(" \t\u3000\u200b"))


class NotACaseNumber(Refused):
    code = "not_a_case_number"


@dataclass(frozen=True, slots=True)
class CaseNumber:
    """A case number, taken apart."""

    county_code: str
    day: date
    serial: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d{6}", self.county_code, re.ASCII):
            raise ValueError("a county code has six digits")
        if not 1 <= self.serial <= MOST_SERIALS:
            raise ValueError(f"a serial lies between 1 and {MOST_SERIALS}")

    def __str__(self) -> str:
        day, serial = f"{self.day:%Y%m%d}", f"{self.serial:05d}"
        check = check_character(self.county_code + day + serial)
        return f"{self.county_code}-{FORM}-{day}-{serial}-{check}"


def parse_case_number(typed: str) -> CaseNumber:
    """The number that `typed` means: any case, width of characters, kind of dash or none.

    Raises `NotACaseNumber` if a character is wrong, missing or swapped.
    """
    plain = unicodedata.normalize("NFKC", typed).translate(_DASHES).upper()
    match = _NUMBER.fullmatch(plain)
    if match is None:
        raise NotACaseNumber("This is not a case number. Please copy it from the slip.")
    county_code, day, serial, check = match.groups()
    try:
        number = CaseNumber(county_code, date.fromisoformat(day), int(serial))
    except ValueError as error:
        raise NotACaseNumber("This case number has a typing error.") from error
    if check != check_character(county_code + day + serial):
        raise NotACaseNumber("This case number has a typing error.")
    return number


def check_character(digits: str) -> str:
    """ISO/IEC 7064 MOD 11-2, as on the resident identity card: 0-9 or X."""
    remainder = 0
    for digit in digits:
        remainder = (remainder + int(digit)) * 2 % 11
    return "0123456789X"[(12 - remainder) % 11]


def new_query_code() -> str:
    """Eight random digits. They guard against strangers together with a limit on attempts."""
    return f"{secrets.randbelow(10**QUERY_CODE_DIGITS):0{QUERY_CODE_DIGITS}d}"


def plain_query_code(typed: str) -> str:
    """`typed` with full-width digits, spaces and dashes made plain; not checked further."""
    return unicodedata.normalize("NFKC", typed).translate(_DASHES).replace("-", "")
