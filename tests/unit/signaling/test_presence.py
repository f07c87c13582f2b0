"""What the shared store keeps of rooms, on the store inside the process."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from core.ids import ParticipantId, RoomId
from core.store import Store, open_store
from signaling.presence import Lease, Presence, RoomElsewhere
from signaling.protocol import Countdown

ROOM = RoomId("r" * 32)
WHO = ParticipantId("p")


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = open_store("")
    await opened.flushall()
    yield opened
    await opened.aclose()


@pytest.fixture
async def presence(store: Store) -> AsyncIterator[Presence]:
    made = Presence(store, "node-1")
    writing = asyncio.create_task(made.run())
    yield made
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_lease_is_fenced_by_a_rising_epoch(presence: Presence) -> None:
    first = await presence.take_lease(ROOM)
    second = await presence.take_lease(ROOM)  # the same node, restarted
    assert second.epoch > first.epoch
    assert await presence.renew_lease(second)
    assert not await presence.renew_lease(first)


async def test_another_node_does_not_get_a_held_room(store: Store, presence: Presence) -> None:
    await presence.take_lease(ROOM)
    with pytest.raises(RoomElsewhere):
        await Presence(store, "node-2").take_lease(ROOM)


async def test_a_released_room_may_go_elsewhere(store: Store, presence: Presence) -> None:
    lease = await presence.take_lease(ROOM)
    await presence.release(lease, [WHO])
    other = await Presence(store, "node-2").take_lease(ROOM)
    assert other.epoch > lease.epoch


async def test_a_late_release_does_not_take_the_lease_from_its_new_owner(
    store: Store, presence: Presence
) -> None:
    old = await presence.take_lease(ROOM)
    new = await presence.take_lease(ROOM)
    await presence.release(old, [])
    assert await presence.renew_lease(new)
    assert await store.get(f"room:{ROOM}:owner") == new.token


async def test_a_lease_whose_key_was_lost_is_renewed(store: Store, presence: Presence) -> None:
    lease = await presence.take_lease(ROOM)
    await store.flushall()
    assert await presence.renew_lease(lease)


async def test_kept_messages_after_the_last_one_seen_come_back_in_order(
    presence: Presence,
) -> None:
    lease = await presence.take_lease(ROOM)
    for seq in range(1, 6):
        presence.keep(lease, WHO, Countdown(seq=seq, live_in_ms=seq))
    missed = await presence.missed(lease, WHO, 2)
    assert missed is not None
    assert [message.seq for message in missed] == [3, 4, 5]


async def test_messages_of_an_earlier_life_of_the_room_are_not_replayed(
    presence: Presence,
) -> None:
    presence.keep(await presence.take_lease(ROOM), WHO, Countdown(seq=9, live_in_ms=1))
    later = await presence.take_lease(ROOM)
    assert await presence.missed(later, WHO, 0) == ()


async def test_streams_are_bounded_and_pass_away(store: Store, presence: Presence) -> None:
    lease = await presence.take_lease(ROOM)
    for seq in range(1, 2_001):
        presence.keep(lease, WHO, Countdown(seq=seq, live_in_ms=1))
    missed = await presence.missed(lease, WHO, 0, patience_s=10)
    assert missed is not None and len(missed) < 600
    assert missed[-1].seq == 2_000
    assert await store.ttl(f"room:{ROOM}:to:{WHO}") > 0


async def test_a_store_that_does_not_answer_costs_the_replay_only(presence: Presence) -> None:
    class Broken:
        async def xrange(self, *_: object, **__: object) -> None:
            raise ConnectionError("gone")

    presence._store = Broken()  # type: ignore[assignment]
    assert await presence.missed(Lease(ROOM, 1, "node-1/1"), WHO, 0) is None


async def test_a_party_is_away_until_it_is_said_to_be_back(presence: Presence) -> None:
    since = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)
    presence.show_away(ROOM, "petitioner", since)
    presence.show_away(ROOM, "official", since)
    await presence._idle.wait()
    assert await presence._store.get(f"room:{ROOM}:away:petitioner") == since.isoformat()
    presence.show_away(ROOM, "petitioner", None)
    await presence._idle.wait()
    assert await presence._store.get(f"room:{ROOM}:away:petitioner") is None
    assert await presence._store.get(f"room:{ROOM}:away:official") == since.isoformat()


async def test_roles_replace_what_was_said_before(presence: Presence) -> None:
    presence.show_roles(ROOM, frozenset({"official", "desk"}))
    presence.show_roles(ROOM, frozenset({"petitioner"}))
    await presence._idle.wait()
    assert await presence.roles(ROOM) == {"petitioner"}
    presence.show_roles(ROOM, frozenset())
    await presence._idle.wait()
    assert await presence.roles(ROOM) == frozenset()
