"""RTP and RTCP as bytes: header views, sequence arithmetic, RTX, feedback. Pure.

RTP is read in place because the hot loop sees every packet; RTCP is rare (a few per second and
peer) and goes through aiortc's codec. Whatever comes from outside is checked for length before it
is indexed: these functions return None or raise ValueError for lies, never IndexError.

RFC 3550 (RTP, RTCP), 8285 (header extensions), 4585 and 5104 (feedback), 4588 (RTX).
"""

import struct
from struct import error as struct_error

from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    pack_remb_fci,
    unpack_remb_fci,
)

HEADER = struct.Struct("!BBHII")  # V P X CC | M PT | sequence | timestamp | SSRC
HEADER_BYTES = 12
SDES_CNAME = 1
ONE_BYTE_EXTENSIONS = 0xBEDE
TWO_BYTE_EXTENSIONS = 0x1000  # the low four bits are free (RFC 8285 §4.3)


# -- Sequence numbers ----------------------------------------------------------------------------


def seq_newer(a: int, b: int) -> bool:
    """Whether RTP sequence number `a` follows `b`, modulo 2**16.

    Serial arithmetic (RFC 1982): a distance of exactly half is undefined there, older here.
    """
    return 0 < ((a - b) & 0xFFFF) < 0x8000


def seq_distance(newer: int, older: int) -> int:
    """Steps from `older` to `newer`, modulo 2**16; negative if `newer` is in truth the older."""
    distance = (newer - older) & 0xFFFF
    return distance if distance < 0x8000 else distance - 0x10000


# -- RTP headers ---------------------------------------------------------------------------------


def payload_offset(packet: bytes) -> int:
    """Where the payload starts, behind CSRCs and header extensions.

    Raises ValueError if the header claims more bytes than there are.
    """
    if len(packet) < HEADER_BYTES or packet[0] >> 6 != 2:
        raise ValueError("not an RTP packet")
    offset = HEADER_BYTES + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        if len(packet) < offset + 4:
            raise ValueError("RTP header extension is cut")
        offset += 4 + 4 * int.from_bytes(packet[offset + 2 : offset + 4], "big")
    if offset > len(packet):
        raise ValueError("RTP header is longer than its packet")
    return offset


def payload_length(packet: bytes) -> int:
    """Bytes of payload without padding; 0 for the padding-only packets of bandwidth probes.

    Raises ValueError if header or padding lie.
    """
    length = len(packet) - payload_offset(packet)
    if packet[0] & 0x20:
        padding = packet[-1]
        if not 0 < padding <= length:
            raise ValueError("RTP padding is longer than its packet")
        length -= padding
    return length


def renumbered(packet: bytes, payload_type: int) -> bytes:
    """`packet` under another payload type and without header extensions, whose ids would be the
    sender's own. Raises ValueError for a malformed header."""
    offset = payload_offset(packet)
    head = bytearray(packet[: HEADER_BYTES + 4 * (packet[0] & 0x0F)])
    head[0] &= 0xEF
    head[1] = (packet[1] & 0x80) | payload_type
    return bytes(head) + packet[offset:]


def find_extension(packet: bytes, extension_id: int) -> tuple[int, int] | None:
    """(offset, length) of the value of a header extension, or None if absent or malformed.

    Understands the one-byte and the two-byte form of RFC 8285.
    """
    try:
        end = payload_offset(packet)
    except ValueError:
        return None
    if not packet[0] & 0x10:
        return None
    offset = HEADER_BYTES + 4 * (packet[0] & 0x0F)
    profile = int.from_bytes(packet[offset : offset + 2], "big")
    offset += 4
    if profile == ONE_BYTE_EXTENSIONS:
        while offset < end:
            head = packet[offset]
            if head == 0:  # padding between elements
                offset += 1
                continue
            if head >> 4 == 15:  # reserved: stop (RFC 8285 §4.2)
                return None
            length = (head & 0x0F) + 1
            if head >> 4 == extension_id:
                return (offset + 1, length) if offset + 1 + length <= end else None
            offset += 1 + length
    elif profile & 0xFFF0 == TWO_BYTE_EXTENSIONS:
        while offset + 1 < end:
            element_id, length = packet[offset], packet[offset + 1]
            if element_id == 0:
                offset += 1
                continue
            if element_id == extension_id:
                return (offset + 2, length) if offset + 2 + length <= end else None
            offset += 2 + length
    return None


