"""When a page is tried again, how often and after what delay, and what settles it instead."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Uuid, any_, cast, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import NotRetried, PageState
from crawlscope.database.queue import drop_job
from crawlscope.pages.repository import (
    ATTEMPTS,
    LOCK_ORDER,
    PAGES,
    WAIT_MS,
    close_lost_attempts,
    lock_page,
    lost_work,
    queue_page,
    write_outcome,
)
from crawlscope.sessions.store import (
    SESSIONS,
    counts_of,
    find_last_settled,
    keep_action,
    move_counts,
    require_session,
)
from crawlscope.timing.store import record_operations

TIMEOUTS_ALLOWED = 3
FAILURES_BY_PARTS = 20
"""Only while the part works for others; one that works for nobody makes no document fail."""
LONGEST_PAUSE_SECONDS = 60.0


class PageTimeout(CrawlscopeError):
    code = "page_timeout"


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Breaks the block off after so long, and raises `PageTimeout`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise PageTimeout(f"it was not done after {seconds:g} s") from None


def tries_allowed(error: Exception, max_attempts: int) -> int:
    """`max_attempts` is for errors that nobody thought of."""
    if isinstance(error, PageTimeout):
        return TIMEOUTS_ALLOWED
    return FAILURES_BY_PARTS if isinstance(error, CrawlscopeError) else max_attempts


def pause_seconds(tries: int) -> float:
    """Between so many tries in vain and the next one."""
    return min(2.0 ** min(tries - 1, 10), LONGEST_PAUSE_SECONDS)


WORKER_CRASHED = "worker_crashed"
CRASHES_ALLOWED = 3
CLOCKS_DIFFER = timedelta(seconds=60)
"""Attempts begin by the database's clock, workers by that of their host."""


@dataclass(frozen=True)
class WorkerDeath:
    """A worker that died before the eyes of its supervisor."""

    worker: str
    began_at: datetime
    died_at: datetime
    how: str


async def pages_of_dead(connection: AsyncConnection, death: WorkerDeath) -> Sequence[int]:
    """Pages whose attempts died with the worker and are not known to have crashed."""
    found = select(ATTEMPTS.c.page_id).where(*_died_with(death)).distinct()
    return (await connection.scalars(found)).all()


async def record_crash(connection: AsyncConnection, page_id: int, death: WorkerDeath) -> PageState | None:
    """Notes that the page's worker died with it. The page is queued anew, to be worked on alone, or given up.

    Returns its new state; None where nothing follows: it is settled, replaced or with another worker.
    """
    page = await lock_page(connection, page_id)
    if page is None or not await _crash_attempts(connection, page, death):
        return None
    if PageState(page.state).settled:
        return None
    crashes, in_hand = await _count_crashes(connection, page)
    if crashes >= CRASHES_ALLOWED:
        await drop_job(connection, page.job_id)
        await _give_up(connection, page, WORKER_CRASHED, _crash_words(crashes, death))
        return PageState.FAILED
    if in_hand:
        return None
    await drop_job(connection, page.job_id)
    await queue_page(connection, page_id, page.revision, alone=True)
    return PageState.QUEUED


async def pages_in_hand(connection: AsyncConnection) -> Sequence[tuple[int, str, datetime]]:
    """Page, worker and begin of each attempt that is under way."""
    found = await connection.execute(
        select(ATTEMPTS.c.page_id, ATTEMPTS.c.worker, ATTEMPTS.c.started_at).where(
            ATTEMPTS.c.finished_at.is_(None)
        )
    )
    return [(row.page_id, row.worker, row.started_at) for row in found]


async def requeue_lost(connection: AsyncConnection, page_id: int, worker: str) -> bool:
    """Queues a page anew whose worker is gone and nobody saw how; it loses no try by that."""
    page = await lock_page(connection, page_id)
    if page is None:
        return False
    held = select(ATTEMPTS.c.id).where(
        ATTEMPTS.c.page_id == page_id,
        ATTEMPTS.c.revision == page.revision,
        ATTEMPTS.c.worker == worker,
        ATTEMPTS.c.outcome.is_(None),
    )
    if page.state != PageState.INDEXING or (await connection.execute(held)).first() is None:
        return False
    await close_lost_attempts(connection, page)
    crashes, _ = await _count_crashes(connection, page)
    await drop_job(connection, page.job_id)
    await queue_page(connection, page_id, page.revision, alone=crashes > 0)
    return True


def _died_with(death: WorkerDeath) -> tuple[ColumnElement[bool], ...]:
    """Process ids come again, but not soon: an attempt from long before this process is of another one."""
    unknown = or_(ATTEMPTS.c.finished_at.is_(None), ATTEMPTS.c.outcome == "lost")
    return ATTEMPTS.c.worker == death.worker, ATTEMPTS.c.started_at >= death.began_at - CLOCKS_DIFFER, unknown


