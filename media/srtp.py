"""SRTP in place: libsrtp through pylibsrtp's cffi binding, on buffers as old as the node.

pylibsrtp's public API copies every packet twice and refuses more than 1,356 bytes; a relay pays
that for each packet in and out (2.3 µs against 0.6 µs for AES-GCM). We borrow its session objects
and call the same C functions on our own memory. This is the only file that touches pylibsrtp's
private names; tests/unit/media/test_srtp.py is the contract that breaks first when they change.

    unprotect(context, buffer.cdata, buffer.length)    0, or libsrtp's error number
    protect(context, buffer.cdata, buffer.length)      the same; grows the packet by its tag
"""

import socket
from typing import Any

from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi, lib

from media.numbers import SessionNumbers

# A full Ethernet MTU plus SRTP's largest trailer (index 4 + tag 16 + MKI 128), rounded up.
BUFFER_BYTES = 2048
# protect() writes behind the packet; whoever fills a buffer leaves this much room.
TRAILER_BYTES = 4 + 16 + 128
# The most plaintext we are willing to protect.
MAX_PLAIN_BYTES = BUFFER_BYTES - TRAILER_BYTES

protect = lib.srtp_protect
unprotect = lib.srtp_unprotect
protect_rtcp = lib.srtp_protect_rtcp
unprotect_rtcp = lib.srtp_unprotect_rtcp

# Positions in pylibsrtp.ERRORS, which mirror srtp_err_status_t.
STATUS_OK = 0
STATUS_AUTH_FAIL = 7
STATUS_REPLAY_FAIL = 9
STATUS_REPLAY_OLD = 10


class PacketBuffer:
    """One packet's worth of memory, seen three ways.

    `cdata` is what C takes, `view` is the same bytes for Python, `length` is the `int *` that
    libsrtp reads and writes. Reused for every packet: nothing may keep a slice of `view` beyond the
    call that got it.
    """

    __slots__ = ("_owner", "cdata", "length", "view")

    def __init__(self) -> None:
        # Any: cffi has no types.
        self.cdata: Any = ffi.new("unsigned char[]", BUFFER_BYTES)
        self.length: Any = ffi.new("int *")
        self.view = memoryview(ffi.buffer(self.cdata, BUFFER_BYTES)).cast("B")
        self._owner: object = None

    @classmethod
    def over(cls, memory: int, length: int, *, owner: object) -> "PacketBuffer":
        """On memory that others use too: `BUFFER_BYTES` at the address `memory`, an `int` at the
        address `length`; both live while `owner` does, which is kept."""
        buffer = cls.__new__(cls)
        buffer.cdata = ffi.cast("unsigned char *", memory)
        buffer.length = ffi.cast("int *", length)
        buffer.view = memoryview(ffi.buffer(buffer.cdata, BUFFER_BYTES)).cast("B")
        buffer._owner = owner
        return buffer


class SrtpSession(SessionNumbers):
    """One direction of one leg: keys, rollover counters and the replay window of each SSRC.

    `context` is libsrtp's handle, and `handle` its address; both are valid only while this object
    lives; tables that copy them for speed must also hold the session.
    """

    __slots__ = ("_owner", "context")

    def __init__(self, session: Session) -> None:
        self._owner = session
        self.context: Any = session._srtp[0]
        self.handle = address_of(self.context)

    def forget(self, ssrc: int) -> None:
        """Remember nothing of this SSRC. libsrtp keeps a replay window for each one it has ever
        heard and looks through all of them for every packet, so somebody with keys and many SSRCs
        would slow down everyone's packets."""
        lib.srtp_remove_stream(self.context, socket.htonl(ssrc))

    @classmethod
    def inbound(cls, key: bytes, profile: int) -> "SrtpSession":
        """For packets of any SSRC from the other side. `key` is master key and salt."""
        return cls(Session(_policy(key, profile, Policy.SSRC_ANY_INBOUND)))

    @classmethod
    def outbound(cls, key: bytes, profile: int) -> "SrtpSession":
        """For packets of any SSRC to the other side. `key` is master key and salt."""
        return cls(Session(_policy(key, profile, Policy.SSRC_ANY_OUTBOUND)))


def address_of(pointer: Any) -> int:
    """Where a cffi pointer, array or function points to."""
    if isinstance(pointer, ffi.CData):
        return int(ffi.cast("uintptr_t", pointer))
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, pointer.__name__)))


def _policy(key: bytes, profile: int, direction: int) -> Policy:
    policy = Policy(key=key, ssrc_type=direction, srtp_profile=profile)
    # An audio packet may be sent again under its own number, byte for byte the same (router.py).
    policy.allow_repeat_tx = True
    # A publisher without RTX repeats what we missed for a second; the window is shifted for every
    # packet, so it is no longer than that takes.
    policy.window_size = 512
    return policy
