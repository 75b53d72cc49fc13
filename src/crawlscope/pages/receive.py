"""Pages as they are delivered: the better delivery wins, and what has content is queued. A page counts once
whatever is delivered or retried: its row is locked first and its crawl's counts move last."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import GONE_CODES, GONE_STATUSES
from crawlscope.pages.causes import precision
from crawlscope.pages.delivered import Arrival, DeliveredPage
from crawlscope.pages.repository import CONTENTS, PAGES, queue_page, write_outcome
from crawlscope.sessions.store import Counts, counts_of, find_last_settled


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


@dataclass
class Taken:
    change: Counts = field(default_factory=Counts)
    job_ids: list[int] = field(default_factory=list)
    settled: list[PageState] = field(default_factory=list)
    """The states of pages that came without content, as far as this was news."""
    settled_at: datetime | None = None
    reworded: bool = False
    """Whether why a page failed is news, though not that it did."""

    @property
    def touched(self) -> bool:
        return bool(self.job_ids or self.settled)


async def take_pages(connection: AsyncConnection, crawl_id: str, pages: Sequence[DeliveredPage]) -> Taken:
    """The counts are the caller's to move. Pages must be in the order of their URLs, and the crawl's session
    is locked after all of them: two that take the same ones then cannot wait for each other."""
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
        await find_last_settled(connection, crawl_id)
    return taken