async def _crash_attempts(connection: AsyncConnection, page: Row[Any], death: WorkerDeath) -> bool:
    """Whether one of them is of the page's present revision. Lost ones have their operation already."""
    died = (
        await connection.execute(
            select(*ATTEMPTS.c).where(ATTEMPTS.c.page_id == page.id, *_died_with(death)).with_for_update()
        )
    ).all()
    for attempt in died:
        ended = await connection.execute(
            update(ATTEMPTS)
            .where(ATTEMPTS.c.id == attempt.id)
            .values(
                finished_at=func.greatest(ATTEMPTS.c.started_at, death.died_at),
                outcome="crashed",
                error_code=WORKER_CRASHED,
                error=_crashed_words(death),
            )
            .returning(ATTEMPTS.c.started_at, ATTEMPTS.c.finished_at, ATTEMPTS.c.number)
        )
        if attempt.outcome is None:
            await record_operations(
                connection, [lost_work(page, ended.one(), _crashed_words(death))], announced=True
            )
    return any(attempt.revision == page.revision for attempt in died)


async def _count_crashes(connection: AsyncConnection, page: Row[Any]) -> tuple[int, int]:
    """Of the present revision: attempts that crashed, and those that are under way."""
    counted = await connection.execute(
        select(
            func.count().filter(ATTEMPTS.c.outcome == "crashed", ATTEMPTS.c.revision == page.revision),
            func.count().filter(ATTEMPTS.c.outcome.is_(None)),
        ).where(ATTEMPTS.c.page_id == page.id)
    )
    crashed, under_way = counted.one()
    return crashed, under_way


async def _give_up(connection: AsyncConnection, page: Row[Any], code: str, words: str) -> None:
    """Fails a page that no worker has in hand."""
    settled_at = await write_outcome(
        connection, page.id, PageState.FAILED, code, words, queue_wait_ms=WAIT_MS
    )
    change = counts_of(PageState.FAILED) - counts_of(PageState(page.state))
    await move_counts(connection, page.crawl_id, change, settled_at=settled_at)


def _crashed_words(death: WorkerDeath) -> str:
    return f"the worker died during this attempt: {death.how}"


def _crash_words(crashes: int, death: WorkerDeath) -> str:
    return f"set aside: {crashes} workers died while they worked on this page, the last one: {death.how}"


@dataclass(frozen=True)
class LeftPage:
    url: str
    reason: NotRetried
    error_code: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Retry:
    """What trying again comes to."""

    queued: int = 0
    left: Sequence[LeftPage] = field(default_factory=list)
    """Pages that are not indexed anew, by URL."""
    failures_without_url: int = 0

    @property
    def to_scrape(self) -> list[str]:
        """Of those, the ones that their crawler can be asked for."""
        return [page.url for page in self.left if page.reason.can_be_scraped]


async def retry_pages(connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None = None) -> Retry:
    """Queues the crawl's failed pages whose content is known: all, or those of `urls`, which name them by
    source URL or by where that led. Raises `NotFoundError`.
    """
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    rows = await _asked_for(connection, crawl_id, urls)
    again = [row.source_url for row in rows if _can_be_indexed(row)]
    queued = await requeue_failed(connection, crawl_id, again) if again else 0
    nameless = select(SESSIONS.c.failures_without_url).where(SESSIONS.c.crawl_id == crawl_id)
    without_url = await connection.scalar(nameless) if urls is None else 0
    return Retry(queued, _left_of(rows, urls), without_url or 0)


async def pages_to_scrape(
    connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None = None
) -> list[str]:
    """The source URLs that `retry_pages` leaves to the crawler. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    return Retry(left=_left_of(await _asked_for(connection, crawl_id, urls), urls)).to_scrape


async def note_rescrape(connection: AsyncConnection, crawl_id: str, rescrape_id: str, pages: int) -> None:
    """Keeps that pages of the crawl are fetched again, and by which crawl. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    details = {"crawl_id": rescrape_id, "pages": pages}
    await keep_action(connection, crawl_id, datetime.now(UTC), "rescrape", **details)


async def _asked_for(
    connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None
) -> Sequence[Row[Any]]:
    """Locked until the commit."""
    columns = ("source_key", "document_key", "source_url", "state", "delivered", "error_code", "error")
    pages = select(*(PAGES.c[name] for name in columns)).where(PAGES.c.crawl_id == crawl_id)
    if urls is None:
        pages = pages.where(PAGES.c.state == PageState.FAILED)
    else:
        keys = any_(cast(list(_keys(urls)), ARRAY(Uuid)))
        pages = pages.where(or_(PAGES.c.source_key == keys, PAGES.c.document_key == keys))
    return (await connection.execute(pages.order_by(LOCK_ORDER).with_for_update())).all()


def _can_be_indexed(row: Row[Any]) -> bool:
    return row.state == PageState.FAILED and bool(row.delivered)


def _left_of(rows: Sequence[Row[Any]], urls: Sequence[str] | None) -> list[LeftPage]:
    known = {row.source_key for row in rows} | {row.document_key for row in rows}
    unknown = [
        LeftPage(url, NotRetried.UNKNOWN) for key, url in _keys(urls or ()).items() if key not in known
    ]
    return [_left(row) for row in rows if not _can_be_indexed(row)] + unknown


def _left(row: Row[Any]) -> LeftPage:
    match PageState(row.state):
        case PageState.FAILED:
            reason = NotRetried.NOT_RECEIVED
        case PageState.CANCELLED:
            reason = NotRetried.DROPPED
        case state if not state.settled:
            reason = NotRetried.PENDING
        case _:
            reason = NotRetried.NOT_FAILED
    return LeftPage(row.source_url, reason, row.error_code, row.error)


def _keys(urls: Sequence[str]) -> dict[UUID, str]:
    return {hash_key(url): url for url in map(storable, urls)}


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
