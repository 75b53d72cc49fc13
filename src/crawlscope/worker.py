"""A worker process: takes jobs from the queue, indexes pages and runs the built-in crawler."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Literal

import asyncpg
import structlog
from pgqueuer.errors import FailingListenerError, RetryRequested
from pgqueuer.models import Context, Job
from pgqueuer.qm import QueueManager
from pgqueuer.types import Channel, JobId

from crawlscope.crawls.index_page import PageIndexer
from crawlscope.crawls.sweep import reconcile_quiet_crawls
from crawlscope.database import schema
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import Database
from crawlscope.database.queue import (
    CHANNELS,
    CRAWL_SITE,
    INDEX_PAGE,
    AttentiveDriver,
    queue_queries,
)
from crawlscope.errors import CrawlscopeError, DatabaseUnavailable, DependencyError
from crawlscope.parts import indexing_service
from crawlscope.settings import Settings
from crawlscope.timing import standalone
from crawlscope.timing.buffer import MeasurementBuffer

Kind = Literal["index", "crawl"]

PAGES_AT_ONCE = 2
"""Per process: while one page is embedded, another is read or written."""
CRAWLS_AT_ONCE = 4
HEARTBEAT_TIMEOUT = timedelta(seconds=20)
"""A job whose worker was silent for so long goes to another one."""
LOOK_AGAIN = timedelta(seconds=1)
"""How soon a worker that missed news of a job finds it."""
IDLE_POLL = timedelta(seconds=5)
LONGEST_DELAY_SECONDS = 60
REOPEN_SECONDS = 2.0
AWAY = (DependencyError, FailingListenerError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a worker waits out."""

log = structlog.get_logger(__name__)


class _Queue(QueueManager):
    """Asks for a job as soon as one in hand is done with."""

    def forget_job(self, job_id: JobId, context: Context, task: asyncio.Task[None]) -> None:
        super().forget_job(job_id, context, task)
        driver = self.queries.driver
        assert isinstance(driver, AttentiveDriver)
        driver.look_again(self.channel)


async def run_worker(settings: Settings, kinds: set[Kind], stopping: asyncio.Event) -> None:
    """Works until `stopping` is set; a page in progress then goes back to the queue."""
    async with connected_database(settings, pool_size=8) as database:
        await schema.require_current(database)
        buffer = MeasurementBuffer(database)
        buffer.start()
        with standalone.use(buffer):
            async with _beside(reconcile_quiet_crawls(settings, database) if "crawl" in kinds else None):
                await asyncio.gather(*[_run_kind(kind, settings, database, stopping) for kind in kinds])
        await buffer.stop()


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None] | None) -> AsyncIterator[None]:
    """Runs `work` while the block runs."""
    task = asyncio.create_task(work) if work else None
    try:
        yield
    finally:
        if task:
            task.cancel()
            await asyncio.wait({task})


async def _run_kind(kind: Kind, settings: Settings, database: Database, stopping: asyncio.Event) -> None:
    """Starts again when a part that the jobs need went away, until it is back."""
    run = _index_pages if kind == "index" else _crawl_sites
    while not stopping.is_set():
        try:
            await run(settings, database, stopping)
        except AWAY as error:
            log.warning("worker_waits", kind=kind, reason=str(error) or type(error).__name__)
            await _wait(stopping, REOPEN_SECONDS)


async def _index_pages(settings: Settings, database: Database, stopping: asyncio.Event) -> None:
    # A thread per core in every worker: when few pages are left, one page has them all.
    threads = os.cpu_count() or 1
    async with (
        indexing_service(settings, database, threads) as indexing,
        _queue(database, INDEX_PAGE, PAGES_AT_ONCE) as queue,
    ):
        indexer = PageIndexer(database, indexing, f"{socket.gethostname()}:{os.getpid()}")

        @queue.entrypoint(INDEX_PAGE, on_failure="hold", accepts_context=False)
        async def index_page(job: Job) -> None:
            order = json.loads(job.payload or b"{}")
            page = order["page_id"], order["revision"]
            try:
                await _unless_stopping(stopping, indexer.index(*page, str(job.id)))
            except CrawlscopeError as error:
                if not error.retryable:
                    raise
                raise _later(job, str(error)) from None
            except RetryRequested:
                raise
            except Exception as error:
                if job.attempts + 1 < settings.max_attempts:
                    log.exception("page_attempt_failed", job_id=job.id)
                    raise _later(job, str(error)) from error
                await indexer.set_aside(*page, error)
                raise

        await _work(queue, PAGES_AT_ONCE, stopping)


async def _crawl_sites(settings: Settings, database: Database, stopping: asyncio.Event) -> None:
    # Here, because the crawler's libraries take seconds to import and indexing workers need none of them.
    from crawlscope.crawls.site_crawl import SiteCrawl  # noqa: PLC0415

    crawler = SiteCrawl(settings, database)
    async with _queue(database, CRAWL_SITE, CRAWLS_AT_ONCE) as queue:

        @queue.entrypoint(CRAWL_SITE, on_failure="hold", accepts_context=False)
        async def crawl_site(job: Job) -> None:
            crawl_id = json.loads(job.payload or b"{}")["crawl_id"]
            try:
                await _unless_stopping(stopping, crawler.run(crawl_id))
            except DependencyError as error:
                raise _later(job, str(error)) from None

        await _work(queue, CRAWLS_AT_ONCE, stopping)


@asynccontextmanager
async def _queue(database: Database, entrypoint: str, at_once: int) -> AsyncIterator[QueueManager]:
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    async with asyncpg.create_pool(
        url,
        min_size=2,
        max_size=5,
        timeout=10,
        reset=_leave_as_it_is,
        server_settings={"application_name": "crawlscope-queue"},
    ) as pool:
        driver = AttentiveDriver(pool, lambda: len(queue.job_context) < at_once)
        queue = _Queue(queue_queries(driver, entrypoint), Channel(CHANNELS[entrypoint]))
        queue.min_dequeue_poll_interval = LOOK_AGAIN
        # The manager checks at once that it hears itself; it would not, were it to begin to listen then.
        await driver.add_listener(queue.channel, lambda _: None)
        yield queue


async def _leave_as_it_is(connection: object) -> None:
    """The queue's statements leave nothing behind; resetting would double the trips to the server."""


async def _work(queue: QueueManager, at_once: int, stopping: asyncio.Event) -> None:
    """Returns when `stopping` is set and the jobs in hand are done with."""
    stop = asyncio.create_task(_stop_with(queue, stopping))
    try:
        await queue.run(
            batch_size=1,
            max_concurrent_tasks=at_once,
            dequeue_timeout=IDLE_POLL,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            shutdown_on_listener_failure=True,
        )
    finally:
        stop.cancel()
    if not stopping.is_set():
        raise DatabaseUnavailable("the queue's connection was lost")


async def _stop_with(queue: QueueManager, stopping: asyncio.Event) -> None:
    await stopping.wait()
    queue.shutdown.set()


async def _unless_stopping(stopping: asyncio.Event, work: Awaitable[None]) -> None:
    """Runs `work`; when the process is to stop, breaks it off and asks for it to be done again."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise RetryRequested(timedelta(0), "the worker was stopped")
        task.result()
    finally:
        stop.cancel()
        task.cancel()


def _later(job: Job, reason: str) -> RetryRequested:
    seconds = min(2.0**job.attempts, LONGEST_DELAY_SECONDS)
    return RetryRequested(timedelta(seconds=seconds), reason)


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
