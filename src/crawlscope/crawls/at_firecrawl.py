"""Crawls and batch scrapes that Firecrawl is asked to do, or to stop."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import structlog
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core import service_file
from crawlscope.core.errors import (
    CrawlscopeError,
    DatabaseUnavailable,
    FirecrawlJobUnknown,
    FirecrawlRefused,
    FirecrawlUnavailable,
    UsageError,
)
from crawlscope.core.public_address import public_address
from crawlscope.core.settings import Settings
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import Engine
from crawlscope.crawls.firecrawl_orders import FirecrawlOrder
from crawlscope.crawls.reconcile import Reconciler, job_kind
from crawlscope.crawls.reconciliations import note_end
from crawlscope.crawls.requests import note_cancel, retry_mark
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import FirecrawlClient, Webhook
from crawlscope.firecrawl.schemas import JobKind
from crawlscope.models import CrawlRequest
from crawlscope.sessions.fold import Heard
from crawlscope.sessions.store import ensure_session, keep_fact

COMPLAINTS = (400, 422)
"""Statuses that say what is wrong with the order, not with who gives it."""
HAS_ENDED = 409

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Started:
    crawl_id: str
    invalid_urls: Sequence[str]


@dataclass(frozen=True)
class Door:
    """Where Firecrawl shall deliver, and by which headers it gets in."""

    url: str
    headers: dict[str, str]

    @classmethod
    def of(cls, settings: Settings, secret: str) -> "Door":
        address = public_address(settings)
        sends_secret = settings.firecrawl_webhook_secret is None or (
            _is_this_machine(address) and _is_this_machine(settings.firecrawl_url or "")
        )
        return cls(
            address + service_file.WEBHOOK_PATH,
            {"X-API-Secret": secret} if sends_secret else {},
        )


async def start(
    database: Database,
    firecrawl: FirecrawlClient,
    order: FirecrawlOrder,
    door: Door,
    trace: str,
    retry_of: str | None = None,
) -> Started:
    """Returns once the crawl runs at Firecrawl and its session is kept; else, if possible, neither stays.

    `trace` is a W3C trace context; `retry_of` the crawl whose failed pages are asked for.
    Raises `FirecrawlUnavailable`, `FirecrawlRefused`, `DatabaseUnavailable`, and `UsageError` with
    Firecrawl's complaint about the order.
    """
    await database.ping()
    asked_at = datetime.now(UTC)
    metadata = {
        "initiated_at": asked_at.isoformat(),
        "url": order.url,
        "traceparent": trace,
        **retry_mark(retry_of),
    }
    started = await _ask(firecrawl, order, Webhook(door.url, door.headers, metadata))
    try:
        await database.run(lambda connection: _keep(connection, started, order, asked_at, metadata))
    except Exception as error:
        raise await _taken_back(firecrawl, started.crawl_id, order.kind, error) from error
    log.info("crawl_started", crawl_id=started.crawl_id, kind=order.kind.value)
    return started


async def cancel(
    database: Database, firecrawl: FirecrawlClient, reconciler: Reconciler, crawl_id: str
) -> bool:
    """False where it has ended. Pages that were received are indexed all the same.

    Raises `FirecrawlUnavailable`, `FirecrawlRefused`, and `UsageError` where Firecrawl does not know it.
    """
    crawl_id = storable(crawl_id)
    kind = await database.run(lambda connection: job_kind(connection, crawl_id))
    try:
        cancelled = await _stop(firecrawl, crawl_id, kind)
    except FirecrawlJobUnknown as error:
        raise UsageError(f"{error}: it cannot be cancelled there") from None
    if cancelled:
        await database.run(lambda connection: note_cancel(connection, crawl_id))
    try:
        await reconciler.take_over_status(crawl_id)
    except CrawlscopeError as error:  # reconciling will find it out
        log.warning("status_not_taken_over", crawl_id=crawl_id, reason=str(error))
    await database.run(lambda connection: note_end(connection, crawl_id))
    return cancelled


async def stop_before_deletion(database: Database, firecrawl: FirecrawlClient, crawl_id: str) -> str | None:
    """Why the crawl, which is about to be deleted here, may go on at Firecrawl; None where it does not."""
    crawl_id = storable(crawl_id)
    kind = await database.run(lambda connection: job_kind(connection, crawl_id))
    try:
        await _stop(firecrawl, crawl_id, kind)
    except FirecrawlJobUnknown:
        return None
    except (FirecrawlUnavailable, FirecrawlRefused) as error:
        return str(error)
    return None


async def _ask(firecrawl: FirecrawlClient, order: FirecrawlOrder, webhook: Webhook) -> Started:
    try:
        if order.kind is JobKind.CRAWL:
            crawl_id = await firecrawl.start_crawl(
                order.url,
                limit=order.limit,
                scrape_options=order.scrape_options,
                options=order.crawl_options,
                webhook=webhook,
            )
            return Started(crawl_id, [])
        batch = await firecrawl.start_batch(order.urls, scrape_options=order.scrape_options, webhook=webhook)
    except FirecrawlRefused as error:
        if error.status_code in COMPLAINTS:
            raise UsageError(str(error)) from None
        raise
    except FirecrawlUnavailable as error:
        if error.maybe_done:
            raise _unclear(error) from None
        raise
    invalid = map(storable, (*order.invalid_urls, *batch.invalid_urls))
    return Started(batch.id, list(dict.fromkeys(invalid)))


def _unclear(error: FirecrawlUnavailable) -> FirecrawlUnavailable:
    return FirecrawlUnavailable(
        f"{str(error).rstrip('.')}. It may have begun all the same: before you ask again, look for it among "
        "the crawls, where its first event puts it.",
        retry_after=error.retry_after,
        maybe_done=True,
    )


async def _keep(
    connection: AsyncConnection,
    started: Started,
    order: FirecrawlOrder,
    asked_at: datetime,
    metadata: dict[str, str],
) -> None:
    """Its events may have made the session before."""
    if not await ensure_session(connection, started.crawl_id, asked_at):
        return
    await keep_fact(connection, started.crawl_id, Heard(asked_at, metadata, "request"), "request")
    size: dict[str, Any] = {"limit": order.limit}
    if order.kind is JobKind.BATCH_SCRAPE:
        invalid = set(started.invalid_urls)
        asked = [storable(url) for url in order.urls if url not in invalid]
        size = {"urls": len(order.urls), "asked": asked}
    await connection.execute(
        upsert(CrawlRequest)
        .values(
            crawl_id=started.crawl_id,
            engine=Engine.FIRECRAWL,
            url=order.url,
            options={"kind": order.kind.value, **size},
            requested_at=asked_at,
        )
        .on_conflict_do_nothing()
    )


async def _taken_back(
    firecrawl: FirecrawlClient, crawl_id: str, kind: JobKind, why: Exception
) -> DatabaseUnavailable:
    log.warning("crawl_not_kept", crawl_id=crawl_id, exc_info=why)
    try:
        await firecrawl.cancel(crawl_id, kind)
        left = "it was cancelled at Firecrawl, ask again"
    except CrawlscopeError as error:
        log.warning("crawl_not_cancelled", crawl_id=crawl_id, reason=str(error))
        left = "it goes on at Firecrawl, which could not be told to cancel it"
    reason = str(why) if isinstance(why, CrawlscopeError) else "the log says why"
    return DatabaseUnavailable(f"crawl {crawl_id} could not be kept ({reason}): {left}")


async def _stop(firecrawl: FirecrawlClient, crawl_id: str, kind: JobKind | None) -> bool:
    # Older servers call a crawl cancelled that had ended long before.
    if (await firecrawl.status(crawl_id, kind)).ended:
        return False
    try:
        await firecrawl.cancel(crawl_id, kind)
    except FirecrawlRefused as error:
        if error.status_code == HAS_ENDED:
            return False
        raise
    return True


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
