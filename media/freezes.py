"""When a picture stands still for everyone: counted here, so that pages and reports can say so.

Two reasons: nothing comes, or what comes rests on something that was lost for good, until the next
keyframe. Looked at a few times a second (`feedback.sample`), so short freezes count by their cause,
not by their length. What only one receiver misses, its own line's fault, is not counted here.
"""

from typing import Final

MS: Final = 1_000_000  # nanoseconds
# A page on a thin line sends a picture a second (web/src/rtc/thin.ts): that is slow, not frozen.
NOTHING_CAME_NS: Final = 1_500 * MS


class Stillness:
    """One publication's freezes. `frozen_ms` counts those that are over."""

    __slots__ = ("_since_ns", "_stream", "_unrecovered", "freezes", "frozen_ms", "is_broken")

    def __init__(self) -> None:
        self.freezes = 0
        self.frozen_ms = 0
        self.is_broken = False  # something was lost for good, and no keyframe has come since
        self._stream = 0
        self._unrecovered = 0
        self._since_ns = 0  # 0 = it moves

    def look(
        self,
        now_ns: int,
        *,
        stream: int,
        unrecovered: int,
        last_arrival_ns: int,
        has_keyframe: bool,
    ) -> None:
        """How it is by now: what the present stream (an SSRC) has lost for good so far, when its
        last packet came, and whether a keyframe has begun since the last look."""
        if stream != self._stream:
            self._stream, self._unrecovered, self.is_broken = stream, 0, False
        if unrecovered > self._unrecovered:
            self._unrecovered = unrecovered
            self.is_broken = True
        elif has_keyframe:
            self.is_broken = False
        is_still = self.is_broken or now_ns - last_arrival_ns > NOTHING_CAME_NS
        if is_still and not self._since_ns:
            self.freezes += 1
            self._since_ns = now_ns if self.is_broken else last_arrival_ns
        elif not is_still:
            self.pause(now_ns)

    def pause(self, now_ns: int) -> None:
        """It moves again, or it is switched off on purpose: a freeze ends here."""
        if self._since_ns:
            self.frozen_ms += (now_ns - self._since_ns) // MS
            self._since_ns = 0
