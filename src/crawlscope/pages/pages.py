"""Pages as they are delivered: the better delivery wins, and what has content is queued. A page counts once
whatever is delivered or retried: its row is locked first and its crawl's counts move last."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, Row, Uuid, and_, any_, cast, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import GONE_CODES, GONE_STATUSES
from crawlscope.pages.causes import precision
from crawlscope.pages.page_rows import CONTENTS, LOCK_ORDER, PAGES, queue_page, write_outcome
from crawlscope.pages.page_state import Arrival
from crawlscope.sessions.counts import Counts, counts_of
from crawlscope.sessions.store import find_last_settled, keep_action, move_counts


@dataclass(frozen=True)
class DeliveredPage:
    """A page as a delivery brings it: with content to index, or failed already."""

    source_url: str
    url: str
    arrival: Arrival
    markdown: str = ""
    html: str = ""
    """In place of Markdown, where none came."""
    title: str | None = None
    language: str | None = None
    status_code: int | None = None
    failure: PageState | None = None
    """`failed` or `cancelled` where there is nothing to index."""
    error_code: str | None = None
    error: str | None = None
    error_detail: str | None = None
    """Firecrawl's own words."""
    failed_at: datetime | None = None
    """When it failed by Firecrawl's clock, where it says so; else when that was delivered."""


@dataclass(frozen=True)
class Received:
    """What a delivered page changed: nothing where a better delivery was known already."""

    change: Counts
    job_id: int | None = None
    settled_at: datetime | None = None
    unsettled: bool = False
    """Whether it had settled before: now it waits again, or settled at another time."""
    reworded: bool = False
    """Only why it failed is news."""


async def receive_page(connection: AsyncConnection, crawl_id: str, page: DeliveredPage) -> Received:
    """Takes a delivered page in and queues it, unless it failed already or lost against another delivery."""
    before = None
    known = await _insert(connection, crawl_id, page)
    if known is None:
        known = await _lock_by_source(connection, crawl_id, page.source_url)
        before = PageState(known.state)
        if await _brings_nothing(connection, known, page):
            return Received(Counts())
    if page.failure:
        return await _settle_failed(connection, known, page, before)
    revision = known.revision + 1 if before else known.revision
    await _keep_content(connection, known.id, page)
    job_id = await queue_page(connection, known.id, revision, **_delivered_values(page))
    unsettled = before is not None and before.settled
    return Received(counts_of(PageState.QUEUED) - counts_of(before), job_id=job_id, unsettled=unsettled)


async def requeue_failed(
    connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None = None
) -> int:
    """Queues the failed pages whose content is known, all or those of `urls`; returns how many."""
    failed = select(PAGES.c.id, PAGES.c.revision).where(
        PAGES.c.crawl_id == crawl_id, PAGES.c.state == PageState.FAILED, PAGES.c.delivered
    )
    if urls is not None:
        keys = [hash_key(storable(url)) for url in urls]
        failed = failed.where(PAGES.c.source_key == any_(cast(keys, ARRAY(Uuid))))
    rows = (await connection.execute(failed.order_by(LOCK_ORDER).with_for_update())).all()
    for row in rows:
        await queue_page(connection, row.id, row.revision + 1)
    if rows:
        await keep_action(connection, crawl_id, datetime.now(UTC), "retry", pages=len(rows))
        change = counts_of(PageState.QUEUED) - counts_of(PageState.FAILED)
        await move_counts(connection, crawl_id, change * len(rows))
        await find_last_settled(connection, crawl_id)
    return len(rows)


async def _insert(connection: AsyncConnection, crawl_id: str, page: DeliveredPage) -> Row[Any] | None:
    """The new row; None where the crawl has this page already."""
    inserted = await connection.execute(
        upsert(PAGES)
        .values(
            crawl_id=crawl_id,
            source_key=hash_key(page.source_url),
            source_url=page.source_url,
            state=PageState.QUEUED,
            **_delivered_values(page),
        )
        .on_conflict_do_nothing(index_elements=["crawl_id", "source_key"])
        .returning(*PAGES.c)
    )
    return inserted.one_or_none()


async def _lock_by_source(connection: AsyncConnection, crawl_id: str, source_url: str) -> Row[Any]:
    locked = await connection.execute(
        select(*PAGES.c)
        .where(PAGES.c.crawl_id == crawl_id, PAGES.c.source_key == hash_key(source_url))
        .with_for_update(key_share=True)
    )
    return locked.one()


async def _brings_nothing(connection: AsyncConnection, known: Row[Any], page: DeliveredPage) -> bool:
    """Whether what is known wins: a better delivery, or the same page that came another way or again."""
    arrival = Arrival(
        known.delivered,
        0 if known.delivered else precision(known.error_code),
        not known.pulled,
        known.received_at,
        known.webhook_id,
    )
    if replace(page.arrival, usable=arrival.usable, precision=arrival.precision) == arrival:
        return await _is_same(connection, known, page)
    if page.arrival < arrival:
        return True
    if page.arrival.pushed and arrival.pushed:
        return False
    if page.failure:  # the same failure in other words
        return bool((known.state, known.error_code) == (page.failure, page.error_code))
    return await _is_same(connection, known, page)


async def _is_same(connection: AsyncConnection, known: Row[Any], page: DeliveredPage) -> bool:
    if page.failure:
        return (known.state, known.error_code, known.error) == (page.failure, page.error_code, page.error)
    described = (True, page.url, page.title, page.language)
    if (known.delivered, known.url, known.title, known.language) != described:
        return False
    is_this = CONTENTS.c.html == page.html
    if not page.html:  # else its Markdown was made of it here
        is_this = and_(is_this, CONTENTS.c.markdown == page.markdown)
    return bool(await connection.scalar(select(is_this).where(CONTENTS.c.page_id == known.id)))


def _delivered_values(page: DeliveredPage) -> dict[str, Any]:
    return {
        "url": page.url,
        "document_key": hash_key(page.url),
        "delivered": page.failure is None,
        "pulled": not page.arrival.pushed,
        "received_at": page.arrival.received_at,
        "webhook_id": page.arrival.webhook_id,
        "status_code": page.status_code,
        "title": page.title,
        "language": page.language,
    }


async def _settle_failed(
    connection: AsyncConnection, known: Row[Any], page: DeliveredPage, before: PageState | None
) -> Received:
    assert page.failure is not None
    failed_before = known.settled_at if before in (PageState.FAILED, PageState.CANCELLED) else None
    told_at = page.arrival.received_at if page.failed_at else None
    times = [at for at in (told_at, failed_before) if at]
    settled_at = await write_outcome(
        connection,
        known.id,
        page.failure,
        page.error_code,
        page.error,
        min(times, default=None),
        error_detail=page.error_detail,
        **_delivered_values(page),
    )
    if page.status_code in GONE_STATUSES or page.error_code in GONE_CODES:
        await enqueue(connection, INDEX_PAGE, {"page_id": known.id, "gone": True})
    if before is page.failure:
        return Received(Counts(), unsettled=True, reworded=True)
    settled_before = before is not None and before.settled
    return Received(
        counts_of(page.failure) - counts_of(before), settled_at=settled_at, unsettled=settled_before
    )


async def _keep_content(connection: AsyncConnection, page_id: int, page: DeliveredPage) -> None:
    content = {"markdown": page.markdown, "html": page.html}
    await connection.execute(
        upsert(CONTENTS)
        .values(page_id=page_id, **content)
        .on_conflict_do_update(index_elements=["page_id"], set_=content)
    )
