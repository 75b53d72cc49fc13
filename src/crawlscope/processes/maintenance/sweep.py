"""Asks Firecrawl after crawls that go on, and compares those that have ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.settings import Settings
from crawlscope.crawls import reconciliations
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.reconciliations import claim_due, end_lease, enrol_all, enrol_open_crawls, renew_lease
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import firecrawl_client

AT_ONCE = 3
"""A crawl with many pages to fetch keeps no other one waiting."""
LOOK_SECONDS = 1.0
AFTER_TROUBLE_SECONDS = 5.0

log = structlog.get_logger(__name__)


async def reconcile_crawls(settings: Settings, database: Database) -> None:
    """Goes on until it is cancelled, in any number of processes; returns where no Firecrawl is set."""
    if settings.firecrawl_url is None:
        return
    async with firecrawl_client(settings) as firecrawl:
        sweep = Sweep(database, Reconciler(database, firecrawl), settings.reconcile_after_seconds)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sweep.enrol())
            for _ in range(AT_ONCE):
                tasks.create_task(sweep.check())


class Sweep:
    def __init__(self, database: Database, reconciler: Reconciler, quiet_seconds: float) -> None:
        self._database = database
        self._reconciler = reconciler
        self._quiet = timedelta(seconds=quiet_seconds)

    async def enrol(self) -> None:
        """Sees to it that each crawl is asked after."""
        step = enrol_all
        while True:
            try:
                await self._database.run(step)
                step = enrol_open_crawls
            except CrawlscopeError as error:
                log.warning("crawls_not_enrolled", reason=str(error))
            except Exception:
                log.exception("crawls_not_enrolled")
            await asyncio.sleep(LOOK_SECONDS)

    async def check(self) -> None:
        while True:
            try:
                seconds = 0.0 if await self.check_next() else LOOK_SECONDS
            except CrawlscopeError as error:
                log.warning("not_reconciled", reason=str(error))
                seconds = AFTER_TROUBLE_SECONDS
            except Exception:
                log.exception("not_reconciled")
                seconds = AFTER_TROUBLE_SECONDS
            await asyncio.sleep(seconds)

    async def check_next(self) -> bool:
        """False where there was nothing to do. Raises `DatabaseUnavailable`."""
        claim = await self._database.run(lambda connection: claim_due(connection, self._quiet))
        if claim is None:
            return False
        async with self._leased(claim.crawl_id):
            try:
                await self._reconciler.check(claim.crawl_id, in_full=claim.in_full)
            except CrawlscopeError as error:  # written down, with the time of the next try
                log.warning("not_reconciled", crawl_id=claim.crawl_id, reason=str(error))
        return True

    @asynccontextmanager
    async def _leased(self, crawl_id: str) -> AsyncIterator[None]:
        """Until the block ends, or a little after this process has died, no other one checks the crawl."""
        renewing = asyncio.create_task(self._renew(crawl_id))
        try:
            yield
            await self._database.run(lambda connection: end_lease(connection, crawl_id))
        finally:
            renewing.cancel()

    async def _renew(self, crawl_id: str) -> None:
        while True:
            await asyncio.sleep(reconciliations.LEASE.total_seconds() / 3)
            with suppress(Exception):  # the check itself says what is wrong
                await self._database.run(lambda connection: renew_lease(connection, crawl_id))
