"""Deletes stored contents of pages that a later crawl has found again."""

from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import ColumnElement, Subquery, delete, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.database.retention import BATCH_SIZE, Keep, Pruned, prune_rows
from crawlscope.indexing.freshness import FINDINGS, FOUND_AT
from crawlscope.pages.contents import CONTENTS
from crawlscope.pages.repository import PAGES

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

    async def delete_batch(connection: AsyncConnection, after: UUID, before: datetime) -> UUID | None:
        """Deletes contents of documents whose keys follow `after`; returns the last key, None at the end."""
        keys = select(PAGES.c.document_key).where(_within(after, None)).order_by(PAGES.c.document_key)
        last = await connection.scalar(keys.offset(BATCH_SIZE - 1).limit(1))
        ranked = ranked_contents(after, last)
        old = select(ranked.c.id).where(ranked.c.rank > 1, ranked.c.at < before)
        await connection.execute(delete(CONTENTS).where(CONTENTS.c.page_id.in_(old)))
        return last

    async def delete_all(before: datetime) -> None:
        """From document to document, so that each is examined once."""
        after: UUID | None = _FIRST
        while after is not None:
            after = await database.run(partial(delete_batch, after=after, before=before))

    return await prune_rows(database, "contents of pages", replaced, delete_all, keep, now, dry_run=dry_run)


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
