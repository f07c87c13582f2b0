"""The lane in C against the router in Python: same packets, same tables, same copies."""

import gc
import random
import tracemalloc
from dataclasses import asdict
from inspect import getmembers, ismemberdescriptor
from typing import Any

import pytest

from media import journal, numbers, taps
from media.events import SpeakingChanged
from media.fastlane import built_as
from media.numbers import LegNumbers
from media.rtp import wrap_rtx
from media.sdp import H264, OPUS, RTX_OF, VP8
from media.socket import Outbox
from media.srtp import SrtpSession
from media.tables import Leg, Publication, Source, Subscription
from media.taps import InPython, Intake
from tests.support.relay import MS, Relay, rtp

pytestmark = pytest.mark.skipif(built_as() is None, reason="the lane in C is not built here")

LEVEL_ID, STAMP_ID, MID_ID = 2, 3, 4


def facts(value: object) -> dict[str, Any]:
    """Every slot that holds a plain value."""
    plain = (int, float, bool, bytes, dict, type(None))
    names = [name for name, of in getmembers(type(value)) if ismemberdescriptor(of)]
    found = {name: getattr(value, name) for name in names}
    return {
        name: repr(kept)
        for name, kept in found.items()
        if isinstance(kept, plain) and name not in ("sources", "repairs", "tap", "address")
    }


class Both:
    """The same room twice, once with the lane in front. What is random in a room is made equal."""

    def __init__(self, seed: int) -> None:
        self.records_compared = 0
        self.python, self.c = Relay(), Relay(is_in_c=True)
        for relay in (self.python, self.c):
            relay.record()
            relay.alice.tap.intake = Intake(20_000, 77)
            relay.alice.tap.intake.tracks = 2
            chosen = random.Random(seed)
            for publication in (relay.camera, relay.microphone):
                publication.next_seq = publication.sought_seq = chosen.randrange(0x10000)
                publication.keyframe_from_seq = publication.next_seq
                publication.keyframe_missed_seq = publication.next_seq
                publication.next_timestamp = chosen.randrange(1 << 32)
            for subscription in (relay.to_bob, relay.sound_to_bob):
                del relay.bob.leg.subscriptions[subscription.ssrc]
                subscription.ssrc = chosen.randrange(1, 1 << 32)
                subscription.seq_offset = chosen.randrange(0x10000)
                subscription.rtx_seq = chosen.randrange(0x10000)
                if subscription.rtx_ssrc:
                    subscription.rtx_ssrc = chosen.randrange(1, 1 << 32)
                relay.bob.leg.subscriptions[subscription.ssrc] = subscription

    def receive(self, packet: bytes, now_ns: int, damage: int | None, again: bool) -> None:
        for relay in (self.python, self.c):
            data = bytearray(relay.alice.encrypt.protect(packet))
            if damage is not None:
                data[12 + damage % (len(data) - 12)] ^= 0x40
            relay.receive_encrypted(relay.alice, bytes(data), now_ns)
            if again:
                relay.receive_encrypted(relay.alice, bytes(data), now_ns)

    def set_open(self, *, is_open: bool) -> None:
        for relay in (self.python, self.c):
            relay.camera.is_open = is_open

    def set_intake(self, *, is_open: bool) -> None:
        for intake in self.intakes():
            intake.limit_bytes += 10_000
            intake.is_open = is_open

    def intakes(self) -> list[Intake]:
        taps = (self.python.alice.tap, self.c.alice.tap)
        return [tap.intake for tap in taps if tap.intake is not None]

    def compare(self) -> None:
        in_python, in_c = ((i.waiting, i.packets, i.accepted_bytes) for i in self.intakes())
        assert in_c == in_python
        if in_c[0] > 5:
            recorded, recorded_in_c = (intake.take() for intake in self.intakes())
            assert recorded_in_c == recorded
            self.records_compared += in_c[0]
        assert self.tables(self.c) == self.tables(self.python)
        assert self.c.delivered(self.c.bob) == self.python.delivered(self.python.bob)
        assert self.c.alice.tap.packets == self.python.alice.tap.packets
        assert self.c.alice.events == self.python.alice.events

    @staticmethod
    def tables(relay: Relay) -> dict[str, Any]:
        leg = relay.alice.leg
        ours = ("packets_in", "bytes_in", "rejected", "last_packet_ns")
        kept: list[Source | Publication | Subscription] = [
            *leg.sources.values(),
            relay.camera,
            relay.microphone,
            relay.to_bob,
            relay.sound_to_bob,
        ]
        return {
            "leg": {name: getattr(leg, name) for name in ours},
            "tables": [facts(value) for value in kept],
            "caches": [relay.camera.cache, relay.microphone.cache],
            "of": [source.publication.name for source in leg.sources.values()],
            "counts": (relay.router.unprotectable, relay.router.unroutable),
            "tracks": [(s, n, asdict(c)) for s, n, c in relay.alice.tap.tracks],
        }


