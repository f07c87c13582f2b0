"""Where keyframes begin and end in what a publication's cache still holds.

Asked for, answered, overtaken: whether another one must be asked for (`media/feedback.py`) is read
from the packets themselves, without opening a picture. The numbers are the publication's own.
"""

from dataclasses import dataclass
from typing import Final

from media.depayload import read_vp8, vp8_size
from media.rtp import payload_offset
from media.tables import Publication

_MOST_PACKETS: Final = 256  # of the largest keyframe
_H264_IDR, _H264_SPS, _H264_STAP_A, _H264_FU_A = 5, 7, 24, 28


def begins_keyframe(packet: bytes, mime: str) -> bool:
    """Whether this RTP packet is the first of a keyframe; False for what cannot be read."""
    try:
        payload = packet[payload_offset(packet) :]
    except ValueError:
        return False
    if mime == "video/VP8":
        piece = read_vp8(payload)
        return piece is not None and piece.starts and vp8_size(piece.data) is not None
    if len(payload) < 4:
        return False
    unit = payload[0] & 0x1F
    if unit == _H264_STAP_A:  # RFC 6184 §5.7.1: two bytes of length before the first unit
        unit = payload[3] & 0x1F
    elif unit == _H264_FU_A and payload[1] & 0x80:
        unit = payload[1] & 0x1F
    return unit in (_H264_IDR, _H264_SPS)


@dataclass(frozen=True, slots=True)
class Keyframe:
    """The numbers of its first and its last packet so far, and whether it goes on after that."""

    first_seq: int
    last_seq: int
    is_coming: bool

    def will_do(self, publication: Publication) -> bool:
        """Whether everybody who asked has got it, or will in a moment."""
        begins_after = (self.first_seq - publication.keyframe_from_seq) & 0xFFFF < 0x8000
        ends_after = (self.last_seq - publication.keyframe_missed_seq) & 0xFFFF < 0x8000
        return begins_after and ends_after


def newest_keyframe(publication: Publication) -> Keyframe | None:
    """Looked for from the edge of the stream backwards; None if there is none among the latest."""
    if publication.source is None:
        return None
    mime, edge_seq = publication.source.codec.mime, (publication.next_seq - 1) & 0xFFFF
    timestamp = first_seq = last_seq = -1
    is_whole = False
    for back in range(_MOST_PACKETS):
        seq = (edge_seq - back) & 0xFFFF
        kept = publication.cache[seq & publication.cache_mask]
        if kept is None or kept[0] != seq:
            continue
        if kept[1] != timestamp:  # the last packet of the picture before
            if first_seq >= 0:
                break
            timestamp, last_seq, is_whole = kept[1], seq, bool(kept[2][1] & 0x80)
        if begins_keyframe(kept[2], mime):  # in H.264 several packets do
            first_seq = seq
    if first_seq < 0:
        return None
    return Keyframe(first_seq, last_seq, is_coming=last_seq == edge_seq and not is_whole)


def has_keyframe(publication: Publication, since_seq: int) -> bool:
    """Whether one has begun from `since_seq` on; of a look a fraction of a second ago."""
    if publication.source is None:
        return False
    mime, cache = publication.source.codec.mime, publication.cache
    count = min((publication.next_seq - since_seq) & 0xFFFF, len(cache))
    for back in range(1, count + 1):
        seq = (publication.next_seq - back) & 0xFFFF
        kept = cache[seq & publication.cache_mask]
        if kept is not None and kept[0] == seq and begins_keyframe(kept[2], mime):
            return True
    return False
