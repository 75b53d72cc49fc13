"""Deletes stored contents of pages that a later crawl has found again."""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.database.retention import BATCH_SIZE, Keep, Pruned, prune_rows
from crawlscope.indexing.freshness import FINDINGS, FOUND_AT
from crawlscope.pages.repository import CONTENTS, PAGES

_RANK = func.row_number().over(
    partition_by=PAGES.c.document_key,
    order_by=(FOUND_AT.desc(), PAGES.c.webhook_id.desc(), PAGES.c.id.desc()),
)
_RANKED = (
    select(
        PAGES.c.id,
        FOUND_AT.label("at"),
        (func.pg_column_size(CONTENTS.c.markdown) + func.pg_column_size(CONTENTS.c.html)).label("size"),
        _RANK.label("rank"),
    )
    .select_from(FINDINGS.join(CONTENTS, CONTENTS.c.page_id == PAGES.c.id))
    .where(PAGES.c.state.in_([PageState.INDEXED, PageState.UNCHANGED]))
    .subquery()
)
REPLACED = select(_RANKED).where(_RANKED.c.rank > 1)
"""The newest content of each document stays, so that the index can be rebuilt."""


async def prune_contents(
    database: Database, keep: Keep, now: datetime, *, dry_run: bool = False
) -> list[Pruned]:
    return await prune_rows(database, "contents of pages", REPLACED, _delete, keep, now, dry_run=dry_run)


async def _delete(connection: AsyncConnection, before: datetime) -> int:
    old = REPLACED.where(_RANKED.c.at < before).limit(BATCH_SIZE).subquery()
    deleted = delete(CONTENTS).where(CONTENTS.c.page_id.in_(select(old.c.id)))
    return (await connection.execute(deleted)).rowcount
