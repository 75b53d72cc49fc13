"""What all steps of a page share: its row is locked first, then its next job or its outcome written to it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue

ATTEMPTS = models.table_of(models.PageAttempt)
CONTENTS = models.table_of(models.PageContent)
PAGES = models.table_of(models.Page)

LOCK_ORDER = PAGES.c.source_url.collate("C")
"""Who locks several pages of a crawl takes them in the order in which Python sorts their URLs."""
NOW = func.clock_timestamp()
WAIT_MS = func.greatest(0, func.extract("epoch", PAGES.c.started_at - PAGES.c.queued_at) * 1000)
_OF_AN_OUTCOME = (
    *("started_at", "settled_at", "queue_wait_ms", "total_ms", "chunks"),
    *("error_code", "error", "error_detail"),
)
"""Columns that say how a page ended; a page that waits again has none of it."""


async def lock_page(connection: AsyncConnection, page_id: int) -> Row[Any] | None:
    locked = await connection.execute(
        select(*PAGES.c).where(PAGES.c.id == page_id).with_for_update(key_share=True)
    )
    return locked.one_or_none()


async def queue_page(
    connection: AsyncConnection, page_id: int, revision: int, alone: bool = False, **values: Any
) -> int:
    """Gives the page a job and takes back what an earlier outcome wrote; `values` are further columns."""
    order = {"page_id": page_id, "revision": revision} | ({"alone": True} if alone else {})
    job_id = await enqueue(connection, INDEX_PAGE, order)
    await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(
            **values,
            state=PageState.QUEUED,
            revision=revision,
            job_id=job_id,
            queued_at=NOW,
            **dict.fromkeys(_OF_AN_OUTCOME),
            stages={},
        )
    )
    return job_id


async def keep_markdown(connection: AsyncConnection, page_id: int, markdown: str) -> None:
    """What was made of a page that was delivered as HTML."""
    await connection.execute(update(CONTENTS).where(CONTENTS.c.page_id == page_id).values(markdown=markdown))


async def write_outcome(
    connection: AsyncConnection,
    page_id: int,
    state: PageState,
    error_code: str | None = None,
    error: str | None = None,
    at: datetime | None = None,
    **values: Any,
) -> datetime:
    """Settles the page, now or `at` another time, `values` being further columns; returns when that was."""
    settled = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(state=state, settled_at=at or NOW, error_code=error_code, error=error, **values)
        .returning(PAGES.c.settled_at)
    )
    settled_at: datetime = settled.scalar_one()
    return settled_at
