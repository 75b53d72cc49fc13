"""Which revision the tables are at, and the processes: asked by all that start, without loading Alembic."""

from datetime import timedelta

from sqlalchemy import text

from crawlscope.core.errors import SettingsError
from crawlscope.database.engine import Database

NEWEST = "0028"
"""The revision that this version needs: the newest migration."""
VERSION_TABLE = "crawlscope_alembic_version"
_OLDEST_SERVED = text(f"SELECT obj_description('public.{VERSION_TABLE}'::regclass, 'pg_class')")
"""The oldest revision whose version works with the tables: a migration leaves it as a comment."""
ALIVE = timedelta(seconds=20)
"""A process reports more often: one whose report is older has died, or cannot reach the database."""
_PROCESSES_BEFORE = text("""
    SELECT name FROM webhook.processes AS process
    WHERE reported_at > now() - CAST(:alive AS interval)
        AND coalesce(to_jsonb(process)->>'revision', '') < :revision
    ORDER BY name
""")
"""Versions before 0027 do not say theirs."""


async def current_revision(database: Database) -> str | None:
    """None for a database without the tables."""
    async with database.transaction() as connection:
        table = await connection.scalar(text(f"SELECT to_regclass('public.{VERSION_TABLE}')"))
        if table is None:
            return None
        revision: str | None = await connection.scalar(
            text(f"SELECT version_num FROM public.{VERSION_TABLE}")  # noqa: S608 - a constant
        )
        return revision


async def serves_this_version(database: Database) -> bool:
    """Whether the tables are at this version's revision, or at a newer one with which it works as well."""
    found = await current_revision(database)
    if found is None or found <= NEWEST:
        return found == NEWEST
    async with database.transaction() as connection:
        oldest = await connection.scalar(_OLDEST_SERVED)
    return oldest is not None and oldest <= NEWEST


async def require_current(database: Database) -> None:
    """Raises `SettingsError` with what to do when this version cannot work with the tables."""
    if await serves_this_version(database):
        return
    found = await current_revision(database)
    if found is not None and found > NEWEST:
        raise SettingsError(
            f"the database is at revision {found}, which a newer version has made: update Crawlscope"
        )
    raise SettingsError(
        f"the database is at revision {found or 'none'}, this version needs {NEWEST}: "
        "run `crawlscope db upgrade`"
    )


async def processes_before(database: Database, revision: str) -> list[str]:
    """The processes that are alive, and whose version needs an older revision or does not say which."""
    async with database.transaction() as connection:
        if await connection.scalar(text("SELECT to_regclass('webhook.processes')")) is None:
            return []
        given = {"alive": ALIVE, "revision": revision}
        return list(await connection.scalars(_PROCESSES_BEFORE, given))
