"""How many sockets may stand outside of every room: not in one yet, or in one no longer.

Whoever is in a room has a Grant, and a seat has one socket. Outside of the rooms nothing else
bounds them: anybody may open a socket and say nothing, or be replaced and not go. Each costs a file
and some memory, and a process that has no file left cannot write a recording. So places are
counted, by the client's address and in all, until the connection itself is gone. Beyond them the
newest is refused before it is a socket; those that are in a room notice nothing.
"""

from collections import Counter
from typing import Final

import structlog

from core.errors import TooMany, Unavailable

log = structlog.get_logger(__name__)

MOST_OF_AN_ADDRESS: Final = 60
"""A county's house behind one router has some twenty pages. All of them may come back at once after
a restart, each beside a socket that is not gone yet, and a third of the places is still free."""
MOST: Final = 512
"""Half of the 1,024 files that a process may usually open; the rooms and recordings have the rest.
A page stands outside for a moment: even after a restart this is some thousand pages a second."""
COME_AGAIN_S: Final = 2
LOG_EVERY: Final = 100


class TooManySockets(TooMany):
    """This address has as many sockets outside of the rooms as it may."""

    code = "too_many_sockets"


class DoorwayFull(Unavailable):
    """All addresses together have."""

    code = "doorway_full"


class Doorway:
    """The places of one process. Used on the event loop only."""

    def __init__(self, *, most_of_an_address: int = MOST_OF_AN_ADDRESS, most: int = MOST) -> None:
        self.refused = 0
        """Sockets refused since the start."""
        self._most_of_an_address = most_of_an_address
        self._most = most
        self._outside: Counter[str] = Counter()

    @property
    def outside(self) -> int:
        return self._outside.total()

    def come(self, address: str) -> "Place":
        """A place for a new socket from `address`. Raises `TooManySockets` or `DoorwayFull`."""
        if self._outside[address] >= self._most_of_an_address:
            self._refuse("address")
            raise TooManySockets(
                "Too many connections from your network. Please wait a moment.",
                retry_after_s=COME_AGAIN_S,
            )
        if self.outside >= self._most:
            self._refuse("house")
            raise DoorwayFull(
                "The server is busy. Please wait a moment.", retry_after_s=COME_AGAIN_S
            )
        return Place(self, address)

    def _refuse(self, bound: str) -> None:
        # A line for each would be a second flood, into the log.
        if self.refused % LOG_EVERY == 0:
            log.warning("sockets_refused", bound=bound, outside=self.outside, before=self.refused)
        self.refused += 1

    def _count(self, address: str, change: int) -> None:
        self._outside[address] += change
        if not self._outside[address]:
            del self._outside[address]


class Place:
    """Where one socket stands. Made outside, by `Doorway.come`."""

    __slots__ = ("_address", "_doorway", "_is_outside")

    def __init__(self, doorway: Doorway, address: str) -> None:
        self._doorway = doorway
        self._address = address
        self._is_outside = False
        self.come_out()

    def go_in(self) -> None:
        """It has joined a room, or is gone. Saying it twice changes nothing."""
        if self._is_outside:
            self._is_outside = False
            self._doorway._count(self._address, -1)

    def come_out(self) -> None:
        """It is in no room any more, and its connection still stands. Never refused: the next
        newcomer is."""
        if not self._is_outside:
            self._is_outside = True
            self._doorway._count(self._address, 1)
