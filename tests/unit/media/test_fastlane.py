"""The lane in C against the router in Python: same packets, same tables, same copies."""

import random
from dataclasses import asdict
from typing import Any

import pytest

from media import journal
from media.events import SpeakingChanged
from media.fastlane import built_as
from media.journal import ArrivedPacket
from media.rtp import wrap_rtx
from media.sdp import H264, OPUS, RTX_OF, VP8
from media.tables import Publication, Source, Subscription
from media.taps import Intake
from tests.support.relay import MS, Relay, rtp

pytestmark = pytest.mark.skipif(built_as() is None, reason="the lane in C is not built here")

LEVEL_ID, STAMP_ID, MID_ID = 2, 3, 4


def facts(value: object) -> dict[str, Any]:
    """Every slot that holds a plain value."""
    plain = (int, float, bool, bytes, dict, type(None))
    names = type(value).__slots__  # type: ignore[attr-defined]
    found = {name: getattr(value, name) for name in names}
    return {
        name: repr(kept)
        for name, kept in found.items()
        if isinstance(kept, plain) and name not in ("sources", "repairs", "tap", "address")
    }


class Both:
    """The same room twice, once with the lane in front. What is random in a room is made equal."""

    def __init__(self, seed: int) -> None:
        self.python, self.c = Relay(), Relay(is_in_c=True)
        for relay in (self.python, self.c):
            relay.record()
            relay.alice.tap.intake = Intake(limit_bytes=20_000)
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
        in_python, in_c = ((i.pending, i.accepted_bytes) for i in self.intakes())
        assert in_c == in_python
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
    assert both.c.taken_by_lane > 200, "the storm never met the common case"
    assert both.c.taken_by_lane < 1200, "the storm was nothing but the common case"


def test_what_is_not_the_common_case_is_left_untouched() -> None:
    relay = Relay(is_in_c=True)
    first = relay.alice.encrypt.protect(rtp(1))
    relay.receive_encrypted(relay.alice, first)
    assert relay.taken_by_lane == 0  # a new SSRC is Python's affair
    assert len(relay.delivered(relay.bob)) == 1


def test_a_table_without_the_expected_slot_is_refused_in_words() -> None:
    from media import _fastlane

    class Loose:
        inbound = None

    relay = Relay()
    with pytest.raises(TypeError, match="inbound"):
        _fastlane.Lane(
            tables=(Loose, Source, Publication, Subscription, Loose, Loose),  # type: ignore[arg-type]
            router=relay.router,
            outbox=relay.outbox,
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


def test_records_are_the_same_bytes() -> None:
    chance = random.Random(7)
    batch: list[ArrivedPacket | bytes] = []
    for size in (0, 1, 7, 8, 9, 1199, 65_535, *(chance.randrange(1500) for _ in range(200))):
        batch.append((chance.randrange(250), chance.getrandbits(63), chance.randbytes(size)))
        if chance.random() < 0.2:
            batch.append(chance.randbytes(40))
    for seed in (0, 1, 0xFFFFFFFF, chance.getrandbits(32)):
        assert journal.encode_batch(seed, batch) == journal.encode_batch_in_python(seed, batch)
    assert journal.encode_batch(5, []) == (b"", 0, 0, [])


@pytest.mark.parametrize("wrong", [[(1, 2)], [(1, 2, "text")], [None], [(1, 2, bytes(65_536))]])
def test_what_is_no_record_is_refused(wrong: list[Any]) -> None:
    if journal.encode_batch is journal.encode_batch_in_python:
        pytest.skip("no checksum instruction here")
    with pytest.raises((TypeError, ValueError)):
        journal.encode_batch(0, wrong)
