"""Sound first: a picture shrinks before a queue grows long, and only as far as it must."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from core.clock import ManualClock
from media.bitrate import (
    HOLD_FIRST_NS,
    INFLOW_AHEAD_BYTES,
    INFLOW_CAP_BPS,
    LOSS_FLOOR_BPS,
    MS,
    OVERHEAD_BYTES,
    SECOND,
    SOUND_BPS,
    VIDEO_CAP_BPS,
    VIDEO_FLOOR_BPS,
    VIDEO_START_BPS,
    Downlink,
    Inflow,
    LeftInflows,
    Load,
    Uplink,
    share_bps,
    slowest_bps,
)


@dataclass
class Line:
    """A sender that obeys, behind a line of `capacity_bps` with a queue; 50 ms a step."""

    uplink: Uplink
    capacity_bps: int = 10_000_000
    extra_ms: float = 0.0
    loss: float = 0.0
    wants_bps: int = 1_200_000
    now_ns: int = SECOND
    queue_bits: float = 0.0
    packets: int = 0
    octets: int = 0
    lost: int = 0
    longest_ms: float = 0.0
    cuts: int = 0

    def run(self, seconds: float) -> None:
        for step in range(int(seconds * 20)):
            self.now_ns += 50 * MS
            offered = SOUND_BPS + min(self.wants_bps, self.uplink.rate_bps) / 0.93
            room = min(self.capacity_bps * 0.53, 160_000) + self.capacity_bps / 20
            self.queue_bits += offered / 20
            self.lost += int(max(0.0, self.queue_bits - room) / 9000)
            self.queue_bits = min(self.queue_bits, room)
            passed = min(self.queue_bits, self.capacity_bps / 20)
            self.queue_bits -= passed
            self.packets += 4
            self.octets += int(passed / 8) - 4 * OVERHEAD_BYTES
            if step % 5 == 4:
                self.cuts += self.uplink.sample(
                    self.now_ns, packets=self.packets, octets=self.octets, lost=self.lost,
                    transits_ms={1: 7000 + self.extra_ms + self.queue_ms},
                )  # fmt: skip
                self.longest_ms = max(self.longest_ms, self.uplink.queue_ms)
            if step % 20 == 19:
                self.uplink.second(self.now_ns, self.loss)

    @property
    def queue_ms(self) -> float:
        return self.queue_bits * 1000 / self.capacity_bps


def test_a_good_line_is_allowed_more_and_more_up_to_the_cap() -> None:
    line = Line(Uplink())
    line.run(10)
    assert line.uplink.rate_bps == VIDEO_CAP_BPS
    assert line.cuts == 0


def test_a_line_that_becomes_thin_loses_its_queue_within_seconds_and_stays_short() -> None:
    line = Line(Uplink())
    line.run(10)
    line.capacity_bps = 300_000
    line.run(4)
    assert line.queue_ms < 80
    line.longest_ms = 0
    line.run(30)
    assert line.longest_ms < 200
    assert 120_000 < line.uplink.rate_bps < 280_000  # and is used


def test_a_line_that_recovers_is_used_again() -> None:
    line = Line(Uplink(), capacity_bps=300_000)
    line.run(10)
    line.capacity_bps = 5_000_000
    line.run(45)
    assert line.uplink.rate_bps > 1_000_000


def test_a_full_line_is_tried_again_in_small_steps() -> None:
    line = Line(Uplink())
    line.run(10)
    line.capacity_bps = 300_000
    line.run(8)
    steps = []
    for _ in range(40):
        before_bps = line.uplink.rate_bps
        line.run(1)
        if before_bps > 200_000:  # 214 kbit/s of picture fit in
            steps.append(line.uplink.rate_bps / before_bps)
    assert 1.02 < max(steps) <= 1.05


def test_a_line_is_thin_for_half_a_minute_after_it_was_full() -> None:
    line = Line(Uplink())
    line.run(10)
    assert not line.uplink.is_thin(line.now_ns)
    line.capacity_bps = 300_000
    line.run(3)
    assert line.uplink.is_thin(line.now_ns)
    line.capacity_bps = 10_000_000
    line.run(31)
    assert not line.uplink.is_thin(line.now_ns)


def test_an_undone_cut_forgets_nothing_of_the_line() -> None:
    """On a thin line a keyframe's queue is gone as soon as it came."""
    line = Line(Uplink())
    line.run(10)
    line.capacity_bps = 300_000
    line.run(10)
    rate_bps, cuts = line.uplink.rate_bps, line.cuts
    line.extra_ms = 100
    line.run(0.5)
    line.extra_ms, line.longest_ms = 0, 0
    line.run(0.5)
    assert line.cuts == cuts + 2  # down and up again
    assert line.uplink.rate_bps >= rate_bps
    line.run(20)
    assert line.uplink.is_thin(line.now_ns)
    assert line.longest_ms < 200


