"""Brings the tables of the database to a revision; `revision` says which one they are at."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import SettingsError, UsageError
from crawlscope.database.engine import DEADLOCK, LOCK_NOT_AVAILABLE, Database, sqlstate
from crawlscope.database.revision import VERSION_TABLE

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_108_201_426
"""Key of the advisory lock that lets one process migrate while the others wait."""
LOCK_SECONDS = 2.0
"""Everybody else waits behind a migration that waits for a lock: it soon gives up, and tries again."""
PATIENCE_SECONDS = 180.0
MIN_SERVER_VERSION = 15


async def upgrade(database: Database, revision: str = "head") -> None:
    """Applies what is missing up to `revision`; processes that do this at once wait for each other.

    Each revision has a transaction of its own, so that others wait for short times. Raises `UsageError` if
    others keep tables locked for minutes.
    """
    while await _alembic(database, partial(_upgrade_once, target=revision)):
        pass


async def downgrade(database: Database, revision: str = "-1") -> None:
    await _alembic(database, lambda config: command.downgrade(config, revision))


def _upgrade_once(config: Config, target: str) -> bool:
    """Whether more is missing. A database without tables is used by nobody: it gets all of them at once."""
    connection, scripts = config.attributes["connection"], ScriptDirectory.from_config(config)
    found, missing = _current_revision(connection), list[Script]()
    if found is not None:
        with suppress(RevisionError):  # Alembic's command raises it with more words
            missing = list(scripts.iterate_revisions(target, found))
    command.upgrade(config, missing[-1].revision if missing else target)
    return len(missing) > 1


def is_known(revision: str) -> bool:
    """False for a revision that a newer version made."""
    scripts = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    return any(script.revision == revision for script in scripts)


async def _alembic(database: Database, action: Callable[[Config], T]) -> T:
    retries = retry_context(on=_is_locked, attempts=None, timeout=PATIENCE_SECONDS)
    try:
        async for attempt in retries:
            with attempt:
                async with database.patient() as patient, patient.transaction() as connection:
                    return await connection.run_sync(_run, action)
        raise AssertionError("unreachable")
    except DBAPIError as error:
        if not _is_locked(error):
            raise
        raise UsageError(
            "other processes use the tables: stop them, then run `crawlscope db upgrade`"
        ) from None


def _run(connection: Connection, action: Callable[[Config], T]) -> T:
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if version < MIN_SERVER_VERSION * 10_000:
        raise SettingsError(
            f"the PostgreSQL server is version {version // 10_000}; "
            f"Crawlscope needs {MIN_SERVER_VERSION} or newer"
        )
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    connection.execute(text(f"SET LOCAL lock_timeout TO {round(LOCK_SECONDS * 1000)}"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        done = action(config)
    except CommandError as error:
        raise UsageError(str(error)) from error
    if (now := _current_revision(connection)) is not None:
        script = ScriptDirectory.from_config(config).get_revision(now)
        oldest = getattr(script.module, "serves_from", now)
        connection.execute(text(f"COMMENT ON TABLE public.{VERSION_TABLE} IS '{oldest}'"))
    return done


def _current_revision(connection: Connection) -> str | None:
    if connection.scalar(text(f"SELECT to_regclass('public.{VERSION_TABLE}')")) is None:
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM public.{VERSION_TABLE}"))  # noqa: S608
    return found


def _is_locked(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and sqlstate(error) in (LOCK_NOT_AVAILABLE, DEADLOCK)