def abs_send_time(now_ns: int) -> bytes:
    """The abs-send-time value for a monotonic instant: 6.18 fixed-point seconds, 3 bytes."""
    return (((now_ns << 18) // 1_000_000_000) & 0xFFFFFF).to_bytes(3, "big")


# -- Retransmission (RFC 4588) -------------------------------------------------------------------


def restore_rtx(packet: bytes, payload_type: int, ssrc: int) -> bytes | None:
    """The original packet inside an RTX packet, under its own payload type, number and SSRC.

    None if it holds no original: senders also use the RTX stream for padding.
    """
    try:
        offset = payload_offset(packet)
        if payload_length(packet) < 2:
            return None
    except ValueError:
        return None
    restored = bytearray(packet[:offset])
    restored += packet[offset + 2 :]
    restored[1] = (packet[1] & 0x80) | payload_type
    restored[2:4] = packet[offset : offset + 2]
    restored[8:12] = ssrc.to_bytes(4, "big")
    return bytes(restored)


def wrap_rtx(
    packet: bytes, *, payload_type: int, ssrc: int, sequence: int, original: int, timestamp: int
) -> bytes:
    """`packet` as an RTX packet: its payload behind the number (`original`) it was first sent as.

    Raises ValueError for a malformed header.
    """
    offset = payload_offset(packet)
    wrapped = bytearray(packet[:offset])
    HEADER.pack_into(
        wrapped, 0, packet[0], (packet[1] & 0x80) | payload_type, sequence, timestamp, ssrc
    )
    wrapped += original.to_bytes(2, "big")
    wrapped += packet[offset:]
    return bytes(wrapped)


# -- RTCP ----------------------------------------------------------------------------------------


def parse_rtcp(data: bytes) -> list[AnyRtcpPacket]:
    """The packets of a compound (or reduced-size) RTCP datagram; unknown types are skipped.

    Raises ValueError if any part is malformed: the rest of a lying datagram is not believed either.
    """
    try:
        packets: list[AnyRtcpPacket] = RtcpPacket.parse(data)
    except (struct_error, IndexError) as error:
        raise ValueError("malformed RTCP") from error
    return packets


def build_nack(sender_ssrc: int, media_ssrc: int, lost: list[int]) -> bytes:
    """A generic NACK for `lost` (ascending modulo 2**16)."""
    return bytes(
        RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=sender_ssrc, media_ssrc=media_ssrc, lost=lost)
    )


def build_pli(sender_ssrc: int, media_ssrc: int) -> bytes:
    """A picture loss indication: please send a keyframe."""
    return bytes(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=sender_ssrc, media_ssrc=media_ssrc))


def build_remb(sender_ssrc: int, bitrate_bps: int, ssrcs: list[int]) -> bytes:
    """The most that the sender of `ssrcs` together should send."""
    return bytes(
        RtcpPsfbPacket(
            fmt=RTCP_PSFB_APP,
            ssrc=sender_ssrc,
            media_ssrc=0,
            fci=pack_remb_fci(bitrate_bps, ssrcs),
        )
    )


def read_remb(packet: RtcpPsfbPacket) -> int | None:
    """The bits per second of a REMB message, or None if this feedback is something else."""
    try:
        bitrate_bps: int = unpack_remb_fci(packet.fci)[0]
    except (ValueError, struct_error):
        return None
    return bitrate_bps


def build_receiver_report(sender_ssrc: int, reports: list[RtcpReceiverInfo], cname: str) -> bytes:
    """RR and SDES, the smallest complete compound (RFC 3550 §6.1). At most 31 reports."""
    return bytes(RtcpRrPacket(ssrc=sender_ssrc, reports=reports[:31])) + _sdes(sender_ssrc, cname)


def build_sender_report(
    ssrc: int, *, ntp_time: int, rtp_time: int, packets: int, octets: int, cname: str
) -> bytes:
    """SR and SDES for one forwarded stream. `ntp_time` is NTP's 32.32 fixed point."""
    info = RtcpSenderInfo(
        ntp_timestamp=ntp_time,
        rtp_timestamp=rtp_time,
        packet_count=packets & 0xFFFFFFFF,
        octet_count=octets & 0xFFFFFFFF,
    )
    return bytes(RtcpSrPacket(ssrc=ssrc, sender_info=info)) + _sdes(ssrc, cname)


def _sdes(ssrc: int, cname: str) -> bytes:
    item = (SDES_CNAME, cname.encode()[:255])
    return bytes(RtcpSdesPacket(chunks=[RtcpSourceInfo(ssrc=ssrc, items=[item])]))


def ntp_middle(ntp_time: int) -> int:
    """The middle 32 bits of an NTP time, by which receiver reports name a sender report."""
    return (ntp_time >> 16) & 0xFFFFFFFF
