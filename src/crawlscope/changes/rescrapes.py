"""Fetches changed pages again, and notes when their new content became searchable."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.changes import repository
from crawlscope.core.errors import CrawlscopeError, DatabaseUnavailable, FirecrawlUnavailable
from crawlscope.core.periodic import run_periodically
from crawlscope.core.secrets import api_secret
from crawlscope.core.settings import Settings
from crawlscope.crawls.repository import start_crawl
from crawlscope.crawls.requests import batch_request, crawl_request
from crawlscope.crawls.service import Crawls
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import SharedFirecrawl

POLL_INTERVAL_SECONDS = 1.0
IDLE_SECONDS = 10.0
"""Between two calls while nothing is open: each change is notified."""
RETRY_SECONDS = 10.0
FIRECRAWL_RETRY_SECONDS = 30.0
"""The delay before the next request to Firecrawl, if Firecrawl names none."""

log = structlog.get_logger(__name__)


async def rescrape_changes(settings: Settings, database: Database, news: asyncio.Event) -> None:
    """Runs until it is cancelled, in any number of processes. `news` is set when a page has changed."""
    firecrawl = SharedFirecrawl(settings)
    rescraper = Rescraper(settings, database, firecrawl)
    try:
        await run_periodically(
            rescraper.run,
            interval_seconds=lambda seconds: seconds,
            retry_seconds=RETRY_SECONDS,
            failure_event="rescrapes_deferred",
            news=news,
        )
    finally:
        await firecrawl.aclose()


class Rescraper:
    def __init__(self, settings: Settings, database: Database, firecrawl: SharedFirecrawl) -> None:
        self._settings = settings
        self._database = database
        self._firecrawl = firecrawl

    async def run(self) -> float:
        """Starts the next rescrape and notes the results of earlier ones. The seconds until the next call."""
        if not await self._database.run(repository.any_open):
            return IDLE_SECONDS
        change = await self._database.run(repository.claim_waiting)
        if change is not None:
            await self._start(change)
        await self._database.run(repository.settle_changes)
        return POLL_INTERVAL_SECONDS if change is None else 0.0

    async def _start(self, change: repository.WaitingChange) -> None:
        allow_private = self._settings.allow_private_targets

        async def start_here(connection: AsyncConnection) -> None:
            request = crawl_request(change.url, 1, allow_private=allow_private)
            crawl_id = await start_crawl(connection, request)
            await repository.note_started(connection, change.id, crawl_id)

        try:
            if self._settings.firecrawl_url is None:
                await self._database.run(start_here)
                return
            crawls = Crawls(self._settings, self._database, api_secret(self._settings), self._firecrawl)
            # Whether the page may be fetched was checked when the change arrived.
            started = await crawls.start_at_firecrawl(batch_request([change.url], allow_private=True))
            await self._database.run(lambda c: repository.note_started(c, change.id, started.crawl_id))
        except DatabaseUnavailable:
            raise
        except FirecrawlUnavailable as error:
            log.warning("change_deferred", change_id=str(change.id), reason=str(error))
            reason = str(error)
            delay = timedelta(seconds=error.retry_after or FIRECRAWL_RETRY_SECONDS)
            await self._database.run(lambda c: repository.note_deferred(c, change.id, reason, delay))
        except CrawlscopeError as error:
            log.warning("rescrape_failed", change_id=str(change.id), reason=str(error))
            reason = str(error)
            await self._database.run(lambda c: repository.note_failed(c, change.id, reason))
