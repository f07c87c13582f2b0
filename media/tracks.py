"""The words both halves of the media plane share: which tracks exist and how one is encoded.

Pure values, imported by the relay, the recorder, the muxer and signaling alike. A track's name is
its identity towards people ("the document camera"); SSRCs and payload types are transport details
that may change with every leg.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Kind = Literal["audio", "video"]


class TrackName(StrEnum):
    """What a participant can publish. The value is the word on the wire and in journals."""

    CAMERA = "camera"
    MICROPHONE = "microphone"
    DOCUMENT = "document"
    SCREEN = "screen"

    @property
    def kind(self) -> Kind:
        """The m-line kind that carries this track."""
        return "audio" if self is TrackName.MICROPHONE else "video"


@dataclass(frozen=True, slots=True)
class CodecInfo:
    """How the packets of one SSRC are encoded, as negotiated in SDP.

    `mime` is spelled as registered ("video/VP8", "video/H264", "audio/opus"); `channels` is 1 for
    video; `fmtp` is the format parameter text as it stood in the offer ("" if none).
    """

    mime: str
    payload_type: int
    clock_rate: int
    channels: int
    fmtp: str
