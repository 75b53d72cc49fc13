"""What a restored installation has."""

from pydantic import BaseModel

from crawlscope.cli.output.reindex import reindexed_text
from crawlscope.database.backup import Backup
from crawlscope.insights.schemas import IndexReport


class Restored(BaseModel):
    backup: Backup
    index: IndexReport | None
    """None if it was not rebuilt."""


def restored_text(restored: Restored) -> str:
    lines = [f"Restored {restored.backup.contents}."]
    return "\n".join([*lines, reindexed_text(restored.index)] if restored.index else lines)
