"""What stands in a WebM file before its first cluster, and how one is written from a `Reel`.

Written once from front to back: the reel knows beforehand how long each cluster will be, so the
index stands in front without moving anything, and the digest is ready with the last byte. The
files are those that libavformat makes of the same samples (media/container.py), byte for byte:
players know them. Elements: Matroska (RFC 9559), their coding: EBML (RFC 8794).
"""

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from media import reel as lane
from media.container import OPUS_HEAD

if TYPE_CHECKING:
    from media._reel import Reel

_CHUNK_BYTES: Final = 4 * 1024 * 1024
_SEEK_HEAD_BYTES: Final = 161
"""Room for a list of where everything begins; what it does not need is void."""
_SEEK_PRE_ROLL_NS: Final = 80_000_000  # Opus decoders have settled after that (RFC 7845, 4.6)
_WRITTEN_BY: Final = b"Lavf"

_EBML, _SEGMENT, _SEEK_HEAD, _SEEK = 0x1A45DFA3, 0x18538067, 0x114D9B74, 0x4DBB
_VOID, _INFO, _TRACKS, _TAGS, _CUES = 0xEC, 0x1549A966, 0x1654AE6B, 0x1254C367, 0x1C53BB6B


class Cue(NamedTuple):
    """One entry of the index: a time, the place of its cluster, the place of its block in it."""

    at_ms: int
    cluster_offset: int
    block_offset: int


class Contents(NamedTuple):
    """What the head must say of the clusters behind it. `size` is None for sound alone; ends are
    None for what there is not."""

    size: tuple[int, int] | None
    picture_end_ms: int | None
    sound_end_ms: int | None
    cluster_bytes: int
    cues: list[Cue]


