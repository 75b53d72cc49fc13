"""Fetches changed pages again, and writes down when they were searchable."""

import asyncio
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.changes import repository
from crawlscope.changes.repository import WaitingChange
from crawlscope.core.errors import CrawlscopeError, DatabaseUnavailable, FirecrawlUnavailable
from crawlscope.core.secrets import api_secret
from crawlscope.core.settings import Settings
from crawlscope.crawls import at_firecrawl
from crawlscope.crawls.at_firecrawl import Door
from crawlscope.crawls.firecrawl_orders import batch_order
from crawlscope.crawls.requests import CrawlOrder, start_crawl
from crawlscope.crawls.trace_context import trace_context
from crawlscope.database.engine import Database
from crawlscope.firecrawl.shared import SharedFirecrawl

LOOK_SECONDS = 1.0
AFTER_TROUBLE_SECONDS = 10.0
AWAY_SECONDS = 30.0
"""Until Firecrawl is asked again, where it does not say when."""

log = structlog.get_logger(__name__)


async def rescrape_changes(settings: Settings, database: Database) -> None:
    """Goes on until it is cancelled, in any number of processes."""
    rescraper = Rescraper(settings, database)
    try:
        while True:
            pause_seconds = await _work(rescraper)
            await asyncio.sleep(pause_seconds)
    finally:
        await rescraper.aclose()


async def _work(rescraper: "Rescraper") -> float:
    """Returns how long there is nothing to do, in seconds."""
    try:
        started = await rescraper.start_next()
        await rescraper.settle()
    except CrawlscopeError as error:
        log.warning("rescrapes_wait", reason=str(error))
        return AFTER_TROUBLE_SECONDS
    except Exception:
        log.exception("rescrapes_wait")
        return AFTER_TROUBLE_SECONDS
    return 0.0 if started else LOOK_SECONDS


class Rescraper:
    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._firecrawl = SharedFirecrawl(settings)

    async def aclose(self) -> None:
        await self._firecrawl.aclose()

    async def settle(self) -> None:
        await self._database.run(repository.settle_changes)

    async def start_next(self) -> bool:
        """False where no page waits to be fetched."""
        change = await self._database.run(repository.claim_waiting)
        if change is None:
            return False
        try:
            await self._start(change)
        except DatabaseUnavailable:
            raise
        except FirecrawlUnavailable as error:
            await self._put_off(change, str(error), error.retry_after or AWAY_SECONDS)
        except CrawlscopeError as error:
            log.warning("change_not_fetched", change_id=str(change.id), reason=str(error))
            reason = str(error)
            await self._database.run(lambda c: repository.note_failed(c, change.id, reason))
        return True

    async def _start(self, change: WaitingChange) -> None:
        if self._settings.firecrawl_url is None:
            await self._database.run(partial(self._start_here, change=change))
        else:
            crawl_id = await self._start_at_firecrawl(change.url)
            await self._database.run(lambda c: repository.note_started(c, change.id, crawl_id))

    async def _start_here(self, connection: AsyncConnection, change: WaitingChange) -> None:
        order = CrawlOrder(change.url, 1, self._settings.allow_private_targets)
        crawl_id = await start_crawl(connection, order)
        await repository.note_started(connection, change.id, crawl_id)

    async def _start_at_firecrawl(self, url: str) -> str:
        door = Door.of(self._settings, api_secret(self._settings))
        firecrawl = await self._firecrawl.client()
        started = await at_firecrawl.start(
            self._database, firecrawl, batch_order([url]), door, trace_context(None)
        )
        return started.crawl_id

    async def _put_off(self, change: WaitingChange, reason: str, seconds: float) -> None:
        log.warning("change_waits", change_id=str(change.id), reason=reason)
        await self._database.run(lambda c: repository.note_put_off(c, change.id, reason, seconds))
