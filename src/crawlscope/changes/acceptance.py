"""Takes a watcher's notification in: the change and the fetching of its page in one transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.changes.payload import Change, read_change
from crawlscope.changes.repository import record_change, same_change
from crawlscope.core.errors import UsageError
from crawlscope.core.vocabulary import Engine, RescrapeStatus
from crawlscope.crawler.targets import PrivateTarget, require_public
from crawlscope.crawls.repository import start_crawl
from crawlscope.crawls.requests import check_target, crawl_request
from crawlscope.database.engine import Database


@dataclass(frozen=True)
class Rescraping:
    """How changed pages are fetched."""

    engine: Engine
    allow_private: bool


@dataclass(frozen=True)
class TakenChange:
    status: str
    """`queued` or `duplicate`."""
    change_id: UUID
    crawl_id: str | None
    """None until Firecrawl was asked."""


async def accept_change(
    database: Database, body: bytes, received_at: datetime, rescraping: Rescraping
) -> TakenChange:
    """Returns once everything is committed. The same notification again changes nothing.

    Raises `UnreadableDelivery` or `MalformedDelivery` for what is no notification, `UsageError` for a page
    that cannot or may not be fetched, `DatabaseUnavailable`.
    """
    change = read_change(body, received_at)
    url = check_target(change.watch_url)
    refusal = None if rescraping.allow_private else await _refusal(url)

    async def take(connection: AsyncConnection) -> TakenChange | None:
        known = await same_change(connection, change.identity, change.dated)
        if known and known.status != RescrapeStatus.REFUSED:
            return TakenChange("duplicate", known.id, known.crawl_id)
        if refusal:
            if not known:
                await record_change(connection, _row(change, url, RescrapeStatus.REFUSED, None, refusal))
            return None
        return await _queue(connection, change, url, rescraping)

    taken = await database.run(take)
    if taken is None:
        raise UsageError(f"{refusal}; CRAWLSCOPE_ALLOW_PRIVATE_TARGETS permits it")
    return taken


async def _refusal(url: str) -> str | None:
    try:
        await require_public([url])
    except PrivateTarget as error:
        return str(error)
    return None


async def _queue(
    connection: AsyncConnection, change: Change, url: str, rescraping: Rescraping
) -> TakenChange:
    """Firecrawl is asked by a worker, so that a change is kept while it is away."""
    if rescraping.engine is Engine.FIRECRAWL:
        change_id = await record_change(connection, _row(change, url, RescrapeStatus.WAITING))
        return TakenChange("queued", change_id, None)
    crawl_id = await start_crawl(connection, crawl_request(url, 1, allow_private=rescraping.allow_private))
    change_id = await record_change(connection, _row(change, url, RescrapeStatus.RUNNING, crawl_id))
    return TakenChange("queued", change_id, crawl_id)


def _row(
    change: Change, url: str, status: RescrapeStatus, crawl_id: str | None = None, error: str | None = None
) -> dict[str, Any]:
    return {
        "watch_id": change.watch_id,
        "watch_url": url,
        "detected_at": change.detected_at,
        "diff_summary": change.diff_summary,
        "snapshot_url": change.snapshot_url,
        "rescrape_job_id": crawl_id,
        "rescrape_status": status,
        "rescrape_error": error,
        "identity": change.identity,
        "metadata": change.further or None,
    }