def write_webm(
    part: Path,
    reel: "Reel",
    *,
    zero_us: int,
    size: tuple[int, int] | None,
    has_audio: bool,
    meter: Callable[[int], None],
) -> str:
    """Write all of `reel` with `zero_us` as the file's time 0, durably; the file's SHA-256.

    `meter` is told of bytes as they are written. Raises `OSError` or `reel.Unusual`; `part` may be
    left.
    """
    assert lane.built is not None
    cluster_bytes, least_bytes, picture_end_ms, sound_end_ms, cues = reel.lay_out(zero_us)
    contents = Contents(
        size=size,
        picture_end_ms=picture_end_ms if size is not None else None,
        sound_end_ms=sound_end_ms if has_audio else None,
        cluster_bytes=cluster_bytes,
        cues=[Cue(*cue) for cue in cues],
    )
    digest = hashlib.sha256()
    # Small enough for progress to be seen, in files of every length.
    buffer = memoryview(bytearray(max(min(_CHUNK_BYTES, cluster_bytes // 50), least_bytes)))
    with part.open("wb") as file:
        begun = 0
        chunk: bytes | memoryview = head(contents)
        while chunk:
            file.write(chunk)
            digest.update(chunk)
            file.flush()
            lane.built.begin_writing(file.fileno(), begun, len(chunk))
            begun += len(chunk)
            meter(len(chunk))
            chunk = buffer[: reel.fill(buffer)]
        os.fsync(file.fileno())
    return digest.hexdigest()


def head(contents: Contents) -> bytes:
    """Everything in front of the first cluster. Pure."""
    ebml = _element(
        _EBML,
        _number(0x4286, 1),  # version, and the least one to read it
        _number(0x42F7, 1),
        _number(0x42F2, 4),  # longest ids and lengths
        _number(0x42F3, 8),
        _element(0x4282, b"webm"),
        # Of the document type, the version (4 for a pre-roll) and the least one to read it.
        _number(0x4287, 2 if contents.sound_end_ms is None else 4),
        _number(0x4285, 2),
    )
    info, tracks, tags = _info(contents), _tracks(contents), _tags(contents)
    cues_at = _SEEK_HEAD_BYTES + len(info) + len(tracks) + len(tags)
    places = {
        _INFO: _SEEK_HEAD_BYTES,
        _TRACKS: _SEEK_HEAD_BYTES + len(info),
        _TAGS: _SEEK_HEAD_BYTES + len(info) + len(tracks),
        _CUES: cues_at,
    }
    cues = _cues(contents, cues_at)
    front = b"".join((_seek_head(places), info, tracks, tags, cues))
    segment = _id(_SEGMENT) + _length(len(front) + contents.cluster_bytes, 8)
    return ebml + segment + front


def _seek_head(places: dict[int, int]) -> bytes:
    listed = _element(
        _SEEK_HEAD,
        *(
            _element(_SEEK, _element(0x53AB, _id(what)), _number(0x53AC, at))
            for what, at in places.items()
        ),
    )
    void = _SEEK_HEAD_BYTES - len(listed) - 9
    return listed + _id(_VOID) + _length(void, 8) + bytes(void)


def _info(contents: Contents) -> bytes:
    ends = [end for end in (contents.picture_end_ms, contents.sound_end_ms) if end is not None]
    return _element(
        _INFO,
        _number(0x2AD7B1, 1_000_000),  # one tick in ns: times are milliseconds
        _element(0x4D80, _WRITTEN_BY),
        _element(0x5741, _WRITTEN_BY),
        _element(0x4489, struct.pack(">d", max(ends))),
    )


def _tracks(contents: Contents) -> bytes:
    described: list[bytes] = []
    if contents.size is not None:
        width, height = contents.size
        picture = _element(0xE0, _number(0xB0, width), _number(0xBA, height))
        described.append(_track(1, b"V_VP8", b"", 1, picture))
    if contents.sound_end_ms is not None:
        sound = _element(
            0xE1, _number(0x9F, 2), _element(0xB5, struct.pack(">d", 48_000)), _number(0x6264, 32)
        )
        pre_roll = _number(0x56BB, _SEEK_PRE_ROLL_NS)
        private = _element(0x63A2, OPUS_HEAD)
        described.append(_track(len(described) + 1, b"A_OPUS", pre_roll, 2, sound + private))
    return _element(_TRACKS, *described)


def _track(number: int, codec: bytes, pre_roll: bytes, kind: int, rest: bytes) -> bytes:
    inside = b"".join(
        (
            _number(0xD7, number),
            _element(0x73C5, struct.pack(">Q", number)),
            _number(0x9C, 0),  # no lacing
            _element(0x22B59C, b"und"),
            _number(0x88, 0),
            _element(0x86, codec),
            pre_roll,
            _number(0x83, kind),
            rest,
        )
    )
    return _id(0xAE) + _length(len(inside), 8) + inside


def _tags(contents: Contents) -> bytes:
    """How long each track is, in words."""
    ends = [end for end in (contents.picture_end_ms, contents.sound_end_ms) if end is not None]
    return _element(
        _TAGS,
        *(
            _element(
                0x7373,
                _element(0x63C0, _element(0x63C5, struct.pack(">Q", number))),
                _element(
                    0x67C8, _element(0x45A3, b"DURATION"), _element(0x4487, _clock(end) + b"\0")
                ),
            )
            for number, end in enumerate(ends, 1)
        ),
    )


def _clock(at_ms: int) -> bytes:
    seconds, ms = divmod(at_ms, 1000)
    return b"%02d:%02d:%02d.%03d000000" % (seconds // 3600, seconds // 60 % 60, seconds % 60, ms)


def _cues(contents: Contents, cues_at: int) -> bytes:
    """The index. Where the clusters begin depends on its length, and its length on that."""
    made = b""
    while True:
        clusters_at = cues_at + len(made)
        again = _element(
            _CUES,
            *(
                _element(
                    0xBB,
                    _number(0xB3, cue.at_ms),
                    _element(
                        0xB7,
                        _number(0xF7, 1),
                        _number(0xF1, clusters_at + cue.cluster_offset),
                        _number(0xF0, cue.block_offset),
                    ),
                )
                for cue in contents.cues
            ),
        )
        if len(again) == len(made):
            return again
        made = again


def _element(name: int, *inside: bytes) -> bytes:
    data = b"".join(inside)
    return _id(name) + _length(len(data)) + data


def _number(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _id(name: int) -> bytes:
    return name.to_bytes((name.bit_length() + 7) // 8, "big")


def _length(length: int, coded_bytes: int = 0) -> bytes:
    """As few bytes as will do, or `coded_bytes`. All ones means "unknown" and is not used."""
    count = coded_bytes or next(n for n in range(1, 9) if length + 1 < 1 << 7 * n)
    return (length | 1 << 7 * count).to_bytes(count, "big")
