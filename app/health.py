"""What is well and what is not, in facts that a county clerk can act on."""

import shutil
from typing import Any

from sqlalchemy import func, select
from starlette.datastructures import State

from core import audit
from core.edge import Services
from core.events import Event
from core.settings import Settings
from media.model import Recording


def free_disk_mib(settings: Settings) -> int:
    settings.var_dir.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(settings.var_dir).free // (1024 * 1024)


async def is_ready(services: Services) -> dict[str, bool]:
    """Whether this process can take work: each need by name."""
    return {
        "database": await _answers(services.database.ping()),
        "store": await _answers(services.store.ping()),
        "disk": free_disk_mib(services.settings) > services.settings.min_free_disk_mib,
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
    hub = getattr(state, "hub", None)
    return {
        "ready": await is_ready(services),
        "node": services.settings.node_name,
        "roles": list(services.settings.roles),
        "free_disk_mib": free_disk_mib(services.settings),
        "rooms": hub.room_count() if hub is not None else 0,
        "events_waiting": waiting,
        "recordings": by_state,
        "audit_chain_broken_at": broken_at,
    }


async def _answers(question: Any) -> bool:  # an awaitable of whatever the engine says
    try:
        await question
    except Exception:  # any failure to answer is the finding; its cause is in the engine's own log
        return False
    return True
