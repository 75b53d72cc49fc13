"""The rows that retention deleted, or would delete."""

from pydantic import BaseModel

from crawlscope.api.rendering.words import count
from crawlscope.database.retention import Pruned


class PrunedRows(BaseModel):
    pruned: list[Pruned] | None
    """None if another process deleted at this moment."""
    dry_run: bool


def pruned_text(found: PrunedRows) -> str:
    if found.pruned is None:
        return "another process deletes at this moment"
    rows = [f"{each.what}: {count(each.rows, 'row')}, {each.bytes / 1e6:,.1f} MB" for each in found.pruned]
    end = "would be deleted" if found.dry_run else "deleted"
    return "\n".join([*rows, end if rows else "nothing to delete"])
