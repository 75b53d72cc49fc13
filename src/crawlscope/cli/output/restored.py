"""The content of a backup and of a restored installation."""

from pydantic import BaseModel

from crawlscope.api.rendering.words import count
from crawlscope.cli.output.reindex import reindexed_text
from crawlscope.database.backup import Backup
from crawlscope.insights.schemas import IndexReport


class Restored(BaseModel):
    backup: Backup
    index: IndexReport | None
    """None if it was not rebuilt."""


def contents_text(backup: Backup) -> str:
    return f"{count(backup.rows['crawl_sessions'], 'crawl')}, {count(backup.rows['pages'], 'page')}"


def restored_text(restored: Restored) -> str:
    lines = [f"Restored {contents_text(restored.backup)}."]
    return "\n".join([*lines, reindexed_text(restored.index)] if restored.index else lines)
