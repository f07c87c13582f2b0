"""A room process over a scratch database that nothing else lives in.

`python -m bench.rooms` serves what RECEPTION_… settings say, as `reception serve` does with the
role `room`. Its Sessions stand without officials, appointments and counties: whoever holds the
secret in its `var` writes Grants for any room, and a benchmark needs no prefecture around it.
"""

from typing import Any

from sqlalchemy import event

from app.serve import make_server
from core.log import configure_logging
from core.settings import Settings
from media import loop


async def _serve() -> None:
    settings = Settings()
    configure_logging(level="WARNING")
    server = make_server(settings)
    application: Any = server.config.app  # typed as any ASGI callable

    @event.listens_for(application.state.services.database.engine.sync_engine, "connect")
    def _alone(connection: Any, _record: Any) -> None:  # the DBAPI's connections have no type
        connection.execute("PRAGMA foreign_keys=OFF")

    await server.serve()


if __name__ == "__main__":
    loop.run(_serve())
