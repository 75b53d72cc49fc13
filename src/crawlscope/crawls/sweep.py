"""Reconciles, one after the other, the crawls that have gone quiet."""

import asyncio
from datetime import timedelta

import structlog

from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.reconciliations import claim_due
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
            await reconciler.reconcile(crawl_id)
    except CrawlscopeError as error:
        log.warning("not_reconciled", crawl_id=crawl_id, reason=str(error))
        return False
    except Exception:
        log.exception("not_reconciled", crawl_id=crawl_id)
        return False
    return crawl_id is not None
