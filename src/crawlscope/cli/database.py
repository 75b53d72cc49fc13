"""The commands on the database schema."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from crawlscope.cli.common import process_settings

if TYPE_CHECKING:
    from crawlscope.database.engine import Database

app = typer.Typer(help="Manage the database schema.", no_args_is_help=True)


@app.command()
def upgrade(revision: Annotated[str, typer.Argument()] = "head") -> None:
    """Upgrade the schema to a revision. Default: the newest."""
    from crawlscope.database import schema

    _with_database(lambda database: schema.upgrade(database, revision))


@app.command()
def downgrade(revision: Annotated[str, typer.Argument()] = "-1") -> None:
    """Downgrade the schema by one revision, or to the given revision. `base` removes all tables."""
    from crawlscope.database import schema

    _with_database(lambda database: schema.downgrade(database, revision))


@app.command()
def current() -> None:
    """Print the revision of the schema."""
    from crawlscope.database import revision

    async def show(database: "Database") -> None:
        typer.echo(await revision.current_revision(database) or "none")

    _with_database(show)


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
) -> None:
    """Delete what is older or larger than the settings allow. A running service does this every hour."""
    from crawlscope.processes.maintenance import retention

    settings = process_settings("db")

    async def delete(database: "Database") -> None:
        pruned = await retention.prune(settings, database, datetime.now(UTC), dry_run=dry_run)
        if pruned is None:
            typer.echo("another process deletes at this moment")
            return
        for each in pruned:
            rows = "1 row" if each.rows == 1 else f"{each.rows:,} rows"
            typer.echo(f"{each.what}: {rows}, {each.bytes / 1e6:,.1f} MB")
        typer.echo("nothing to delete" if not pruned else "would be deleted" if dry_run else "deleted")

    _with_database(delete)


def _with_database(action: "Callable[[Database], Awaitable[None]]") -> None:
    from crawlscope.database.connect import connected_database

    settings = process_settings("db")

    async def connected() -> None:
        async with connected_database(settings) as database:
            await action(database)

    asyncio.run(connected())
