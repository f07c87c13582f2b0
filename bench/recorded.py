"""Recordings of any length in seconds: real VP8 and Opus, encoded once and repeated as journals.

What a camera sends is not random: a clip of ten seconds is encoded at a VGA call's rate, cut into
RTP packets and written over and over with rising numbers and times, as two parties. The journals
are sealed as a recorder seals them, so everything after a call can be measured without holding one.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final

import av
import av.filter
from av.audio.codeccontext import AudioCodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from core.ids import ParticipantId, SessionId
from media import journal, manifest
from media.journal import JournalHeader, Seal, SealReason, SenderReport, TrackRecord
from media.rtp import HEADER
from media.sdp import OPUS, VP8
from media.tracks import CodecInfo, TrackName

CLIP_S: Final = 10
FPS: Final = 30
VIDEO_BPS: Final = 800_000
AUDIO_BPS: Final = 32_000
KEYFRAME_EVERY_S: Final = 5
PACKET_BYTES: Final = 1100
STARTED: Final = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
SESSION: Final = SessionId("5" * 32)
PARTIES: Final = (("a" * 32, "petitioner"), ("b" * 32, "official"))
_T0_NS: Final = 77_000_000_000
_DELAY_NS: Final = 20_000_000
_NTP_EPOCH_S: Final = 2_208_988_800
_RTP: Final = int(journal.RecordType.RTP)


@dataclass(frozen=True, slots=True)
class _Sent:
    """One packet of the clip: its payload, and when it leaves after the clip's beginning."""

    at_us: int
    track: int
    marker: bool
    payload: bytes


def make_recording(directory: Path, seconds: int) -> int:
    """Write a sealed recording of two parties; the number of packets in it."""
    directory.mkdir(parents=True)
    clip = _clip()
    packets = sum(_write_party(directory, clip, seconds, *party) for party in PARTIES)
    manifest.close_book(directory, sealed_at=STARTED)
    return packets


def _write_party(directory: Path, clip: list[_Sent], seconds: int, who: str, role: str) -> int:
    header = JournalHeader(
        session_id=SESSION, participant_id=ParticipantId(who), leg=1, segment=0, role=role,
        label=role, t0_mono_ns=_T0_NS, t0_wall_ns=int(STARTED.timestamp()) * 10**9,
        boot_id=manifest.boot_id(),
    )  # fmt: skip
    seed = header.crc_seed
    count = 0
    with (directory / header.file_name).open("wb") as file:
        file.write(header.encode())
        for index, (codec, name) in enumerate(
            ((VP8, TrackName.CAMERA), (OPUS, TrackName.MICROPHONE))
        ):
            file.write(journal.encode_track(seed, _T0_NS, TrackRecord(index, index, name, codec)))
        for record in _records(clip, seconds, seed):
            file.write(record)
            count += 1
        end = file.tell()
        # The digest inside the seal is only told, never checked: the manifest vouches for the file.
        seal = Seal(SealReason.ENDED, count + 2, end, "")
        file.write(journal.encode_seal(seed, _T0_NS + seconds * 10**9, seal))
    return count


def _records(clip: list[_Sent], seconds: int, seed: int) -> Iterator[bytes]:
    """Every packet of a party in order of arrival, and each track's report once a second."""
    seqs = [0x3FF0, 0xFFF0]
    codecs = (VP8, OPUS)
    reported_s = -1
    for begin_us in range(0, seconds * 1_000_000, CLIP_S * 1_000_000):
        for sent in clip:
            at_us = begin_us + sent.at_us
            if at_us >= seconds * 1_000_000:
                return
            at_ns = _T0_NS + _DELAY_NS + at_us * 1000
            if at_us // 1_000_000 > reported_s:
                reported_s = at_us // 1_000_000
                for track, codec in enumerate(codecs):
                    yield journal.encode_sender_report(seed, track, at_ns, _report(at_us, codec))
            codec = codecs[sent.track]
            head = HEADER.pack(
                0x80, codec.payload_type | sent.marker << 7, seqs[sent.track] & 0xFFFF,
                _ticks(at_us, codec), sent.track,
            )  # fmt: skip
            seqs[sent.track] += 1
            yield journal.encode_record(seed, _RTP, sent.track, at_ns, head + sent.payload)


