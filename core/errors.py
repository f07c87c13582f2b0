"""One tree of errors; each speaks to three audiences.

    ReceptionError            code for programs · HTTP status for the wire · words for the person
    ├── Malformed             422  the shape of what was sent is wrong
    ├── Refused               400  well-formed, but not something we do (a past day, a strange SDP)
    ├── Unauthenticated       401  sign in first
    ├── Forbidden             403  signed in, but not for this
    ├── NotFound              404
    ├── TooSlow               408  a body that trickles; send it again over a better line
    ├── Conflict              409  someone else was first, or the state has moved on
    ├── Gone                  410  it was there and has expired
    ├── TooLarge              413
    ├── TooMany               429  slow down
    └── Unavailable           503  try again; `retry_after_s` says when

Raise early with the most exact class; `app/api.py` and `signaling/endpoint.py` translate once.
`message` is a complete sentence that says what to do next and never names a person; pages translate
by `code` (`errors.<code>` in i18n) and fall back to `message`. `details` are JSON values of many
shapes, for programs and for translations.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ReceptionError(Exception):
    """The root. Subclasses set `code` and `status`; raising sites give the words."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    headers: ClassVar[Mapping[str, str]] = {}
    """Sent with the refusal, for protocols whose clients look there."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Malformed(ReceptionError):
    code = "malformed"
    status = 422


class Refused(ReceptionError):
    code = "refused"
    status = 400


class Unauthenticated(ReceptionError):
    code = "unauthenticated"
    status = 401


class Forbidden(ReceptionError):
    code = "forbidden"
    status = 403


class NotFound(ReceptionError):
    code = "not_found"
    status = 404


class TooSlow(ReceptionError):
    code = "too_slow"
    status = 408


class Conflict(ReceptionError):
    code = "conflict"
    status = 409


class Gone(ReceptionError):
    code = "gone"
    status = 410


class TooLarge(ReceptionError):
    code = "too_large"
    status = 413


class TooMany(ReceptionError):
    code = "too_many"
    status = 429


class Unavailable(ReceptionError):
    code = "unavailable"
    status = 503

    def __init__(self, message: str, *, retry_after_s: int = 5, **details: Any) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **details)
        self.retry_after_s = retry_after_s
