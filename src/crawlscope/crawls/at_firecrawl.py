"""Starts and cancels crawls and batch scrapes at Firecrawl."""

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import structlog
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
from crawlscope.core.service_file import public_address
from crawlscope.core.settings import Settings
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import Engine
from crawlscope.crawler.targets import PERMISSION, PrivateTarget, require_public
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.reconciliations import note_end
from crawlscope.crawls.repository import job_kind, keep_request, note_cancel
from crawlscope.crawls.requests import RequestedCrawl
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import FirecrawlClient, Webhook
from crawlscope.firecrawl.schemas import JobKind
from crawlscope.sessions.fold import CrawlSeen
from crawlscope.sessions.repository import ensure_session, keep_fact
from crawlscope.timing.telemetry import traces

COMPLAINTS = (400, 422)
"""Statuses that say what is wrong with the request, not with its sender."""
HAS_ENDED = 409

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Started:
    crawl_id: str
    invalid_urls: Sequence[str]


def webhook_endpoint(settings: Settings, secret: str) -> Webhook:
    """The address for Firecrawl's deliveries, and the headers that authenticate them."""
    address = public_address(settings)
    sends_secret = settings.firecrawl_webhook_secret is None or (
        _is_this_machine(address) and _is_this_machine(settings.firecrawl_url or "")
    )
    return Webhook(address + service_file.WEBHOOK_PATH, {"X-API-Secret": secret} if sends_secret else {})


def trace_context(given: str | None) -> str:
    """The W3C trace context of this request, or the one `given` if it is valid, else a new one, sampled."""
    return traces.propagated(given) or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


async def start(
    database: Database,
    firecrawl: FirecrawlClient,
    request: RequestedCrawl,
    endpoint: Webhook,
    traceparent: str | None = None,
) -> Started:
    """Returns once the crawl runs at Firecrawl and its session is kept; else, if possible, neither stays.

    Raises `FirecrawlUnavailable`, `FirecrawlRefused`, `DatabaseUnavailable`, and `UsageError` with
    Firecrawl's complaint about the request.
    """
    await database.ping()
    asked_at = datetime.now(UTC)
    metadata = {
        "initiated_at": asked_at.isoformat(),
        "url": request.url,
        "traceparent": trace_context(traceparent),
        **request.metadata,
    }
    started = await _ask(firecrawl, request, replace(endpoint, metadata=metadata))

    async def keep(connection: AsyncConnection) -> None:
        if not await ensure_session(connection, started.crawl_id, asked_at):  # events may have made it before
            return
        await keep_fact(connection, started.crawl_id, CrawlSeen(asked_at, metadata, "request"), "request")
        size: dict[str, Any] = {"limit": request.limit}
        if request.kind is JobKind.BATCH_SCRAPE:
            asked = [storable(url) for url in request.urls if url not in set(started.invalid_urls)]
            size = {"urls": len(request.urls), "asked": asked}
        await keep_request(
            connection,
            started.crawl_id,
            Engine.FIRECRAWL,
            request.url,
            {"kind": request.kind.value, **size},
            requested_at=asked_at,
        )

    try:
        await database.run(keep)
    except Exception as error:
        raise await _cancel_unrecorded(firecrawl, started.crawl_id, request.kind, error) from error
    log.info("crawl_started", crawl_id=started.crawl_id, kind=request.kind.value)
    return started


async def require_public_targets(request: RequestedCrawl) -> None:
    """Raises `UsageError` for the first URL that leads to a private address, as far as is known here."""
    try:
        await require_public(request.urls)
    except PrivateTarget as error:
        raise UsageError(f"{error}; {PERMISSION}") from None


async def cancel(
    database: Database, firecrawl: FirecrawlClient, reconciler: Reconciler, crawl_id: str
) -> bool:
    """False if it has ended. Pages that were received are indexed all the same.

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
    except CrawlscopeError as error:  # the next reconciliation takes it over
        log.warning("status_update_failed", crawl_id=crawl_id, reason=str(error))
    await database.run(lambda connection: note_end(connection, crawl_id))
    return cancelled


async def stop_before_deletion(database: Database, firecrawl: FirecrawlClient, crawl_id: str) -> str | None:
    """Cancels a crawl that is about to be deleted. Returns why it may still run; None if it does not."""
    crawl_id = storable(crawl_id)
    kind = await database.run(lambda connection: job_kind(connection, crawl_id))
    try:
        await _stop(firecrawl, crawl_id, kind)
    except FirecrawlJobUnknown:
        return None
    except (FirecrawlUnavailable, FirecrawlRefused) as error:
        return str(error)
    return None


async def _ask(firecrawl: FirecrawlClient, request: RequestedCrawl, webhook: Webhook) -> Started:
    try:
        if request.kind is JobKind.CRAWL:
            crawl_id = await firecrawl.start_crawl(
                request.url,
                limit=request.limit,
                scrape_options=request.scrape_options,
                options=request.crawl_options,
                webhook=webhook,
            )
            return Started(crawl_id, [])
        batch = await firecrawl.start_batch(
            request.urls, scrape_options=request.scrape_options, webhook=webhook
        )
    except FirecrawlRefused as error:
        if error.status_code in COMPLAINTS:
            raise UsageError(str(error)) from None
        raise
    except FirecrawlUnavailable as error:
        if not error.maybe_done:
            raise
        raise FirecrawlUnavailable(
            f"{str(error).rstrip('.')}. It may have begun all the same: before you ask again, look for it "
            "among the crawls: its first event adds it.",
            retry_after=error.retry_after,
            maybe_done=True,
        ) from None
    invalid = map(storable, (*request.invalid_urls, *batch.invalid_urls))
    return Started(batch.id, list(dict.fromkeys(invalid)))


async def _cancel_unrecorded(
    firecrawl: FirecrawlClient, crawl_id: str, kind: JobKind, why: Exception
) -> DatabaseUnavailable:
    """Cancels a crawl that could not be recorded; the error says whether that succeeded."""
    log.warning("crawl_storage_failed", crawl_id=crawl_id, exc_info=why)
    try:
        await firecrawl.cancel(crawl_id, kind)
        left = "it was cancelled at Firecrawl, ask again"
    except CrawlscopeError as error:
        log.warning("crawl_cancellation_failed", crawl_id=crawl_id, reason=str(error))
        left = "it continues at Firecrawl, because the cancellation failed too"
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
