"""The commands that back up an installation and restore it."""

from pathlib import Path
from typing import Annotated

import typer

from crawlscope.cli.common import quiet_settings, run, with_service
from crawlscope.cli.search import rebuild_index

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False)]


def backup(file: BackupFile) -> None:
    """Write a backup of the embedded database and the secrets, while the service runs or not."""
    from crawlscope.database.backup import back_up

    made = run(back_up(quiet_settings(), file))
    size = file.stat().st_size / 1e6
    typer.echo(f"{file}: {made.rows['crawl_sessions']} crawls, {made.rows['pages']} pages, {size:.1f} MB")


def restore(
    file: BackupFile,
    without_index: Annotated[
        bool,
        typer.Option("--without-index", help="Do not rebuild the index. Run `crawlscope reindex` later."),
    ] = False,
) -> None:
    """Restore a backup into an empty data folder, and rebuild the index."""
    from crawlscope.cli.output.reindex import reindexed_text
    from crawlscope.database.backup import restore as restore_database

    restored = run(restore_database(quiet_settings(), file))
    typer.echo(f"Restored {restored.rows['crawl_sessions']} crawls, {restored.rows['pages']} pages.")
    if without_index or not restored.rows["documents"]:
        return
    typer.echo(reindexed_text(with_service(rebuild_index)))
