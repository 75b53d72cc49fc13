"""Crawls that are asked for here: started, followed, cancelled, deleted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import NotFoundError, UsageError
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import CrawlStatus, Engine
from crawlscope.database.queue import CRAWL_SITE, drop_waiting_jobs, enqueue
from crawlscope.indexing.service import IndexingService
from crawlscope.models import CrawlRequest, CrawlSession, DeletedCrawl, Page
from crawlscope.pages.repository import LOCK_ORDER
from crawlscope.sessions.fold import Heard
from crawlscope.sessions.store import ensure_session, keep_action, keep_fact, require_session

LONGEST_TARGET = 2_048


@dataclass(frozen=True)
class CrawlOrder:
    """What somebody wants crawled."""

    url: str
    limit: int
    allow_private: bool
    urls: Sequence[str] = ()
    """Fetched in place of what `url` leads to: these and no others."""
    retry_of: str | None = None
    """The crawl whose failed pages these are."""


@dataclass(frozen=True)
class RunningRequest:
    """A crawl request as its crawler needs it."""

    crawl_id: str
    url: str
    options: dict[str, Any]
    metadata: dict[str, str]


def check_target(url: str) -> str:
    """The URL without surrounding blanks; raises `UsageError` for what cannot be crawled."""
    url = url.strip()
    if len(url) > LONGEST_TARGET:
        raise UsageError(f"the URL to crawl is longer than {LONGEST_TARGET} characters")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable():
        raise UsageError(f"cannot crawl {url[:100]!r}: give a full URL such as https://example.com/docs")
    return url


async def start_crawl(connection: AsyncConnection, order: CrawlOrder) -> str:
    """Makes the session, so that the crawl's time is known from now on, and queues the crawler's job."""
    url, now, crawl_id = check_target(order.url), datetime.now(UTC), str(uuid4())
    if "@" in urlsplit(url).netloc:
        raise UsageError("give the URL without a user name and a password: URLs are stored and shown")
    metadata = {"initiated_at": now.isoformat(), "url": url, **retry_mark(order.retry_of)}
    await ensure_session(connection, crawl_id, now)
    await keep_fact(connection, crawl_id, Heard(now, metadata, "request"), "request")
    job_id = await enqueue(connection, CRAWL_SITE, {"crawl_id": crawl_id})
    options: dict[str, Any] = {"limit": order.limit, "allow_private": order.allow_private}
    if order.urls:
        options["urls"] = list(order.urls)
    await connection.execute(
        insert(CrawlRequest).values(
            crawl_id=crawl_id, engine=Engine.BUILTIN, url=url, options=options, job_id=job_id
        )
    )
    return crawl_id


def retry_mark(retry_of: str | None) -> dict[str, str]:
    """What a crawl that fetches another one's failed pages again says of it in its metadata."""
    return {} if retry_of is None else {"retry_of": retry_of}


async def running_request(connection: AsyncConnection, crawl_id: str) -> RunningRequest | None:
    """None where there is nothing to do any more: the crawl has ended or was deleted."""
    row = (
        await connection.execute(
            select(
                CrawlRequest.url,
                CrawlRequest.options,
                CrawlSession.extra_metadata,
            )
            .join(CrawlSession, CrawlSession.crawl_id == CrawlRequest.crawl_id)
            .where(CrawlRequest.crawl_id == crawl_id, CrawlSession.status == CrawlStatus.IN_PROGRESS)
        )
    ).one_or_none()
    if row is None:
        return None
    return RunningRequest(crawl_id, row.url, row.options, row.extra_metadata or {})


async def note_progress(connection: AsyncConnection, crawl_id: str, found: int, fetched: int) -> bool:
    """Whether the crawler shall go on: not when somebody cancelled or deleted the crawl."""
    cancelled = await connection.scalar(
        update(CrawlRequest)
        .where(CrawlRequest.crawl_id == crawl_id)
        .values(found=found, fetched=fetched)
        .returning(CrawlRequest.cancel_requested)
    )
    return cancelled is False


@dataclass(frozen=True)
class KnownCrawl:
    engine: str | None
    """None for a crawl that was not started here."""
    ended: bool


async def known_crawl(connection: AsyncConnection, crawl_id: str) -> KnownCrawl:
    """Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    status = await _status(connection, crawl_id)
    engine = await connection.scalar(select(CrawlRequest.engine).where(CrawlRequest.crawl_id == crawl_id))
    return KnownCrawl(engine, status != CrawlStatus.IN_PROGRESS)


async def note_cancel(connection: AsyncConnection, crawl_id: str) -> None:
    """Keeps that somebody cancelled it, which the built-in crawler then obeys. Raises `NotFoundError`."""
    await require_session(connection, crawl_id)
    await connection.execute(
        update(CrawlRequest).where(CrawlRequest.crawl_id == crawl_id).values(cancel_requested=True)
    )
    await keep_action(connection, crawl_id, datetime.now(UTC), "cancel")


async def cancel_crawl(connection: AsyncConnection, crawl_id: str) -> bool:
    """Tells the built-in crawler to stop; pages that were received are indexed all the same.

    False where it has ended already. Raises `NotFoundError`.
    """
    known = await known_crawl(connection, crawl_id)
    await note_cancel(connection, storable(crawl_id))
    return not known.ended


async def delete_crawl(connection: AsyncConnection, crawl_id: str, indexing: IndexingService) -> None:
    """Removes all that is known of a crawl but its operation metrics. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await _status(connection, crawl_id)
    await connection.execute(upsert(DeletedCrawl).values(crawl_id=crawl_id).on_conflict_do_nothing())
    jobs = await _lock_pages(connection, crawl_id)
    await drop_waiting_jobs(connection, await _crawler_job(connection, crawl_id))
    while True:
        await drop_waiting_jobs(connection, jobs)
        await indexing.forget_crawl(connection, crawl_id)
        await _let_nothing_in(connection, crawl_id)
        known, jobs = len(jobs), await _lock_pages(connection, crawl_id)
        if len(jobs) == known:
            break  # no page came while documents were forgotten
    await connection.execute(delete(CrawlSession).where(CrawlSession.crawl_id == crawl_id))


async def _status(connection: AsyncConnection, crawl_id: str) -> str:
    status = await connection.scalar(select(CrawlSession.status).where(CrawlSession.crawl_id == crawl_id))
    if status is None:
        raise NotFoundError(f"Crawl not found: {crawl_id}")
    return status


async def _lock_pages(connection: AsyncConnection, crawl_id: str) -> list[int | None]:
    """Whoever has one in hand then finds it gone; returns their jobs."""
    pages = select(Page.job_id).where(Page.crawl_id == crawl_id).order_by(LOCK_ORDER)
    return list(await connection.scalars(pages.with_for_update()))


async def _let_nothing_in(connection: AsyncConnection, crawl_id: str) -> None:
    """Deliveries refer to the session: they wait for this transaction, and then find it gone."""
    session = select(CrawlSession.crawl_id).where(CrawlSession.crawl_id == crawl_id)
    await connection.execute(session.with_for_update())


async def _crawler_job(connection: AsyncConnection, crawl_id: str) -> list[int | None]:
    return list(
        await connection.scalars(select(CrawlRequest.job_id).where(CrawlRequest.crawl_id == crawl_id))
    )
