"""Whose turn it is: regular work on everybody, never on everybody at once.

A look after one peer, or a pass over one recording's files, takes a tenth of a millisecond or two.
A hundred of them in one go take fifteen, for which every packet waits, and once a second is enough
to be felt by more than a hundredth of all packets. So each member has a turn of its own within the
round, and what is done in one go stays small however large the house is
(docs/decisions/0010-nobody-at-once.md).
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

_Member = TypeVar("_Member", bound=Hashable)


class Rota(Generic[_Member]):
    """Members and their turns in a round. Knows no clock: who calls keeps time.

    To be woken costs more than a member or two: `together` of them share a turn before another one
    begins, and only when all turns have so many do they grow, evenly.
    """

    def __init__(self, turns: int, *, together: int) -> None:
        # Sets that keep their order: who came first comes first.
        self._turns: list[dict[_Member, None]] = [{} for _ in range(turns)]
        self._together = together

    def __len__(self) -> int:
        return sum(map(len, self._turns))

    def add(self, member: _Member) -> None:
        """Give `member`, who has none yet, a turn."""
        turn = next((t for t in self._turns if 0 < len(t) < self._together), None)
        (min(self._turns, key=len) if turn is None else turn)[member] = None

    def remove(self, member: _Member) -> None:
        """Unknown members are fine."""
        for turn in self._turns:
            turn.pop(member, None)

    def whose(self, turn: int, every: int = 0) -> list[_Member]:
        """Who has this turn of the round; with `every`, also who has one so many turns away."""
        turns = self._turns[turn % every :: every] if every else self._turns[turn : turn + 1]
        return [member for members in turns for member in members]

    def wait(self, turn: int, every: int = 0) -> int:
        """How many turns after this one `whose` names somebody again; a round if nobody is here."""
        period = every or len(self._turns)
        for ahead in range(1, period + 1):
            if self.whose((turn + ahead) % len(self._turns), every):
                return ahead
        return len(self._turns)
