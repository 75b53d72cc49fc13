"""Runs the built-in crawler, and in the background the maintenance of all crawls."""

import asyncio
from datetime import timedelta
from importlib import import_module

from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from crawlscope.core.backoff import backoff
from crawlscope.core.errors import DependencyError
from crawlscope.core.periodic import in_background
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.database.queue import CHANGED_PAGES, CRAWL_SITE
from crawlscope.processes.maintenance.tasks import maintenance_tasks
from crawlscope.processes.worker.queue import Payload, worker_queue

CRAWLS_AT_ONCE = 4
MAX_DELAY_SECONDS = 60


async def crawl_sites(settings: Settings, database: Database, stopping: asyncio.Event) -> None:
    """Any number of processes may do so."""

    async def crawl_site(job: Job, payload: Payload) -> None:
        # The crawler's libraries take a second to load: most processes run no crawl.
        site_crawl = await asyncio.to_thread(import_module, "crawlscope.crawls.site_crawl")
        try:
            await site_crawl.SiteCrawl(settings, database).run(payload["crawl_id"])
        except DependencyError as error:
            seconds = backoff(job.attempts + 1, first_seconds=1.0, max_seconds=MAX_DELAY_SECONDS)
            raise RetryRequested(timedelta(seconds=seconds), str(error)) from None

    async with (
        worker_queue(database, CRAWL_SITE, CRAWLS_AT_ONCE) as queue,
        in_background(*maintenance_tasks(settings, database, await queue.news_of(CHANGED_PAGES))),
    ):
        await queue.work(crawl_site, stopping)
