"""The commands on the database schema."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel

from crawlscope.cli.common import Json, process_settings, run, show

if TYPE_CHECKING:
    from crawlscope.database.engine import Database

app = typer.Typer(help="Manage the database schema.", no_args_is_help=True)


class SchemaRevision(BaseModel):
    revision: str | None


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
def current(as_json: Json = False) -> None:
    """Print the revision of the schema."""
    from crawlscope.database import revision

    async def show_revision(database: "Database") -> None:
        found = SchemaRevision(revision=await revision.current_revision(database))
        show(found, as_json, lambda: found.revision or "none")

    _with_database(show_revision)


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Delete what is older or larger than the settings allow. A running service does this every hour."""
    from crawlscope.cli.output.pruned import PrunedRows, pruned_text
    from crawlscope.processes.maintenance import retention

    settings = process_settings("db")

    async def delete(database: "Database") -> None:
        pruned = await retention.prune(settings, database, datetime.now(UTC), dry_run=dry_run)
        found = PrunedRows(pruned=pruned, dry_run=dry_run)
        show(found, as_json, lambda: pruned_text(found))

    _with_database(delete)


def _with_database(action: "Callable[[Database], Awaitable[None]]") -> None:
    from crawlscope.database.connect import connected_database

    settings = process_settings("db")

    async def connected() -> None:
        async with connected_database(settings) as database:
            await action(database)

    run(connected())
