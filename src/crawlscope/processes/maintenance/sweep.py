"""Asks Firecrawl about running crawls, and compares completed ones with it."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog

from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.periodic import in_background, run_periodically
from crawlscope.core.settings import Settings
from crawlscope.crawls import reconciliations
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.reconciliations import (
    claim_due,
    end_lease,
    enrol_all,
    enrol_open_crawls,
    renew_lease,
)
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import firecrawl_client

CHECKS_AT_ONCE = 3
"""A crawl with many pages to fetch keeps no other one waiting."""
POLL_INTERVAL_SECONDS = 1.0
RETRY_SECONDS = 5.0

log = structlog.get_logger(__name__)


async def reconcile_crawls(settings: Settings, database: Database) -> None:
    """Runs until it is cancelled, in any number of processes; returns at once if no Firecrawl is set."""
    if settings.firecrawl_url is None:
        return
    async with firecrawl_client(settings) as firecrawl:
        sweep = Sweep(database, Reconciler(database, firecrawl), settings.reconcile_after_seconds)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                run_periodically(
                    sweep.enrol,
                    interval_seconds=POLL_INTERVAL_SECONDS,
                    retry_seconds=POLL_INTERVAL_SECONDS,
                    failure_event="enrolment_failed",
                )
            )
            for _ in range(CHECKS_AT_ONCE):
                tasks.create_task(
                    run_periodically(
                        sweep.check_next,
                        interval_seconds=lambda checked: 0.0 if checked else POLL_INTERVAL_SECONDS,
                        retry_seconds=RETRY_SECONDS,
                        failure_event="reconciliation_failed",
                    )
                )


class Sweep:
    def __init__(self, database: Database, reconciler: Reconciler, quiet_seconds: float) -> None:
        self._database = database
        self._reconciler = reconciler
        self._quiet = timedelta(seconds=quiet_seconds)
        self._enrolled_all = False

    async def enrol(self) -> None:
        """Plans a first check of each crawl that has none."""
        await self._database.run(enrol_open_crawls if self._enrolled_all else enrol_all)
        self._enrolled_all = True

    async def check_next(self) -> bool:
        """False if no check was due. Raises `DatabaseUnavailable`."""
        claim = await self._database.run(lambda connection: claim_due(connection, self._quiet))
        if claim is None:
            return False
        crawl_id = claim.crawl_id

        async def renew_periodically() -> None:
            """No other process checks the crawl meanwhile, nor for a while after this one has died."""
            while True:
                await asyncio.sleep(reconciliations.LEASE.total_seconds() / 3)
                with suppress(Exception):  # the check itself says what is wrong
                    await self._database.run(lambda connection: renew_lease(connection, crawl_id))

        async with in_background(renew_periodically()):
            try:
                await self._reconciler.check(crawl_id, in_full=claim.in_full)
            except CrawlscopeError as error:  # recorded, with the time of the next check
                log.warning("reconciliation_failed", crawl_id=crawl_id, reason=str(error))
            await self._database.run(lambda connection: end_lease(connection, crawl_id))
        return True
