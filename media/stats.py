"""What a peer's line is like, in numbers for `doctor` and logs and in three words for people."""

from dataclasses import dataclass

from core.ids import ParticipantId
from media.events import Quality


@dataclass(frozen=True, slots=True)
class PeerStats:
    """One peer at one moment. Losses are fractions of the last second; bitrates are averages over
    it; counters run since the leg began. `round_trip_ms` is None until measured."""

    participant_id: ParticipantId
    leg: int
    state: str  # new | connecting | connected | silent | lost
    srtp_profile: str
    round_trip_ms: float | None
    loss_in: float
    loss_out: float
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int
    bitrate_in_bps: int
    bitrate_out_bps: int
    rejected: int
    quality: Quality
    freezes: int  # of its pictures, for everyone (media/freezes.py)
    frozen_ms: int
    is_picture_held: bool  # its own line is too thin: it is sent sound only


def judge(*, loss: float, round_trip_ms: float) -> Quality:
    """The word for a line that loses `loss` of its packets, in its worse direction.

    Opus with in-band FEC hides about 3 %; beyond 10 % words are lost. Above 300 ms people start to
    interrupt each other (ITU-T G.114 puts the limit for one way at 150-400 ms).
    """
    if loss > 0.10 or round_trip_ms > 600:
        return Quality.POOR
    if loss > 0.03 or round_trip_ms > 300:
        return Quality.FAIR
    return Quality.GOOD
