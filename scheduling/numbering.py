"""The number on an appointment's slip: `3328-251122-014-7`, and what its QR code says.

County (last four digits of its code), day, serial, check digit. All digits, for a keypad in a
county hall; it names nobody. The check digit is Damm's: every single wrong digit and every swap of
neighbours is noticed, so a typo is refused and never opens someone else's visit.
"""

import base64
import hashlib
import hmac
import re
import unicodedata
from datetime import date

QR_PREFIX = "RR1"
MAX_SERIAL = 9999
# H. M. Damm 2004, the totally anti-symmetric quasigroup of order 10.
_DAMM = (
    "0317598642", "7092154863", "4206871359", "1750983426", "6123045978",
    "3674209581", "5869720134", "8945362017", "9438617205", "2581436790",
)  # fmt: skip
_SEPARATORS = re.compile(r"[\s\-–—_.]+")
_DIGITS = re.compile(r"(\d{4})(\d{6})(\d{3,4})(\d)", re.ASCII)


def appointment_number(county_code: str, day: date, serial: int) -> str:
    """The number of the `serial`-th appointment of a county on a day. Raises ValueError."""
    county = county_code[-4:]
    if not re.fullmatch(r"\d{4}", county, re.ASCII):
        raise ValueError(f"a county code ends in four digits, not {county_code!r}")
    if not 1 <= serial <= MAX_SERIAL:
        raise ValueError("a county has at most 9,999 appointments a day")
    digits = f"{county}{day:%y%m%d}{serial:03d}"
    return _grouped(digits + check_digit(digits))


def check_digit(digits: str) -> str:
    """Damm's check digit of a string of ASCII digits."""
    interim = 0
    for digit in digits:
        interim = int(_DAMM[interim][int(digit)])
    return str(interim)


def read_number(typed: str) -> str | None:
    """The number a person meant, in its printed form, or None if there is a slip of the finger.

    Full-width digits, spaces and dashes of any kind are understood.
    """
    digits = _SEPARATORS.sub("", unicodedata.normalize("NFKC", typed))
    if not _DIGITS.fullmatch(digits) or check_digit(digits) != "0":
        return None
    return _grouped(digits)


def qr_text(number: str, secret: bytes) -> str:
    """What the QR code on the slip says. Capitals, digits and colons only: a small, coarse code."""
    digits = number.replace("-", "")
    return f"{QR_PREFIX}:{digits}:{_mark(digits, secret)}"


def read_qr(text: str, secret: bytes) -> str | None:
    """The number in a QR code that this installation printed, or None."""
    prefix, _, rest = text.strip().partition(":")
    digits, _, mark = rest.partition(":")
    if prefix != QR_PREFIX or not hmac.compare_digest(
        mark.encode(), _mark(digits, secret).encode()
    ):
        return None
    return read_number(digits)


def _grouped(digits: str) -> str:
    return f"{digits[:4]}-{digits[4:10]}-{digits[10:-1]}-{digits[-1]}"


def _mark(digits: str, secret: bytes) -> str:
    # 40 bits: enough that nobody prints slips of their own against a rate-limited kiosk.
    keyed = hmac.new(secret, b"appointment-slip:" + digits.encode(), hashlib.sha256).digest()
    return base64.b32encode(keyed[:5]).decode()
