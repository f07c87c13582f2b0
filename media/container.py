"""Writing WebM and MP4 from samples that are already encoded: no encoder is ever opened.

The same samples give the same bytes: no dates, no random ids. Indexes go to the front, so a player
seeks with one request.
"""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, NamedTuple

import av
from av.stream import Stream

from media import depayload

_MICRO: Final = Fraction(1, 1_000_000)
Format = Literal["webm", "mp4"]
OPUS_HEAD: Final = b"OpusHead" + struct.pack("<BBHIhB", 1, 2, 0, 48_000, 0, 0)
"""Stereo at 48 kHz (RFC 7845, 5.1). Pre-skip is 0: the first packet is heard when it was spoken."""


class Sample(NamedTuple):
    """One frame or sound packet, on the session's timeline."""

    at_us: int
    duration_us: int
    data: bytes
    is_keyframe: bool
    is_audio: bool
    is_filler: bool = False  # silence of ours, where nothing arrived


def write_container(
    part: Path,
    suffix: Format,
    samples: Iterator[Sample],
    *,
    zero_us: int,
    size: tuple[int, int] | None,
    has_audio: bool,
) -> None:
    """Write `samples`, which come in order of time, with `zero_us` as the file's time 0.

    `size` is None for sound alone. Video is VP8 in WebM, H.264 (Annex B, parameter sets in its
    keyframes) in MP4; sound is Opus. Raises `OSError` or `av.FFmpegError`; `part` may be left.
    """
    options = {"fflags": "+bitexact"}  # no random ids, no dates: the same input, the same file
    if suffix == "webm":
        options["cues_to_front"] = "1"
    else:
        options["movflags"] = "+faststart"
    container = av.open(str(part), "w", format=suffix, options=options)
    try:
        video_stream: Stream | None = None
        audio_stream: Stream | None = None
        if size is not None:
            name = "vp8" if suffix == "webm" else "h264"
            video_stream = container.add_mux_stream(name, width=size[0], height=size[1])
            video_stream.time_base = Fraction(1, 1000 if suffix == "webm" else 90_000)
        if has_audio:
            with av.open(io.BytesIO(_opus_template())) as template:
                audio_stream = container.add_stream_from_template(template.streams.audio[0])
        for sample in samples:
            stream = audio_stream if sample.is_audio else video_stream
            assert stream is not None
            packet = av.Packet(sample.data)
            packet.stream = stream
            packet.time_base = _MICRO
            packet.pts = packet.dts = sample.at_us - zero_us
            packet.duration = sample.duration_us
            packet.is_keyframe = sample.is_keyframe
            container.mux(packet)
    finally:
        container.close()


def _opus_template() -> bytes:
    """The smallest Ogg Opus stream (RFC 7845): a stream header without opening an encoder."""
    tags = b"OpusTags" + struct.pack("<II", 0, 0)
    return b"".join(
        _ogg_page(payload, number, flags)
        for number, (payload, flags) in enumerate(
            ((OPUS_HEAD, 2), (tags, 0), (depayload.SILENCE, 4))  # first page, middle, last page
        )
    )


def _ogg_page(payload: bytes, number: int, flags: int) -> bytes:
    """One page with one packet shorter than 255 bytes (RFC 3533, 6)."""
    granule = 960 if flags == 4 else 0
    head = b"OggS" + struct.pack("<BBqIIIBB", 0, flags, granule, 1, number, 0, 1, len(payload))
    page = bytearray(head + payload)
    page[22:26] = _ogg_crc(page).to_bytes(4, "little")
    return bytes(page)


def _ogg_crc(data: bytes | bytearray) -> int:
    """CRC-32 with polynomial 0x04c11db7, unreflected, from 0."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc & 0xFFFFFFFF
