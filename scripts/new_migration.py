"""Write the next migration from the difference between models and the newest revision.

`new_migration.py "What changes."`; read what it wrote before committing it.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from alembic import command

from app.database import MIGRATIONS, alembic_config, upgrade

with tempfile.TemporaryDirectory() as folder:
    url = f"sqlite+aiosqlite:///{Path(folder) / 'new.db'}"
    asyncio.run(upgrade(url))
    number = f"{len(list((MIGRATIONS / 'versions').glob('[0-9]*.py'))) + 1:04d}"
    command.revision(alembic_config(url), sys.argv[1], autogenerate=True, rev_id=number)
