"""The faults of the outage drill.

Each does one thing to a call, or to the whole house, and answers with a row for each call: what
proves that it happened, and when media was back. It also leaves with the call when it was, on the
clock of the journals: what the recording says of it is read afterwards (aftermath.py).
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
from playwright.async_api import Page
from playwright.async_api import TimeoutError as NeverShown

from bench.aftermath import Disturbance
from bench.outage_stage import URL, Stage
from bench.outage_watch import (
    STREAMS,
    Call,
    Row,
    back_for_good,
    fill_gaps,
    first_after,
    leg,
    longest_gap,
    measure,
    sockets_opened,
    told,
)

SOCKET_CUT_S: Final = 3.0
NOTICE_S: Final = 8.0
HANG_S: Final = 10.0
STEADY_S: Final = 8.0
"""How long it is watched after a hang: a stream counts as back when it stays."""
DESK_TOLD_WITHIN_S: Final = 40.0
CLOCK_JUMP_S: Final = 3600


async def link(call: Call, outage_s: int) -> Row:
    """Every packet of the lane is lost for `outage_s`."""
    row = Row("link", call.lane.number, outage_s)
    before = await leg(call.kiosk_page)
    cut_s, from_ns = time.time(), time.monotonic_ns()
    call.lane.cut("down")
    await asyncio.sleep(outage_s)
    dropped = call.lane.mend()
    mended_s, to_ns = time.time(), time.monotonic_ns()
    call.faults.append(Disturbance("link", from_ns, to_ns))
    row.noticed_s = await told(call.office, "petitioner", ("silent",), cut_s)
    await measure(call, row, mended_s)
    row.legs = (before, await leg(call.kiosk_page))
    # What was under way, or waited in a busy browser, may still arrive for a moment.
    last = [await first_after(page, "audio", cut_s + 2) for page in (call.kiosk_page, call.office)]
    row.proof = f"{dropped} packets dropped"
    if dropped < outage_s or any(one is not None and one < outage_s - 2.2 for one in last):
        row.trouble = f"the line was not down: {dropped} dropped, heard after 2 s + {last}"
    return row


async def reload(call: Call, _: int) -> Row:
    row = Row("reload", call.lane.number, 0)
    before = await leg(call.kiosk_page)
    from_s, from_ns = time.time(), time.monotonic_ns()
    await call.kiosk_page.reload(wait_until="commit")
    await measure(call, row, from_s)
    # Packets of the old page were still under way when it went: count from the new leg's first.
    row.legs = (before, await leg(call.kiosk_page))
    up = [await longest_gap(call.office, stream, from_s) for stream in ("audio", "video")]
    row.sound_up_s, row.picture_up_s = up
    call.faults.append(Disturbance("reload", from_ns, time.monotonic_ns()))
    row.proof = f"leg {before} → {row.legs[1]}"
    if row.legs[1] <= before:
        row.trouble = "the page was not reloaded"
    return row


async def kill(call: Call, _: int) -> Row:
    """kill -9 of the kiosk's whole browser; a new one takes the same seat."""
    row = Row("kill", call.lane.number, NOTICE_S)
    before = await leg(call.kiosk_page)
    pids = call.lane.pids()
    from_s, from_ns = time.time(), time.monotonic_ns()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(NOTICE_S)
    row.noticed_s = await told(call.office, "petitioner", ("silent",), from_s)
    row.proof = f"{len(pids)} processes killed"
    if call.lane.pids():
        row.trouble = "the browser lives"
    again_s = time.time()
    call.kiosk = await call.open_kiosk()
    await measure(call, row, again_s)
    call.faults.append(Disturbance("kill", from_ns, time.monotonic_ns()))
    row.legs = (before, await leg(call.kiosk))
    return row