def test_a_longer_way_is_not_a_queue() -> None:
    line = Line(Uplink())
    line.run(10)
    line.extra_ms = 150
    line.run(15)
    assert line.cuts <= 4
    assert line.uplink.rate_bps > 500_000


def test_jitter_of_thirty_milliseconds_cuts_nothing() -> None:
    line = Line(Uplink())
    for n in range(40):
        line.extra_ms = (n * 7) % 31
        line.run(0.5)
    assert line.cuts == 0


def test_another_stream_is_measured_from_its_own_zero() -> None:
    uplink = Uplink()
    uplink.sample(SECOND, packets=0, octets=0, lost=0, transits_ms={1: 5})
    for n in range(2, 10):
        assert not uplink.sample(
            n * SECOND, packets=n * 50, octets=n * 90_000, lost=0, transits_ms={2: 90_000}
        )


def test_what_delays_one_stream_only_is_its_sender() -> None:
    uplink = Uplink()
    for n in range(1, 20):
        late_ms = 0 if n < 10 else 400
        transits_ms = {1: 20 + late_ms, 2: 9000}
        assert not uplink.sample(
            n * SECOND, packets=n * 50, octets=n * 90_000, lost=0, transits_ms=transits_ms
        )


def test_a_delay_that_is_gone_at_once_was_no_queue() -> None:
    line = Line(Uplink())
    line.run(10)
    line.extra_ms = 300  # a machine stands still for two samples
    line.run(0.5)
    line.extra_ms = 0
    line.run(0.5)
    assert line.cuts == 2  # down and up again
    assert line.uplink.rate_bps == VIDEO_CAP_BPS


def test_a_machine_that_stumbles_keeps_half_its_picture() -> None:
    line = Line(Uplink())
    line.run(10)
    line.wants_bps, line.extra_ms = 100_000, 300  # late and little
    line.run(1)
    assert line.uplink.rate_bps > 400_000


def test_loss_without_delay_slows_a_picture_but_does_not_take_it_away() -> None:
    uplink = Uplink()
    for n in range(30):
        uplink.second(n * SECOND, 0.2)
    assert uplink.rate_bps == LOSS_FLOOR_BPS
    for n in range(30, 60):
        uplink.second(n * SECOND, 0.5)
    assert uplink.rate_bps == VIDEO_FLOOR_BPS


def test_a_little_loss_changes_nothing() -> None:
    uplink = Uplink()
    uplink.second(SECOND, 0.05)
    assert uplink.rate_bps == VIDEO_START_BPS