def _ticks(at_us: int, codec: CodecInfo) -> int:
    return (at_us * codec.clock_rate // 1_000_000) & 0xFFFFFFFF


def _report(at_us: int, codec: CodecInfo) -> SenderReport:
    ntp_us = (int(STARTED.timestamp()) + _NTP_EPOCH_S) * 1_000_000 + at_us
    return SenderReport((ntp_us << 32) // 1_000_000, _ticks(at_us, codec))


# --- the clip ------------------------------------------------------------------------------------


@cache
def _clip() -> list[_Sent]:
    """Ten seconds of one party in the order in which they leave."""
    sent = []
    for index, frame in enumerate(_pictures()):
        pieces = [frame[i : i + PACKET_BYTES] for i in range(0, len(frame), PACKET_BYTES)]
        picture_id = struct.pack("!H", 0x8000 | index)
        for number, piece in enumerate(pieces):
            head = (b"\x80" if number else b"\x90") + b"\x80" + picture_id
            last = number == len(pieces) - 1
            # All packets of a picture carry its time, whenever each of them leaves.
            sent.append(_Sent(index * 1_000_000 // FPS, 0, last, head + piece))
    sent += [_Sent(index * 20_000, 1, False, data) for index, data in enumerate(_sounds())]
    return sorted(sent, key=lambda one: one.at_us)


def _pictures() -> Iterator[bytes]:
    """A moving picture with a camera's noise, encoded as Chromium encodes a call."""
    encoder = av.CodecContext.create("libvpx", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = 640, 480, "yuv420p"
    encoder.time_base = Fraction(1, FPS)
    encoder.framerate = Fraction(FPS)
    encoder.bit_rate = VIDEO_BPS
    encoder.gop_size = KEYFRAME_EVERY_S * FPS
    encoder.options = {
        "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "1",
        "minrate": str(VIDEO_BPS), "maxrate": str(VIDEO_BPS), "bufsize": str(VIDEO_BPS),
    }  # fmt: skip
    graph = av.filter.Graph()
    source = graph.add("testsrc2", f"size=640x480:rate={FPS}:duration={CLIP_S}")
    noise = graph.add("noise", "alls=6:allf=t")
    plain = graph.add("format", "yuv420p")
    sink = graph.add("buffersink")
    graph.link_nodes(source, noise, plain, sink).configure()
    for index in range(CLIP_S * FPS):
        frame = graph.pull()
        assert isinstance(frame, av.VideoFrame)
        frame.pts, frame.time_base = index, Fraction(1, FPS)
        # The source calls all of its pictures complete; an encoder would make each a keyframe.
        frame.pict_type = PictureType.NONE
        yield from (bytes(packet) for packet in encoder.encode(frame))


def _sounds() -> Iterator[bytes]:
    """A voice's rhythm: tone for 1.6 of every 3 seconds."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "s16"
    encoder.bit_rate = AUDIO_BPS
    graph = av.filter.Graph()
    tone = f"0.4*sin(300*2*PI*t)*lt(mod(t\\,3)\\,1.6):s=48000:d={CLIP_S}:n=960"
    source = graph.add("aevalsrc", f"exprs={tone}")
    sink = graph.add("abuffersink")
    form = graph.add("aformat", "sample_fmts=s16:channel_layouts=mono")
    graph.link_nodes(source, form, sink).configure()
    for index in range(CLIP_S * 50):
        frame = graph.pull()
        assert isinstance(frame, av.AudioFrame)
        frame.pts = index * 960
        yield from (bytes(packet) for packet in encoder.encode(frame))
