"""The common case of the hot loop in C, where it could be built; tables and rules stay in Python.

`media/_fastlane.c` says what it takes and why it exists; `make setup` builds it if the machine has
a compiler and Python's headers. This is the one place that knows whether there is one: everything
else asks for a `Lane` and goes on without it if there is none. To do without it, delete the file
that `built_as` names.
"""

from types import ModuleType
from typing import TYPE_CHECKING

from media import srtp
from media.socket import SEND_SLOTS, Outbox
from media.tables import Leg, Publication, Source, Subscription

if TYPE_CHECKING:
    from media._fastlane import Lane
    from media.router import Router

_built: ModuleType | None
try:
    from media import _fastlane as _built
    from media._fastlane import OutboxNumbers as _  # noqa: F401  what was built before fits no longer
except ImportError:  # not built here: Python does all of it
    _built = None


def built_as() -> str | None:
    """The file that was built, or None."""
    return None if _built is None else _built.__file__


def open_lane(
    router: "Router",
    outbox: Outbox,
    *,
    audio_level_extension: int,
    loud_level: int,
    loud_packets: int,
    speech_hangover_ns: int,
) -> "Lane | None":
    """The lane that does `router`'s common case and posts to `outbox`; None if there is none.

    While it works it is the only one who posts. `router` counts `unprotectable` and is called as
    `hear(source, level, arrival_ns)` when the level of a sound changes who speaks; what else that
    method does, the lane does itself.
    """
    if _built is None:
        return None
    lane: Lane = _built.Lane(
        tables=(Leg, Source, Publication, Subscription, srtp.SrtpSession, Outbox),
        router=router,
        outbox=outbox,
        unprotect=srtp.address_of(srtp.unprotect),
        protect=srtp.address_of(srtp.protect),
        slots=outbox.iovs_address,
        names=outbox.names_address,
        name_bytes=outbox.name_bytes,
        slot_count=SEND_SLOTS,
        audio_level_extension=audio_level_extension,
        loud_level=loud_level,
        loud_packets=loud_packets,
        speech_hangover_ns=speech_hangover_ns,
    )
    return lane
