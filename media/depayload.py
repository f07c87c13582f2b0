"""RTP payloads to frames: VP8 (RFC 7741), H.264 (RFC 6184), Opus (RFC 7587). Pure.

Packets come in order of their extended sequence numbers, each once. A frame leaves whole or not at
all: after an unrecovered loss everything is dropped up to the next keyframe, because a picture
patched from a missing reference would show what nobody sent.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

SILENCE: Final = b"\xf8\xff\xfe"
"""20 ms of silence as one Opus packet: CELT, full band, mono (decoders widen it)."""
SILENCE_MS: Final = 20


# Tuples, not dataclasses: an hour of talk makes a million of each, and these cost a third.


class Packet(NamedTuple):
    """What a depayloader needs of one RTP packet. An empty payload is padding."""

    seq: int  # extended
    rtp_time: int  # extended
    marker: bool
    payload: bytes


class Frame(NamedTuple):
    """One whole picture. `size` is known on keyframes only."""

    rtp_time: int
    data: bytes
    is_keyframe: bool
    size: tuple[int, int] | None


class _Piece(NamedTuple):
    """What one payload adds to a frame."""

    data: bytes
    starts: bool  # may stand at a frame's beginning
    picture_id: int | None = None


class VideoDepayloader(Protocol):
    """Feed packets in order; frames come out when they are complete.

    What is under construction after the last packet is a frame that the recording's end cut:
    without its marker nobody knows that it is whole.
    """

    lost_frames: int

    def push(self, packet: Packet) -> Frame | None: ...


class _Assembler(ABC):
    """What both video formats share: continuity, frame ends, waiting for a keyframe."""

    def __init__(self) -> None:
        self.lost_frames = 0
        self._expected: int | None = None
        self._pieces: list[_Piece] = []
        self._rtp_time: int | None = None
        self._is_broken = False
        self._is_suspect = False  # something before this frame is missing
        self._waits_for_keyframe = True
        self._last_picture_id: int | None = None  # of the last frame shown

    def push(self, packet: Packet) -> Frame | None:
        """One packet further; may complete a frame."""
        continuous = self._expected is None or packet.seq == self._expected
        self._expected = packet.seq + 1
        if not continuous:
            self._is_suspect = True
            self._is_broken = self._rtp_time is not None
        if not packet.payload:
            return None
        done: Frame | None = None
        if self._rtp_time is not None and packet.rtp_time != self._rtp_time:
            # A sender may leave out the marker; an unbroken run up to a new time is a whole frame.
            done = self._finish()
        piece = self._read(packet.payload)
        if self._rtp_time is None:
            self._rtp_time = packet.rtp_time
            self._is_broken = piece is None or not piece.starts
        if piece is None:
            self._is_broken = True
        else:
            self._pieces.append(piece)
        if packet.marker and done is None:
            return self._finish()
        return done

    def _finish(self) -> Frame | None:
        """The frame under construction, if it is whole and can be shown."""
        assert self._rtp_time is not None
        pieces, rtp_time, broken = self._pieces, self._rtp_time, self._is_broken
        self._pieces, self._rtp_time, self._is_broken = [], None, False
        frame = None if broken or not pieces else self._assemble(rtp_time, pieces)
        if frame is None:
            self.lost_frames += 1
            self._is_suspect = True
            return None
        if frame.is_keyframe:
            self._waits_for_keyframe = False
        elif self._is_suspect and not self._follows(pieces):
            self._waits_for_keyframe = True
        self._is_suspect = False
        if self._waits_for_keyframe:
            self.lost_frames += 1
            return None
        self._last_picture_id = pieces[0].picture_id
        return frame

    @abstractmethod
    def _read(self, payload: bytes) -> _Piece | None:
        """What this payload adds; None if it is not of this format."""

    @abstractmethod
    def _assemble(self, rtp_time: int, pieces: list[_Piece]) -> Frame | None:
        """The frame that these pieces, all of one RTP time, make; None if they make none."""

    def _follows(self, pieces: list[_Piece]) -> bool:
        """Whether this frame is known to follow the last shown one although packets are missing.

        Lost padding leaves the picture ids consecutive. The 7-bit form wraps too soon to prove
        anything over a long gap, but a gap that long has other marks. H.264 has no such numbers.
        """
        new, old = pieces[0].picture_id, self._last_picture_id
        return new is not None and old is not None and (new - old) & 0x7F == 1 and new != old


class Vp8Depayloader(_Assembler):
    """VP8: a descriptor before each piece of the frame (RFC 7741, 4.2)."""

    def _read(self, payload: bytes) -> _Piece | None:
        return read_vp8(payload)

    def _assemble(self, rtp_time: int, pieces: list[_Piece]) -> Frame | None:
        data = b"".join(piece.data for piece in pieces)
        if len(data) < 3:
            return None
        is_keyframe = not data[0] & 1
        size = vp8_size(data)
        if is_keyframe and size is None:
            return None
        return Frame(rtp_time, data, is_keyframe, size)


def read_vp8(payload: bytes) -> _Piece | None:
    """Split descriptor and data; None if the descriptor is cut."""
    try:
        first, offset, picture_id = payload[0], 1, None
        if first & 0x80:  # X
            flags = payload[1]
            offset = 2
            if flags & 0x80:  # I
                picture_id = payload[2] & 0x7F
                offset = 3
                if payload[2] & 0x80:  # M: 15 bits
                    picture_id = picture_id << 8 | payload[3]
                    offset = 4
            offset += bool(flags & 0x40) + bool(flags & 0x30)  # L; T or K
    except IndexError:
        return None
    if offset >= len(payload):
        return None
    return _Piece(payload[offset:], first & 0x17 == 0x10, picture_id)


def vp8_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height of a VP8 keyframe (RFC 6386, 9.1); None for other frames."""
    if len(frame) < 10 or frame[0] & 1 or frame[3:6] != b"\x9d\x01\x2a":
        return None
    width = int.from_bytes(frame[6:8], "little") & 0x3FFF
    height = int.from_bytes(frame[8:10], "little") & 0x3FFF
    return (width, height) if width and height else None


