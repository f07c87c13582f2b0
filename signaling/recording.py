"""The recorder of one talk: opened, asked for again, adopted late, closed. It is never nobody's.

Opening asks the disk, and a disk may refuse or not answer at all. The talk waits for it a few
seconds and then goes on unrecorded, saying so; the opening is not given up. One that was refused is
asked for again until the talk has a recorder or ends, one that hangs is waited for (a second one
would hang beside it). What is opened when nobody wants it any more is closed at once: an open
recorder holds its directory's lock, and no other may write or finish there.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from core.ids import RecordingId, SessionId, new_id
from media.manifest import discard_if_empty
from signaling.ports import LiveRecorder, OpenRecorder

log = structlog.get_logger(__name__)

OPENS_WITHIN_S: Final = 5.0
"""A talk waits so long for its recorder, and goes on without it then."""
ASK_AGAIN_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses after a refusal; the last one is repeated."""

# Closings of what came too late. They outlive their talk, so no host could hold them.
_closings: set[asyncio.Task[None]] = set()

_Opening = asyncio.Future[LiveRecorder]


class TalkRecorder:
    """What one talk records with. Used on the event loop only."""

    def __init__(
        self,
        open_recorder: OpenRecorder,
        recordings_dir: Path,
        session_id: SessionId,
        recording_id: RecordingId | None,
    ) -> None:
        """`recording_id`: of a recording that goes on; None if one is to begin."""
        self.recorder: LiveRecorder | None = None
        self.recording_id = recording_id
        self.goes_on = recording_id is not None
        self.is_named = self.goes_on
        """A row in the database names this recording, or will: whatever is there is to stay."""
        self.is_awaited = False
        """It is being opened and the talk still waits for it."""
        self._open_recorder = open_recorder
        self._recordings_dir = recordings_dir
        self._session_id = session_id
        self._opening: _Opening | None = None
        self._is_over = False

    async def open(self, started_at: datetime, t0_mono_ns: int) -> LiveRecorder | None:
        """The recorder, if the disk gives one in time. What comes later is `pursue`'s.

        `started_at`, `t0_mono_ns`: the session's time 0, on either clock.
        """
        self._ask_disk(started_at, t0_mono_ns)
        self.is_awaited = True
        try:
            return await self._opened(within_s=OPENS_WITHIN_S)
        finally:
            self.is_awaited = False

    async def pursue(self, started_at: datetime, t0_mono_ns: int) -> LiveRecorder | None:
        """The recorder, whenever the disk gives one; None when nobody wants it any more."""
        for pause_s in _pauses():
            if self._opening is None:
                await asyncio.sleep(pause_s)
                if self._is_over:
                    break
                self._ask_disk(started_at, t0_mono_ns)
            if await self._opened(within_s=None) is not None or self._is_over:
                break
        return self.recorder

    def forsake(self) -> None:
        """The Session was not committed: nothing of this attempt is to stay, whenever it comes.
        Another may follow."""
        self._drop_opening()
        self.recorder = self.recording_id = None

    async def close(self, within_s: float) -> None:
        """The talk is over, here at least. A recorder that is still being opened is closed when it
        comes. Failures are logged: what is on disk is recovered by whoever finishes the recording.
        """
        self._is_over = True
        recorder, self.recorder = self.recorder, None
        if recorder is None or not self.is_named:
            self._drop_opening()
            return
        try:
            async with asyncio.timeout(within_s):
                await recorder.close()
        except Exception:  # the journals are on disk; finishing the recording recovers them
            log.exception("recording_not_closed", session_id=self._session_id)

    def _ask_disk(self, started_at: datetime, t0_mono_ns: int) -> None:
        recording_id = self.recording_id or RecordingId(new_id())
        self.recording_id = recording_id
        self._opening = _in_own_thread(
            lambda: self._open_recorder(
                self._recordings_dir / recording_id,
                session_id=self._session_id,
                started_at=started_at,
                t0_mono_ns=t0_mono_ns,
            )
        )

    async def _opened(self, *, within_s: float | None) -> LiveRecorder | None:
        """What has come of the present opening: None if it failed, or is not there in time."""
        opening = self._opening
        assert opening is not None
        await asyncio.wait({opening}, timeout=within_s)  # to stop waiting is not to cancel
        if not opening.done():
            log.error("recording_unanswered", session_id=self._session_id)
            return None
        if self._opening is not opening:
            return None  # dropped meanwhile, and closed by that
        try:
            self.recorder = opening.result()
        except Exception:  # a disk has many ways to fail; none of them may stop the talk
            log.exception("recording_unavailable", session_id=self._session_id)
            self._opening = None
        return self.recorder

    def _drop_opening(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None or self.recording_id is None:
            return
        directory = None if self.is_named else self._recordings_dir / self.recording_id
        task = asyncio.create_task(_close_when_open(opening, directory), name="close late recorder")
        _closings.add(task)
        task.add_done_callback(_closings.discard)


async def _close_when_open(opening: _Opening, directory: Path | None) -> None:
    """Close what is opened for nobody. `directory`: to be taken away if no packet is in it; with
    any it stays, for this is no place that deletes recordings."""
    await asyncio.wait({opening})
    try:
        recorder = opening.result()
    except Exception:  # it was refused: there is nothing to close
        return
    try:
        await recorder.close()
    except Exception:  # nothing was written that could be lost, and the lock is let go all the same
        log.exception("late_recorder_not_closed")
    if directory is not None:
        await asyncio.to_thread(discard_if_empty, directory)
    log.info("unwanted_recorder_closed")


def _pauses() -> Iterator[float]:
    yield from ASK_AGAIN_S
    while True:
        yield ASK_AGAIN_S[-1]


def _in_own_thread(work: Callable[[], LiveRecorder]) -> _Opening:
    """`work` in a thread of its own: a disk that hangs must hold up neither the threads that
    everybody shares nor the end of the process."""
    loop = asyncio.get_running_loop()
    opening: _Opening = loop.create_future()

    def run() -> None:
        try:
            tell = partial(opening.set_result, work())
        except Exception as problem:  # for whoever waits
            tell = partial(opening.set_exception, problem)
        with contextlib.suppress(RuntimeError):  # the loop is closed: this process is ending
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, name="open recorder", daemon=True).start()
    return opening
