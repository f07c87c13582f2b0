"""Queues that outsiders can fill: each has an end, and a rule for what is lost (docs/limits.md)."""

import asyncio
import socket

from core.ids import ParticipantId, RoomId
from core.store import open_store
from media.events import SpeakingChanged
from media.socket import MediaSocket
from signaling.host import MAX_LEDGER, MAX_MEDIA_EVENTS
from signaling.presence import MAX_QUEUED, Lease, Presence
from signaling.protocol import Countdown
from tests.integration.test_signaling_host import KIOSK, Bench, bench

__all__ = ["bench"]  # the fixture


async def test_words_for_a_store_that_is_away_push_out_the_oldest() -> None:
    store = open_store("")
    presence = Presence(store, "node-1")  # nobody writes
    lease = Lease(RoomId("r" * 32), 1, "token")
    for seq in range(MAX_QUEUED + 10):
        presence.keep(lease, ParticipantId("p"), Countdown(seq=seq, live_in_ms=0))
    assert len(presence._queue) == MAX_QUEUED
    assert presence._queue[0].message.seq == 10  # type: ignore[union-attr]
    await store.aclose()


async def test_more_media_events_than_a_turn_can_take_are_dropped(bench: Bench) -> None:
    await bench.ready()
    speak = bench.media.peers[KIOSK].on_event
    for number in range(2 * MAX_MEDIA_EVENTS):
        speak(SpeakingChanged(speaking=bool(number % 2)))
    assert len(bench.host._heard) == MAX_MEDIA_EVENTS
    await asyncio.sleep(0)
    assert not bench.host._heard


async def test_attendance_waiting_for_the_database_has_an_end(bench: Bench) -> None:
    await bench.live()
    for _ in range(2 * MAX_LEDGER):
        bench.host._note_departure(KIOSK)
        assert len(bench.host._ledger) <= MAX_LEDGER
    assert len(bench.host._ledger) == MAX_LEDGER
    await bench.until(lambda: not bench.host._ledger)


async def test_what_the_kernel_does_not_take_is_dropped_and_counted() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        made = MediaSocket("127.0.0.1", 0, lambda *_: None)
        name = bytearray(16)
        name[0:2] = socket.AF_INET.to_bytes(2, "little")
        # Port 0 is nobody's: the kernel refuses it at once, as it does when a buffer is full.
        name[4:8] = socket.inet_aton("127.0.0.1")
        for _ in range(200):
            made.send(b"x" * 100, bytes(name))
        assert made.sent_dropped == 200
        assert made.outbox.posted == 0
        made.close()
