"""What is well and what is not, in facts that a county clerk can act on."""

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from starlette.datastructures import State

from app import scrubbing, storage
from cases import keeping, keeping_clock, keeping_job
from core import audit
from core.edge import Services
from core.events import Event
from media.model import Recording


async def is_ready(services: Services) -> dict[str, bool]:
    """Whether this process can take work: each need by name."""
    return {
        "database": await _answers(services.database.ping()),
        "store": await _answers(services.store.ping()),
        "disk": await asyncio.to_thread(storage.has_reserve, services.settings),
    }


async def health_report(services: Services, state: State) -> dict[str, Any]:
    """Readiness and the numbers an operator looks at first."""
    async with services.database.reading() as tx:
        waiting = await tx.scalar(
            select(func.count()).select_from(Event).where(Event.handled_at.is_(None))
        )
        recordings = await tx.execute(
            select(Recording.state, func.count()).group_by(Recording.state)
        )
        by_state = {row[0]: row[1] for row in recordings}
        broken_at = await audit.verify(tx)
        ahead = await storage.look(tx, services.settings, services.clock.now())
        halted = await keeping_job.halted(tx)
    clock = await services.database.run(
        lambda tx: keeping_clock.look(tx, keeping.look(services.clock))
    )
    hub = getattr(state, "hub", None)
    return {
        "ready": await is_ready(services),
        "node": services.settings.node_name,
        "roles": list(services.settings.roles),
        "free_disk_mib": ahead.free_mib,
        "storage": ahead.as_dict(),
        "rooms": hub.room_count() if hub is not None else 0,
        "sockets_refused": hub.doorway.refused if hub is not None else 0,
        "events_waiting": waiting,
        "recordings": by_state,
        "audit_chain_broken_at": broken_at,
        "deletions_halted": halted,
        "clock_off_s": None if clock is None else round(clock.off.total_seconds()),
        "scrub": _scrub(services),
    }


def _scrub(services: Services) -> dict[str, Any] | None:
    """What the last scrub found; None before the first. `late` when nights go by without one."""
    report = scrubbing.last_report(services.settings)
    if report is None:
        return None
    since = services.clock.now() - datetime.fromisoformat(report.at)
    return {**asdict(report), "late": since > scrubbing.LATE_AFTER}


async def _answers(question: Any) -> bool:  # an awaitable of whatever the engine says
    try:
        await question
    except Exception:  # any failure to answer is the finding; its cause is in the engine's own log
        return False
    return True
