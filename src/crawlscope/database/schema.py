"""Brings the tables of the database to a revision; `revision` says which one they are at."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import SettingsError, UsageError
from crawlscope.database.engine import DEADLOCK, LOCK_NOT_AVAILABLE, Database, sqlstate, translated_errors
from crawlscope.database.revision import ALIVE, current_revision, processes_before

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_108_201_426
"""Key of the advisory lock that lets one process migrate while the others wait."""
LOCK_SECONDS = 2.0
"""Everybody else waits behind a migration that waits for a lock: it soon gives up, and tries again."""
MAX_ATTEMPTS = 30
"""They take about three minutes. Time in which an index is built does not count."""
LOCK_POLL_SECONDS = 0.2
PROCESS_POLL_SECONDS = 1.0
MIN_SERVER_VERSION = 15
_TRY_LOCK = text(f"SELECT pg_try_advisory_lock({MIGRATION_LOCK})")


async def upgrade(database: Database, revision: str = "head") -> None:
    """Applies what is missing up to `revision`; processes that do this at once wait for each other.

    Each revision has a transaction of its own, so that others wait for short times; what an interrupted
    upgrade has left to do, the next one does. Raises `UsageError` if
    others keep tables locked for minutes, or if processes run that the new tables do not serve.
    """
    await _require_served_processes(database, revision)
    await _alembic(database, lambda config: command.upgrade(config, revision))


async def downgrade(database: Database, revision: str = "-1") -> None:
    await _alembic(database, lambda config: command.downgrade(config, revision))


async def _require_served_processes(database: Database, target: str) -> None:
    """Gives the last report of a process that was killed the time to become old."""
    found, scripts = await current_revision(database), ScriptDirectory(str(MIGRATIONS))
    if found is None or not is_known(found):
        return
    missing = list[Script]()
    with suppress(RevisionError):  # Alembic's command raises it with more words
        missing = list(scripts.iterate_revisions(target, found))
    oldest = max(map(oldest_served, missing), default="")
    if oldest <= oldest_served(scripts.get_revision(found)):
        return
    deadline = time.monotonic() + ALIVE.total_seconds()
    while running := await processes_before(database, oldest):
        if time.monotonic() > deadline:
            raise UsageError(
                f"the processes {', '.join(running)} (host, process id, start) do not work with the new "
                "tables: stop them, then run `crawlscope db upgrade`"
            )
        await asyncio.sleep(PROCESS_POLL_SECONDS)


def oldest_served(script: Script) -> str:
    """The oldest revision whose version works with the tables that this one makes."""
    return str(getattr(script.module, "serves_from", script.revision))


def is_known(revision: str) -> bool:
    """False for a revision that a newer version made."""
    scripts = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    return any(script.revision == revision for script in scripts)


async def _alembic(database: Database, action: Callable[[Config], None]) -> None:
    retries = retry_context(on=_is_locked, attempts=MAX_ATTEMPTS, timeout=None)
    with translated_errors():
        async with database.patient() as patient, patient.engine.connect() as connection:
            await _lock(connection)
            try:
                async for attempt in retries:
                    with attempt:
                        await connection.run_sync(_run, action)
            except DBAPIError as error:
                if not _is_locked(error):
                    raise
                raise UsageError(
                    "other processes use the tables: stop them, then run `crawlscope db upgrade`"
                ) from None


async def _lock(connection: AsyncConnection) -> None:
    """For this session. Waits without a transaction, because the build of an index waits for all of them."""
    while not await connection.scalar(_TRY_LOCK):
        await connection.commit()
        await asyncio.sleep(LOCK_POLL_SECONDS)
    await connection.commit()


def _run(connection: Connection, action: Callable[[Config], None]) -> None:
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if version < MIN_SERVER_VERSION * 10_000:
        raise SettingsError(
            f"the PostgreSQL server is version {version // 10_000}; "
            f"Crawlscope needs {MIN_SERVER_VERSION} or newer"
        )
    connection.execute(text(f"SET lock_timeout TO {round(LOCK_SECONDS * 1000)}"))
    connection.commit()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        action(config)
    except CommandError as error:
        raise UsageError(str(error)) from error
    except PendingRollbackError as error:
        raise error.__context__ or error from None  # Alembic hides the loss of the connection behind it


def _is_locked(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and sqlstate(error) in (LOCK_NOT_AVAILABLE, DEADLOCK)
