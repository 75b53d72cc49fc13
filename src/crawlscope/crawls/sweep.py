"""Reconciles, one after the other, the crawls that have gone quiet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog

from crawlscope.crawls import reconciliations
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.reconciliations import claim_due, renew_lease
from crawlscope.database.engine import Database
from crawlscope.errors import CrawlscopeError
from crawlscope.firecrawl.shared import firecrawl_client
from crawlscope.settings import Settings

LONGEST_WAIT_SECONDS = 10.0

log = structlog.get_logger(__name__)


async def reconcile_quiet_crawls(settings: Settings, database: Database) -> None:
    """Goes on until it is cancelled, in any number of processes; returns where no Firecrawl is set."""
    if settings.firecrawl_url is None:
        return
    quiet = settings.reconcile_after_seconds
    async with firecrawl_client(settings) as firecrawl:
        reconciler = Reconciler(database, firecrawl, quiet)
        while True:
            if not await _reconcile_next(database, reconciler, timedelta(seconds=quiet)):
                await asyncio.sleep(min(quiet / 5, LONGEST_WAIT_SECONDS))


async def _reconcile_next(database: Database, reconciler: Reconciler, quiet: timedelta) -> bool:
    """False where there was nothing to do, or no way to do it."""
    crawl_id = None
    try:
        crawl_id = await database.run(lambda connection: claim_due(connection, quiet))
        if crawl_id is not None:
            async with _leased(database, crawl_id):
                await reconciler.reconcile(crawl_id)
    except CrawlscopeError as error:
        log.warning("not_reconciled", crawl_id=crawl_id, reason=str(error))
        return False
    except Exception:
        log.exception("not_reconciled", crawl_id=crawl_id)
        return False
    return crawl_id is not None


@asynccontextmanager
async def _leased(database: Database, crawl_id: str) -> AsyncIterator[None]:
    """Until the block ends, or a little after this process has died, no other one checks the crawl."""
    renewing = asyncio.create_task(_renew(database, crawl_id))
    try:
        yield
    finally:
        renewing.cancel()


async def _renew(database: Database, crawl_id: str) -> None:
    while True:
        await asyncio.sleep(reconciliations.LEASE.total_seconds() / 3)
        try:
            await database.run(lambda connection: renew_lease(connection, crawl_id))
        except Exception as error:  # noqa: BLE001 - the check itself says what is wrong
            log.warning("check_not_renewed", crawl_id=crawl_id, reason=str(error))
