"""What a party of an alignment drill films and says: flashes and beeps, encoded as it goes.

Not encoded before: the sound card's clock is wrong by design, so no two parties' samples are alike,
and a camera owes a keyframe to whoever asks.
"""

import math
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.audio.codeccontext import AudioCodecContext
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from bench.alignment_script import BEEP_S, CAMERA_FPS, SAMPLE_RATE, SOUND_SAMPLES, Clocks
from media.sdp import VP8
from media.tracks import CodecInfo

PAUSE_TICK: Final = 20
"""In a pause one packet in 20 goes out: Opus's comfort noise every 400 ms."""

VIDEO_BPS: Final = 220_000
DARK, WHITE = 20, 235
_TEXTURES: Final = 5


class Camera:
    """Pictures that are dark or white, with enough noise to fill packets."""

    def __init__(self, codec: CodecInfo, size: tuple[int, int], fps: int) -> None:
        self.codec = codec
        self.is_keyframe_due = True
        self._packer: Any = Vp8Encoder() if codec is VP8 else H264Encoder()
        context = av.CodecContext.create("libvpx" if codec is VP8 else "libx264", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = size
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, fps)
        context.framerate = Fraction(fps)
        context.bit_rate = VIDEO_BPS * fps // CAMERA_FPS
        context.gop_size = 10_000  # when asked, as in a call
        context.thread_count = 1
        context.options = (
            {"deadline": "realtime", "cpu-used": "16", "lag-in-frames": "0", "error-resilient": "1"}
            if codec is VP8
            else {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
        )
        self._context = context
        self._count = 0
        width, height = size
        rng = np.random.default_rng(3)
        self._textures = [
            rng.integers(-14, 15, (height // 4, width), dtype=np.int16) for _ in range(_TEXTURES)
        ]

    def take(self, *, is_white: bool) -> list[bytes]:
        """The next picture's RTP payloads."""
        texture = self._textures[self._count % _TEXTURES]
        height, width = self._context.height, self._context.width
        level = WHITE if is_white else DARK
        planes: NDArray[np.uint8] = np.full((height * 3 // 2, width), level, np.uint8)
        planes[: len(texture)] = texture + level
        planes[height:] = 128
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = self._count
        self._count += 1
        if self.is_keyframe_due:
            self.is_keyframe_due = False
            frame.pict_type = av.video.frame.PictureType.I
        return [
            payload
            for packet in self._context.encode(frame)
            for payload in self._packer.pack(packet)[0]
        ]


class Voice:
    """A quiet room, and a tone at the instants: sampled by the party's own sound card."""

    def __init__(self, clocks: Clocks, instants_s: list[float]) -> None:
        self._clocks = clocks
        self._instants_s = np.array(instants_s)
        self._noise = np.random.default_rng(4).normal(0, 0.0005, SOUND_SAMPLES * 16)
        context = av.CodecContext.create("libopus", "w")
        assert isinstance(context, AudioCodecContext)
        context.sample_rate, context.layout, context.format = SAMPLE_RATE, "mono", "s16"
        context.time_base = Fraction(1, SAMPLE_RATE)
        context.bit_rate = 32_000
        context.options = {"application": "voip", "compression_level": "3"}
        self._context = context

    def take(self, index: int) -> bytes:
        """Packet `index`: samples from `index` x 960 on."""
        first = index * SOUND_SAMPLES
        begins_s, ends_s = (self._clocks.sampled_s(first + n) for n in (0, SOUND_SAMPLES))
        at_s = np.linspace(begins_s, ends_s, SOUND_SAMPLES, endpoint=False)
        since_s = at_s - self._instants_s[np.searchsorted(self._instants_s, at_s, "right") - 1]
        tone = np.where(
            (since_s >= 0) & (since_s < BEEP_S), 0.6 * np.sin(2 * math.pi * 1000 * since_s), 0.0
        )
        start = index % 16 * SOUND_SAMPLES
        samples = tone + self._noise[start : start + SOUND_SAMPLES]
        frame = av.AudioFrame.from_ndarray(
            (samples * 32_000).astype(np.int16).reshape(1, -1), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = SAMPLE_RATE, first
        return b"".join(bytes(packet) for packet in self._context.encode(frame))

    def is_quiet(self, index: int) -> bool:
        """Whether a sender that saves bytes may leave packet `index` out."""
        begins_s = self._clocks.sampled_s(index * SOUND_SAMPLES)
        near_s = np.abs(self._instants_s - begins_s).min()
        return bool(near_s > 2 * BEEP_S) and index % PAUSE_TICK != 0
