"""Deletes stored contents of pages that a later crawl has found again."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Subquery, delete, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.database.retention import BATCH_SIZE, Keep, Pruned, prune_rows
from crawlscope.indexing.freshness import FINDINGS, FOUND_AT
from crawlscope.pages.repository import CONTENTS, PAGES

_FIRST = UUID(int=0)
_RANK = func.row_number().over(
    partition_by=PAGES.c.document_key,
    order_by=(FOUND_AT.desc(), PAGES.c.webhook_id.desc(), PAGES.c.id.desc()),
)


async def prune_contents(
    database: Database, keep: Keep, now: datetime, *, dry_run: bool = False
) -> list[Pruned]:
    """The newest content of each document stays, so that the index can be rebuilt."""
    ranked = ranked_contents()
    replaced = select(ranked).where(ranked.c.rank > 1)
    walk = _Walk()
    return await prune_rows(database, "contents of pages", replaced, walk.delete, keep, now, dry_run=dry_run)


def ranked_contents(after: UUID = _FIRST, until: UUID | None = None) -> Subquery:
    """The contents of documents whose keys follow `after`, up to `until`; rank 1 is the newest of each."""
    columns = (
        PAGES.c.id,
        FOUND_AT.label("at"),
        (func.pg_column_size(CONTENTS.c.markdown) + func.pg_column_size(CONTENTS.c.html)).label("size"),
        _RANK.label("rank"),
    )
    return (
        select(*columns)
        .select_from(FINDINGS.join(CONTENTS, CONTENTS.c.page_id == PAGES.c.id))
        .where(PAGES.c.state.in_([PageState.INDEXED, PageState.UNCHANGED]), _within(after, until))
        .subquery()
    )


def _within(after: UUID, until: UUID | None) -> ColumnElement[bool]:
    return (PAGES.c.document_key > after) & (true() if until is None else PAGES.c.document_key <= until)


class _Walk:
    """From document to document, so that each is looked at once."""

    def __init__(self) -> None:
        self._after: UUID | None = _FIRST

    async def delete(self, connection: AsyncConnection, before: datetime) -> int:
        """Goes on to the next documents with old contents, and returns how many it deleted: 0 at the end."""
        while (after := self._after) is not None:
            keys = select(PAGES.c.document_key).where(_within(after, None)).order_by(PAGES.c.document_key)
            self._after = await connection.scalar(keys.offset(BATCH_SIZE - 1).limit(1))
            ranked = ranked_contents(after, self._after)
            old = select(ranked.c.id).where(ranked.c.rank > 1, ranked.c.at < before)
            deleted = await connection.execute(delete(CONTENTS).where(CONTENTS.c.page_id.in_(old)))
            if deleted.rowcount:
                return deleted.rowcount
        return 0
