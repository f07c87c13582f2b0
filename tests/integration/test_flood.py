"""Somebody with keys sends far more than any camera: their line ends, and nobody else's suffers."""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

from app.caller import Caller
from core.db import Database
from core.ids import ParticipantId, RoomId
from media import journal
from media.bitrate import INFLOW_AHEAD_BYTES, INFLOW_CAP_BPS
from media.client import RtcClient, flash_and_beep, loopback_gathering
from media.events import TOO_MUCH
from media.journal import MarkKind, RecordType
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


def leg_of(house: House, room: str) -> "tuple[int, int]":
    peer = house.hub._hosts[RoomId(room)]._peers[FLOODER]
    return peer.leg.number, peer.leg.bytes_in  # type: ignore[attr-defined]


async def test_a_flooding_line_is_closed_the_others_hear_on_and_the_disk_is_not_filled(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    database = Database(url)
    await create_tables(database)
    await database.close()
    async with running_house(tmp_path, url) as house:
        room = await house.appointment()
        with loopback_gathering():
            async with AsyncExitStack() as stack:
                kiosk = await joined(stack, house, room, "petitioner")
                chair = await joined(stack, house, room, "official")
                desk = await joined(stack, house, room, "desk")
                await chair.admit()
                session_id = await chair.wait_live()

                async def is_flowing() -> bool:
                    return heard(desk, "official-1") > 20 and heard(chair, "petitioner-1") > 20

                await eventually(is_flowing, within_s=20)
                flood, began_s = Flood(kiosk), time.monotonic()
                flooding = asyncio.create_task(flood.run())
                try:
                    # Answered as soon as it is told: the page would come back on a new leg.
                    told = await kiosk.signaling.next(
                        Error, lambda m: m.code == "too_much_sent", within_s=40
                    )
                    lasted_s = time.monotonic() - began_s
                    assert not told.fatal
                    leg, came_bytes = leg_of(house, room)
                    await chair.signaling.next(
                        ParticipantChanged,
                        lambda m: (
                            m.participant.participant_id == FLOODER
                            and m.participant.state is ParticipantState.SILENT
                        ),
                    )

                    async def desk_knows() -> bool:
                        return await house.services.store.exists(f"room:{room}:excess") == 1

                    await eventually(desk_knows)
                    # It goes on shouting, and nothing of it is taken in any more.
                    before = heard(desk, "official-1")
                    shouted = flood.sent_bytes
                    await asyncio.sleep(2)
                    assert flood.sent_bytes > shouted, "it did not go on"
                    assert leg_of(house, room) == (leg, came_bytes)
                    assert heard(desk, "official-1") - before > 30  # of 100
                finally:
                    flood.is_on = False
                    await flooding
                # Coming back is possible, and the talk goes on as if nothing had been.
                before = heard(chair, "petitioner-1")
                await kiosk.signaling.ask("media_lost")
                await kiosk.wait_ready()

                async def is_back() -> bool:
                    return heard(chair, "petitioner-1") > before + 20

                await eventually(is_back, within_s=20)
                await chair.end()
                await desk.wait_ended()
        session = await house.session_of(room)
        assert session is not None and session.id == session_id and session.recording_id
        directory = house.services.settings.recordings_dir / session.recording_id
    assert flood.sent_bytes > INFLOW_AHEAD_BYTES, "nothing was flooded"
    # What it may be ahead, the cap for as long as it lasted, and what came between two looks.
    allowed_bytes = INFLOW_AHEAD_BYTES + (lasted_s + 1) * INFLOW_CAP_BPS / 8
    kept_bytes, marks = 0, []
    for path in journal.journals_in(directory):
        with journal.open_journal(path) as reader:
            if (reader.header.participant_id, reader.header.leg) != (FLOODER, leg):
                continue
            for record in reader.records():
                if record.type is RecordType.RTP:
                    kept_bytes += len(record.payload)
                elif record.type is RecordType.MARK:
                    marks.append(journal.parse_mark(record))
    assert 0 < kept_bytes <= allowed_bytes * 1.5
    assert (MarkKind.GAP, TOO_MUCH) in [(mark.kind, mark.detail) for mark in marks]
