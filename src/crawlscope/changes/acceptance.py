"""Accepts a notification of changedetection.io: the change and its rescrape in one transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.changes.payload import read_change
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
class AcceptedChange:
    status: str
    """`queued` or `duplicate`."""
    change_id: UUID
    crawl_id: str | None
    """None until Firecrawl was asked."""


async def accept_change(
    database: Database, body: bytes, received_at: datetime, rescraping: Rescraping
) -> AcceptedChange:
    """Returns once everything is committed. The same notification again changes nothing.

    Raises `UnreadableDelivery` or `MalformedDelivery` if the body is no notification, `UsageError` for a page
    that cannot or may not be fetched, `DatabaseUnavailable`.
    """
    change = read_change(body, received_at)
    url, refusal = check_target(change.watch_url), None
    if not rescraping.allow_private:
        try:
            await require_public([url])
        except PrivateTarget as error:
            refusal = str(error)

    def row(status: RescrapeStatus, crawl_id: str | None = None) -> dict[str, Any]:
        return {
            "watch_id": change.watch_id,
            "watch_url": url,
            "detected_at": change.detected_at,
            "diff_summary": change.diff_summary,
            "snapshot_url": change.snapshot_url,
            "rescrape_job_id": crawl_id,
            "rescrape_status": status,
            "rescrape_error": refusal,
            "identity": change.identity,
            "metadata": change.further or None,
        }

    async def take(connection: AsyncConnection) -> AcceptedChange | None:
        known = await same_change(connection, change.identity, change.dated)
        if known and known.status != RescrapeStatus.REFUSED:
            return AcceptedChange("duplicate", known.id, known.crawl_id)
        if refusal:
            if not known:
                await record_change(connection, row(RescrapeStatus.REFUSED))
            return None
        if rescraping.engine is Engine.FIRECRAWL:  # a worker asks it, so that it may be unavailable now
            change_id = await record_change(connection, row(RescrapeStatus.WAITING))
            return AcceptedChange("queued", change_id, None)
        request = crawl_request(url, 1, allow_private=rescraping.allow_private)
        crawl_id = await start_crawl(connection, request)
        change_id = await record_change(connection, row(RescrapeStatus.RUNNING, crawl_id))
        return AcceptedChange("queued", change_id, crawl_id)

    accepted = await database.run(take)
    if accepted is None:
        raise UsageError(f"{refusal}; CRAWLSCOPE_ALLOW_PRIVATE_TARGETS permits it")
    return accepted
