"""The SQL of requested crawls: they are kept, followed, cancelled and deleted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import NotFoundError, UsageError
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import CrawlStatus, Engine
from crawlscope.crawls.requests import RequestedCrawl
from crawlscope.database.queue import CRAWL_SITE, drop_waiting_jobs, enqueue
from crawlscope.firecrawl.schemas import JobKind
from crawlscope.indexing.service import IndexingService
from crawlscope.pages.repository import lock_all_pages
from crawlscope.sessions.fold import CrawlSeen
from crawlscope.sessions.histograms import add_histograms, stored_histograms
from crawlscope.sessions.repository import (
    DELETED,
    SESSIONS,
    delete_sessions,
    delivered_event_type,
    ensure_session,
    find_session,
    keep_action,
    keep_fact,
    lock_for_deletion,
    require_session,
)

REQUESTS = models.table_of(models.CrawlRequest)
DEFAULT_LIMIT = 10_000


@dataclass(frozen=True)
class KnownCrawl:
    engine: str | None
    """None for a crawl that was not started here."""
    ended: bool


async def start_crawl(connection: AsyncConnection, request: RequestedCrawl) -> str:
    """Queues a crawl for the built-in crawler, and creates its session, which starts now."""
    if "@" in urlsplit(request.url).netloc:
        raise UsageError("give the URL without a user name and a password: URLs are stored and shown")
    now, crawl_id = datetime.now(UTC), str(uuid4())
    options: dict[str, Any] = {
        "limit": request.limit or DEFAULT_LIMIT,
        "allow_private": request.allow_private,
    }
    if request.kind is JobKind.BATCH_SCRAPE:
        options["urls"] = list(request.urls)
    metadata = {"initiated_at": now.isoformat(), "url": request.url, **request.metadata}
    await ensure_session(connection, crawl_id, now)
    await keep_fact(connection, crawl_id, CrawlSeen(now, metadata, "request"), "request")
    [job_id] = await enqueue(connection, CRAWL_SITE, [{"crawl_id": crawl_id}])
    await keep_request(connection, crawl_id, Engine.BUILTIN, request.url, options, job_id=job_id)
    return crawl_id


async def keep_request(
    connection: AsyncConnection,
    crawl_id: str,
    engine: Engine,
    url: str,
    options: Mapping[str, Any],
    **columns: Any,
) -> None:
    row = upsert(REQUESTS).values(crawl_id=crawl_id, engine=engine, url=url, options=options, **columns)
    await connection.execute(row.on_conflict_do_nothing())


async def find_request(connection: AsyncConnection, crawl_id: str) -> Row[Any, Any] | None:
    """`engine` and `options` of a crawl that was requested here; None for any other."""
    request = select(REQUESTS.c.engine, REQUESTS.c.options).where(REQUESTS.c.crawl_id == crawl_id)
    return (await connection.execute(request)).one_or_none()


async def running_request(connection: AsyncConnection, crawl_id: str) -> RequestedCrawl | None:
    """The request that the built-in crawler has to run; None if the crawl has ended or was deleted."""
    running = (
        select(REQUESTS.c.url, REQUESTS.c.options, SESSIONS.c.extra_metadata)
        .join(SESSIONS, SESSIONS.c.crawl_id == REQUESTS.c.crawl_id)
        .where(REQUESTS.c.crawl_id == crawl_id, SESSIONS.c.status == CrawlStatus.IN_PROGRESS)
    )
    row = (await connection.execute(running)).one_or_none()
    if row is None:
        return None
    urls = row.options.get("urls")
    return RequestedCrawl(
        JobKind.BATCH_SCRAPE if urls else JobKind.CRAWL,
        urls or [row.url],
        row.options["limit"],
        row.options["allow_private"],
        metadata=row.extra_metadata or {},
    )


async def known_crawl(connection: AsyncConnection, crawl_id: str) -> KnownCrawl:
    """Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    session, request = await find_session(connection, crawl_id), await find_request(connection, crawl_id)
    if session is None:
        raise NotFoundError(f"Crawl not found: {crawl_id}")
    return KnownCrawl(request and request.engine, session.status != CrawlStatus.IN_PROGRESS)


async def job_kind(connection: AsyncConnection, crawl_id: str) -> JobKind | None:
    """As requested here or, otherwise, as delivered; None where neither is known."""
    request = await find_request(connection, crawl_id)
    family = request.options.get("kind") if request else None
    if not family:
        family = (await delivered_event_type(connection, crawl_id) or "").partition(".")[0]
    return JobKind(family) if family in set(JobKind) else None


async def note_progress(connection: AsyncConnection, crawl_id: str, **progress: float) -> bool:
    """Writes these columns of the request. False for a crawl that was cancelled or deleted: its crawler
    stops."""
    cancelled = await connection.scalar(
        update(REQUESTS)
        .where(REQUESTS.c.crawl_id == crawl_id)
        .values(**progress)
        .returning(REQUESTS.c.cancel_requested)
    )
    return cancelled is False


async def note_cancel(connection: AsyncConnection, crawl_id: str) -> None:
    """Records a cancel, after which the built-in crawler stops. Raises `NotFoundError`."""
    await require_session(connection, crawl_id)
    await connection.execute(
        update(REQUESTS).where(REQUESTS.c.crawl_id == crawl_id).values(cancel_requested=True)
    )
    await keep_action(connection, crawl_id, datetime.now(UTC), "cancel")


async def delete_crawl(connection: AsyncConnection, crawl_id: str, indexing: IndexingService) -> None:
    """Removes a crawl with all its records but the operation metrics. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await lock_for_deletion(connection, crawl_id)
    if await find_session(connection, crawl_id) is None:
        raise NotFoundError(f"Crawl not found: {crawl_id}")
    await connection.execute(upsert(DELETED).values(crawl_id=crawl_id).on_conflict_do_nothing())
    jobs = await lock_all_pages(connection, crawl_id)
    crawler_job = select(REQUESTS.c.job_id).where(REQUESTS.c.crawl_id == crawl_id)
    await drop_waiting_jobs(connection, [*jobs, *await connection.scalars(crawler_job)])
    await indexing.forget_crawl(connection, crawl_id)
    measured = await stored_histograms(connection, crawl_id)
    await delete_sessions(connection, [crawl_id])
    # Its measurements belong to no crawl now: last, because others add to those rows all the time.
    await add_histograms(connection, {None: measured})
