"""An event loop that relays while it waits.

Between two packets the processor sleeps and its caches go cold: a loop that is woken a thousand
times a second pays several times over for every line of Python between the waking and the packet.
This one waits for media and for everything else in one call, in C, and what comes is forwarded
within that call. The loop's own round is for timers, for pages, and for what of the media is not
the common case (docs/decisions/0016-relayed-while-waiting.md).
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")

Attend = Callable[[int, float | None], None]
"""Called as `attend(others, timeout_s)` wherever the loop would sleep: until the descriptor
`others` can be read, `timeout_s` (None: for ever) is over, or something was done that may have left
the loop something to do. It may return earlier."""


class MediaLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, in whose sleep one may be awake."""

    def __init__(self) -> None:
        self._sleep = _Sleep()
        super().__init__(self._sleep)

    def attend(self, attend: Attend) -> bool:
        """Have `attend` called instead of sleeping. False, and nothing done, if another is."""
        if self._sleep.attend is not None:
            return False

        def attend_safely(others: int, timeout_s: float | None) -> None:
            try:
                attend(others, timeout_s)
            except Exception as problem:  # as in any other callback: it must not end the loop
                words = f"Exception while attending with {attend!r}"
                self.call_exception_handler({"message": words, "exception": problem})

        self._sleep.attend = attend_safely
        return True

    def sleep_again(self) -> None:
        """Nobody attends any more."""
        self._sleep.attend = None


class _Sleep(selectors.EpollSelector):
    attend: Attend | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.attend is not None:
            # epoll's own descriptor can be read as soon as one of those registered with it can.
            self.attend(self.fileno(), timeout)
            timeout = 0
        return super().select(timeout)


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """`asyncio.run`, on such a loop."""
    with asyncio.Runner(loop_factory=MediaLoop) as runner:
        return runner.run(main)