def watch(downlink: Downlink, seconds: range, *, sent_bps: int, loss: float = 0.0) -> list[int]:
    """The seconds in which the picture was held or let through."""
    return [
        n for n in seconds if downlink.second(n * SECOND, video_octets=n * sent_bps // 8, loss=loss)
    ]


def test_a_receivers_own_estimate_is_its_limit_while_fresh() -> None:
    downlink = Downlink()
    assert downlink.limit_bps(0) == VIDEO_CAP_BPS
    assert downlink.estimated(700_000, SECOND)
    assert not downlink.estimated(690_000, SECOND)
    assert downlink.limit_bps(2 * SECOND) == 690_000
    assert downlink.limit_bps(60 * SECOND) == VIDEO_CAP_BPS


def test_a_line_too_thin_for_any_picture_is_left_to_the_sound_and_tried_again_later() -> None:
    downlink = Downlink()
    watch(downlink, range(1, 5), sent_bps=500_000)
    downlink.estimated(30_000, 5 * SECOND)
    assert watch(downlink, range(5, 9), sent_bps=500_000) == [7]
    assert downlink.is_held
    assert downlink.repairs(8 * SECOND, 500) == 0
    resume_ns = 7 * SECOND + HOLD_FIRST_NS
    assert not downlink.is_asking(8 * SECOND)
    assert downlink.is_asking(resume_ns - 500 * MS)  # the sender slows down first
    assert downlink.limit_bps(resume_ns - 500 * MS) < 100_000
    assert watch(downlink, range(9, 17), sent_bps=500_000) == [15]
    assert not downlink.is_held


def test_every_failed_try_doubles_the_wait() -> None:
    downlink = Downlink()
    changes = []
    for n in range(1, 120):
        downlink.estimated(30_000, n * SECOND)
        changes += watch(downlink, range(n, n + 1), sent_bps=500_000)
    held_for = [b - a for a, b in zip(changes[::2], changes[1::2], strict=False)]
    assert held_for == [8, 16, 32]


def test_a_round_trip_that_grows_slows_senders_unless_the_queue_is_the_clients_own() -> None:
    own, other = Downlink(), Downlink()
    for downlink, uplink_queue_ms in ((own, 0.0), (other, 480.0)):
        watch(downlink, range(1, 4), sent_bps=1_000_000)
        downlink.round_trip(20, 0, 3 * SECOND)
        downlink.round_trip(500, uplink_queue_ms, 4 * SECOND)
        watch(downlink, range(4, 6), sent_bps=1_000_000)
    assert own.limit_bps(6 * SECOND) == pytest.approx(700_000, rel=0.05)
    assert other.limit_bps(6 * SECOND) == VIDEO_CAP_BPS


def test_what_a_halt_lost_does_not_hold_the_picture_back() -> None:
    """The relay stood still; the first report afterwards tells of all that was lost meanwhile, in a
    second in which hardly anything was sent."""
    downlink = Downlink()
    watch(downlink, range(1, 6), sent_bps=1_000_000)
    octets = 5 * 1_000_000 // 8
    for n, loss in enumerate((0.95, 0.95, 0.95, 0.0, 0.0, 0.0, 0.0, 0.0), 6):
        octets += min(20_000 if n == 6 else 1_000_000, downlink.limit_bps(n * SECOND)) // 8
        downlink.second(n * SECOND, video_octets=octets, loss=loss)
        assert not downlink.is_held
    assert downlink.limit_bps(14 * SECOND) > 500_000


def test_losses_of_a_silence_are_excused_and_later_ones_are_not() -> None:
    downlink = Downlink()
    watch(downlink, range(1, 6), sent_bps=1_000_000)
    downlink.excuse(6 * SECOND, 9 * SECOND)
    watch(downlink, range(6, 9), sent_bps=1_000_000, loss=0.95)
    assert downlink.limit_bps(8 * SECOND) == VIDEO_CAP_BPS
    watch(downlink, range(9, 10), sent_bps=1_000_000, loss=0.95)
    assert downlink.limit_bps(9 * SECOND) < 1_000_000


def test_what_a_client_said_before_a_silence_holds_until_it_speaks_again() -> None:
    downlink = Downlink()
    downlink.estimated(300_000, 5 * SECOND)
    assert downlink.limit_bps(18 * SECOND) > 300_000, "it has not been heard of for long"
    downlink.excuse(18 * SECOND, 21 * SECOND)
    assert downlink.limit_bps(19 * SECOND) == 300_000


def test_repairs_fit_in_beside_the_picture() -> None:
    downlink = Downlink()
    downlink.estimated(1_500_000, 5 * SECOND)
    watch(downlink, range(1, 6), sent_bps=1_000_000)
    assert downlink.repairs(6 * SECOND, 500) == 500_000 // (8 * 1150)
    downlink.estimated(200_000, 6 * SECOND)
    assert 1 <= downlink.repairs(6 * SECOND, 500) <= 3
    assert downlink.repairs(6 * SECOND, 2) == 2


def test_pictures_share_a_line_and_the_slowest_receiver_counts() -> None:
    assert share_bps(600_000, 2) == 300_000
    assert share_bps(600_000, 0) == 600_000
    assert share_bps(60_000, 4) == VIDEO_FLOOR_BPS
    assert slowest_bps([900_000, 300_000]) == 300_000
    assert slowest_bps([]) == VIDEO_CAP_BPS


def test_a_picture_shrunk_for_a_thin_receiver_grows_back_when_its_line_is_good_again() -> None:
    """A receiver that sends no estimates of its own: all we have is its round trip."""
    clock = ManualClock(datetime(2026, 3, 2, tzinfo=UTC), SECOND)
    downlink = Downlink()
    sent_octets = 0

    def second(queue_ms: float) -> int:
        """A sender that obeys, for a second; what it may send from then on."""
        nonlocal sent_octets
        sent_octets += min(1_500_000, downlink.limit_bps(clock.monotonic_ns())) // 8
        clock.advance(timedelta(seconds=1))
        downlink.round_trip(40 + queue_ms, 0.0, clock.monotonic_ns())
        downlink.second(clock.monotonic_ns(), video_octets=sent_octets, loss=0.0)
        return downlink.limit_bps(clock.monotonic_ns())

    assert [second(0) for _ in range(3)][-1] == VIDEO_CAP_BPS
    thin = [second(500) for _ in range(12)]
    assert thin[-1] < 400_000
    assert thin == sorted(thin, reverse=True)
    good = [second(0) for _ in range(20)]
    assert good == sorted(good), "it grows, and never falls back"
    assert good[0] > thin[-1], "from the first good second on"
    assert good[-1] == VIDEO_CAP_BPS


def test_a_picture_that_was_held_grows_back_to_its_full_size() -> None:
    clock = ManualClock(datetime(2026, 3, 2, tzinfo=UTC), SECOND)
    downlink = Downlink()
    sent_octets = 0
    limits: list[int] = []
    for n in range(60):
        now_ns = clock.monotonic_ns()
        downlink.estimated(30_000 if n < 10 else 5_000_000, now_ns)
        downlink.second(now_ns, video_octets=sent_octets, loss=0.0)
        if not downlink.is_held:
            sent_octets += min(1_500_000, downlink.limit_bps(now_ns)) // 8
        limits.append(downlink.limit_bps(now_ns))
        clock.advance(timedelta(seconds=1))
    assert min(limits) <= 80_000
    assert not downlink.is_held
    assert limits[-1] == VIDEO_CAP_BPS


def test_an_honest_sender_may_send_for_ever_at_the_cap() -> None:
    inflow = Inflow()
    loads = {inflow.sample(n * SECOND, n * INFLOW_CAP_BPS // 8) for n in range(1, 3_600)}
    assert loads == {Load.FITS}


def test_a_burst_of_keyframes_is_no_flood() -> None:
    inflow = Inflow()
    inflow.sample(SECOND, 0)
    octets = 0
    for n in range(1, 200):
        octets += 2_000_000 if n % 40 == 0 else 60_000  # every 4 s, beside 4.8 Mbit/s
        assert inflow.sample(SECOND + n * 100 * MS, octets) is not Load.TOO_MUCH


@pytest.mark.parametrize(("mbps", "lasts_s"), [(13, 48), (24, 4), (120, 0.5), (1_000, 0.1)])
def test_the_more_is_sent_too_much_the_sooner_it_ends(mbps: int, lasts_s: float) -> None:
    inflow = Inflow()
    inflow.sample(SECOND, 0)
    loads: list[Load] = []
    octets = 0
    while Load.TOO_MUCH not in loads:
        octets += mbps * 1_000_000 // 80
        loads.append(inflow.sample(SECOND + (len(loads) + 1) * 100 * MS, octets))
    seconds = len(loads) / 10
    assert seconds == pytest.approx(lasts_s, abs=0.2)
    if seconds > 1:
        assert Load.MUCH in loads, "it is reminded first"
    sample_bytes = mbps * 1_000_000 // 80
    assert octets <= INFLOW_AHEAD_BYTES + seconds * INFLOW_CAP_BPS / 8 + sample_bytes


def test_a_new_leg_does_not_forget_what_was_sent_on_the_one_before() -> None:
    inflow = Inflow()
    inflow.sample(SECOND, 0)
    assert inflow.sample(2 * SECOND, 10_000_000) is Load.TOO_MUCH
    inflow.new_leg()
    assert inflow.sample(2 * SECOND + 100 * MS, 300_000) is Load.TOO_MUCH
    inflow.new_leg()
    loads = [inflow.sample((3 + n) * SECOND, n * 400_000) for n in range(10)]
    assert Load.TOO_MUCH not in loads, "who sends as others do may come back"
    assert loads[-1] is Load.FITS


def test_who_leaves_and_enters_anew_finds_what_came_too_much() -> None:
    left, now_ns = LeftInflows(), SECOND
    loads = []
    for _ in range(50):  # a burst, out and in again, ten times a second
        now_ns += SECOND // 10
        inflow = left.take("kiosk")
        inflow.new_leg()
        loads.append(inflow.sample(now_ns, 1_000_000))
        left.keep("kiosk", inflow, now_ns)
    assert Load.TOO_MUCH in loads, "50 Mbyte in 5 s, and nobody minded"


def test_a_bucket_is_forgotten_when_it_is_drained() -> None:
    left = LeftInflows()
    for n in range(100):
        inflow = Inflow()
        inflow.sample(SECOND, INFLOW_AHEAD_BYTES + 1)
        left.keep(f"p{n}", inflow, SECOND)
    assert len(left) == 100
    left.keep("one more", Inflow(), 5 * SECOND)
    assert len(left) == 0
    assert left.take("p1").ahead_bytes == 0
