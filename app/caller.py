"""A participant without a browser: the signaling client and the media client, joined.

Answers every offer of the room as a page would, and waits for what a person would notice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.ids import ParticipantId
from media.client import RtcClient
from media.peer import Offer, OfferedTrack
from media.tracks import TrackName
from signaling import protocol
from signaling.client import SignalingClient, SignalingClosed, SignalingRefused, open_signaling
from signaling.protocol import Ended, ParticipantChanged, ParticipantState, RoomChanged, RoomState

READY_WITHIN_S = 20.0
LIVE_WITHIN_S = 20.0
ENDED_WITHIN_S = 20.0


class Caller:
    """One seat taken, one media connection kept. Made by `join`, which also hangs up."""

    def __init__(self, signaling: SignalingClient, rtc: RtcClient) -> None:
        self.signaling = signaling
        self.rtc = rtc

    @classmethod
    @asynccontextmanager
    async def join(cls, ws_url: str, grant: str, rtc: RtcClient) -> "AsyncIterator[Caller]":
        """Enter with `grant`, sending what `rtc` has, until the end of the block."""
        async with open_signaling(ws_url) as signaling:
            caller = cls(signaling, rtc)
            await signaling.join(grant)
            answering = asyncio.create_task(caller._answer_offers(), name="answer offers")
            try:
                yield caller
            finally:
                answering.cancel()
                with contextlib.suppress(asyncio.CancelledError, SignalingClosed):
                    await answering
                await rtc.aclose()

    async def wait_ready(self) -> None:
        """Until the room sees this participant's media."""
        me = self.signaling.participant_id
        await self.signaling.next(
            ParticipantChanged,
            lambda change: (
                change.participant.participant_id == me
                and change.participant.state is ParticipantState.READY
            ),
            within_s=READY_WITHIN_S,
        )

    async def admit(self) -> None:
        await self.signaling.ask("admit")

    async def wait_live(self) -> str:
        """Until the room is live; the session's id."""
        live = await self.signaling.next(
            RoomChanged, lambda change: change.state is RoomState.LIVE, within_s=LIVE_WITHIN_S
        )
        assert live.session_id is not None
        return live.session_id

    async def end(self) -> None:
        await self.signaling.ask("end")

    async def wait_ended(self) -> Ended:
        return await self.signaling.next(Ended, within_s=ENDED_WITHIN_S)

    async def _answer_offers(self) -> None:
        while True:
            offer = await self.signaling.next(protocol.Offer, within_s=float("inf"))
            answer = await self.rtc.accept(_media_offer(offer))
            try:
                await self.signaling.answer(offer.revision, answer)
            except SignalingRefused as refused:
                # A newer offer is on its way, or the talk has just ended; the answer to this one is
                # of no use to anyone.
                if refused.code not in ("stale_answer", "session_ended"):
                    raise


def _media_offer(offer: protocol.Offer) -> Offer:
    """The wire's offer in the media client's words."""
    tracks = tuple(
        OfferedTrack(
            mid=track.mid, participant_id=ParticipantId(track.participant_id),
            name=TrackName(track.track), direction=track.direction,
        )
        for track in offer.tracks
    )  # fmt: skip
    return Offer(revision=offer.revision, leg=offer.leg, sdp=offer.sdp, tracks=tracks)