async def tab(call: Call, _: int) -> Row:
    """The official's tab is closed, until the county desk is told; then opened again."""
    before = await leg(call.office)
    from_s, from_ns = time.time(), time.monotonic_ns()
    await call.office.close()
    row = Row("tab", call.lane.number, 0)
    row.words_s = await _words_shown(call.kiosk_page, from_s)
    row.noticed_s = await told(call.kiosk_page, "official", ("silent",), from_s)
    row.desk_told_s = await _desk_told(call, from_s)
    row.outage_s = round(time.time() - from_s, 1)
    session = await call.ask_official(f"/api/sessions/{call.session_id}")
    last = await longest_gap(call.kiosk_page, "audio", from_s + 2)
    row.proof = f"tab closed, no sound from it for {last} s"
    again_s = time.time()
    call.office = await call.open_office()
    await measure(call, row, again_s)
    call.faults.append(Disturbance("tab", from_ns, time.monotonic_ns()))
    row.legs = (before, await leg(call.office))
    seen = await call.ask_official(f"/api/appointments/{call.appointment_id}")
    if last < row.outage_s - 4:
        row.trouble = "the official was still heard"
    elif None in (row.words_s, row.noticed_s, row.desk_told_s):
        row.trouble = "the kiosk or the desk was not told"
    elif session["case_id"] is not None or seen["session_id"] != call.session_id:
        row.trouble = "the talk was ended, or another one begun"
    return row


async def _words_shown(kiosk: Page, from_s: float) -> float | None:
    """When the kiosk said in words that the official is away."""
    try:
        await kiosk.locator("[data-away=official]").first.wait_for(timeout=NOTICE_S * 1000)
    except NeverShown:
        return None
    return round(time.time() - from_s, 3)


async def _desk_told(call: Call, from_s: float) -> float | None:
    """When the county desk's alarms first named this talk's official as away."""
    while time.time() - from_s < DESK_TOLD_WITHIN_S:
        alarms = await call.ask_desk("/api/desk/alarms")
        for each in alarms["away"]:
            if (each["role"], each["talk"]["appointment_id"]) == ("official", call.appointment_id):
                return round(time.time() - from_s, 1)
        await asyncio.sleep(0.5)
    return None


async def nat(call: Call, _: int) -> Row:
    """The router forgets every mapping: all flows go on from new public ports."""
    row = Row("nat", call.lane.number, 0)
    before = await leg(call.kiosk_page)
    ports = call.lane.public_ports()
    from_s, from_ns = time.time(), time.monotonic_ns()
    call.lane.rebind()
    await asyncio.sleep(6)
    call.faults.append(Disturbance("nat", from_ns, time.monotonic_ns()))
    await fill_gaps(call, row, from_s)
    row.legs = (before, await leg(call.kiosk_page))
    row.proof = (
        f"public port {' '.join(sorted(ports))} → {' '.join(sorted(call.lane.public_ports()))}"
    )
    if call.lane.public_ports() & ports:
        row.trouble = "the mapping stayed"
    return row


async def socket(call: Call, _: int) -> Row:
    """Only signaling is reset and refused; media must not notice."""
    row = Row("socket", call.lane.number, SOCKET_CUT_S)
    before = await leg(call.kiosk_page)
    opened = await sockets_opened(call.kiosk_page)
    from_s, from_ns = time.time(), time.monotonic_ns()
    call.lane.cut("signaling")
    await asyncio.sleep(SOCKET_CUT_S)
    resets = call.lane.mend()
    await asyncio.sleep(4)
    call.faults.append(Disturbance("socket", from_ns, time.monotonic_ns()))
    await fill_gaps(call, row, from_s)
    row.legs = (before, await leg(call.kiosk_page))
    reopened = await sockets_opened(call.kiosk_page) - opened
    row.proof = f"{resets} resets, {reopened} sockets opened again"
    if not resets or not reopened:
        row.trouble = "the socket was not cut, or did not come back"
    if row.legs[0] != row.legs[1]:
        row.trouble = "media began anew"
    return row


# ── the whole house ──────────────────────────────────────────────────────────────────────────────


