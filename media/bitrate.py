"""How fast may a client send, how fast can it receive? Decided from what the relay sees anyway.

Sound comes first: it is small, never limited, and it stands in the same queue as the picture. So a
picture must shrink before a line's queue grows long, not when the queue overflows. Nothing here
costs the hot loop anything: its counters and the transit time of the latest packet are sampled a
few times a second (docs/decisions/0006-picture-gives-way.md says why that is enough).

    Uplink     a client's line to us: delay and loss as we measure them → what to allow (REMB)
    Downlink   our line to a client: its own estimate (REMB), round trip, loss → what to ask of
               senders, when to leave the picture out, how many repairs to send
    Inflow     what a client sends whatever it was allowed → when its line must be closed

Pure: times are monotonic nanoseconds and are arguments.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

MS: Final = 1_000_000  # nanoseconds
SECOND: Final = 1_000_000_000

# A VGA to 720p talking head wants no more than the cap; at the floor it is a slide show.
VIDEO_CAP_BPS: Final = 2_500_000
VIDEO_FLOOR_BPS: Final = 50_000
VIDEO_START_BPS: Final = 1_000_000
# Opus at 32 kbit/s in 50 packets a second, with every header down to IP, and some air.
SOUND_BPS: Final = 70_000
# IP, UDP and the SRTP tag; what the relay counts begins at the RTP header.
OVERHEAD_BYTES: Final = 44
# The share of a line's bits that is payload of full video packets.
PAYLOAD_SHARE: Final = 0.93

# A queue this long is heard as delay. Cameras and busy machines stutter by less.
QUEUE_HIGH_MS: Final = 80.0
QUEUE_LOW_MS: Final = 60.0
QUEUE_LONG_MS: Final = 200.0
# The shortest transit of the last ten to twenty seconds is the line itself.
BASE_WINDOW_NS: Final = 10 * SECOND
KNOWN_AFTER_NS: Final = 2 * SECOND
MAX_STREAMS: Final = 8
# Between two cuts a sender must have had the time to follow the first.
CUT_EVERY_NS: Final = 700 * MS
# A queue takes longer than this to drain; what is gone sooner was a machine that stumbled.
UNDO_WITHIN_NS: Final = 600 * MS
# A full queue loses many packets at once; without that a single cut goes half the way at most.
LOST_FOR_CERTAIN: Final = 3
# Cuts that did not shorten the delay: then there is no queue but a longer way.
CUTS_IN_VAIN: Final = 3
# What a cut found out about the line is believed this long.
CAPACITY_FRESH_NS: Final = 30 * SECOND
# From this share of it on the line is tried carefully: the queue of a bold step is long before two
# samples can tell of it, and the encoder has to follow, too.
NEARLY_FULL: Final = 0.85
CAREFUL_GROWTH: Final = 1.04

# The losses of a full queue are reported a second or two after it was seen.
LOSS_TOLD_NS: Final = 2 * SECOND
LOSS_LOW: Final = 0.02
LOSS_HIGH: Final = 0.10
# Loss alone, without delay, is a bad radio more often than a full line: slowing down further than
# this would cost the picture and win nothing. Beyond LOSS_HOPELESS it is a full line after all.
LOSS_FLOOR_BPS: Final = 250_000
LOSS_HOPELESS: Final = 0.30

ESTIMATE_FRESH_NS: Final = 10 * SECOND
# Below this a picture is not worth what it takes from the sound beside it ...
HOLD_BELOW_BPS: Final = 60_000
# ... and it is tried again after a while that doubles with every failure.
HOLD_AFTER_SECONDS: Final = 3
HOLD_FIRST_NS: Final = 8 * SECOND
HOLD_LONGEST_NS: Final = 60 * SECOND
# A picture let through again asks its sender for no more than this at first.
RESUME_BPS: Final = 80_000
RESUME_AHEAD_NS: Final = 1 * SECOND  # asked for before the picture is let through
# What a participant may send in all, whatever its client makes of REMB. The greediest honest one is
# a codec box with 1080p and a document camera; a page keeps to VIDEO_CAP_BPS a line.
INFLOW_CAP_BPS: Final = 12_000_000
# It may be so far ahead of the cap: four seconds at double the cap, or a burst of keyframes.
INFLOW_AHEAD_BYTES: Final = 6_000_000
# From here on it is reminded of its allowance.
INFLOW_MUCH_BYTES: Final = 1_500_000

REPAIR_BYTES: Final = 1_150
REPAIRS_LEAST: Final = 1
REPAIR_SHARE: Final = 0.1


class ShortestDelay:
    """The least of a value over the last ten to twenty seconds: what a line takes when empty."""

    __slots__ = ("_before", "_now", "_until_ns", "since_ns")

    def __init__(self, now_ns: int = 0) -> None:
        self.since_ns = now_ns
        self._before = self._now = float("inf")
        self._until_ns = 0

    def beyond(self, value_ms: float, now_ns: int) -> float:
        """How much `value_ms` is beyond the shortest, itself included."""
        if now_ns >= self._until_ns:
            self._before, self._now = self._now, float("inf")
            self._until_ns = now_ns + BASE_WINDOW_NS
        self._now = min(self._now, value_ms)
        return value_ms - min(self._before, self._now)


class Uplink:
    """One client's line to us. `rate_bps` is what all its pictures together may send."""

    __slots__ = (
        "_before_cut",
        "_bits",
        "_capacity_at_ns",
        "_capacity_bps",
        "_cut_at_ns",
        "_cut_queue_ms",
        "_cuts",
        "_first_queue_ms",
        "_has_lost",
        "_high_samples",
        "_line_bps",
        "_lost",
        "_quiet_seconds",
        "_recent_bps",
        "_sampled_at_ns",
        "_shortest",
        "queue_ms",
        "rate_bps",
    )

    def __init__(self) -> None:
        self.rate_bps = VIDEO_START_BPS
        self.queue_ms = 0.0
        self._shortest: dict[int, ShortestDelay] = {}
        self._sampled_at_ns = 0
        self._bits = 0
        self._line_bps = self._recent_bps = 0
        self._lost = 0
        self._has_lost = False
        self._quiet_seconds = 0
        self._high_samples = 0
        self._cuts = 0
        self._before_cut = (0, 0, 0)  # rate, capacity and its time: what an undone cut gives back
        self._first_queue_ms = self._cut_queue_ms = 0.0
        self._cut_at_ns = -LOSS_TOLD_NS
        self._capacity_bps = 0
        self._capacity_at_ns = 0

    @property
    def is_congested(self) -> bool:
        return self._high_samples >= 2

    def is_thin(self, now_ns: int) -> bool:
        """Whether it was found full of late: what a sender sends all at once stands in a queue."""
        return self._capacity_bps > 0 and now_ns - self._capacity_at_ns <= CAPACITY_FRESH_NS

    def sample(
        self, now_ns: int, *, packets: int, octets: int, lost: int, transits_ms: Mapping[int, float]
    ) -> bool:
        """A few times a second: the leg's counters (`lost`: missing at this moment, of all that
        was sent), and of every stream that has moved since the last sample the latest transit,
        whose zero may be anywhere. Whether `rate_bps` was changed, so that the sender must hear of
        it at once."""
        if not transits_ms:
            return False
        self._measure(now_ns, (octets + packets * OVERHEAD_BYTES) * 8)
        self._has_lost, self._lost = lost - self._lost >= LOST_FOR_CERTAIN, lost
        self.queue_ms = self._queue_ms(now_ns, transits_ms)
        if self.queue_ms < QUEUE_HIGH_MS:
            return self._calm(now_ns)
        self._high_samples += 1
        if not self.is_congested or now_ns - self._cut_at_ns < CUT_EVERY_NS or not self._line_bps:
            return False
        if self._cuts == 0:
            self._first_queue_ms = self.queue_ms
        elif self.queue_ms < 0.85 * self._cut_queue_ms:
            self._cut_queue_ms = self.queue_ms  # it drains: the sender follows
            return False
        elif self._cuts >= CUTS_IN_VAIN and self.queue_ms > 0.8 * self._first_queue_ms:
            self._shortest.clear()
            self._high_samples = self._cuts = 0
            return False
        self._cuts += 1
        self._cut(now_ns)
        return True

    def _calm(self, now_ns: int) -> bool:
        """No queue. Whether that shows that the last cut was mistaken, and it is undone."""
        is_mistake = (
            self._cuts == 1
            and self.queue_ms < QUEUE_LOW_MS
            and now_ns - self._cut_at_ns < UNDO_WITHIN_NS
        )
        self._high_samples = self._cuts = 0
        if is_mistake:
            self.rate_bps, self._capacity_bps, self._capacity_at_ns = self._before_cut
        return is_mistake

    def _measure(self, now_ns: int, bits: int) -> None:
        """What the line passes: the better of this sample and the last, for a sender or a machine
        that stumbles delivers nothing and then much."""
        elapsed_ns = now_ns - self._sampled_at_ns
        if self._sampled_at_ns and elapsed_ns:
            passed_bps = (bits - self._bits) * SECOND // elapsed_ns
            self._line_bps = max(passed_bps, (self._line_bps + passed_bps) // 2)
            self._recent_bps = max(passed_bps, self._recent_bps * 9 // 10)
        self._sampled_at_ns, self._bits = now_ns, bits

    def _queue_ms(self, now_ns: int, transits_ms: Mapping[int, float]) -> float:
        """A queue delays every stream; what delays only one is its sender. A stream that has only
        just begun knows nothing of the empty line."""
        known: list[float] = []
        fresh: list[float] = []
        for stream, transit_ms in transits_ms.items():
            shortest = self._shortest.get(stream)
            if shortest is None:
                if len(self._shortest) >= MAX_STREAMS:  # the oldest is the likeliest to be gone
                    del self._shortest[next(iter(self._shortest))]
                shortest = self._shortest[stream] = ShortestDelay(now_ns)
            is_known = now_ns - shortest.since_ns > KNOWN_AFTER_NS
            (known if is_known else fresh).append(shortest.beyond(transit_ms, now_ns))
        return min(known or fresh)

    def _cut(self, now_ns: int) -> None:
        """A line with a queue passes what it can: what arrives now is its capacity."""
        if self._cuts == 1:
            self._before_cut = (self.rate_bps, self._capacity_bps, self._capacity_at_ns)
        self._cut_at_ns = self._capacity_at_ns = now_ns
        self._cut_queue_ms = self.queue_ms
        self._capacity_bps = self._line_bps
        self._quiet_seconds = 0
        share = 0.85 if self.queue_ms < QUEUE_LONG_MS else 0.6
        wanted_bps = _picture_bps(int(self._line_bps * share))
        if not self._has_lost:  # a machine that stumbles sends late and little, but loses nothing
            wanted_bps = max(wanted_bps, min(self.rate_bps, _picture_bps(self._recent_bps)) // 2)
        self.rate_bps = min(self.rate_bps, wanted_bps)

    def second(self, now_ns: int, loss: float) -> None:
        """Once a second: the share of packets that was lost on the way to us."""
        if self._cuts or now_ns - self._cut_at_ns < LOSS_TOLD_NS:
            return  # the queue has told already, and better: what it lost is no second reason
        if loss > LOSS_HIGH:
            floor_bps = LOSS_FLOOR_BPS if loss < LOSS_HOPELESS else VIDEO_FLOOR_BPS
            self.rate_bps = max(int(self.rate_bps * (1 - loss / 2)), min(floor_bps, self.rate_bps))
            self._quiet_seconds = 0
        elif loss < LOSS_LOW and self.queue_ms < QUEUE_LOW_MS:
            self._quiet_seconds += 1
            self.rate_bps = min(int(self.rate_bps * self._growth(now_ns)), VIDEO_CAP_BPS)
        self.rate_bps = max(self.rate_bps, VIDEO_FLOOR_BPS)

    def _growth(self, now_ns: int) -> float:
        """By half where nothing is known. Where the line was full before, bolder with every second
        in which nothing happened, but in small steps near where it was full."""
        if not self.is_thin(now_ns):
            return 1.5
        growth = min(1.5, 1 + 0.03 * self._quiet_seconds)
        is_nearly_full = self.rate_bps > NEARLY_FULL * _picture_bps(self._capacity_bps)
        return min(growth, CAREFUL_GROWTH) if is_nearly_full else growth


class Load(StrEnum):
    FITS = "fits"
    MUCH = "much"
    TOO_MUCH = "too_much"


class Inflow:
    """What one participant sends, over all its legs and stays: a bucket that drains at the cap.

    In any T seconds it brings at most `INFLOW_AHEAD_BYTES`, T seconds' worth of the cap, and what
    comes between two samples.
    """

    __slots__ = ("_octets", "_sampled_at_ns", "ahead_bytes")

    def __init__(self) -> None:
        self.ahead_bytes = 0
        self._octets = 0
        self._sampled_at_ns = 0

    def new_leg(self) -> None:
        """The counter begins again at 0. What came too much stays: a leg is made in a second."""
        self._octets = 0

    def is_drained(self, now_ns: int) -> bool:
        """Whether nothing is left of what came too much."""
        return self.ahead_bytes * 8 * SECOND <= (now_ns - self._sampled_at_ns) * INFLOW_CAP_BPS

    def sample(self, now_ns: int, octets: int) -> Load:
        """`octets`: all that this leg has brought so far."""
        since_ns = now_ns - (self._sampled_at_ns or now_ns)  # before the first there was nothing
        drained = since_ns * INFLOW_CAP_BPS // (8 * SECOND)
        came, self._octets = octets - self._octets, octets
        self.ahead_bytes = max(0, self.ahead_bytes + came - drained)
        self._sampled_at_ns = now_ns
        if self.ahead_bytes > INFLOW_AHEAD_BYTES:
            self.ahead_bytes = INFLOW_AHEAD_BYTES  # who then sends as others do may come back
            return Load.TOO_MUCH
        return Load.MUCH if self.ahead_bytes > INFLOW_MUCH_BYTES else Load.FITS


class LeftInflows:
    """The buckets of those who have left, until they are drained, 4 s at most: whoever enters anew
    finds what came too much. No more than have left in that time."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: dict[str, Inflow] = {}

    def keep(self, who: str, inflow: Inflow, now_ns: int) -> None:
        self._left[who] = inflow
        self._left = {who: i for who, i in self._left.items() if not i.is_drained(now_ns)}

    def take(self, who: str) -> Inflow:
        return self._left.pop(who, None) or Inflow()

    def __len__(self) -> int:
        return len(self._left)


class Downlink:
    """Our line to one client. `limit_bps` is what all pictures for it together may take."""

    __slots__ = (
        "_cut_at_ns",
        "_estimate_at_ns",
        "_estimate_bps",
        "_excused_until_ns",
        "_hold_ns",
        "_low_seconds",
        "_own_bps",
        "_resume_at_ns",
        "_sent_bps",
        "_sent_octets",
        "_sent_seconds",
        "_shortest",
        "is_held",
        "queue_ms",
    )

    def __init__(self) -> None:
        self.is_held = False
        self.queue_ms = 0.0
        self._shortest = ShortestDelay()
        self._estimate_bps = 0
        self._estimate_at_ns = 0
        self._own_bps = VIDEO_CAP_BPS  # what we concluded ourselves
        self._cut_at_ns = 0
        self._excused_until_ns = 0
        self._low_seconds = 0
        self._hold_ns = HOLD_FIRST_NS
        self._resume_at_ns = 0
        self._sent_octets = 0
        self._sent_bps = 0
        self._sent_seconds = 0

    def estimated(self, bps: int, now_ns: int) -> bool:
        """The client's own estimate of the pictures it can get. Whether it has fallen, so that
        senders must hear of it at once."""
        before_bps = self.limit_bps(now_ns)
        self._estimate_bps, self._estimate_at_ns = bps, now_ns
        return self.limit_bps(now_ns) < 0.9 * before_bps

    def round_trip(self, round_trip_ms: float, uplink_queue_ms: float, now_ns: int) -> None:
        """A measured round trip; the part that is our client's queue towards us is not ours."""
        self.queue_ms = max(0.0, self._shortest.beyond(round_trip_ms, now_ns) - uplink_queue_ms)

    def excuse(self, now_ns: int, until_ns: int) -> None:
        """Until then its losses and round trips tell of a silence, or of a halt of ours. What the
        client said before is the best that is known until it speaks again."""
        self._excused_until_ns = until_ns
        self._estimate_at_ns = now_ns

    def is_excused(self, now_ns: int) -> bool:
        return now_ns < self._excused_until_ns

    def is_asking(self, now_ns: int) -> bool:
        """Whether senders must heed this line: it gets pictures, or will in a moment."""
        return not self.is_held or now_ns >= self._resume_at_ns - RESUME_AHEAD_NS

    def limit_bps(self, now_ns: int) -> int:
        """What its pictures may take at present."""
        if self.is_held:
            return RESUME_BPS
        if self._is_estimated(now_ns):
            return min(self._estimate_bps, self._own_bps)
        return self._own_bps

    def _is_estimated(self, now_ns: int) -> bool:
        return self._estimate_bps > 0 and now_ns - self._estimate_at_ns < ESTIMATE_FRESH_NS

    def second(self, now_ns: int, *, video_octets: int, loss: float) -> bool:
        """Once a second: what pictures it was sent in all, and the worst loss it reported. Whether
        `is_held` has changed."""
        before_bps, self._sent_bps = self._sent_bps, max(0, video_octets - self._sent_octets) * 8
        self._sent_octets = video_octets
        self._sent_seconds = self._sent_seconds + 1 if self._sent_bps else 0
        if self.is_held:
            if now_ns < self._resume_at_ns:
                return False
            self.is_held = False
            self._low_seconds = 0
            self._estimate_bps = 0  # it was made without a picture
            self._own_bps = RESUME_BPS
            self._cut_at_ns = now_ns
            return True
        # A client that estimates knows better than a round trip, which also grows with the way.
        is_queueing = self.queue_ms > QUEUE_LONG_MS and not self._is_estimated(now_ns)
        is_full = (is_queueing or loss > LOSS_HOPELESS) and not self.is_excused(now_ns)
        if is_full and self._sent_seconds > 1 and now_ns - self._cut_at_ns > 2 * CUT_EVERY_NS:
            self._cut_at_ns = now_ns
            # A second with little in it says nothing of the line: after a halt reports tell of all
            # that was lost in it, and a picture that has just come back is small.
            most_bps = max(self._sent_bps, before_bps)
            self._own_bps = int(0.7 * min(self.limit_bps(now_ns), most_bps))
        elif not is_full:
            self._own_bps = min(VIDEO_CAP_BPS, self._own_bps * 6 // 5)
        return self._review_hold(now_ns)

    def _review_hold(self, now_ns: int) -> bool:
        if not self._sent_bps or self.limit_bps(now_ns) >= HOLD_BELOW_BPS:
            self._low_seconds = 0
            if now_ns - self._resume_at_ns > HOLD_LONGEST_NS:
                self._hold_ns = HOLD_FIRST_NS
            return False
        self._low_seconds += 1
        if self._low_seconds < HOLD_AFTER_SECONDS:
            return False
        self.is_held = True
        self._resume_at_ns = now_ns + self._hold_ns
        self._hold_ns = min(2 * self._hold_ns, HOLD_LONGEST_NS)
        return True

    def repairs(self, now_ns: int, most: int) -> int:
        """How many packets may be sent again in this second: what the line has room for beside the
        picture itself, and a tenth of it in any case."""
        if self.is_held:
            return 0
        limit_bps = self.limit_bps(now_ns)
        room_bps = max(limit_bps - self._sent_bps, int(REPAIR_SHARE * limit_bps))
        return min(most, max(REPAIRS_LEAST, room_bps // (8 * REPAIR_BYTES)))


def share_bps(limit_bps: int, pictures: int) -> int:
    """One picture's part of a line's limit, never less than a slide show takes."""
    return max(limit_bps // max(1, pictures), VIDEO_FLOOR_BPS)


def slowest_bps(limits_bps: Iterable[int]) -> int:
    """What a sender may send so that all of its receivers can follow."""
    return max(min(limits_bps, default=VIDEO_CAP_BPS), VIDEO_FLOOR_BPS)


def _picture_bps(line_bps: int) -> int:
    """What is left for pictures on a line that carries `line_bps` with every header."""
    return max(int((line_bps - SOUND_BPS) * PAYLOAD_SHARE), VIDEO_FLOOR_BPS)
