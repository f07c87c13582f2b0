"""The Python media client and the loopback call, under the names that tests use.

Both live in `media/` because `doctor` and the seed need them too; see there.
"""

from media.client import (
    BeepTrack,
    FlashTrack,
    ReceivedTrack,
    RtcClient,
    Zero,
    flash_and_beep,
    loopback_gathering,
    mean_luma,
    tracks_of,
)
from media.selftest import LoopbackCall

__all__ = [
    "BeepTrack",
    "FlashTrack",
    "LoopbackCall",
    "ReceivedTrack",
    "RtcClient",
    "Zero",
    "flash_and_beep",
    "loopback_gathering",
    "mean_luma",
    "tracks_of",
]
