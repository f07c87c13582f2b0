"""What counts as a frozen picture."""

from media.freezes import NOTHING_CAME_NS, Stillness
from tests.support.relay import MS, SECOND


def look(
    still: Stillness, at_ms: int, *, unrecovered: int = 0, came_ms: int = -1, key: bool = False
) -> None:
    still.look(
        at_ms * MS,
        stream=1,
        unrecovered=unrecovered,
        last_arrival_ns=(at_ms if came_ms < 0 else came_ms) * MS,
        has_keyframe=key,
    )


def test_a_moving_picture_is_not_frozen() -> None:
    still = Stillness()
    for at_ms in range(250, 10_000, 250):
        look(still, at_ms)
    assert (still.freezes, still.frozen_ms) == (0, 0)


def test_a_picture_that_nothing_comes_of_is_frozen_since_its_last_packet() -> None:
    still = Stillness()
    look(still, 1000)
    for at_ms in (1250, 2000, 2750, 3250):
        look(still, at_ms, came_ms=1000)
    look(still, 3500)
    assert (still.freezes, still.frozen_ms) == (1, 2500)
    assert NOTHING_CAME_NS > SECOND  # a picture a second is slow, not frozen


def test_a_loss_for_good_freezes_until_the_next_keyframe() -> None:
    still = Stillness()
    look(still, 1000)
    look(still, 1250, unrecovered=2)
    assert still.is_broken
    look(still, 1500, unrecovered=2)
    look(still, 1750, unrecovered=2, key=True)
    assert not still.is_broken
    assert (still.freezes, still.frozen_ms) == (1, 500)


def test_a_muted_camera_is_not_frozen() -> None:
    still = Stillness()
    look(still, 1000)
    look(still, 1250, unrecovered=1)
    still.pause(1500 * MS)
    assert (still.freezes, still.frozen_ms) == (1, 250)
    still.pause(9000 * MS)
    assert still.frozen_ms == 250


def test_another_stream_begins_unbroken() -> None:
    still = Stillness()
    look(still, 1000, unrecovered=3)
    still.look(2 * SECOND, stream=2, unrecovered=0, last_arrival_ns=2 * SECOND, has_keyframe=False)
    assert not still.is_broken
    assert still.frozen_ms == 1000
