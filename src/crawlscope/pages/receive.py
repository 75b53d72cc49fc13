"""Pages as they are delivered: the better delivery wins, and a page with content is queued.

A page counts once, whatever is delivered or retried: its row is locked first, its crawl's counts move last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import GONE_CODES, GONE_STATUSES
from crawlscope.pages.causes import precision
from crawlscope.pages.delivered import Arrival, DeliveredPage
from crawlscope.pages.repository import (
    has_content,
    insert_page,
    keep_content,
    lock_page_of_source,
    queue_page,
    refresh_last_settled,
    write_outcome,
)
from crawlscope.sessions.repository import Counts, counts_of


@dataclass(frozen=True)
class Received:
    """The effect of a delivered page: none if a better delivery is stored."""

    change: Counts
    job_id: int | None = None
    settled_at: datetime | None = None
    unsettled: bool = False
    """Whether it was settled before: now it waits again, or settled at another time."""
    reworded: bool = False
    """Whether only the cause of its failure changed."""


async def receive_page(connection: AsyncConnection, crawl_id: str, page: DeliveredPage) -> Received:
    """Stores a delivered page and queues it, unless it failed already or another delivery of it is better."""
    before = None
    columns: dict[str, Any] = {
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
    source = {"source_url": page.source_url, "source_key": hash_key(page.source_url)}
    known = await insert_page(connection, crawl_id, **source, **columns)
    if known is None:
        known = await lock_page_of_source(connection, crawl_id, page.source_url)
        before = PageState(known.state)
        if await _brings_nothing(connection, known, page):
            return Received(Counts())
    if page.failure:
        return await _settle_failed(connection, known, page, before, columns)
    await keep_content(connection, known.id, page.markdown, page.html)
    revision = known.revision + 1 if before else known.revision
    job_id = await queue_page(connection, known.id, revision, **columns)
    unsettled = before is not None and before.settled
    return Received(counts_of(PageState.QUEUED) - counts_of(before), job_id=job_id, unsettled=unsettled)


@dataclass
class Taken:
    change: Counts = field(default_factory=Counts)
    job_ids: list[int] = field(default_factory=list)
    settled: list[PageState] = field(default_factory=list)
    """The states of pages without content that changed."""
    settled_at: datetime | None = None
    reworded: bool = False
    """Whether the cause of a failure changed."""

    @property
    def touched(self) -> bool:
        return bool(self.job_ids or self.settled)


async def take_pages(connection: AsyncConnection, crawl_id: str, pages: Sequence[DeliveredPage]) -> Taken:
    """Receives pages, which must be in the order of their URLs. The caller moves the counts afterwards: the
    session is locked after all pages, so that two deliveries of the same pages cannot deadlock.
    """
    taken, unsettled = Taken(), False
    for page in pages:
        received = await receive_page(connection, crawl_id, page)
        taken.change += received.change
        unsettled = unsettled or received.unsettled
        taken.reworded = taken.reworded or received.reworded
        if received.job_id is not None:
            taken.job_ids.append(received.job_id)
        if received.settled_at is not None and page.failure:
            taken.settled.append(page.failure)
            taken.settled_at = max(received.settled_at, taken.settled_at or received.settled_at)
    if unsettled:
        await refresh_last_settled(connection, crawl_id)
    return taken


async def _brings_nothing(connection: AsyncConnection, known: Row[Any], page: DeliveredPage) -> bool:
    """Whether the stored delivery wins: it is better, or the same page was delivered again or fetched."""
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
    return await has_content(connection, known.id, page.markdown, page.html)


async def _settle_failed(
    connection: AsyncConnection,
    known: Row[Any],
    page: DeliveredPage,
    before: PageState | None,
    columns: dict[str, Any],
) -> Received:
    assert page.failure is not None
    failed_before = known.settled_at if before in (PageState.FAILED, PageState.CANCELLED) else None
    reported_at = page.arrival.received_at if page.failed_at else None
    times = [at for at in (reported_at, failed_before) if at]
    settled_at = await write_outcome(
        connection,
        known.id,
        page.failure,
        page.error_code,
        page.error,
        min(times, default=None),
        error_detail=page.error_detail,
        **columns,
    )
    if page.status_code in GONE_STATUSES or page.error_code in GONE_CODES:
        await enqueue(connection, INDEX_PAGE, {"page_id": known.id, "gone": True})
    if before is page.failure:
        return Received(Counts(), unsettled=True, reworded=True)
    settled_before = before is not None and before.settled
    return Received(
        counts_of(page.failure) - counts_of(before), settled_at=settled_at, unsettled=settled_before
    )
