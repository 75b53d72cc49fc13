"""The SQL of pages and their contents. Every change of a page locks its row first."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Row,
    RowMapping,
    Text,
    Uuid,
    any_,
    cast,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import FINDINGS, FOUND_AT
from crawlscope.pages.contents import CONTENTS, TEXT, WITH_BODIES
from crawlscope.sessions.changes import SessionChange, lock_sessions
from crawlscope.timing.store import write_changes
from crawlscope.timing.telemetry import meters

PAGES = models.table_of(models.Page)

UNSETTLED = (PageState.QUEUED, PageState.INDEXING)
LOCK_ORDER = (PAGES.c.crawl_id.collate("C"), PAGES.c.source_url.collate("C"))
"""Transactions lock several pages in the order in which Python sorts their crawls and URLs."""
NOW = func.clock_timestamp()
THIS_TRANSACTION = cast(cast(func.pg_current_xact_id(), Text), BigInteger)
QUEUE_WAIT_MS = func.greatest(0, func.extract("epoch", PAGES.c.started_at - PAGES.c.queued_at) * 1000)
_KEEP_MARKDOWN = text("""
    UPDATE webhook.page_contents AS content SET markdown = made.markdown
    FROM unnest(CAST(:page_ids AS bigint[]), CAST(:markdown AS text[])) AS made (page_id, markdown)
    WHERE content.page_id = made.page_id
""")
_OUTCOME_COLUMNS = (
    *("started_at", "settled_at", "settled_in", "queue_wait_ms", "total_ms", "chunks"),
    *("error_code", "error", "error_detail"),
)
"""A page that waits again has none of these."""
_REFRESH_LAST_SETTLED = text("""
    UPDATE webhook.crawl_sessions AS session SET last_settled_at = (
        SELECT max(page.settled_at) FROM webhook.pages AS page WHERE page.crawl_id = session.crawl_id
    )
    WHERE crawl_id = ANY (CAST(:crawl_ids AS text[]))
""")


async def lock_page(connection: AsyncConnection, page_id: int) -> Row[Any] | None:
    locked = await connection.execute(
        select(*PAGES.c).where(PAGES.c.id == page_id).with_for_update(key_share=True)
    )
    return locked.one_or_none()


async def lock_pages(
    connection: AsyncConnection, crawl_id: str, keys: Sequence[UUID] | None = None
) -> Sequence[Row[Any]]:
    """The pages of a crawl whose source or document has one of `keys`; without them all that failed."""
    if keys is None:
        chosen = PAGES.c.state == PageState.FAILED
    else:
        any_key = any_(cast(list(keys), ARRAY(Uuid)))
        chosen = or_(PAGES.c.source_key == any_key, PAGES.c.document_key == any_key)
    pages = select(*PAGES.c).where(PAGES.c.crawl_id == crawl_id, chosen)
    return (await connection.execute(pages.order_by(*LOCK_ORDER).with_for_update())).all()


async def lock_all_pages(connection: AsyncConnection, crawl_id: str) -> list[int | None]:
    """Locks the pages of a crawl, which no worker can settle then; returns their jobs."""
    pages = select(PAGES.c.job_id).where(PAGES.c.crawl_id == crawl_id).order_by(*LOCK_ORDER)
    return list(await connection.scalars(pages.with_for_update()))


async def known_pages(connection: AsyncConnection, crawl_id: str) -> Sequence[Any]:
    """Per page of a crawl `source_key`, `source_url`, `delivered`, `status_code`, `error_code` and, as
    `words`, why it failed.
    """
    pages = await connection.execute(
        select(
            *(PAGES.c.source_key, PAGES.c.source_url, PAGES.c.delivered, PAGES.c.status_code),
            *(PAGES.c.error_code, func.coalesce(PAGES.c.error_detail, PAGES.c.error).label("words")),
        ).where(PAGES.c.crawl_id == crawl_id)
    )
    return pages.all()


async def queue_page(
    connection: AsyncConnection, page_id: int, revision: int, alone: bool = False, **values: Any
) -> int:
    """Enqueues a job for the page and clears its last outcome. `values` are further columns."""
    payload = {"page_id": page_id, "revision": revision} | ({"alone": True} if alone else {})
    [job_id] = await enqueue(connection, INDEX_PAGE, [payload])
    await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(
            **values,
            state=PageState.QUEUED,
            revision=revision,
            job_id=job_id,
            queued_at=NOW,
            **dict.fromkeys(_OUTCOME_COLUMNS),
            stages={},
        )
    )
    return job_id


async def write_outcome(
    connection: AsyncConnection,
    page_id: int,
    state: PageState,
    error_code: str | None = None,
    error: str | None = None,
    at: datetime | None = None,
    **values: Any,
) -> datetime:
    """Settles the page, now or `at` another time; returns when. `values` are further columns."""
    settled = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(
            state=state,
            settled_at=at or NOW,
            settled_in=THIS_TRANSACTION,
            error_code=error_code,
            error=error,
            **values,
        )
        .returning(PAGES.c.settled_at)
    )
    settled_at: datetime = settled.scalar_one()
    return settled_at


async def fail_page(connection: AsyncConnection, page: Row[Any], error_code: str, error: str) -> None:
    """Settles a page that no worker has claimed as failed."""
    settled_at = await write_outcome(
        connection, page.id, PageState.FAILED, error_code, error, queue_wait_ms=QUEUE_WAIT_MS
    )
    change = SessionChange(Counter([(PageState(page.state), PageState.FAILED)]), [settled_at])
    await write_changes(connection, {page.crawl_id: change})
    meters.pages_settled(connection, {PageState.FAILED: 1})


async def refresh_last_settled(connection: AsyncConnection, crawl_ids: Collection[str]) -> None:
    """For crawls of which settled pages wait again."""
    await lock_sessions(connection, crawl_ids)  # by a statement before: pages are read as they are then
    await connection.execute(_REFRESH_LAST_SETTLED, {"crawl_ids": list(crawl_ids)})


async def keep_markdown(connection: AsyncConnection, markdown: Mapping[int, str]) -> None:
    """The Markdown of pages that were delivered as HTML, by their ids."""
    values = {"page_ids": list(markdown), "markdown": list(markdown.values())}
    await connection.execute(_KEEP_MARKDOWN, values)


async def newest_contents(
    connection: AsyncConnection, document_key: UUID, limit: int
) -> Sequence[RowMapping]:
    """`title`, `language` and what `markdown_of` reads of a document's pages, the one found last first.

    Without pages that failed: no index has anything of those.
    """
    rows = await connection.execute(
        select(PAGES.c.title, PAGES.c.language, *TEXT)
        .select_from(FINDINGS.join(WITH_BODIES, CONTENTS.c.page_id == PAGES.c.id))
        .where(
            PAGES.c.document_key == document_key,
            PAGES.c.delivered,
            PAGES.c.state.not_in([PageState.FAILED, PageState.CANCELLED]),
        )
        .order_by(FOUND_AT.desc(), PAGES.c.webhook_id.desc(), PAGES.c.id.desc())
        .limit(limit)
    )
    return rows.mappings().all()
