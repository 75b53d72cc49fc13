"""Runs the built-in crawler, and beside it what has to be done for all crawls."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from importlib import import_module

from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from crawlscope.changes.rescrapes import rescrape_changes
from crawlscope.core.errors import DependencyError
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.database.queue import CRAWL_SITE
from crawlscope.notifications.background import tell_of_crawls
from crawlscope.processes.maintenance.retention import drop_old_bodies
from crawlscope.processes.maintenance.sweep import reconcile_crawls
from crawlscope.processes.worker.queue import beside, order_of, unless_stopping, work_on, worker_queue

CRAWLS_AT_ONCE = 4
LONGEST_DELAY_SECONDS = 60


async def crawl_sites(settings: Settings, database: Database, stopping: asyncio.Event) -> None:
    async with (
        beside(*_upkeep(settings, database)),
        worker_queue(database, CRAWL_SITE, CRAWLS_AT_ONCE) as queue,
    ):

        @queue.entrypoint(CRAWL_SITE, on_failure="hold", accepts_context=False)
        async def crawl_site(job: Job) -> None:
            crawl_id = order_of(job)["crawl_id"]
            try:
                await unless_stopping(stopping, _run_crawl(settings, database, crawl_id))
            except DependencyError as error:
                raise _later(job, str(error)) from None

        await work_on(queue, CRAWLS_AT_ONCE, stopping)


async def _run_crawl(settings: Settings, database: Database, crawl_id: str) -> None:
    """The crawler's libraries, a second's work, are loaded with the first crawl: most processes have none."""
    site_crawl = await asyncio.to_thread(import_module, "crawlscope.crawls.site_crawl")
    await site_crawl.SiteCrawl(settings, database).run(crawl_id)


def _upkeep(settings: Settings, database: Database) -> list[Coroutine[None, None, None]]:
    """Each goes on until it is cancelled, and any number of processes may run it."""
    return [
        reconcile_crawls(settings, database),
        drop_old_bodies(database, settings.keep_deliveries_days),
        rescrape_changes(settings, database),
        tell_of_crawls(settings, database),
    ]


def _later(job: Job, reason: str) -> RetryRequested:
    seconds = min(2.0**job.attempts, LONGEST_DELAY_SECONDS)
    return RetryRequested(timedelta(seconds=seconds), reason)
