"""The commands that back up an installation and restore it."""

from pathlib import Path
from typing import Annotated

import typer

from crawlscope.cli.common import Json, quiet_settings, run, show, with_service
from crawlscope.cli.search import rebuild_index

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False)]


def backup(file: BackupFile, as_json: Json = False) -> None:
    """Write a backup of the embedded database and the secrets, while the service runs or not."""
    from crawlscope.cli.output.restored import contents_text
    from crawlscope.database.backup import back_up

    made = run(back_up(quiet_settings(), file))
    size = file.stat().st_size / 1e6
    show(made, as_json, lambda: f"{file}: {contents_text(made)}, {size:.1f} MB")


def restore(
    file: BackupFile,
    without_index: Annotated[
        bool,
        typer.Option("--without-index", help="Do not rebuild the index. Run `crawlscope reindex` later."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Restore a backup into an empty data folder, and rebuild the index."""
    from crawlscope.cli.output.restored import Restored, restored_text
    from crawlscope.database.backup import restore as restore_database

    backup = run(restore_database(quiet_settings(), file))
    has_documents = backup.rows["documents"] > 0 and not without_index
    index = with_service(rebuild_index) if has_documents else None
    restored = Restored(backup=backup, index=index)
    show(restored, as_json, lambda: restored_text(restored))
