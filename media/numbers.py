"""The numbers of the relay's tables that every packet reads and changes, apart from what they mean.

Where `media/_fastlane.c` could be built, each of these is a C structure: its numbers lie side by
side, and the fast lane adds to them as C does. Python reads and sets them as it does any attribute.
Kept as Python keeps numbers, each in an object of its own, made anew for every change and found
somewhere in memory, they cost a packet more than its encryption did
(docs/decisions/0017-numbers-side-by-side.md).

What they are is told where they are used: media/tables.py, srtp.py and socket.py.
"""

import contextlib
from typing import TYPE_CHECKING


class LegNumbers:
    __slots__ = ("bytes_in", "is_connected", "last_packet_ns", "packets_in", "rejected")

    last_packet_ns: int
    packets_in: int
    bytes_in: int
    rejected: int
    is_connected: bool


class SourceNumbers:
    __slots__ = (
        "advanced",
        "clock_rate",
        "extension_at",
        "extension_id",
        "is_anchored",
        "jitter",
        "last_timestamp",
        "next_seq",
        "payload_type",
        "received",
        "seq_offset",
        "timestamp_offset",
        "track_index",
        "transit",
    )

    next_seq: int
    payload_type: int
    advanced: int
    received: int
    last_timestamp: int
    clock_rate: int
    transit: int
    jitter: float
    seq_offset: int
    timestamp_offset: int
    track_index: int
    extension_id: int
    extension_at: int
    is_anchored: bool


class PublicationNumbers:
    __slots__ = (
        "cache_mask",
        "is_open",
        "is_speaking",
        "last_arrival_ns",
        "loud_packets",
        "loud_until_ns",
        "next_seq",
        "next_timestamp",
    )

    next_seq: int
    next_timestamp: int
    last_arrival_ns: int
    cache_mask: int
    loud_packets: int
    loud_until_ns: int
    is_open: bool
    is_speaking: bool


class SubscriptionNumbers:
    __slots__ = ("octets", "packets", "rtx_ssrc", "seq_offset", "ssrc")

    seq_offset: int
    ssrc: int
    rtx_ssrc: int
    packets: int
    octets: int


class SessionNumbers:
    __slots__ = ("handle",)

    handle: int


class OutboxNumbers:
    __slots__ = ("posted",)

    posted: int


IN_PYTHON = (
    LegNumbers,
    SourceNumbers,
    PublicationNumbers,
    SubscriptionNumbers,
    SessionNumbers,
    OutboxNumbers,
)
"""As they are where nothing was built: the same names."""

if not TYPE_CHECKING:
    with contextlib.suppress(ImportError):  # not built here
        from media._fastlane import (
            LegNumbers,
            OutboxNumbers,
            PublicationNumbers,
            SessionNumbers,
            SourceNumbers,
            SubscriptionNumbers,
        )
