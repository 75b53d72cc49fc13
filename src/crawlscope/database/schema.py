"""Brings the tables of the database to a revision; `revision` says which one they are at."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from crawlscope.core.errors import SettingsError, UsageError
from crawlscope.database.engine import LOCK_NOT_AVAILABLE, Database, sqlstate

AlembicAction = Callable[[Config], None]

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_108_201_426
"""Key of the advisory lock that lets one process migrate while the others wait."""
MIN_SERVER_VERSION = 15


async def upgrade(database: Database, revision: str = "head") -> None:
    """Applies what is missing up to `revision`; processes that do this at once wait for each other."""
    await _alembic(database, lambda config: command.upgrade(config, revision))


async def downgrade(database: Database, revision: str = "-1") -> None:
    await _alembic(database, lambda config: command.downgrade(config, revision))


def is_known(revision: str) -> bool:
    """False for a revision that a newer version made."""
    scripts = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    return any(script.revision == revision for script in scripts)


async def _alembic(database: Database, action: AlembicAction) -> None:
    def run(connection: Connection) -> None:
        version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        if version < MIN_SERVER_VERSION * 10_000:
            raise SettingsError(
                f"the PostgreSQL server is version {version // 10_000}; "
                f"Crawlscope needs {MIN_SERVER_VERSION} or newer"
            )
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        try:
            action(config)
        except CommandError as error:
            raise UsageError(str(error)) from error

    try:
        async with database.patient() as patient, patient.transaction() as connection:
            await connection.run_sync(run)
    except DBAPIError as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        raise UsageError(
            "other processes use the tables: stop them, then run `crawlscope db upgrade`"
        ) from None
