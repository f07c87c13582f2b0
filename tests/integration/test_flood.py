"""Somebody with keys sends far more than any camera: their line ends, and nobody else's suffers."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.caller import Caller
from core.db import Database
from core.ids import ParticipantId, RoomId
from media import journal
from media.bitrate import INFLOW_AHEAD_BYTES, INFLOW_CAP_BPS
from media.client import RtcClient, flash_and_beep, loopback_gathering
from media.events import TOO_MUCH
from media.journal import Mark, MarkKind, RecordType
from media.rtp import HEADER
from media.sdp import MID_EXTENSION, VP8
from media.tracks import TrackName
from signaling.protocol import Error, ParticipantChanged, ParticipantState
from tests.support.databases import create_tables
from tests.support.signal_house import House, eventually, running_house

PACKET_BYTES = 1_100
BURST = 20
SSRC = 0x0F100D
FLOODER = ParticipantId("petitioner-1")


class Flood:
    """Packets for the camera's section, encrypted with the call's own keys, as fast as they go."""

    def __init__(self, caller: Caller) -> None:
        camera = next(
            each
            for each in caller.rtc.pc.getTransceivers()
            if each.kind == "video" and each.direction == "sendonly"
        )
        self._transport = camera.sender.transport
        self._head = _mid_extension(camera.mid)
        self.sent_bytes = 0
        self.is_on = True

    async def run(self) -> None:
        seq = 0
        while self.is_on:
            for _ in range(BURST):
                seq = (seq + 1) & 0xFFFF
                header = HEADER.pack(0x90, VP8.payload_type, seq, seq * 90, SSRC) + self._head
                await self._transport._send_rtp(header + os.urandom(PACKET_BYTES))
                self.sent_bytes += PACKET_BYTES + len(header)
            await asyncio.sleep(0.001)


def _mid_extension(mid: str) -> bytes:
    """RFC 8285 §4.2: it names the section of an SSRC that nobody has declared."""
    element = bytes([MID_EXTENSION << 4 | len(mid) - 1]) + mid.encode()
    element += bytes(-len(element) % 4)
    return b"\xbe\xde" + (len(element) // 4).to_bytes(2, "big") + element


async def joined(stack: AsyncExitStack, house: House, room: str, role: str) -> Caller:
    rtc = RtcClient(flash_and_beep())
    caller = await stack.enter_async_context(Caller.join(house.url, house.grant(room, role), rtc))
    await caller.wait_ready()
    return caller


def heard(caller: Caller, who: str) -> int:
    received = caller.rtc.of(ParticipantId(who), TrackName.MICROPHONE)
    return 0 if received is None else received.frames


@dataclass(frozen=True, slots=True)
class Talk:
    """A live, recorded talk of three, who hear each other."""

    house: House
    room: str
    kiosk: Caller
    chair: Caller
    desk: Caller
    session_id: str

    @classmethod
    @asynccontextmanager
    async def live(cls, house: House) -> "AsyncIterator[Talk]":
        room = await house.appointment()
        with loopback_gathering():
            async with AsyncExitStack() as stack:
                kiosk, chair, desk = [
                    await joined(stack, house, room, role)
                    for role in ("petitioner", "official", "desk")
                ]
                await chair.admit()
                talk = cls(house, room, kiosk, chair, desk, await chair.wait_live())
                await eventually(talk.is_flowing, within_s=20)
                yield talk

    async def is_flowing(self) -> bool:
        return heard(self.desk, "official-1") > 20 and heard(self.chair, "petitioner-1") > 20

    async def desk_knows(self) -> bool:
        return await self.house.services.store.exists(f"room:{self.room}:excess") == 1

    @property
    def leg(self) -> tuple[int, int]:
        """The flooder's: its number, and what it has brought."""
        peer = self.house.hub._hosts[RoomId(self.room)]._peers[FLOODER]
        return peer.leg.number, peer.leg.bytes_in  # type: ignore[attr-defined]

    async def recording(self) -> Path:
        session = await self.house.session_of(self.room)
        assert session is not None and session.id == self.session_id and session.recording_id
        return self.house.services.settings.recordings_dir / session.recording_id


async def test_a_flooding_line_is_closed_the_others_hear_on_and_the_disk_is_not_filled(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    database = Database(url)
    await create_tables(database)
    await database.close()
    async with running_house(tmp_path, url) as house:
        async with Talk.live(house) as talk:
            flood, began_s = Flood(talk.kiosk), time.monotonic()
            flooding = asyncio.create_task(flood.run())
            try:
                await line_is_closed(talk)
                leg, lasted_s = talk.leg, time.monotonic() - began_s
                await everybody_knows(talk)
                await shouting_on_reaches_nobody(talk, flood)
                assert talk.leg == leg, "something more of it was taken in"
            finally:
                flood.is_on = False
                await flooding
            await coming_back_is_possible(talk)
            await talk.chair.end()
            await talk.desk.wait_ended()
        assert flood.sent_bytes > INFLOW_AHEAD_BYTES, "nothing was flooded"
        kept_bytes, marks = kept_of(await talk.recording(), leg[0])
    # What it may be ahead, the cap for as long as it lasted, and what came between two looks.
    allowed_bytes = INFLOW_AHEAD_BYTES + (lasted_s + 1) * INFLOW_CAP_BPS / 8
    assert 0 < kept_bytes <= allowed_bytes * 1.5
    assert (MarkKind.GAP, TOO_MUCH) in [(mark.kind, mark.detail) for mark in marks]


async def line_is_closed(talk: Talk) -> None:
    """Told, and not at once answered: a page would come back on a new leg."""
    told = await talk.kiosk.signaling.next(Error, lambda m: m.code == "too_much_sent", within_s=40)
    assert not told.fatal


async def everybody_knows(talk: Talk) -> None:
    await talk.chair.signaling.next(
        ParticipantChanged,
        lambda m: (
            m.participant.participant_id == FLOODER
            and m.participant.state is ParticipantState.SILENT
        ),
    )
    await eventually(talk.desk_knows)


async def shouting_on_reaches_nobody(talk: Talk, flood: Flood) -> None:
    heard_before, sent_before = heard(talk.desk, "official-1"), flood.sent_bytes
    await asyncio.sleep(2)
    assert flood.sent_bytes > sent_before, "it did not go on"
    assert heard(talk.desk, "official-1") - heard_before > 30  # of 100


async def coming_back_is_possible(talk: Talk) -> None:
    """The talk goes on as if nothing had been."""
    before = heard(talk.chair, "petitioner-1")
    await talk.kiosk.signaling.ask("media_lost")
    await talk.kiosk.wait_ready()

    async def is_back() -> bool:
        return heard(talk.chair, "petitioner-1") > before + 20

    await eventually(is_back, within_s=20)


def kept_of(recording: Path, leg: int) -> tuple[int, list[Mark]]:
    """The bytes of the flooder's packets in this leg's journals, and its marks."""
    kept_bytes, marks = 0, []
    for path in journal.journals_in(recording):
        with journal.open_journal(path) as reader:
            if (reader.header.participant_id, reader.header.leg) != (FLOODER, leg):
                continue
            for record in reader.records():
                if record.type is RecordType.RTP:
                    kept_bytes += len(record.payload)
                elif record.type is RecordType.MARK:
                    marks.append(journal.parse_mark(record))
    return kept_bytes, marks
