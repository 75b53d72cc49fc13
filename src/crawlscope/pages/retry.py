"""The retry rule: whether a page is tried again, and after which delay.

- After an error the page goes back to the queue, with a backoff, until `is_exhausted`.
- After the death of its worker it goes back at once, and fails at the third death that a supervisor saw.
- After a failure it is tried again at an operator's request, with attempts reset.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.backoff import backoff
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import NotRetried, PageState
from crawlscope.database.engine import Database
from crawlscope.database.queue import drop_job
from crawlscope.indexing.documents import stored_since
from crawlscope.pages.attempts import (
    WORKER_CRASHED,
    FailedAttempts,
    WorkerDeath,
    close_crashed_attempts,
    close_lost_attempts,
    count_crashes,
    has_open_attempt,
)
from crawlscope.pages.repository import (
    UNSETTLED,
    fail_page,
    lock_page,
    lock_pages,
    queue_page,
    refresh_last_settled,
)
from crawlscope.sessions.changes import SessionChange
from crawlscope.sessions.repository import failures_without_url, keep_action, require_session
from crawlscope.timing.store import write_changes

MAX_TIMEOUTS = 3
MAX_DEPENDENCY_FAILURES = 20
"""Counted only while the dependency works for others: one that works for no page makes none fail."""
MAX_CRASHES = 3
MAX_BACKOFF_SECONDS = 60.0
DEPENDENCY_RETRY_SECONDS = 1.0
"""Delay of a job whose page could not even be put back."""
UNKNOWN_ERROR_RETRY_SECONDS = 60.0
"""Delay of a job that failed outside of an attempt."""


class PageTimeout(CrawlscopeError):
    code = "page_timeout"


# ---------------------------------------------------------------------- after an error


def max_failures(error: Exception, max_attempts: int) -> int:
    """How many attempts may fail by this kind of error; `max_attempts` by one that is unexpected."""
    if isinstance(error, PageTimeout):
        return MAX_TIMEOUTS
    return MAX_DEPENDENCY_FAILURES if isinstance(error, CrawlscopeError) else max_attempts


def retry_seconds(failures: int) -> float:
    """The delay after so many failed attempts."""
    return backoff(failures, first_seconds=1.0, max_seconds=MAX_BACKOFF_SECONDS)


async def is_exhausted(database: Database, error: Exception, past: FailedAttempts, max_attempts: int) -> bool:
    """Whether `error`, after `past` ones of its code, settles the page as failed.

    An error of a dependency does not, unless another document was stored since the page failed first.
    """
    if past.count + 1 < max_failures(error, max_attempts):
        return False
    if isinstance(error, PageTimeout) or not isinstance(error, CrawlscopeError):
        return True
    if past.first_at is None:
        return False
    return await database.run(partial(stored_since, moment=past.first_at))


# ---------------------------------------------------------------------- after the death of a worker


async def record_crash(connection: AsyncConnection, page_id: int, death: WorkerDeath) -> PageState | None:
    """Notes that the page's worker died with it. The page is queued again, to be indexed alone, or fails.

    Returns its new state; None where nothing follows: it is settled, replaced or claimed by another worker.
    """
    page = await lock_page(connection, page_id)
    if page is None or not await close_crashed_attempts(connection, page, death):
        return None
    if page.state not in UNSETTLED:
        return None
    crashes, in_progress = await count_crashes(connection, page)
    if crashes < MAX_CRASHES and in_progress:
        return None
    await drop_job(connection, page.job_id)
    if crashes < MAX_CRASHES:
        await queue_page(connection, page_id, page.revision, alone=True)
        return PageState.QUEUED
    error = f"set aside: {crashes} workers died while they worked on this page, the last one: {death.how}"
    await fail_page(connection, page, WORKER_CRASHED, error)
    return PageState.FAILED


async def requeue_lost(connection: AsyncConnection, page_id: int, worker: str) -> bool:
    """Queues a page again whose worker died unseen; that death does not count against it."""
    page = await lock_page(connection, page_id)
    if page is None or page.state != PageState.INDEXING:
        return False
    if not await has_open_attempt(connection, page, worker):
        return False
    await close_lost_attempts(connection, [page])
    crashes, _ = await count_crashes(connection, page)
    await drop_job(connection, page.job_id)
    await queue_page(connection, page_id, page.revision, alone=crashes > 0)
    return True


# ---------------------------------------------------------------------- at an operator's request


@dataclass(frozen=True)
class LeftPage:
    url: str
    reason: NotRetried
    error_code: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Retry:
    """The result of a request to try failed pages again."""

    queued: int = 0
    left: Sequence[LeftPage] = field(default_factory=list)
    """Pages that are not indexed again, by URL."""
    failures_without_url: int = 0

    @property
    def to_scrape(self) -> list[str]:
        """The URLs of those that their crawler can be asked for."""
        return [page.url for page in self.left if page.reason.can_be_scraped]


async def retry_pages(connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None = None) -> Retry:
    """Queues the failed pages of a crawl whose content is known: all, or those of `urls`, which are source
    URLs or URLs after redirects. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    keys = {hash_key(url): url for url in map(storable, urls or ())}
    rows = await lock_pages(connection, crawl_id, None if urls is None else list(keys))
    queued = 0
    for row in filter(_can_be_indexed, rows):
        await queue_page(connection, row.id, row.revision + 1)
        queued += 1
    if queued:
        await keep_action(connection, crawl_id, datetime.now(UTC), "retry", pages=queued)
        change = SessionChange()
        change.moved[PageState.FAILED, PageState.QUEUED] = queued
        await write_changes(connection, {crawl_id: change})
        await refresh_last_settled(connection, [crawl_id])
    found = {row.source_key for row in rows} | {row.document_key for row in rows}
    unknown = [LeftPage(url, NotRetried.UNKNOWN) for key, url in keys.items() if key not in found]
    without_url = await failures_without_url(connection, crawl_id) if urls is None else 0
    return Retry(queued, [_left(row) for row in rows if not _can_be_indexed(row)] + unknown, without_url)


async def pages_to_scrape(
    connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None = None
) -> list[str]:
    """The source URLs that `retry_pages` leaves to the crawler. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    keys = None if urls is None else [hash_key(storable(url)) for url in urls]
    rows = await lock_pages(connection, crawl_id, keys)
    return Retry(left=[_left(row) for row in rows if not _can_be_indexed(row)]).to_scrape


async def note_rescrape(connection: AsyncConnection, crawl_id: str, rescrape_id: str, pages: int) -> None:
    """Keeps that pages of the crawl are fetched again, and by which crawl. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    details = {"crawl_id": rescrape_id, "pages": pages}
    await keep_action(connection, crawl_id, datetime.now(UTC), "rescrape", **details)


def _can_be_indexed(row: Row[Any]) -> bool:
    return row.state == PageState.FAILED and bool(row.delivered)


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