LOUD, QUIET = [20, 30, 44], [45, 60, 127]


def extension_of(chance: random.Random, levels: list[int] | None) -> bytes:
    """Of a sound of one of these levels, or of a picture."""
    if levels is not None:
        level = chance.choice(levels)
        usual = bytes([LEVEL_ID << 4, level])
        return chance.choices([usual, b"", bytes([MID_ID << 4]) + b"x" + usual], [9, 1, 1])[0]
    usual = bytes([STAMP_ID << 4 | 2]) + chance.randbytes(3)
    return chance.choices([usual, b"", bytes([MID_ID << 4]) + b"x" + usual], [9, 1, 1])[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_packets_leaves_the_same_tables_and_copies(seed: int) -> None:
    chance, both = random.Random(seed), Both(seed)
    now_ns, seq, sound_seq, repairs, codec, ssrc = 5 * MS, 65_500, 10, 0, VP8, 1111
    for turn in range(1200):
        now_ns += chance.randrange(30 * MS)
        # Speech, a long pause, a murmur: each lasts some two seconds.
        levels = (LOUD, QUIET, LOUD + QUIET)[turn // 150 % 3]
        what = chance.random()
        is_sound = chance.random() < 0.4
        if what < 0.04:
            seq += chance.randrange(1, 5)  # a loss
        elif what < 0.08:
            seq -= chance.randrange(1, 8)  # late ones
        elif what < 0.09:
            codec = H264 if codec is VP8 else VP8
        elif what < 0.095:
            ssrc = 1111 if ssrc != 1111 else 4444
            for relay in (both.python, both.c):
                relay.alice.leg.declared[4444] = "m0"
        elif what < 0.11:
            both.set_open(is_open=False)
        elif what < 0.14:
            both.set_open(is_open=True)
        elif what < 0.15:
            both.set_intake(is_open=chance.random() < 0.7)
        elif what < 0.17:
            repairs += 1
            repair = wrap_rtx(
                rtp(seq - 2, ssrc=ssrc, payload_type=codec.payload_type),
                payload_type=RTX_OF[codec.payload_type],
                ssrc=1112,
                sequence=repairs,
                original=(seq - 2) & 0xFFFF,
                timestamp=seq // 3 * 3000,
            )
            both.receive(repair, now_ns, None, again=False)
            both.compare()
            continue
        if is_sound:
            packet = rtp(
                sound_seq,
                timestamp=sound_seq * 960,
                ssrc=2222,
                payload_type=OPUS.payload_type,
                payload=chance.randbytes(chance.randrange(1, 200)),
                extension=extension_of(chance, levels),
            )
            sound_seq = (sound_seq + 1) & 0xFFFF
        else:
            packet = rtp(
                seq,
                timestamp=seq // 3 * 3000,
                ssrc=ssrc,
                payload_type=codec.payload_type,
                payload=chance.randbytes(chance.randrange(1, 1200)),
                extension=extension_of(chance, None),
            )
            seq = (seq + 1) & 0xFFFF
        damage = chance.randrange(4000) if chance.random() < 0.03 else None
        both.receive(packet, now_ns, damage, again=chance.random() < 0.03)
        both.compare()
    begun, ended = (both.c.alice.events.count(SpeakingChanged(speaking=s)) for s in (True, False))
    assert min(begun, ended) > 1, "nobody began to speak and ended"
    assert both.records_compared > 100
    assert both.c.taken_by_lane > 200, "the storm never met the common case"
    assert both.c.taken_by_lane < 1200, "the storm was nothing but the common case"


def test_what_is_not_the_common_case_is_left_untouched() -> None:
    relay = Relay(is_in_c=True)
    first = relay.alice.encrypt.protect(rtp(1))
    relay.receive_encrypted(relay.alice, first)
    assert relay.taken_by_lane == 0  # a new SSRC is Python's affair
    assert len(relay.delivered(relay.bob)) == 1


def lane_of(
    relay: Relay, *, leg: type = Leg, session: type = SrtpSession, outbox: object = None
) -> None:
    """Open a lane that walks these tables."""
    from media import _fastlane

    _fastlane.Lane(
        tables=(leg, Source, Publication, Subscription, session, Outbox),
        router=relay.router,
        outbox=outbox or relay.outbox,  # type: ignore[arg-type]
        unprotect=0,
        protect=0,
        slots=0,
        names=0,
        name_bytes=16,
        slot_count=1,
        audio_level_extension=0,
        loud_level=0,
        loud_packets=0,
        speech_hangover_ns=0,
    )


def test_tables_that_do_not_fit_are_refused_in_words() -> None:
    class Loose(LegNumbers):
        inbound = None

    class Strange:
        __slots__ = ("handle",)

    relay = Relay()
    lane_of(relay)
    with pytest.raises(TypeError, match="inbound"):
        lane_of(relay, leg=Loose)
    with pytest.raises(TypeError, match="SessionNumbers"):
        lane_of(relay, session=Strange)
    with pytest.raises(TypeError, match="outbox"):
        lane_of(relay, outbox=Strange())


@pytest.mark.parametrize("in_python", numbers.IN_PYTHON, ids=lambda table: table.__name__)
def test_numbers_have_the_same_names_and_kinds_in_both(in_python: type) -> None:
    in_c = getattr(numbers, in_python.__name__)
    assert in_c is not in_python
    known = {name for name, of in getmembers(in_c) if ismemberdescriptor(of)}
    assert known == set(in_python.__slots__) == set(in_python.__annotations__)  # type: ignore[attr-defined]
    fresh = in_c()
    for name, kind in in_python.__annotations__.items():
        assert type(getattr(fresh, name)) is kind


needs_intake = pytest.mark.skipif(
    Intake is InPython, reason="no checksum instruction here, or nothing built"
)


@needs_intake
def test_what_waits_is_encoded_to_the_same_bytes() -> None:
    chance = random.Random(7)
    for seed in (0, 1, 0xFFFFFFFF, chance.getrandbits(32)):
        both = (InPython(1 << 40, seed), Intake(1 << 40, seed))
        for one in both:
            one.tracks = 250
        for _ in range(3):  # what was taken is gone
            for size in (0, 1, 7, 8, 9, 1199, 65_535, *(chance.randrange(1500) for _ in range(99))):
                track, at_ns = chance.randrange(252), chance.getrandbits(63)
                packet, record = chance.randbytes(size), chance.randbytes(40)
                is_kept, is_added = track < 250 and chance.random() < 0.1, chance.random() < 0.2
                for one in both:
                    if is_kept:
                        one.keep(track, packet, at_ns)
                    else:
                        assert one.put(track, packet, at_ns) == (track < 250)
                    if is_added:
                        one.add(record)
            in_python, in_c = ((i.waiting, i.packets, i.accepted_bytes) for i in both)
            assert in_c == in_python
            in_python, in_c = (one.take() for one in both)
            assert in_c == in_python
            assert in_c is not None
            assert hash(in_c[0]) == hash(bytes(bytearray(in_c[0])))  # whole bytes, not a part
    assert [one.take() for one in both] == [None, None]
    assert [(one.waiting, one.packets) for one in both] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("make", [InPython, Intake], ids=["python", "c"])
def test_what_may_not_wait_is_refused_and_changes_nothing(make: type[Intake]) -> None:
    intake = make(100, 1)
    intake.tracks = 1
    assert not intake.put(1, b"an unknown track", 5)
    assert not intake.put(-1, b"", 5)
    assert not intake.put(0, bytes(65_536), 5)
    assert not intake.put(0, bytes(100 - journal.OVERHEAD_BYTES + 1), 5)
    intake.is_open = False
    assert not intake.put(0, b"", 5)
    assert (intake.waiting, intake.accepted_bytes, intake.take()) == (0, 0, None)
    intake.is_open = True
    assert intake.put(0, bytes(100 - journal.OVERHEAD_BYTES), 5)
    assert intake.accepted_bytes == 100


@needs_intake
@pytest.mark.parametrize(
    "wrong", [("put", 0, "text", 1), ("put", 0, b""), ("keep", 256, b"", 1), ("add", "text")]
)
def test_what_is_no_packet_is_refused(wrong: tuple[Any, ...]) -> None:
    intake = Intake(1000, 1)
    with pytest.raises((TypeError, ValueError)):
        getattr(intake, wrong[0])(*wrong[1:])
    assert intake.take() is None


@needs_intake
def test_what_comes_while_it_is_taken_is_taken_next() -> None:
    """To make the answer may set the collector off, and with it anybody's code."""
    intake, seen = Intake(1 << 30, 1), []
    intake.tracks = 1

    class Late:
        def __del__(self) -> None:
            seen.append(intake.put(0, bytes(60_000), 2))  # the buffer becomes another one

    gone = 0
    before = gc.get_threshold()
    try:
        for turn in range(200):
            gc.set_threshold(0)
            gc.collect()  # and with it every kept tuple and list: new ones must be made
            late = Late()
            late.itself = late  # type: ignore[attr-defined]
            del late
            gc.set_threshold(1 + turn % 8)
            intake.put(0, b"packet", 1)
            taken = intake.take()
            assert taken is not None
            gone += taken[2]
            assert taken[1] == taken[2]
            assert len(taken[0]) == taken[2] * journal.OVERHEAD_BYTES + sum(
                octets for _, _, octets in taken[5]
            )
    finally:
        gc.set_threshold(*before)
    assert gone + intake.packets == 200 + len(seen)
    assert len(seen) > 10, "the collector never came between"


def test_what_cannot_be_encoded_now_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    intake = InPython(1000, 1)
    intake.tracks = 1
    assert intake.put(0, b"packet", 5)

    def without_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as scarce, pytest.raises(MemoryError):
        scarce.setattr(taps, "encode_batch", without_memory)
        intake.take()
    assert (intake.waiting, intake.packets) == (1, 1)
    taken = intake.take()
    assert taken is not None
    assert taken[1:3] == (1, 1)


@needs_intake
def test_what_is_taken_holds_no_more_memory_than_its_length() -> None:
    intake = Intake(1 << 30, 1)
    intake.tracks = 1
    for _ in range(3):
        assert intake.put(0, bytes(60_000), 5)
        intake.take()
    assert intake.put(0, bytes(60), 5)
    few = intake.take()
    assert few is not None
    tracemalloc.start()
    try:
        kept = []
        for _ in range(500):
            assert intake.put(0, bytes(60), 5)
            kept.append(intake.take())
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 500 * 700  # a record of 76 bytes, its tuple, list and numbers
