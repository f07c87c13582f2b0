"""Who may come along, and how much of a person's papers anyone gets to see.

Pure rules over a party as it was typed in. Errors name the place in the list, never the person.
"""

import re
from collections.abc import Sequence
from datetime import date

from core.errors import Refused
from scheduling.schemas import PartyMemberIn, Relation

REPRESENTATIVES_ARTICLE = "《信访工作条例》第二十条"
_SPEAKS = {Relation.PETITIONER, Relation.REPRESENTATIVE, Relation.AGENT}
_RESIDENT_ID = re.compile(r"\d{17}[\dX]", re.ASCII)
# GB 11643-1999, ISO 7064 MOD 11-2.
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS = "10X98765432"
_SHORTEST_PAPER = 3


class TooManyRepresentatives(Refused):
    code = "too_many_representatives"


class NobodySpeaks(Refused):
    code = "nobody_speaks"


class PeopleMiscounted(Refused):
    code = "people_miscounted"


class IdNumberRefused(Refused):
    code = "bad_id_number"


def check_party(
    party: Sequence[PartyMemberIn], *, people_total: int, max_representatives: int
) -> None:
    """Raise the first rule this party breaks.

    Someone must speak for the matter; a joint matter elects at most `max_representatives`
    (《信访工作条例》 art. 20); the count of people covers everyone listed; papers that look like
    a resident identity card must be one.
    """
    representatives = sum(member.relation is Relation.REPRESENTATIVE for member in party)
    if representatives > max_representatives:
        raise TooManyRepresentatives(
            f"A joint matter sends at most {max_representatives} representatives. "
            "Please list the others as companions or let them wait outside.",
            limit=max_representatives, article=REPRESENTATIVES_ARTICLE,
        )  # fmt: skip
    if not any(member.relation in _SPEAKS for member in party):
        raise NobodySpeaks(
            "Companions alone cannot speak. List the petitioner, a representative or an agent."
        )
    if people_total < len(party):
        raise PeopleMiscounted("More people are listed than counted. Please correct the count.")
    for position, member in enumerate(party):
        if member.id_number and not id_number_accepted(member.id_number):
            raise IdNumberRefused(
                "This identity number does not add up. Please compare it with the card.",
                position=position,
            )


def id_number_accepted(typed: str) -> bool:
    """Whether `typed` may stand as someone's papers.

    Eighteen characters of an identity card must have a real date and the right check character
    (GB 11643-1999); other papers are taken as they are, if there is enough of them.
    """
    number = normal_id_number(typed)
    if not _RESIDENT_ID.fullmatch(number):
        return len(number) >= _SHORTEST_PAPER
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return id_check_character(number[:17]) == number[17]


def id_check_character(first_17: str) -> str:
    """The eighteenth character of a resident identity number."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, first_17, strict=True))
    return _CHECKS[total % 11]


def normal_id_number(typed: str) -> str:
    """Without spaces, `x` as `X`: the form that is kept."""
    return re.sub(r"\s", "", typed).upper()


def masked_id_number(number: str | None) -> str | None:
    """The last four characters, stars before; enough for the desk to tell two people apart."""
    return _masked(number, head=0, tail=4)


def masked_phone(phone: str | None) -> str | None:
    """`138****5678`."""
    return _masked(phone, head=3, tail=4)


def _masked(text: str | None, *, head: int, tail: int) -> str | None:
    if text is None:
        return None
    # Of something short, the shown ends would be most of it: show nothing.
    if len(text) < head + tail + 3:
        return "*" * len(text)
    return text[:head] + "*" * (len(text) - head - tail) + text[-tail:]
