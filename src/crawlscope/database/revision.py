"""Which revision the tables are at: asked by every process that starts, without loading Alembic."""

from sqlalchemy import text

from crawlscope.core.errors import SettingsError
from crawlscope.database.engine import Database

NEWEST = "0022"
"""What this version needs: the newest migration there is."""
VERSION_TABLE = "crawlscope_alembic_version"


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


async def require_current(database: Database) -> None:
    """Raises `SettingsError` with the command to run when the tables are not at this version's revision."""
    found = await current_revision(database)
    if found != NEWEST:
        raise SettingsError(
            f"the database is at revision {found or 'none'}, this version needs {NEWEST}: "
            "run `crawlscope db upgrade`"
        )