_START_CODE: Final = b"\x00\x00\x00\x01"
_SLICE_IDR, _SPS, _STAP_A, _FU_A = 5, 7, 24, 28


class H264Depayloader(_Assembler):
    """H.264, packetization modes 0 and 1; frames come out with start codes (Annex B)."""

    def _read(self, payload: bytes) -> _Piece | None:
        return read_h264(payload)

    def _assemble(self, rtp_time: int, pieces: list[_Piece]) -> Frame | None:
        data = b"".join(piece.data for piece in pieces)
        units = list(split_annex_b(data))
        is_keyframe = any(unit[0] & 0x1F == _SLICE_IDR for unit in units)
        sps = next((unit for unit in units if unit[0] & 0x1F == _SPS), None)
        if all(unit[0] & 0x1F > _SLICE_IDR for unit in units):
            return None  # parameter sets alone are no picture
        return Frame(rtp_time, data, is_keyframe, h264_size(sps) if sps else None)


def read_h264(payload: bytes) -> _Piece | None:
    """One payload as Annex B bytes; None if it is malformed or of a kind nobody negotiated."""
    kind = payload[0] & 0x1F
    if 0 < kind < _STAP_A:
        return _Piece(_START_CODE + payload, True)
    if kind == _STAP_A:
        units, offset = bytearray(), 1
        while offset + 2 <= len(payload):
            size = int.from_bytes(payload[offset : offset + 2], "big")
            offset += 2
            if not size or offset + size > len(payload):
                return None
            units += _START_CODE + payload[offset : offset + size]
            offset += size
        return _Piece(bytes(units), True) if units and offset == len(payload) else None
    if kind == _FU_A and len(payload) > 2:
        if payload[1] & 0x80:  # S: the first fragment carries the unit's header
            header = bytes([payload[0] & 0xE0 | payload[1] & 0x1F])
            return _Piece(_START_CODE + header + payload[2:], True)
        return _Piece(payload[2:], False)
    return None


def split_annex_b(data: bytes) -> Iterator[bytes]:
    """The NAL units between four-byte start codes."""
    for unit in data.split(_START_CODE):
        if unit:
            yield unit


MAX_SIDE: Final = 16_384
"""What VP8 can say of a side, and far more than any level of H.264 lets a camera send. Containers
keep sizes in 32 bits; a parameter set may claim more."""
_HIGH_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128})


def h264_size(sps: bytes) -> tuple[int, int] | None:
    """Width and height that a sequence parameter set declares (H.264, 7.3.2.1.1); None if cut."""
    bits = _Bits(sps[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
    try:
        profile = bits.take(8)
        bits.take(16)
        bits.ue()
        chroma = 1
        if profile in _HIGH_PROFILES:
            chroma = bits.ue()
            if chroma == 3:
                bits.take(1)
            bits.ue()
            bits.ue()
            bits.take(1)
            if bits.take(1):
                return None  # scaling matrices: no browser sends them
        bits.ue()
        order = bits.ue()
        if order == 0:
            bits.ue()
        elif order == 1:
            bits.take(1)
            bits.ue()
            bits.ue()
            for _ in range(bits.ue()):
                bits.ue()
        bits.ue()
        bits.take(1)
        width_mbs, height_maps = bits.ue() + 1, bits.ue() + 1
        frame_only = bits.take(1)
        if not frame_only:
            bits.take(1)
        bits.take(1)
        left = right = top = bottom = 0
        if bits.take(1):
            left, right, top, bottom = (bits.ue() for _ in range(4))
    except IndexError:
        return None
    across = 1 if chroma in (0, 3) else 2
    down = (2 if chroma == 1 else 1) * (2 - frame_only)
    width = width_mbs * 16 - across * (left + right)
    height = height_maps * 16 * (2 - frame_only) - down * (top + bottom)
    is_picture = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE
    return (width, height) if is_picture else None


class _Bits:
    """Reads bits and Exp-Golomb numbers; raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte = self._data[self._position >> 3]
            value = value << 1 | byte >> (7 - (self._position & 7)) & 1
            self._position += 1
        return value

    def ue(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 31:
                raise IndexError("no such number")
        return (1 << zeros) - 1 + self.take(zeros)


def opus_duration_us(packet: bytes) -> int:
    """How long an Opus packet plays, from its first bytes (RFC 6716, 3.1); 0 if malformed."""
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame_us = (10_000, 20_000, 40_000, 60_000)[config & 3]
    elif config < 16:
        frame_us = (10_000, 20_000)[config & 1]
    else:
        frame_us = (2_500, 5_000, 10_000, 20_000)[config & 3]
    coded = packet[1] & 0x3F if len(packet) > 1 else 0
    frames = (1, 2, 2, coded)[code]
    total = frames * frame_us
    return total if total <= 120_000 else 0
