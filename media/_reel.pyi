"""What media/_reel.c offers; media/reel.py says when. Buffers of numbers are of 64 bits each."""

from mmap import mmap

Keys = memoryview | bytes
Segment = tuple[bytes | mmap, int, int]
"""A journal, where it begins among those of its leg, and its `t0_mono_ns`."""
Clock = tuple[int, int, float]
"""`timing.ClockMap`: origin_ns, offset_ns, drift."""

class Unusual(ValueError):
    """What is not reckoned with there: Python does it."""

class Track:
    """As `index.TrackIndex`, while a leg's journals are walked."""

    def __init__(self, payload_type: int, clock_rate: int, is_vp8: bool) -> None: ...
    def found(self) -> tuple[bytes, bytes, int, int, int, int, int, int]:
        """Keys, sorted; anchors as pairs; first RTP time, first and last arrival (ns); foreign
        packets; width and height of the largest picture, or 0."""

class Reel:
    """One file's samples. Holds what it was given until `close`."""

    def __init__(self) -> None: ...
    def pictures(
        self,
        keys: Keys,
        segments: tuple[Segment, ...],
        clock_rate: int,
        first_rtp_time: int,
        first_arrival_ns: int,
        clocks: tuple[Clock, ...],
        under_way_ns: int,
        /,
    ) -> int:
        """Add a VP8 track; how many pictures of it are lost."""

    def sounds(
        self,
        keys: Keys,
        segments: tuple[Segment, ...],
        clock_rate: int,
        first_rtp_time: int,
        first_arrival_ns: int,
        clocks: tuple[Clock, ...],
        under_way_ns: int,
        /,
    ) -> None:
        """Add an Opus track, run together with those before."""

    def within(self, from_us: int, until_us: int, /) -> None:
        """Of all sounds, keep those of this time."""

    def begins(self) -> tuple[int | None, int | None, int, int]:
        """When the first picture and the first sound are, in µs; that picture's sides."""

    def measured(
        self, audio_gap_us: int, video_gap_us: int, /
    ) -> tuple[int, int, int, list[tuple[bool, int, int]]]:
        """Sounds, pictures, the end in µs, and gaps: whether of sound, from and to in µs."""

    def lay_out(self, zero_us: int, /) -> tuple[int, int, int, int, list[tuple[int, int, int]]]:
        """Bytes of all clusters, the least buffer to fill, the ends of pictures and of sounds in
        ms, and cues: ms, where the cluster begins behind the first's beginning, the block in it."""

    def fill(self, buffer: memoryview, /) -> int:
        """Write the next bytes of the clusters; how many. 0 after the last."""

    def close(self) -> None: ...

def survey(
    data: bytes | mmap, offset: int, seed: int, /
) -> tuple[int, int, int | None, int | None]:
    """Where the first record that does not hold begins, and as `scan.survey`."""

def walk(
    data: bytes | mmap, offset: int, base: int, t0_ns: int, seed: int, tracks: dict[int, Track], /
) -> int:
    """Index packets up to the first record that is none, and say where that begins."""

def begin_writing(descriptor: int, offset: int, length: int, /) -> None:
    """Have the kernel begin to write these bytes to the disk. Never fails."""