async def clock_moved(stage: Stage) -> list[Row]:
    """The server's wall clock jumps an hour ahead, and back again."""
    server, calls = stage.server, stage.calls
    rows = [Row("clock", call.lane.number, 0) for call in calls]
    before = [await leg(call.kiosk_page) for call in calls]
    sockets = [await sockets_opened(call.kiosk_page) for call in calls]
    from_s, from_ns = time.time(), time.monotonic_ns()
    moved = []
    for offset_s in (CLOCK_JUMP_S, 0):
        server.move_clock(stage.shift_s + offset_s)
        await asyncio.sleep(6)
        async with httpx.AsyncClient() as client:
            said = (await client.get(f"{URL}/livez")).headers["date"]
        away_s = parsedate_to_datetime(said).timestamp() - time.time()
        moved.append(round(away_s) - stage.shift_s)
    for call, row, old_leg, opened in zip(calls, rows, before, sockets, strict=True):
        await fill_gaps(call, row, from_s)
        row.legs = (old_leg, await leg(call.kiosk_page))
        row.proof = f"the server's Date was off by {moved[0]} s, then by {moved[1]} s"
        reopened = await sockets_opened(call.kiosk_page) - opened
        if abs(moved[0] - CLOCK_JUMP_S) > 5 or abs(moved[1]) > 5:
            row.trouble = "the clock did not move"
        elif reopened or row.legs[0] != row.legs[1]:
            row.trouble = "a transport began anew"
        call.faults.append(Disturbance("clock", from_ns, time.monotonic_ns()))
    return rows


async def halted(stage: Stage) -> list[Row]:
    """SIGSTOP of the server for ten seconds, then SIGCONT: it has not died, it was not there."""
    server, calls = stage.server, stage.calls
    rows = [Row("hang", call.lane.number, HANG_S) for call in calls]
    before = [await leg(call.kiosk_page) for call in calls]
    from_s, from_ns = time.time(), time.monotonic_ns()
    state = await asyncio.to_thread(server.halt)
    await asyncio.sleep(HANG_S)
    server.wake()
    woke_s, to_ns = time.time(), time.monotonic_ns()
    await asyncio.sleep(STEADY_S)
    for call, row, old_leg in zip(calls, rows, before, strict=True):
        row.noticed_s = await told(call.office, "petitioner", ("silent",), from_s)
        await back_for_good(call, row, woke_s)
        row.legs = (old_leg, await leg(call.kiosk_page))
        unheard_s = await longest_gap(call.kiosk_page, "audio", from_s)
        row.proof = f"the process was in state {state}, nothing arrived for {unheard_s} s"
        if state != "T" or unheard_s < HANG_S - 1:
            row.trouble = "the server did not stand still"
        call.faults.append(Disturbance("hang", from_ns, to_ns))
    return rows


async def server_killed(stage: Stage) -> list[Row]:
    """kill -9 of the server and a restart at once, as its supervisor would."""
    server, calls = stage.server, stage.calls
    rows = [Row("server", call.lane.number, 0) for call in calls]
    before = [await leg(call.kiosk_page) for call in calls]
    from_s, from_ns = time.time(), time.monotonic_ns()
    server.kill()
    assert server.process is not None
    died = server.process.returncode == -signal.SIGKILL
    await asyncio.to_thread(server.start)
    ready_s = round(time.time() - from_s, 2)
    for call, row, old_leg in zip(calls, rows, before, strict=True):
        # What the dead server had sent may still have been decoded a moment later.
        await measure(call, row, from_s + 0.5)
        for name in STREAMS:
            if (value := getattr(row, name)) is not None:
                setattr(row, name, round(value + 0.5, 3))
        row.ready_s = ready_s
        row.legs = (old_leg, await leg(call.kiosk_page))
        row.proof = f"killed, ready again after {ready_s} s"
        row.trouble = "" if died and row.legs[1] > old_leg else "the server was not killed"
        call.faults.append(Disturbance("server", from_ns, time.monotonic_ns()))
    return rows


OF_A_CALL: Final[dict[str, Callable[[Call, int], Awaitable[Row]]]] = {
    "link": link, "reload": reload, "kill": kill, "tab": tab, "nat": nat, "socket": socket,
}  # fmt: skip
OF_THE_HOUSE: Final[dict[str, Callable[[Stage], Awaitable[list[Row]]]]] = {
    "clock": clock_moved, "hang": halted, "server": server_killed,
}  # fmt: skip
"""What befalls all lanes at once."""
